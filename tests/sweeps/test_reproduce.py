"""`genexp reproduce` as a sweep: what it shows first, what one death costs, what a second command still does."""

import csv
import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import config_of, read_metrics

from genexp.config.command_line import CommandLine
from genexp.papers import yardsticks
from genexp.rundirs.directory import Run
from genexp.rundirs.pace import StagePace, epochs_done, logged_seconds, scoring_seconds, seconds_left
from genexp.sweeps.estimate import estimate, together, try_out
from genexp.sweeps.jobs import FINISHED, Job

PAPER = """
name: small
title: A small paper
tables:
  "1":
    kind: parzen
    title: Table 1
    columns:
      digits: {{title: digits, train: [dataset=digits], spread: standard error}}
      tfd: {{title: TFD, train: [dataset=tfd], spread: standard error, on_request: true}}
    rows:
{rows}
  scores:
    kind: scores
    title: Scores
    dataset: [dataset=digits]
    metrics: [parzen, fid, precision]
    rows:
      - {{name: VAE, train: [model=vae, dataset=digits, epochs=2, metrics.parzen.n_samples=100]}}
"""
CELL = "{value: 1, status: read, source: A book, train: [%s]}"
UNRULY = "model=unruly, dataset=digits, optimizer=adam, metrics.parzen.n_samples=100, epochs=%d, model.mode=%s"


@pytest.fixture
def small(genexp, tmp_path, unruly, monkeypatch):
    """Write a paper whose rows are unruly models of these modes and epochs; return its command line."""

    def written(tfd=False, **epochs_of_modes: int):
        monkeypatch.setattr(yardsticks, "ITERATIONS", 1)
        rows = []
        for mode, epochs in epochs_of_modes.items():
            more = f", tfd: {CELL % f'model=gan, dataset=tfd, batch_size={len(mode)}'}" if tfd else ""
            rows.append(f"      - {{name: {mode}, cells: {{digits: {CELL % (UNRULY % (epochs, mode))}{more}}}}}")
        (tmp_path / "conf/paper").mkdir(exist_ok=True)
        (tmp_path / "conf/paper/small.yaml").write_text(PAPER.format(rows="\n".join(rows)))
        return lambda *words: genexp("reproduce", *COMMAND, *words)

    return written


COMMAND = ("--config-dir", "conf", "paper=small", "data_dir=nothing")


def states(tmp_path) -> dict[str, str]:
    """The state of each job, by its name, as the closing table of the sweep tells."""
    (file,) = tmp_path.glob("outputs/sweeps/*/table.csv")
    return {row["job"]: row["state"] for row in csv.DictReader(file.open())}


@pytest.mark.slow
def test_a_job_that_is_killed_is_a_line_with_its_cause_and_the_others_run(small, tmp_path):
    answer = small(kill=3, none=3)("sweep.jobs=2")
    assert answer.code == 1
    assert states(tmp_path) == {"kill on digits, seed 0": "failed", "none on digits, seed 0": "finished"}
    assert "kill on digits, seed 0: killed by SIGKILL" in answer.err
    assert "not everything could be run; the same command runs only what is not finished" in answer.err
    assert "1 job of unknown length" in answer.out  # the trial was killed, too
    table = answer.out[answer.out.index("A small paper") :]
    assert [line for line in table.splitlines() if line.startswith(" none") and "3/3" in line]
    assert [line for line in table.splitlines() if line.startswith(" kill") and "3/3" not in line]

    again = small(kill=3, none=3)("sweep.jobs=2")
    assert again.code == 1
    assert "none on digits, seed 0  parzen" not in again.out  # it is not run again
    assert states(tmp_path)["none on digits, seed 0"] == "finished"


@pytest.mark.slow
def test_fail_fast_begins_nothing_where_a_job_cannot_be_run(small, tmp_path):
    reproduce = small(none=1)
    file = tmp_path / "conf/paper/small.yaml"
    other = f"      - {{name: large, cells: {{digits: {CELL % 'model=gan, dataset=digits, batch_size=5000'}}}}}\n"
    file.write_text(file.read_text().replace("    rows:\n", f"    rows:\n{other}", 1))
    answer = reproduce("sweep.fail_fast=true")
    assert answer.code == 1
    assert "large on digits, seed 0: batch_size=5000 is larger" in answer.err
    assert "set a smaller batch_size" in answer.err  # what to do, too
    assert "none on digits, seed 0: not begun" in answer.err
    assert not (tmp_path / "outputs/digits").exists()
    assert reproduce().code == 1
    assert states(tmp_path) == {"large on digits, seed 0": "failed", "none on digits, seed 0": "finished"}


@pytest.mark.usefixtures("genexp")
@pytest.mark.slow(15)
def test_interrupted_seeds_that_ran_beside_each_other_are_saved_and_the_same_command_goes_on(small, tmp_path):
    reproduce = small(slow=5)
    command = [sys.executable, "-m", "genexp", "reproduce", *COMMAND, "seeds=3", "sweep.jobs=2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 100
    while len({file.parent for file in tmp_path.glob("outputs/digits/*/checkpoints/*.pt")}) < 2:
        assert time.time() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    said = [json.loads(file.read_text()) for file in tmp_path.glob("outputs/digits/*/status.json")]
    assert [status["status"] for status in said] == ["running", "running"]  # at the same time
    assert len({status["pid"] for status in said}) == 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, out + err
    assert "the same command goes on" in err
    assert set(states(tmp_path).values()) == {"stopped"}
    for file in tmp_path.glob("outputs/digits/*/status.json"):
        assert json.loads(file.read_text())["status"] == "interrupted"
    answer = reproduce("seeds=3", "sweep.jobs=2")
    assert answer.code == 0, answer.err
    assert set(states(tmp_path).values()) == {"finished"}
    assert "(n = 3)" in answer.out
    sessions = [json.loads(file.read_text())["sessions"] for file in tmp_path.glob("outputs/digits/*/provenance.json")]
    assert sorted(len(each) for each in sessions) == [1, 2, 2]
    assert all(each[1]["from_step"] >= 11 for each in sessions if len(each) == 2)  # an epoch, at least


@pytest.mark.slow
def test_a_missing_data_set_that_is_given_on_request_is_told_once_and_is_no_failure(small, tmp_path):
    answer = small(tfd=True, none=1, quiet=1)("seeds=2", "dry_run=true")
    assert answer.code == 0, answer.err
    assert answer.out.count("skipped: TFD:") == 1
    assert sum(line.rstrip().endswith(" skipped") for line in answer.out.splitlines()) == 4  # a line for each job
    assert "for 4 jobs" in answer.out
    assert small(tfd=True, none=1)().code == 0
    assert states(tmp_path) == {"none on digits, seed 0": "finished"}


@pytest.mark.slow
def test_a_dry_run_shows_what_is_to_be_done_and_trains_nothing(small, tmp_path):
    reproduce = small(none=2, quiet=3)
    before = set(tmp_path.rglob("*"))
    answer = reproduce("seeds=2", "dry_run=true", "sweep.jobs=2")
    assert answer.code == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines() if " on digits " in line]
    assert sorted(line[:5] for line in lines) == [
        [mode, "on", "digits", seed, epochs] for mode, epochs in (("none", "0/2"), ("quiet", "0/3")) for seed in "01"
    ]
    assert "for 4 jobs, 2 at once" in answer.out
    assert "A small paper" not in answer.out
    assert {file for file in set(tmp_path.rglob("*")) - before if "__pycache__" not in file.parts} == set()
    assert reproduce().code == 0
    small(none=4, quiet=3)
    (line,) = [line for line in reproduce("dry_run=true").out.splitlines() if line.startswith(" none on digits")]
    assert line.split()[3:5] == ["0", "2/4"]


@pytest.mark.slow
def test_a_further_score_that_cannot_be_taken_is_told_before_training(small, tmp_path):
    reproduce = small(none=1)
    file = tmp_path / "conf/paper/small.yaml"
    file.write_text(file.read_text().replace("[parzen, fid, precision]", "[parzen, kid]"))
    answer = reproduce("table=scores", "dry_run=true")
    assert answer.code == 1
    assert "VAE, seed 0: metrics.kid: subset_size=1000" in answer.err


@pytest.mark.slow
def test_settings_of_a_sweep_that_reproduce_has_not(genexp):
    answer = genexp("reproduce", "sweep.rank_by=fid")
    assert answer.code == 2
    assert "sweep.rank_by" in answer.err


@pytest.mark.usefixtures("genexp")
@pytest.mark.slow
def test_further_scores_are_part_of_the_job(small, tmp_path):
    reproduce = small(none=1)
    assert reproduce("table=scores").code == 0
    (file,) = tmp_path.glob("outputs/digits/*/results.json")
    content = json.loads(file.read_text())
    assert {each["metric"] for each in content["evaluations"].values()} >= {"parzen", "fid", "precision"}
    fid = next(key for key in content["evaluations"] if key.startswith("fid"))
    assert " run=outputs/digits/vae-" in content["evaluations"][fid]["provenance"]["command"]
    assert "nothing is left to be run" in reproduce("table=scores", "dry_run=true").out

    wanted = content["evaluations"].pop(fid)
    file.write_text(json.dumps(content))
    trained = content["steps"], content["train_seconds"]
    answer = reproduce("table=scores")
    assert "VAE, seed 0" in answer.out
    content = json.loads(file.read_text())
    assert content["evaluations"][fid]["score"] == wanted["score"]
    assert (content["steps"], content["train_seconds"]) == trained


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs hydra-submitit-launcher")
@pytest.mark.usefixtures("genexp")
@pytest.mark.slow(15)
def test_jobs_are_given_to_another_launcher(small, tmp_path):
    small(none=2)
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    command = [sys.executable, "-m", "genexp", "reproduce", *COMMAND, "table=scores", *launcher]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path) == {"VAE, seed 0": "finished"}
    for file in tmp_path.glob("outputs/digits/*/results.json"):
        assert {each["metric"] for each in json.loads(file.read_text())["evaluations"].values()} >= {"fid", "precision"}


@pytest.mark.usefixtures("genexp")
@pytest.mark.parametrize(
    "words",
    [
        ("model=vae", "epochs=20"),
        ("model=stacked_dae", "model.hidden=[300,300,300]", "model.pretrain_epochs=8", "epochs=8"),
    ],
)
@pytest.mark.slow(10)
def test_the_estimate_is_near_the_time_that_training_takes(genexp, words):
    """Within a factor of 3, before anything ran, and from the run's own log when it goes on."""
    words = ("dataset=digits", "device.threads=1", "metrics.parzen.n_samples=100", *words)
    line = CommandLine("train", words)
    job = Job.of(line, config_of(*words))
    ending = try_out([job], 1)[job]
    assert ending.error is None
    before = estimate(job, [job], ending)
    started = time.perf_counter()
    assert genexp("train", *words).code == 0
    assert time.perf_counter() - started > before.seconds / 3
    lines = read_metrics(job.run.path)
    took = (lines[-1]["time"] - lines[0]["time"]) * lines[-1]["step"] / (lines[-1]["step"] - lines[0]["step"])
    assert took / 3 < before.seconds < took * 3
    assert before.epochs == lines[-1]["epoch"]

    longer = (*words[:-1], f"epochs={job.config.epochs + 10}")
    job = Job.of(CommandLine("train", longer), config_of(*longer))
    after = estimate(job, [job], try_out([job], 1)[job])
    assert (after.done, after.epochs) == (before.epochs, before.epochs + 10)
    assert after.scoring is not None
    started = time.perf_counter()
    assert genexp("train", *longer).code == 0
    assert after.seconds / 3 < time.perf_counter() - started
    new = [line for line in read_metrics(job.run.path) if line["step"] >= lines[-1]["step"]][1:]
    took = (new[-1]["time"] - new[0]["time"]) * 10 / 9
    assert took / 3 < after.seconds < took * 3
    assert Job.of(CommandLine("train", longer), config_of(*longer)).state == FINISHED


def run_with(tmp_path, sessions, lines, status) -> Run:
    (tmp_path / "provenance.json").write_text(json.dumps({"sessions": [{"from_step": step} for step in sessions]}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "status.json").write_text(json.dumps(status))
    return Run(tmp_path)


def test_a_log_tells_the_pace_of_each_stage_without_the_time_between_sessions(tmp_path):
    lines = [{"step": step, "time": seconds, "stage": stage} for step, seconds, stage in [
        (10, 100.0, "one"), (20, 105.0, "one"), (30, 1000.0, "one"), (40, 1005.0, "one"),  # a night's rest after 20
        (50, 1008.0, "two"), (60, 1028.0, "two"),
    ]]  # fmt: skip
    run = run_with(tmp_path, [0, 20], lines, {"status": "interrupted", "step": 60})
    assert logged_seconds(run) == {"one": 0.5, "two": 2.0}
    stages = [StagePace("one", 4, 40, 9.0), StagePace("two", 3, 30, 9.0), StagePace("three", 5, 100, 0.25)]
    assert seconds_left(run, stages) == 10 * 2.0 + 100 * 0.25
    assert epochs_done(run, stages) == 6
    assert scoring_seconds(run) is None
    updated = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(1100))
    run = run_with(tmp_path, [0, 20], lines, {"status": "finished", "step": 60, "updated": updated})
    assert scoring_seconds(run) == 1100 - 1028
    run = run_with(tmp_path, [0, 60], lines, {"status": "finished", "step": 60, "updated": updated})
    assert scoring_seconds(run) is None  # it was scored in another session than it was trained


@pytest.mark.parametrize(("n", "hours"), [(1, 11), (2, 6), (3, 5), (9, 5)])
def test_jobs_at_once_take_as_long_as_the_slot_that_is_busy_longest(n, hours):
    assert together([5, 3, 2, 1], n) == hours
    assert together([], n) == 0


@pytest.mark.slow
def test_the_process_of_a_trial_is_gone_afterwards_and_wrote_nothing(genexp, tmp_path):
    words = ("model=vae", "dataset=digits", "epochs=2")
    job = Job.of(CommandLine("train", words), config_of(*words))
    (ending,) = try_out([job], 2).values()
    assert [stage.epochs for stage in ending.answer] == [2]
    assert not (tmp_path / "outputs").exists()
    assert not list(tmp_path.iterdir())
