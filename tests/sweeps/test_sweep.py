"""Sweeps: processes of their own, what the death of one costs the others, and what a second command still does."""

import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from conftest import SMALL, assert_same_state, config_of, last_checkpoint, read_metrics, without_times
from rich.console import Console

from examples import UNRULY
from genexp.rundirs.directory import Run
from genexp.rundirs.results import Results
from genexp.score import Score
from genexp.sweeps import schedule, slots
from genexp.sweeps.board import live_table, ranking
from genexp.sweeps.jobs import FAILED, FINISHED, RUNNING, WAITING, Job

SWEEP = [
    *("train", "-m", "--config-dir", "conf", "model=unruly", "dataset=digits", "epochs=3", "optimizer=adam"),
    *("metrics.parzen.n_samples=100", "sweep.jobs=2"),
]


def table(tmp_path) -> list[dict]:
    (file,) = tmp_path.glob("outputs/sweeps/*/table.csv")
    return list(csv.DictReader(file.open()))


def states(tmp_path, key="model.mode") -> dict[str, str]:
    return {row[key]: row["state"] for row in table(tmp_path)}


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_what_becomes_of_one_job_does_not_touch_another(genexp, tmp_path):
    answer = genexp(*SWEEP, "model.mode=raise,exit,leave,kill,none,quiet")
    assert answer.code == 1
    assert "of 6 jobs 4 failed; the same command runs only what is not finished" in answer.err
    assert "Traceback" not in answer.out + answer.err
    modes = {"raise": "failed", "exit": "failed", "leave": "failed", "kill": "failed"}
    assert states(tmp_path) == modes | {"none": "finished", "quiet": "finished"}
    causes = {row["model.mode"]: row["cause"] for row in table(tmp_path)}
    assert causes["raise"] == "RuntimeError: a mistake in the model"
    assert causes["exit"] == "SystemExit: 0"
    assert causes["leave"] == "left with exit code 0 before it was finished"
    assert causes["kill"].startswith("killed by SIGKILL")
    for row in table(tmp_path):
        said = json.loads((tmp_path / row["run"] / "status.json").read_text())
        assert said["status"] == row["state"]
        assert said.get("error", "") == row["cause"]
        assert all(cause in answer.out for cause in causes.values())
    (raised,) = (row["run"] for row in table(tmp_path) if row["model.mode"] == "raise")
    assert "unruly.py" in (tmp_path / raised / "error.txt").read_text()
    (log,) = tmp_path.glob(f"outputs/sweeps/*/logs/{raised.rpartition('/')[2]}.txt")
    assert "in play\n" in log.read_text()

    untouched = {row["run"]: (tmp_path / row["run"] / "results.json").stat().st_mtime_ns
                 for row in table(tmp_path) if row["state"] == "finished"}  # fmt: skip
    again = genexp(*SWEEP, "model.mode=raise,exit,leave,kill,none,quiet")
    assert again.code == 1
    assert "finished already: 2 of 6 jobs" in again.out
    assert {run: (tmp_path / run / "results.json").stat().st_mtime_ns for run in untouched} == untouched


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_job_that_is_killed_is_tried_again_and_ends_as_if_it_had_not_been(genexp, tmp_path):
    answer = genexp(*SWEEP, "model.mode=once,none", "sweep.retries=1")
    assert answer.code == 0, answer.err
    assert (tmp_path / "died").exists()
    assert "failed, to be tried again: model.mode=once" in answer.out
    assert "running (attempt 2): model.mode=once" in answer.out
    killed, whole = (next(row["run"] for row in table(tmp_path) if row["model.mode"] == m) for m in ("once", "none"))
    assert_same_state(last_checkpoint(tmp_path / killed), last_checkpoint(tmp_path / whole))
    assert without_times(read_metrics(tmp_path / killed)) == without_times(read_metrics(tmp_path / whole))


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_fresh_job_that_died_before_it_held_its_run_is_begun_afresh(genexp, tmp_path):
    (tmp_path / "died").touch()
    assert genexp(*SWEEP, "model.mode=early").code == 0
    (tmp_path / "died").unlink()
    answer = genexp(*SWEEP, "model.mode=early", "sweep.retries=1", "fresh=true")
    assert answer.code == 0, answer.out + answer.err
    assert len(list(tmp_path.glob("outputs/digits/*.old-1"))) == 1


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_job_with_a_very_long_error_does_not_hang_the_sweep(genexp, tmp_path):
    answer = genexp(*SWEEP, "model.mode=long,none")
    assert answer.code == 1
    assert states(tmp_path) == {"long": "failed", "none": "finished"}


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow(10)
def test_two_sweeps_begun_together_share_the_work(genexp, tmp_path):
    """Whichever is first at a run trains it; the other waits, and has its result."""
    often = "import sys; from genexp import cli; from genexp.sweeps import schedule; "
    often += "schedule.PATIENCE = 0.2; sys.exit(cli.main())"
    command = [sys.executable, "-c", often, *SWEEP, "epochs=3", "model.mode=slow"]
    one = subprocess.Popen([*command, "seed=0,1,2"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    two = subprocess.Popen([*command, "seed=0,1,2,3"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = [process.communicate(timeout=200)[0].decode() for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], said
    for file in tmp_path.glob("outputs/digits/*/provenance.json"):
        assert len(json.loads(file.read_text())["sessions"]) == 1
    assert len(list(tmp_path.glob("outputs/digits/*"))) == 4


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_fail_fast_has_the_others_save_and_stop(genexp, tmp_path):
    answer = genexp(*SWEEP, "epochs=30", "model.mode=slow,raise,none", "sweep.fail_fast=true", "sweep.retries=1")
    assert answer.code == 1
    assert states(tmp_path) == {"slow": "stopped", "raise": "failed", "none": "stopped"}
    assert "1 failed, 2 did not come to their end" in answer.err
    (slow,) = (row["run"] for row in table(tmp_path) if row["model.mode"] == "slow")
    assert json.loads((tmp_path / slow / "status.json").read_text())["status"] == "interrupted"
    assert list((tmp_path / slow / "checkpoints").iterdir())


def test_a_wrong_value_is_told_before_any_job_begins(genexp, tmp_path):
    answer = genexp("train", *SMALL, "-m", "epochs=1", "seed=0,-1")
    assert answer.code == 2
    assert "job 2" in answer.err
    assert "seed=-1" in answer.err
    assert "No job was started" in answer.err
    assert not (tmp_path / "outputs/digits").exists()


@pytest.mark.slow
def test_adding_values_runs_only_the_new_ones(genexp, tmp_path):
    assert genexp("train", *SMALL, "-m", "epochs=1", "seed=0,1", "sweep.jobs=2").code == 0
    first = {run: run.stat().st_mtime_ns for run in tmp_path.glob("outputs/digits/*/results.json")}
    answer = genexp("train", *SMALL, "-m", "epochs=1", "seed=0,1,2", "sweep.jobs=2")
    assert answer.code == 0
    assert "finished already: 2 of 3 jobs" in answer.out
    assert "job 3/3 finished: seed=2" in answer.out
    assert "job 1/3" not in answer.out
    assert {run: run.stat().st_mtime_ns for run in first} == first


@pytest.mark.parametrize(
    ("swept", "which"),
    [
        (["epochs=1,2"], "epochs=1 and epochs=2 are one run"),
        (["seed=0,1", "metrics.parzen.n_samples=90,80"], "n_samples=90 and metrics.parzen.n_samples=80 are one run"),
        (["seed=3,3"], "a job is there twice"),
    ],
)
def test_jobs_that_are_one_run_are_refused(genexp, tmp_path, swept, which):
    """The later one would replace the other's scores, and a table would show the same twice."""
    answer = genexp("train", *SMALL, "-m", *swept)
    assert answer.code == 2
    assert which in answer.err
    assert not list(tmp_path.glob("outputs/digits/*"))


@pytest.mark.parametrize(
    ("by", "remedy"),
    [("fid", "metric@metrics.fid=fid adds it"), ("parzn", "did you mean 'parzen'?"), ("iwae", "scored by parzen;")],
)
def test_a_ranking_by_what_no_job_is_scored_by_is_refused(genexp, by, remedy):
    answer = genexp("train", *SMALL, "-m", "seed=0,1", f"sweep.rank_by={by}")
    assert answer.code == 2
    assert remedy in answer.err


@pytest.mark.slow
def test_a_run_directory_for_all_jobs_is_refused(genexp):
    answer = genexp("train", *SMALL, "-m", "epochs=1", "seed=0,1", "run_dir=here")
    assert answer.code == 2
    assert "run_dir=" in answer.err


@pytest.mark.slow
def test_fresh_starts_each_job_over_once(genexp, tmp_path):
    words = ["train", *SMALL, "-m", "epochs=1", "seed=0,1"]
    assert genexp(*words).code == 0
    assert genexp(*words, "fresh=true").code == 0
    assert len(list(tmp_path.glob("outputs/digits/*.old-1"))) == 2


def start(tmp_path, *words, jobs=2, checkpoints=1):
    """The sweep in a process of its own, as from a shell, once its runs have a checkpoint, or so many."""
    deaf = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    deaf += "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"  # and not as by nohup
    command = [sys.executable, "-m", "genexp", *SWEEP, f"sweep.jobs={jobs}", *words]
    command = [sys.executable, "-c", deaf, *command]  # as a script's shell begins what it leaves in the background
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 60
    while len(list(tmp_path.glob("outputs/digits/*/checkpoints/*.pt"))) < checkpoints:
        assert time.time() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def pids(tmp_path) -> list[int]:
    status = (json.loads(file.read_text()) for file in tmp_path.glob("outputs/digits/*/status.json"))
    return [said["pid"] for said in status if said["status"] == "running"]


def wait_until_gone(pid: int) -> None:
    deadline = time.time() + 30
    while os.path.exists(f"/proc/{pid}") and "zombie" not in open(f"/proc/{pid}/status").read():  # noqa: PTH110, PTH123, SIM115
        assert time.time() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("unruly")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow(10)
def test_an_interrupted_sweep_saves_all_jobs_and_the_same_command_goes_on(genexp, tmp_path, number):
    process = start(tmp_path, "epochs=4", "model.mode=slow", "seed=0,1,2")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert sorted(states(tmp_path, "seed").values()) == ["stopped", "stopped", "stopped"]
    for file in tmp_path.glob("outputs/digits/*/status.json"):
        assert json.loads(file.read_text())["status"] == "interrupted"
    answer = genexp(*SWEEP, "epochs=4", "model.mode=slow", "seed=0,1,2")
    assert answer.code == 0, answer.err
    assert set(states(tmp_path, "seed").values()) == {"finished"}


def server_of(pid: int) -> int:
    """The process that this one's jobs are forked from."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"multiprocessing.forkserver" in (place / "cmdline").read_bytes():
                return int(place.name)
        except OSError:  # gone by now
            continue
    return 0


@pytest.mark.usefixtures("unruly")
@pytest.mark.parametrize("told", ["its group", "every process"])
@pytest.mark.slow
def test_jobs_save_when_all_processes_are_told_to_leave(tmp_path, told):
    """As by `timeout`, by a terminal that is closed, by scancel or by systemd."""
    process = start(tmp_path, "epochs=100", "model.mode=slow", "seed=0,1", checkpoints=2)
    each = [process.pid, server_of(process.pid), *pids(tmp_path)]
    assert len(each) == 4
    if told == "its group":
        os.killpg(process.pid, signal.SIGHUP)
    else:
        for pid in each:
            os.kill(pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    for file in tmp_path.glob("outputs/digits/*/status.json"):
        status = json.loads(file.read_text())
        assert status["status"] == "interrupted"
        assert (file.parent / f"checkpoints/step-{status['step']:09}.pt").exists()
    assert set(states(tmp_path, "seed").values()) == {"stopped"}


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_sweep_is_interrupted_in_few_words_while_its_server_begins(tmp_path):
    command = [sys.executable, "-m", "genexp", *SWEEP, "seed=0,1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (server := server_of(process.pid)):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "interrupted; " in err
    wait_until_gone(server)


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow(10)
def test_a_sweep_whose_server_of_processes_is_killed_comes_to_its_end(tmp_path):
    process = start(tmp_path, "epochs=4", "model.mode=slow", "seed=0,1,2", checkpoints=2)
    os.kill(server_of(process.pid), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert set(states(tmp_path, "seed").values()) == {"finished"}
    for file in tmp_path.glob("outputs/digits/*/provenance.json"):
        steps = [session["from_step"] for session in json.loads(file.read_text())["sessions"]]
        assert all(step > 0 for step in steps[1:])  # they had saved


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_a_job_that_dies_after_its_end_is_finished(genexp, tmp_path):
    answer = genexp(*SWEEP, "model.mode=late,none")
    assert answer.code == 0, answer.out + answer.err
    assert states(tmp_path) == {"late": "finished", "none": "finished"}


@pytest.mark.slow
def test_what_diverged_is_not_tried_again(genexp, tmp_path):
    answer = genexp("train", *SMALL, "-m", "epochs=1", "optimizer=sgd", "optimizer.lr=1e30,0.1", "sweep.retries=2")
    assert answer.code == 1
    assert "tried again" not in answer.out
    assert states(tmp_path, "optimizer.lr") == {"1e+30": "failed", "0.1": "finished"}


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow(8)
def test_a_fresh_sweep_that_was_interrupted_goes_on_without_the_old_runs(genexp, tmp_path):
    words = ["model.mode=slow", "seed=0,1,2"]
    assert genexp(*SWEEP, *words, "epochs=1").code == 0
    process = start(tmp_path, *words, "epochs=1", "fresh=true", jobs=1, checkpoints=4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "the same command without fresh=true goes on" in err
    assert len(list(tmp_path.glob("outputs/digits/*.old-1"))) == 3
    new = [file for file in tmp_path.glob("outputs/digits/*/status.json") if ".old-" not in file.parent.name]
    old = sum(json.loads(file.read_text())["status"] == "finished" for file in new)
    answer = genexp(*SWEEP, *words, "epochs=1")
    assert answer.code == 0, answer.err
    assert f"finished already: {old} of 3 jobs" in answer.out if old else "finished already" not in answer.out
    assert len(list(tmp_path.glob("outputs/digits/*.old-*"))) == 3


@pytest.mark.slow
def test_a_run_of_more_epochs_than_were_asked_for_is_marked(genexp, tmp_path):
    assert genexp("train", *SMALL, "epochs=3").code == 0
    answer = genexp("train", *SMALL, "-m", "epochs=1", "seed=0,1")
    assert answer.code == 0
    assert "†: more epochs than were asked for" in answer.out
    assert {row["seed"]: row["trained_epochs"] for row in table(tmp_path)} == {"0": "3", "1": "1"}
    assert [line for line in answer.out.splitlines() if " 3† " in line]


def test_a_run_that_may_not_be_written_in_is_no_reason_to_wait(tmp_path, monkeypatch):
    def forbidden(self, timeout=None):
        raise PermissionError

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(filelock.FileLock, "acquire", forbidden)
    assert not Run(tmp_path).is_held()
    assert Run(tmp_path).is_held(if_unknown=True)


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow
def test_jobs_whose_sweep_is_killed_save_and_leave(tmp_path):
    process = start(tmp_path, "epochs=100", "model.mode=slow", "seed=0,1")
    running = pids(tmp_path)
    process.kill()
    process.wait()
    for pid in running:
        wait_until_gone(pid)
    for file in tmp_path.glob("outputs/digits/*/status.json"):
        assert json.loads(file.read_text())["status"] == "interrupted"


@pytest.mark.usefixtures("unruly")
@pytest.mark.slow(8)
def test_a_second_sweep_over_the_same_runs_waits_for_the_first(genexp, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "PATIENCE", 0.2)
    process = start(tmp_path, "epochs=5", "model.mode=slow", "seed=0", jobs=1)
    answer = genexp(*SWEEP, "epochs=5", "model.mode=slow", "seed=0,1")
    assert answer.code == 0, answer.out + answer.err
    process.communicate(timeout=60)
    assert process.returncode == 0
    (run,) = (row["run"] for row in csv.DictReader(
        next(tmp_path.glob("outputs/sweeps/seed-*/table.csv")).open()) if row["seed"] == "0")  # fmt: skip
    assert len(json.loads((tmp_path / run / "provenance.json").read_text())["sessions"]) == 1  # nobody began it again


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_is_refused(genexp, tmp_path):
    words = ["train", *SMALL, "-m", "epochs=1", "seed=0,1"]
    assert genexp(*words).code == 0
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    with filelock.FileLock(folder / ".lock"):
        answer = genexp(*words)
    assert answer.code == 1
    assert "another process is at work on" in answer.err
    assert f"process {os.getpid()} on {platform.node()} (genexp train dataset=digits" in answer.err


@pytest.mark.slow
def test_threads_are_divided_and_kept_by_a_run_that_goes_on(genexp, tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "cores", lambda: 4)
    assert genexp("train", *SMALL, "-m", "epochs=1", "seed=0,1", "sweep.jobs=2").code == 0
    for file in tmp_path.glob("outputs/digits/*/results.json"):
        assert json.loads(file.read_text())["provenance"]["threads"] == 2
    assert genexp("train", *SMALL, "-m", "epochs=2", "seed=0,1", "sweep.jobs=4").code == 0
    for file in tmp_path.glob("outputs/digits/*/results.json"):
        assert json.loads(file.read_text())["provenance"]["threads"] == 2  # another number would round differently


def test_gpus_are_named_as_the_environment_allows(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 3")
    assert slots.visible_gpus() == ["1", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots.visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert slots.visible_gpus() == []


@pytest.mark.slow
def test_each_job_is_given_the_gpu_of_its_slot(genexp, tmp_path, monkeypatch):
    """No GPU is needed to see what the jobs are told."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    (tmp_path / "told.py").write_text(
        UNRULY.replace(
            "self.moves += 1", "Path(f'told-{os.environ[\"CUDA_VISIBLE_DEVICES\"]}').touch(); self.moves += 1"
        )
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf/model/unruly.yaml").write_text("name: unruly\n_target_: told.Unruly\nmode: slow\nat: 0\n")
    assert genexp(*SWEEP, "seed=0,1").code == 0
    assert sorted(file.name for file in tmp_path.glob("told-*")) == ["told-5", "told-7"]


def test_the_ranking_is_by_validation_and_knows_which_way_is_better(tmp_path):
    def row(seed, **scores):
        taken = {name: Score(mean, 1.0, "", **more) for name, (mean, more) in scores.items()}
        results = Results(1, 10, 61.0, 1.0, provenance={}, scores=taken)
        return Job((f"seed={seed}",), Run(tmp_path / f"{seed}"), state=FINISHED, results=results)

    rows = [row(0, parzen=(10.0, {"valid_mean": 3.0}), fid=(5.0, {"lower_is_better": True})),
            row(1, parzen=(9.0, {"valid_mean": 4.0}), fid=(6.0, {"lower_is_better": True})),
            row(2, parzen=(float("nan"), {"valid_mean": float("nan")}), fid=(7.0, {"lower_is_better": True})),
            Job(("seed=3",), Run(tmp_path / "3"), state=FAILED, cause="it died")]  # fmt: skip
    by_parzen = ranking(rows, None, set()).tables[0]
    assert [(record["rank"], record["seed"]) for record in by_parzen.records()] == [
        (1, "1"),
        (2, "0"),
        (None, "2"),
        (None, "3"),
    ]
    assert by_parzen.cells()[0][:4] == ["1", "seed=1", "finished", "4"]
    assert by_parzen.cells()[0][-2:] == ["1:01", "1"]
    by_fid = ranking(rows, "fid", set())
    assert [record["seed"] for record in by_fid.tables[0].records()] == ["0", "1", "2", "3"]
    assert by_fid.notes[0] == "ranked by fid, its mean, the lowest first"
    rows = [row(0, bound=(-9.0, {"split": "valid"})), row(1, bound=(-8.0, {"split": "valid"}))]
    by_bound = ranking(rows, "bound", set())
    assert by_bound.tables[0].header()[3:5] == ["bound, valid", "epochs"]
    assert [record["seed"] for record in by_bound.tables[0].records()] == ["1", "0"]
    assert by_bound.notes[0] == "ranked by bound, its mean on validation images"


def test_the_ranking_follows_what_the_metric_declares_and_never_a_diagnosis(tmp_path):
    def row(seed, config, **scores):
        taken = {name: Score(mean, None, "") for name, mean in scores.items()}
        results = Results(1, 10, 61.0, 1.0, provenance={}, scores=taken)
        return Job((f"seed={seed}",), Run(tmp_path / f"{seed}"), config, state=FINISHED, results=results)

    config = config_of("model=dae", "dataset=digits", "+metric@metrics.gap=fid")
    rows = [row(0, config, chain=1.0, gap=5.0), row(1, config, chain=2.0, gap=6.0)]  # kept without their direction
    by_gap = ranking(rows, None, set())
    assert [record["seed"] for record in by_gap.tables[0].records()] == ["0", "1"]
    assert by_gap.notes[0] == "ranked by gap, its mean, the lowest first"
    of_chains = ranking([row(0, config, chain=1.0), row(1, config, chain=2.0)], None, set())
    assert [record["rank"] for record in of_chains.tables[0].records()] == [None, None]
    assert not any("ranked" in note for note in of_chains.notes)


def test_jobs_are_not_ranked_by_a_diagnosis(genexp, tmp_path):
    answer = genexp("train", "model=dae", "dataset=digits", "-m", "seed=0,1", "sweep.rank_by=chain")
    assert answer.code == 2
    assert "sweep.rank_by=chain describes the samples and does not say what is better" in answer.err
    answer = genexp(
        *("train", "model=dae", "dataset=digits", "checkpoint.keep_best=chain", "metrics.chain.split=valid"),
        "log.scores_every_epochs=1",
    )
    assert answer.code == 2
    assert "checkpoint.keep_best=chain describes the samples" in answer.err
    assert not list(tmp_path.glob("outputs/*/*"))


def test_the_live_table_shows_state_epoch_loss_and_time_left(tmp_path, monkeypatch):
    (tmp_path / "status.json").write_text(json.dumps({"epoch": 1, "epochs": 4, "step": 10, "steps": 40}))
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 10, "epoch": 1, "loss/generator": 0.5, "loss/discriminator": 1.25}\n'
    )
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("genexp.sweeps.board.time.monotonic", lambda: next(clock))
    rows = [Job(("seed=0",), Run(tmp_path), state=RUNNING), Job(("seed=1",), Run(tmp_path / "none"))]
    live_table(rows, set(), 40, 120)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 20, "epoch": 2, "loss/generator": 0.5, "loss/discriminator": 1.25}\n'
    )
    console = Console(width=120)
    with console.capture() as shown:
        console.print(live_table(rows, set(), 40, 120))
    assert "2 jobs: 1 running, 1 waiting" in shown.get()
    line = next(line for line in shown.get().splitlines() if "seed=0" in line)
    assert line.split() == ["1", "seed=0", "running", "2/4", "0.500", "/", "1.250", "0:20"]
    many = [Job((f"seed={n}",), Run(tmp_path / "none"), state=FAILED if n == 90 else WAITING) for n in range(100)]
    with console.capture() as shown:
        console.print(live_table(many, set(), 20, 120))
    assert len(shown.get().splitlines()) <= 20
    assert "seed=90" in shown.get()
    assert "and 87 more" in shown.get()
