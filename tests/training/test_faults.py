"""Training processes of every model, killed at random instants; power cuts; disks that are full."""

import json
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import power
import pytest
from conftest import SMALL, assert_same_state, last_checkpoint
from faults import RUNS, Trial, same
from forked import Forked

from examples import MODELS
from genexp.storage.checkpoint import load
from genexp.training.session import Session

KILLS = 3  # of each model


def test_every_model_is_killed_here():
    assert set(RUNS) == set(MODELS)


@pytest.mark.parametrize("model", RUNS)
@pytest.mark.slow(10)
def test_killed_at_random_instants_a_run_ends_as_if_nobody_had_touched_it(tmp_path, model):
    seed = time.time_ns() % 10**6  # another one each time: what holds holds at any instant
    print(f"seed {seed}")
    assert Trial(tmp_path).compare(model, KILLS, random.Random(seed)) >= KILLS


@pytest.mark.slow(25)
def test_after_a_power_cut_at_any_instant_a_run_ends_as_if_nobody_had_touched_it(tmp_path):
    if not power.can_trace():
        pytest.skip("no strace here, or no right to trace")
    seed = time.time_ns() % 10**6
    print(f"seed {seed}")
    assert power.cut_and_go_on(tmp_path, 6, random.Random(seed)) > 0


def test_the_disk_of_the_power_cuts_keeps_what_was_synced_and_loses_the_rest(tmp_path):
    """Else every cut would be survived."""
    if not power.can_trace():
        pytest.skip("no strace here, or no right to trace")
    program = """
import os
for name, synced in (("sure", True), ("lost", False)):
    os.mkdir(name)
    with open(f"{name}/new.partial", "wb") as stream:
        stream.write(b"content")
        if synced:
            stream.flush()
            os.fsync(stream.fileno())
    os.rename(f"{name}/new.partial", f"{name}/new")
    for place in (name, ".") if synced else ():
        descriptor = os.open(place, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
"""
    (tmp_path / "disk").mkdir()
    disk = power.Disk(tmp_path / "disk")
    for call in power.trace(tmp_path / "disk", [sys.executable, "-c", program]):
        disk.call(call)
    disk.kill(tmp_path / "killed")
    assert (tmp_path / "killed/lost/new").read_bytes() == b"content"
    left = set()
    for seed in range(60):
        disk.cut(random.Random(seed), cut := tmp_path / f"cut-{seed}")
        assert (cut / "sure/new").read_bytes() == b"content"
        left |= {(str(file.relative_to(cut)), file.read_bytes()) for file in cut.rglob("new*")}
        left |= {("none", b"")} if not (cut / "lost").exists() else set()
    assert {("none", b""), ("lost/new", b""), ("lost/new", b"content"), ("lost/new.partial", b"")} <= left
    assert any(b"" < content < b"content" for _, content in left)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, and what changes the size of that; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str, *options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", str(folder)]
        return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0

    if not mount("1m"):
        pytest.skip("no right to mount a small disk here; test_train has a limited file size instead")
    yield folder, lambda size: mount(size, "remount")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("size", ["40k", "100k", "240k", "400k", "560k"])
@pytest.mark.slow
def test_a_disk_that_is_full_costs_nothing_that_was_kept(genexp, finished, small_disk, size):
    """At whatever moment it is full: at the beginning, in a log line, an event file, a picture or a checkpoint."""
    often = ["log.every_steps=1", "log.samples_every_epochs=1", "log.scores_every_epochs=2"]
    words = ["train", *SMALL, "epochs=20", *often]
    whole = finished(*words[1:])
    folder, resize = small_disk
    assert resize(size)
    full = genexp(*words, f"outputs_dir={folder}/outputs")
    assert full.code == 1
    assert "cannot be written: No space left on device" in full.err
    assert "Traceback" not in full.err + full.out
    kept = sorted(folder.glob("outputs/digits/*/checkpoints/step-*.pt"))
    steps = [load(file)["step"] for file in kept]
    if kept:
        assert f"{kept[-1]} is intact" in full.err
    assert not list(folder.rglob("*.partial"))
    assert genexp(*words, f"outputs_dir={folder}/outputs").code == 1  # still full, still nothing lost
    assert sorted(folder.glob("outputs/digits/*/checkpoints/step-*.pt")) == kept
    assert resize("100m")
    mended = genexp(*words, f"outputs_dir={folder}/outputs")
    assert mended.code == 0, mended.err
    assert (f"going on from epoch {steps[-1] / 11:.4g}" if steps else "started") in mended.out
    same(whole.run, mended.run)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_by_its_digest_and_passed_over(genexp):
    """One bit of the weights, which torch itself would not notice."""
    whole = genexp("train", *SMALL, "epochs=3", "outputs_dir=whole")
    first = genexp("train", *SMALL, "epochs=2")
    newest = max((first.run / "checkpoints").glob("step-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    answer = genexp("train", *SMALL, "epochs=3")
    assert answer.code == 0
    assert f"{newest} is damaged or cannot be read (its digest is not that of its content)" in answer.out
    assert "going on from epoch 1:" in answer.out
    assert_same_state(last_checkpoint(answer.run), last_checkpoint(whole.run))


@pytest.mark.slow
def test_a_dead_holders_lock_is_taken_over_and_a_living_ones_names_it(genexp, tmp_path):
    holder = Forked(tmp_path, "train", *SMALL, "epochs=100000")
    while not list(tmp_path.glob("outputs/digits/*/checkpoints/*.pt")):
        assert holder.poll() is None
        time.sleep(0.05)
    answer = genexp("train", *SMALL, "epochs=100000")
    assert answer.code == 1
    assert f"process {holder.pid} on {platform.node()}" in answer.err
    assert "genexp train dataset=digits" in answer.err
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    (run,) = tmp_path.glob("outputs/digits/*")
    step = max(json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()[:-1])
    after = genexp("train", *SMALL, f"epochs={step // 11 + 2}")
    assert after.code == 0
    assert "going on from epoch" in after.out


def tell_of_scoring():
    score = Session._score
    Session._score = lambda self: (Path("scoring").touch(), score(self))[1]


@pytest.mark.slow(8)
def test_a_second_signal_ends_at_once(tmp_path):
    """While the first one waits for a score to be taken, on samples of a chain that has a long way to go."""
    words = ["model=dae", "dataset=digits", "model.latent_dim=16", "model.burn_in=10000000", "epochs=2"]
    words += ["log.scores_every_epochs=1", "log.every_steps=1"]
    process = Forked(tmp_path, "train", *words, before=tell_of_scoring)
    while not (tmp_path / "scoring").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert "interrupted" in process.err
    assert time.monotonic() - begun < 10
