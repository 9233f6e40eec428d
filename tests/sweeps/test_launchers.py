"""Sweeps on other launchers: submitit's processes here, Slurm and Ray where they are installed and answer.

Each sweep is a command of its own, as from a shell: Ray and submitit leave threads and globals behind.
"""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from examples import UNRULY
from genexp.rundirs.directory import Run
from genexp.sweeps import elsewhere
from genexp.sweeps.jobs import FAILED, WAITING, Job

SWEEP = [
    *("train", "-m", "--config-dir", "conf", "model=unruly", "dataset=digits", "epochs=3", "optimizer=adam"),
    "metrics.parzen.n_samples=100",
]
SLURM = [
    *("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"),
    "hydra.launcher.timeout_min=10",
]
RAY = ["hydra/launcher=ray_jobs", "hydra.launcher.ray.init.num_cpus=2"]
LOCAL = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
STARTED = "checkpoints/*.pt"

submitit = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs hydra-submitit-launcher")


@pytest.fixture
def slurm():
    """A Slurm that answers, with accounting: without it, submitit waits for ever for a job that was killed."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("needs hydra-submitit-launcher")
    for words in (["sinfo", "-h"], ["sacct", "-n"]):
        try:
            subprocess.run(words, capture_output=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("no Slurm with accounting answers here")


@pytest.fixture
def ray():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs hydra-ray-launcher")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where a user brings a model that misbehaves as it is told."""
    (tmp_path / "unruly.py").write_text(UNRULY)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf/model/unruly.yaml").write_text("name: unruly\n_target_: unruly.Unruly\nmode: none\nat: 20\n")
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen:
    """The sweep, begun."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["GENEXP_CACHE_DIR"] = str(folder / "cache")
    environment.pop("OMP_NUM_THREADS", None)  # which Ray would not set anew
    command = [sys.executable, "-m", "genexp", *SWEEP, *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, _ = process.communicate(timeout=150)
    return process.returncode, out


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> Path:
    """The first file of the runs that is there, once one is."""
    deadline = time.time() + 60
    while not (found := sorted(folder.glob(f"outputs/digits/{pattern}"))):
        assert time.time() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return found[0]


def table(folder: Path, key: str) -> dict[str, dict[str, str]]:
    """The rows of the newest table, by the value of a setting."""
    file = max(folder.glob("outputs/sweeps/*/table.csv"), key=lambda file: file.stat().st_mtime_ns)
    return {row[key]: row for row in csv.DictReader(file.open())}


def states(folder: Path, key: str) -> dict[str, str]:
    return {value: row["state"] for value, row in table(folder, key).items()}


def check_what_becomes_of_each(folder: Path, launcher: list[str], modes: str) -> None:
    """Jobs that die do not touch the others, say why, and are all that the same command runs again."""
    code, out = finish(start(folder, *launcher, f"model.mode={modes}"))
    assert code == 1, out
    rows = table(folder, "model.mode")
    assert states(folder, "model.mode") == {m: "finished" if m in ("none", "quiet") else "failed" for m in rows}
    assert f"of {len(rows)} jobs {len(rows) - 1} failed" in out
    causes = {"kill": "killed by SIGKILL", "raise": "RuntimeError: a mistake in the model", "exit": "SystemExit: 0"}
    for mode, row in rows.items():
        assert row["cause"].startswith(causes.get(mode, "")), row
        said = json.loads((folder / row["run"] / "status.json").read_text())
        assert said["status"] == row["state"]
        assert f"--config-dir {folder / 'conf'}" in said["command"]
        (log,) = folder.glob(f"outputs/sweeps/*/logs/{row['run'].rpartition('/')[2]}.txt")
        assert f"model.mode={mode}" in log.read_text()
    results = folder / rows["none"]["run"] / "results.json"
    before = results.stat().st_mtime_ns
    code, out = finish(start(folder, *launcher, "model.mode=none,quiet"))
    assert code == 0, out
    assert "finished already: 1 of 2 jobs" in out
    assert results.stat().st_mtime_ns == before


def threads(run: Path) -> int:
    return json.loads((run / "provenance.json").read_text())["sessions"][-1]["threads"]


@submitit
@pytest.mark.slow(12)
def test_processes_of_submitit(folder):
    check_what_becomes_of_each(folder, LOCAL, "kill,none")


@submitit
@pytest.mark.slow
def test_a_launcher_that_refuses_fails_all_jobs(genexp, monkeypatch, folder):
    """Slurm's commands are not here; what an earlier command said of the runs is not taken for news."""
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *more, **options: found(name) if name != "srun" else None)
    for _ in range(2):
        answer = genexp(*SWEEP, *SLURM, "seed=0,1")
        assert answer.code == 1
        assert "of 2 jobs 2 failed" in answer.err
        assert set(states(folder, "seed").values()) == {"failed"}
        assert "the launcher said: RuntimeError: Could not detect" in table(folder, "seed")["0"]["cause"]


@pytest.mark.parametrize(("launcher", "option", "package"), [
    ("slurm", "submitit_slurm", "hydra-submitit-launcher"),
    ("ray_jobs", "ray", "hydra-ray-launcher"),
])  # fmt: skip
def test_without_its_plugin_a_launcher_is_named_with_the_remedy(genexp, monkeypatch, launcher, option, package):
    Plugins.instance()  # which finds the plugins that are installed
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{option}.yaml", raising=False)
    answer = genexp("train", "-m", "dataset=digits", "seed=0,1", f"hydra/launcher={launcher}")
    assert answer.code == 2
    extra = {"slurm": "slurm", "ray_jobs": "ray"}[launcher]
    assert f'needs {package}, which is not installed here\npip install "genexp[{extra}]"' in answer.err
    assert genexp("train", "--cfg", "job", "dataset=digits").code == 0  # and all else works


@submitit
def test_a_setting_of_the_launcher_that_does_not_exist(genexp):
    answer = genexp("train", "-m", "seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partion=gpu")
    assert answer.code == 2
    assert "genexp train hydra/launcher=slurm --cfg hydra" in answer.err


def test_a_run_that_another_process_holds_waits_for_another_turn(monkeypatch, tmp_path):
    held = [True, True, False]
    monkeypatch.setattr(Run, "is_held", lambda run: run.path.name == "b" and bool(held) and held.pop(0))
    monkeypatch.setattr(elsewhere, "LOOK", 0.0)
    jobs = [Job((f"epochs={n}",), Run(tmp_path / name)) for n, name in ((1, "a"), (2, "b"), (3, "c"))]
    turns = []

    def hand_over(turn, line, folder):
        turns.append([job.settings[0] for job in turn])
        for job in turn:
            job.state = FAILED

    monkeypatch.setattr(elsewhere, "_hand_over", hand_over)
    elsewhere.run_elsewhere(jobs, None, tmp_path)
    assert turns == [["epochs=1", "epochs=3"], ["epochs=2"]]
    assert all(job.state != WAITING for job in jobs)


def test_what_launchers_say_fits_in_a_line():
    lost = "Job 7_0 (task: 0) with path /a/b.pkl\nhas not produced any output (state: CANCELLED by 0)\nError"
    assert elsewhere._in_a_line(RuntimeError(lost)) == "the launcher's process was lost (CANCELLED by 0)"
    trace = "Job (task=0) failed during processing with trace:\n------\nTraceback (most recent):\nKeyError: 'x'\n"
    assert elsewhere._in_a_line(RuntimeError(trace)) == "the launcher said: RuntimeError: KeyError: 'x'"
    assert elsewhere._in_a_line(ValueError()) == "the launcher said: ValueError"


@pytest.mark.usefixtures("slurm")
def test_slurm(folder):
    check_what_becomes_of_each(folder, SLURM, "kill,raise,exit,none")
    for run in folder.glob("outputs/digits/*"):
        assert threads(run) == 1
    assert list(folder.glob("outputs/.slurm/*/*_submission.sh"))


@pytest.mark.usefixtures("slurm")
def test_a_job_that_is_cancelled_in_slurm_is_saved_and_goes_on(folder):
    words = [*SLURM, "model.mode=slow", "epochs=6", "seed=0,1"]
    process = start(folder, *words)
    wait_for(folder, f"*-seed0-*/{STARTED}", process)
    (submitted,) = folder.glob("outputs/.slurm/*/*_submission.sh")
    subprocess.run(["scancel", f"{submitted.parent.name}_0"], check=True)
    code, out = finish(process)
    assert code == 1, out
    assert states(folder, "seed") == {"0": "stopped", "1": "finished"}
    assert table(folder, "seed")["0"]["cause"].startswith("interrupted at step")
    code, out = finish(start(folder, *words))
    assert code == 0, out
    assert "finished already: 1 of 2 jobs" in out


@pytest.mark.usefixtures("slurm")
def test_a_job_whose_time_in_slurm_is_nearly_up_is_saved(folder):
    time_is_short = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=45"]
    code, out = finish(start(folder, *SLURM, *time_is_short, "model.mode=slow", "epochs=900", "seed=0"))
    assert code == 1, out
    assert "interrupted at step" in out
    (status,) = folder.glob("outputs/digits/*/status.json")
    step = json.loads(status.read_text())["step"]
    assert (status.parent / f"checkpoints/step-{step:09}.pt").exists()


@pytest.mark.usefixtures("slurm")
def test_interrupting_the_command_leaves_the_jobs_to_slurm_and_the_same_command_waits_for_them(folder):
    words = [*SLURM, "model.mode=slow", "epochs=12", "seed=0"]
    process = start(folder, *words)
    wait_for(folder, f"*/{STARTED}", process)
    process.send_signal(signal.SIGINT)
    code, out = finish(process)
    assert code == 130, out
    assert "it still runs" in " ".join(out.split())
    assert "scancel" in out
    code, out = finish(start(folder, *words))
    assert code == 0, out
    (provenance,) = folder.glob("outputs/digits/*/provenance.json")
    assert len(json.loads(provenance.read_text())["sessions"]) == 1  # nobody began it again


@pytest.mark.usefixtures("slurm")
def test_a_partition_that_does_not_exist(folder):
    code, out = finish(start(folder, *SLURM, "hydra.launcher.partition=nowhere", "seed=0,1"))
    assert code == 1, out
    assert "invalid partition" in table(folder, "seed")["0"]["cause"]


@pytest.mark.usefixtures("slurm")
def test_settings_of_the_launcher_beside_a_sweep_over_choices(folder):
    """What is not swept is checked in each job, and what is the launcher's is not of the jobs."""
    code, out = finish(start(folder, *SLURM, "optimizer=adam,sgd", "optimizer.lr=0.01"))
    assert code == 0, out
    assert states(folder, "optimizer") == {"adam": "finished", "sgd": "finished"}


@pytest.mark.usefixtures("ray")
def test_ray(folder):
    check_what_becomes_of_each(folder, [*RAY, "hydra.launcher.ray.remote.num_cpus=2"], "kill,raise,none")
    for run in folder.glob("outputs/digits/*"):
        assert threads(run) == 2


@pytest.mark.usefixtures("ray")
def test_a_worker_of_ray_that_is_killed_costs_no_other_job(folder):
    process = start(folder, *RAY, "model.mode=slow", "epochs=8", "seed=0,1,2")
    status = wait_for(folder, f"*-seed0-*/{STARTED}", process).parent.parent / "status.json"
    training = json.loads(status.read_text())["pid"]
    worker = training
    while "_run_job" not in Path(f"/proc/{worker}/cmdline").read_text():
        worker = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    code, out = finish(process)
    assert code == 1, out
    assert states(folder, "seed") == {"0": "stopped", "1": "finished", "2": "finished"}


@pytest.mark.usefixtures("ray")
def test_interrupting_the_command_has_a_ray_of_our_own_save_and_stop(folder):
    process = start(folder, *RAY, "model.mode=slow", "epochs=900", "seed=0,1")
    training = json.loads((wait_for(folder, f"*/{STARTED}", process).parent.parent / "status.json").read_text())["pid"]
    process.send_signal(signal.SIGINT)
    code, out = finish(process)
    assert code == 130, out
    deadline = time.time() + 30
    while Path(f"/proc/{training}").exists() and time.time() < deadline:
        time.sleep(0.1)
    for file in folder.glob("outputs/digits/*/status.json"):
        assert json.loads(file.read_text())["status"] == "interrupted"
