"""A run from start to finish: its files, its resumption bit for bit, its endings."""

import json
import os
import signal
import time

import filelock
import pytest
import torch
from conftest import SMALL, assert_same_state, interrupted_at, last_checkpoint, read_metrics, without_times
from forked import Forked
from images import unscaled
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genexp.commands import train as command
from genexp.rundirs import directory
from genexp.rundirs.directory import Run
from genexp.storage import checkpoint
from genexp.training import build, moves
from genexp.training import session as module


def points(run, tag):
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars(tag)]


def test_a_run_leaves_what_the_contract_says(genexp):
    answer = genexp("train", *SMALL, "epochs=2", "log.samples_every_epochs=1")
    assert answer.code == 0, answer.err
    run = answer.run
    results = json.loads((run / "results.json").read_text())
    assert results["status"] == json.loads((run / "status.json").read_text())["status"] == "finished"
    assert [results[key] for key in ("model", "dataset", "seed", "epochs", "steps")] == ["gan", "digits", 0, 2, 22]
    assert results["images_per_second"] == pytest.approx(2200 / results["train_seconds"], rel=0.02)
    parzen = results["scores"]["parzen"]
    assert {
        "split",
        "mean",
        "stderr",
        "sigma",
        "valid_mean",
        "n_samples",
        "n_points",
        "sigma_grid",
        "sample_kind",
    } <= set(parzen)
    assert (parzen["n_samples"], parzen["n_points"], parzen["split"], parzen["sample_kind"]) == (
        200,
        300,
        "test",
        "draw",
    )
    assert f"{parzen['mean']:.1f} ± {parzen['stderr']:.1f} nats" in answer.out
    assert {"commit", "dirty", "versions", "device", "threads", "time", "precision"} <= set(results["provenance"])

    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [4, 8, 11, 12, 16, 20, 22]
    named = {"loss/discriminator", "loss/generator", "D(x)", "D(G(z))", "error_rate/data", "error_rate/samples",
             "grad_norm/generator", "grad_norm/discriminator", "lr/generator", "images_per_second"}  # fmt: skip
    assert all(named | {"step", "epoch", "time"} <= set(line) for line in lines)

    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    tags = accumulator.Tags()
    assert {
        "loss/generator",
        "discriminator/D_x",
        "discriminator/D_G_z",
        "speed/images_per_second",
        "score/parzen",
    } <= set(tags["scalars"])
    assert set(tags["images"]) == {"samples", "weights/discriminator"}
    assert tags["tensors"] == ["config/text_summary"]

    pictures = sorted((run / "samples").iterdir())
    assert [picture.name for picture in pictures] == ["epoch-0001.png", "epoch-0002.png"]
    assert unscaled(pictures[0]).size == (8 * (8 * 4 + 1) + 1,) * 2
    assert len(list((run / "checkpoints").iterdir())) == 2
    assert "n_samples: 200" in (run / "config.yaml").read_text()
    assert not list(run.rglob("*.tmp"))


def test_momentum_is_logged_where_there_is_one(genexp):
    answer = genexp("train", *SMALL, "epochs=1", "optimizer=sgd")
    assert {line["momentum/generator"] for line in read_metrics(answer.run)} == {0.5}


@pytest.mark.slow
def test_the_same_command_reports_a_finished_run_and_more_epochs_go_on(genexp):
    first = genexp("train", *SMALL, "epochs=1")
    again = genexp("train", *SMALL, "epochs=1")
    assert "already finished" in again.out
    assert again.run == first.run
    grown = genexp("train", *SMALL, "epochs=3")
    assert "going on from epoch 1" in grown.out
    assert grown.run == first.run
    whole = genexp("train", *SMALL, "epochs=3", "outputs_dir=other")
    assert whole.run != first.run
    assert without_times(read_metrics(grown.run)) == without_times(read_metrics(whole.run))
    assert_same_state(last_checkpoint(grown.run), last_checkpoint(whole.run))
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (grown.run, whole.run)]
    assert scores[0] == scores[1]
    assert points(grown.run, "loss/generator") == points(whole.run, "loss/generator")
    fewer = genexp("train", *SMALL, "epochs=2")
    assert "more than the 2 asked for" in fewer.out


def test_other_score_settings_score_again_without_training(genexp, finished):
    first = finished(*SMALL, "epochs=1")
    again = genexp("train", *SMALL, "epochs=1", "metrics.parzen.n_samples=100")
    assert again.run == first.run
    assert "(100 samples" in again.out
    assert len(read_metrics(again.run)) == 3


@pytest.mark.parametrize("stop", [3, 11, 15])
@pytest.mark.slow
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(genexp, finished, a_second_passes, stop):
    """Ctrl-C within an epoch, at its end, and in the second: weights, optimizer state, lines and score are equal."""
    whole = finished(*SMALL, "epochs=3", "outputs_dir=whole")
    with interrupted_at(stop):
        stopped = genexp("train", *SMALL, "epochs=3")
        assert stopped.code == 130
        assert f"interrupted at step {stop}" in stopped.err
        assert "the same command goes on" in stopped.err
    a_second_passes()
    resumed = genexp("train", *SMALL, "epochs=3")
    assert "going on from epoch" in resumed.out
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert without_times(read_metrics(resumed.run)) == without_times(read_metrics(whole.run))
    results = [json.loads((run / "results.json").read_text()) for run in (resumed.run, whole.run)]
    assert results[0]["scores"] == results[1]["scores"]
    assert points(resumed.run, "loss/generator") == points(whole.run, "loss/generator")


def test_on_resuming_a_run_its_configuration_is_read_once(genexp, finished, monkeypatch):
    finished(*SMALL, "epochs=1")
    read_config, read = directory.read_config, []
    steps = []
    monkeypatch.setattr(directory, "read_config", lambda file: read.append((file, len(steps))) or read_config(file))
    monkeypatch.setattr(module.Terminal, "show", lambda self, tick: steps.append(tick))
    assert genexp("train", *SMALL, "epochs=2").code == 0
    assert [before for _, before in read if before == 0] == [0]


@pytest.mark.slow(8)
def test_a_killed_process_resumes_to_the_same_end(genexp, tmp_path):
    whole = genexp("train", *SMALL, "epochs=40", "outputs_dir=whole")
    process = Forked(tmp_path, "train", *SMALL, "epochs=40")
    deadline = time.time() + 120
    while not list(tmp_path.glob("outputs/digits/*/checkpoints/step-0000001*.pt")):  # ten epochs or so
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = next(tmp_path.glob("outputs/digits/*"))
    assert json.loads((run / "status.json").read_text())["status"] == "running"
    resumed = genexp("train", *SMALL, "epochs=40")
    assert "going on from epoch" in resumed.out
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert without_times(read_metrics(resumed.run)) == without_times(read_metrics(whole.run))


@pytest.mark.slow
def test_a_new_score_killed_on_the_way_does_not_pass_for_done(genexp, finished, monkeypatch):
    finished(*SMALL, "epochs=1")
    score = module.Session._score

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Session, "_score", killed)
    assert genexp("train", *SMALL, "epochs=1", "metrics.parzen.n_samples=100").code == 130
    monkeypatch.setattr(module.Session, "_score", score)
    again = genexp("train", *SMALL, "epochs=1", "metrics.parzen.n_samples=100")
    assert "already finished" not in again.out
    assert "(100 samples" in again.out


@pytest.mark.slow
def test_an_epoch_that_was_begun_is_ended_before_it_is_scored(genexp, finished, monkeypatch):
    finished(*SMALL, "epochs=1")
    original = module.Terminal.show
    monkeypatch.setattr(module.Terminal, "show", lambda self, tick: os.kill(os.getpid(), signal.SIGTERM))
    assert genexp("train", *SMALL, "epochs=3").code == 130
    monkeypatch.setattr(module.Terminal, "show", original)
    answer = genexp("train", *SMALL, "epochs=1")
    results = json.loads((answer.run / "results.json").read_text())
    assert (results["epochs"], results["steps"]) == (2, 22)
    assert "more than the 1 asked for" in answer.out


def test_weights_that_are_not_finite_are_never_saved(genexp, finished, monkeypatch, tmp_path):
    """Ctrl-C between two logged steps, after the weights went bad."""
    finished(*SMALL, "epochs=1")
    good = sorted(tmp_path.glob("outputs/digits/*/checkpoints/*"))
    built = []
    build_training = build.training

    def remember(*arguments):
        built.append(build_training(*arguments))
        return built[-1]

    def spoil(self, tick):
        if tick.step == 13:
            next(built[-1].model.parameters()).data.fill_(torch.nan)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(build, "training", remember)
    monkeypatch.setattr(module.Terminal, "show", spoil)
    answer = genexp("train", *SMALL, "epochs=3")
    assert answer.code == 1
    assert "diverged at step 13" in answer.err
    assert sorted(tmp_path.glob("outputs/digits/*/checkpoints/*")) == good


@pytest.mark.slow
def test_no_readable_checkpoint_is_an_error_and_costs_nothing(genexp, finished):
    first = finished(*SMALL, "epochs=3")
    lines = (first.run / "metrics.jsonl").read_text()
    for file in (first.run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    answer = genexp("train", *SMALL, "epochs=4")
    assert answer.code == 1
    assert "fresh=true" in answer.err
    assert (first.run / "metrics.jsonl").read_text() == lines
    assert genexp("train", *SMALL, "epochs=4", "fresh=true").code == 0


def test_dead_in_the_first_epoch_and_begun_again_tensorboard_shows_one_curve(genexp, monkeypatch, a_second_passes):
    original = module.Terminal.show

    def die(self, tick):
        if tick.step == 9:
            raise MemoryError

    monkeypatch.setattr(module.Terminal, "show", die)
    assert genexp("train", *SMALL, "epochs=1").code == 1
    monkeypatch.setattr(module.Terminal, "show", original)
    a_second_passes()
    answer = genexp("train", *SMALL, "epochs=1")
    assert points(answer.run, "loss/generator") == [4, 8, 11]


@pytest.mark.slow
def test_fresh_starts_over_and_keeps_the_old_run(genexp, finished):
    first = finished(*SMALL, "epochs=1")
    weights = last_checkpoint(first.run)
    fresh = genexp("train", *SMALL, "epochs=1", "fresh=true")
    assert "started" in fresh.out
    aside = first.run.with_name(first.run.name + ".old-1")
    assert (aside / "results.json").exists()
    assert_same_state(weights, last_checkpoint(fresh.run))
    assert genexp("train", *SMALL, "epochs=1", "fresh=true").code == 0
    assert first.run.with_name(first.run.name + ".old-2").exists()


def test_another_experiment_in_a_given_directory_is_refused_with_the_differences(genexp):
    assert genexp("train", *SMALL, "epochs=1", "run_dir=here").code == 0
    answer = genexp("train", *SMALL, "epochs=1", "run_dir=here", "optimizer.lr=0.3", "seed=3")
    assert answer.code == 2
    table = "  setting       there  here\n  seed          0      3\n  optimizer.lr  0.1    0.3\n"
    assert f"here holds another experiment:\n{table}" in answer.err
    assert "run_dir=FOLDER" in answer.err
    assert "fresh=true" in answer.err


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_left_alone(genexp, finished):
    first = finished(*SMALL, "epochs=1")
    with filelock.FileLock(first.run / ".lock"):
        answer = genexp("train", *SMALL, "epochs=2")
    assert answer.code == 1
    assert "another process" in answer.err


@pytest.mark.slow
def test_a_run_that_another_process_finished_meanwhile_is_reported_and_not_trained_again(genexp, monkeypatch, tmp_path):
    """It was not finished when this process looked first, and is when this one comes to hold it."""
    words, build_training = ["train", *SMALL, "epochs=1"], build.training

    def build_while_another_trains(*arguments):
        monkeypatch.setattr(build, "training", build_training)
        done = Forked(tmp_path, *words)
        assert done.wait() == 0, done.err
        return build_training(*arguments)

    monkeypatch.setattr(build, "training", build_while_another_trains)
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert "already finished, 1 epoch;" in answer.out
    assert len(json.loads((answer.run / "provenance.json").read_text())["sessions"]) == 1
    assert json.loads((answer.run / "status.json").read_text())["pid"] != os.getpid()


def test_who_waits_for_a_run_that_is_moved_aside_does_not_come_to_hold_it(genexp, finished, monkeypatch, tmp_path):
    """Its lock file was opened under the old name, and would else be taken for that of the new run."""
    monkeypatch.chdir(tmp_path)
    first = finished(*SMALL, "epochs=1")
    run = Run(first.run)
    config = run.config
    with run.held(config.model_copy(update={"fresh": True})):
        assert run.path == config.directory()
        (old,) = tmp_path.glob("outputs/digits/*.old-1")
        for place in (run.path, old):
            with pytest.raises(filelock.Timeout):
                filelock.FileLock(place / ".lock").acquire(timeout=0)


@pytest.mark.slow
def test_divergence_fails_the_run_and_names_step_losses_and_checkpoint(genexp, tmp_path):
    grown = ["train", *SMALL, "optimizer=sgd"]
    assert genexp(*grown, "epochs=1").code == 0
    run = next(tmp_path.glob("outputs/digits/*"))
    file = next((run / "checkpoints").iterdir())
    state = torch.load(file, weights_only=True)
    state["model"]["generator.0.weight"][0, 0] = torch.inf
    checkpoint.write(file, state)
    answer = genexp(*grown, "epochs=2")
    assert answer.code == 1
    assert "diverged at step 12" in answer.err
    assert "grad_norm/generator=nan" in answer.err
    assert f"last good checkpoint: {file.relative_to(tmp_path)}" in answer.err
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "failed"
    assert "diverged at step 12" in status["error"]


def test_divergence_in_the_first_epoch(genexp):
    answer = genexp("train", *SMALL, "optimizer=sgd", "optimizer.lr=1e30")
    assert answer.code == 1
    assert "diverged at step" in answer.err
    assert "none, it happened in the first epoch" in answer.err


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on_later(genexp, finished, monkeypatch):
    """A file-size limit stands in for the disk: the first checkpoint that is too large is refused by the system."""
    import resource

    first = finished(*SMALL, "epochs=1")
    whole = finished(*SMALL, "epochs=2", "outputs_dir=whole")
    kept = max((first.run / "checkpoints").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.stat().st_size // 2, hard))
    try:
        answer = genexp("train", *SMALL, "epochs=2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert answer.code == 1
    assert "cannot be written: File too large" in answer.err
    assert f"{kept} is intact" in answer.err.replace(str(kept.parent.parent), str(first.run))
    resumed = genexp("train", *SMALL, "epochs=2")
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(genexp, finished, tmp_path):
    first = finished(*SMALL, "epochs=2")
    newest = max((first.run / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    answer = genexp("train", *SMALL, "epochs=3")
    assert answer.code == 0
    assert f"{newest.name} is damaged" in answer.out
    assert "going on from epoch 1" in answer.out


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.slow
def test_drawing_more_pictures_and_scores_changes_nothing_in_training(genexp, seed):
    plain = genexp("train", *SMALL, "epochs=2", f"seed={seed}", "log.samples_every_epochs=100")
    often = ["log.samples_every_epochs=1", "log.scores_every_epochs=1", "outputs_dir=often"]
    watched = genexp("train", *SMALL, "epochs=2", f"seed={seed}", *often)
    assert_same_state(last_checkpoint(plain.run), last_checkpoint(watched.run))
    assert [line["epoch"] for line in read_metrics(watched.run) if "score/parzen" in line] == [1, 2]


@pytest.mark.parametrize(
    "settings",
    [
        ["model.updates=alternating", "model.discriminator_steps=2", "model.generator_loss=minimax"],
        ["model.discriminator_steps=2", "model.prior=spherical", "optimizer=rmsprop"],
        ["noise=gaussian", "model.prior=gaussian", "optimizer=sgd"],
        ["device=cpu", "device.precision=bfloat16"],
    ],
    ids=lambda settings: "+".join(settings),
)
def test_every_variant_trains(genexp, settings):
    answer = genexp("train", *SMALL, "epochs=1", *settings)
    assert answer.code == 0, answer.err
    state = last_checkpoint(answer.run)
    assert all(value.dtype == torch.float32 for value in state["model"].values())


@pytest.mark.parametrize(("slow", "told"), [("bfloat16", True), ("float32", False)])
@pytest.mark.slow
def test_where_bfloat16_is_slower_a_training_says_so_and_is_the_same(genexp, monkeypatch, slow, told):
    def autocast(device, precision):
        time.sleep(0.05 if precision == slow else 0)
        return real(device, precision)

    real = moves.autocast
    words = ["train", *SMALL, "epochs=1", "device=cpu", "device.precision=bfloat16"]
    with monkeypatch.context() as patched:
        patched.setattr(moves, "autocast", autocast)
        compared = genexp(*words, "outputs_dir=compared")
        assert ("times as long in bfloat16 as in float32" in compared.out + compared.err) == told
    monkeypatch.setattr(command, "_compare_precisions", lambda *_: None)
    plain = genexp(*words)
    assert_same_state(last_checkpoint(plain.run), last_checkpoint(compared.run))


@pytest.mark.slow(20)
def test_a_gan_learns_digits(genexp):
    """The quickstart's GAN, after a part of its epochs, against its start, where every sample is the mean image.

    By rounding, processors differ: it is 7 nats better on one kind, and more than 8 on others.
    """
    words = ["train", "experiment=quickstart", "metrics.parzen.n_samples=1000", "log.every_steps=100"]
    early = genexp(*words, "epochs=1")
    late = genexp(*words, "epochs=180")
    assert late.run == early.run
    before, after = (float(answer.out.split("parzen: ")[1].split()[0]) for answer in (early, late))
    assert after > before + 4
