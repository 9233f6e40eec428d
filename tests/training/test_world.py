"""Several processes that train one run: against one process, killed, interrupted, and at odds with each other."""

import json
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
from conftest import assert_same_state
from forked import Forked
from PIL import Image

from genexp.rundirs.directory import Run
from genexp.signals import Stop
from genexp.storage.checkpoint import load_latest
from genexp.training import world

pytestmark = pytest.mark.slow(6)
SHORT = ["dataset=digits", "batch_size=100", "epochs=3", "metrics.parzen.n_samples=50", "run_dir=run"]
AE = ["model=ae", *SHORT]
LONG = ["model=vae", *SHORT, "epochs=2000", "log.samples_every_epochs=1000", "checkpoint.every_minutes=0.001"]


class Together:
    """Processes of one training, started as torchrun starts them."""

    def __init__(self, folder, words, size=2, of_rank=None, before=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.processes = [
            Forked(folder, *words, *(of_rank or {}).get(rank, []), env=common | {"RANK": str(rank)}, before=before)
            for rank in range(size)
        ]

    def end(self):
        """Return the exit code, the output and the errors of each process."""
        return [(process.wait(), process.out, process.err) for process in self.processes]

    def await_step(self, run, step):
        """Wait until the run's newest checkpoint is of this step or a later one."""
        for _ in range(600):
            time.sleep(0.1)
            if any(int(file.stem[5:]) >= step for file in run.checkpoints.glob("step-*.pt")):
                return
        raise AssertionError([process.poll() for process in self.processes])


def state(run):
    return load_latest(run.checkpoints, print)[1]


def without_times(state):
    return {name: value for name, value in state.items() if name != "seconds"}


def test_two_processes_train_what_one_does_to_rounding(genexp, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "genexp"]
    ended = subprocess.run([*torchrun, "train", *AE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "run: run"
    assert ended.stdout.count("epoch 3/3") == 1
    assert genexp("train", *AE, "run_dir=one").code == 0
    run, one = Run(tmp_path / "run"), Run(tmp_path / "one")
    shared, expected = state(run)["model"], state(one)["model"]
    before = {name: float((tensor - expected[name]).abs().max()) for name, tensor in shared.items()}
    assert max(before.values()) < 2e-5, before  # of weights that moved by a tenth
    of_both = [[json.loads(line) for line in each.metrics_file.read_text().splitlines()] for each in (run, one)]
    for ours, theirs in zip(*of_both, strict=True):
        assert ours["loss/autoencoder"] == pytest.approx(theirs["loss/autoencoder"], rel=1e-5)
        assert ours["grad_norm/autoencoder"] == pytest.approx(theirs["grad_norm/autoencoder"], rel=1e-3)
    assert [session.get("processes") for session in run.sessions() + one.sessions()] == [2, None]


def test_going_on_after_a_process_was_killed_is_the_uninterrupted_run(tmp_path):
    words = [*LONG, "model.hidden=[16]"]
    together = Together(tmp_path, ["train", *words])
    run = Run(tmp_path / "run")
    together.await_step(run, 50)
    together.processes[1].send_signal(signal.SIGKILL)
    code, _, err = together.end()[0]
    assert code == 1
    assert_says_who_is_lost("genexp", err)
    assert run.status()["status"] == "failed"
    epochs = state(run)["step"] // 11 + 2
    enough = [*words, f"epochs={epochs}"]
    assert [code for code, _, _ in Together(tmp_path, ["train", *enough]).end()] == [0, 0]
    assert [code for code, _, _ in Together(tmp_path, ["train", *enough, "run_dir=whole"]).end()] == [0, 0]
    assert [session["from_step"] > 0 for session in run.sessions()] == [False, True]
    ours, whole = state(run), state(Run(tmp_path / "whole"))
    assert ours["step"] == 11 * epochs
    assert_same_state(without_times(ours), without_times(whole))


def test_a_killed_leader_ends_the_others(tmp_path):
    together = Together(tmp_path, ["train", *LONG])
    together.await_step(Run(tmp_path / "run"), 20)
    together.processes[0].send_signal(signal.SIGKILL)
    code, out, err = together.end()[1]
    assert (code, out) == (1, "")
    assert_says_who_is_lost("genexp (rank 1)", err)


def impatient():
    world.PATIENCE = timedelta(seconds=2)


def test_a_process_that_does_not_answer_is_not_waited_for_without_end(tmp_path):
    together = Together(tmp_path, ["train", *LONG], before=impatient)
    together.await_step(Run(tmp_path / "run"), 20)
    together.processes[1].send_signal(signal.SIGSTOP)
    assert together.processes[0].wait(30) == 1
    assert_says_who_is_lost("genexp", together.processes[0].err)
    together.processes[1].send_signal(signal.SIGKILL)


OWN = """
import os
import torch
from genexp.models.ae import AE

class Mine(AE):
    steps = 0

    def players(self):
        if not hasattr(self, "seen"):
            self.register_buffer("seen", torch.zeros(4, dtype=torch.int64))
        return super().players()

    def play(self, images):
        Mine.steps += 1
        if Mine.steps == 15 and os.environ.get("BAD") == os.environ["RANK"]:
            raise ValueError("bad share")
        if os.environ.get("BAD") == "all":
            self.seen.copy_(images.flatten(1).sum(1)[:4].argsort())  # another order, of the same sum
        return super().play(images)
"""


def own(monkeypatch, folder, bad):
    (folder / "mine.py").write_text(OWN)
    monkeypatch.setenv("BAD", bad)
    return Together(folder, ["train", *AE, "model._target_=mine.Mine"])


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_in_the_middle_of_a_step_ends_all(monkeypatch, tmp_path, rank):
    ends = own(monkeypatch, tmp_path, str(rank)).end()
    names = ["genexp", "genexp (rank 1)"]
    assert [code for code, _, _ in ends] == [1, 1]
    assert f"{names[rank]}: ValueError: bad share" in ends[rank][2]
    assert_says_who_is_lost(names[1 - rank], ends[1 - rank][2])


def test_a_model_that_keeps_something_of_its_images_is_refused_after_its_first_step(monkeypatch, tmp_path):
    (code, _, err), helper = own(monkeypatch, tmp_path, "all").end()
    assert (code, helper) == (2, (0, "", ""))
    assert "Mine: seen differs between the processes after a step" in err
    assert Run(tmp_path / "run").step() == 0


def test_processes_may_have_other_numbers_of_threads_and_there_may_be_three(tmp_path):
    words = ["train", "model=gan", *SHORT, "batch_size=99", "epochs=1", "model.generator_hidden=[64]"]
    together = Together(tmp_path, words, 3, {rank: [f"device.threads={rank + 1}"] for rank in range(3)})
    assert [code for code, _, _ in together.end()] == [0, 0, 0]


def assert_says_who_is_lost(name, err):
    said = f"{name}: another process of this training ended, or does not answer"
    assert err.splitlines()[-2:] == [said, "Once what ended it is mended, the same command goes on"]


def test_the_signals_that_torchrun_passes_on_save_and_end_all(genexp, tmp_path):
    together = Together(tmp_path, ["train", *LONG])
    run = Run(tmp_path / "run")
    together.await_step(run, 20)
    for process in together.processes:
        process.send_signal(signal.SIGINT)  # of the terminal
    for process in together.processes:
        process.send_signal(signal.SIGTERM)  # of torchrun
    (code, _, err), (helper, out, nothing) = together.end()
    assert (code, helper, out, nothing) == (130, 0, "", "")
    assert "interrupted at step" in err
    assert run.status()["step"] == state(run)["step"]
    more = genexp("train", *LONG, f"epochs={state(run)['step'] // 11 + 2}")
    assert more.code == 0
    assert "number of processes: this run was trained by 2 at once so far, and goes on with 1" in more.out + more.err


@pytest.mark.parametrize("signals", [[(1, signal.SIGTERM)], [(1, signal.SIGINT), (0, signal.SIGINT)]])
def test_a_signal_to_one_process_alone_saves_and_ends_all(tmp_path, signals):
    """Its machine is to go; or the leader hears of it a little later than the other process."""
    together = Together(tmp_path, ["train", *LONG])
    run = Run(tmp_path / "run")
    together.await_step(run, 20)
    for rank, number in signals:
        together.processes[rank].send_signal(number)
        time.sleep(0.03)
    (code, _, err), helper = together.end()
    assert (code, helper) == (130, (0, "", ""))
    assert "interrupted at step" in err
    assert run.status()["status"] == "interrupted"
    assert run.status()["step"] == state(run)["step"]


def test_a_signal_that_comes_while_the_processes_ask_each_other_is_kept():
    joined, number = world.World.__new__(world.World), signal.SIGTERM

    def mean(tensors):
        joined.stop._hear(number, None)
        return tensors

    joined.stop, joined.mean = Stop(patient=True), mean
    assert joined.mean_of_step(torch.ones(2)).tolist() == [1, 1]
    assert (joined.stop.requested, joined.stop.told) == (True, False)


def test_a_finished_run_is_reported_and_running_statistics_do_not_drift_apart(tmp_path):
    words = ["train", "model=dcgan", *SHORT, "epochs=1", "model.channels=4", "model.latent_dim=8"]
    for said in ("trained 1 epoch", "already finished"):
        (code, out, err), helper = Together(tmp_path, words).end()
        assert (code, helper) == (0, (0, "", "")), err
        assert said in out
    assert all(tensor.isfinite().all() for tensor in state(Run(tmp_path / "run"))["model"].values())


@pytest.mark.parametrize(
    ("words", "own", "said"),
    [
        (
            ["model=rbm", "model.persistent_chains=50"],
            [],
            "model=rbm keeps something of single images from step to step",
        ),
        (["batch_size=99"], [], "batch_size=99 cannot be divided among 2 processes"),
        (["model=dbn"], [], "model=dbn keeps something of single images from step to step"),
        ([], ["seed=1"], "seed     0      1"),
        ([], ["batch_size=99"], "batch_size  100    99"),
    ],
)
def test_what_processes_cannot_train_together_is_told(tmp_path, words, own, said):
    (code, _, err), helper = Together(tmp_path, ["train", *AE, *words], of_rank={1: own}).end()
    assert (code, helper) == (2, (0, "", "")), err + helper[2]
    assert said in err


def test_processes_that_see_other_images_are_told(tmp_path):
    for name, seed in (("ours", 0), ("theirs", 1)):
        (tmp_path / name).mkdir()
        for index, grey in enumerate(np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8)):
            Image.fromarray(grey).save(tmp_path / name / f"{index}.png")
    words = [*AE, "dataset=folder", "dataset.size=8", "dataset.channels=1", "dataset.known_as=all", "batch_size=10"]
    own = {0: ["dataset.path=ours"], 1: ["dataset.path=theirs"]}
    (code, _, err), helper = Together(tmp_path, ["train", *words], of_rank=own).end()
    assert (code, helper[0]) == (2, 0), err + helper[2]
    assert "the process of rank 1 would train on something else than that of rank 0:" in err
    assert [line.split()[0] for line in err.splitlines()[1:-1]] == ["setting", "images"]
    assert not Run(tmp_path / "run").checkpoints.exists()


@pytest.mark.parametrize("words", [["evaluate", "run=x"], ["train", "-m", "seed=0,1"], ["train", "search=optuna"]])
def test_other_commands_are_for_one_process(genexp, monkeypatch, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    answer = genexp(*words)
    assert answer.code == 2
    assert answer.err.startswith("genexp (rank 1): ")
    assert "is for one process, and 2 were started" in answer.err


def test_a_process_alone_joins_nobody(genexp, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert genexp("train", *AE, "epochs=1").code == 0
    assert not torch.distributed.is_initialized()
