"""The index of listings: what it saves, and that it never tells what a file does not say any more."""

import json
import os
import shutil

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from genexp.config import kept
from genexp.runs import find as finding
from genexp.runs.find import find

KEPT = ROOT / "tests/kept/vae-adam-seed0-88c605f2"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "outputs"
    for seed in range(3):
        run = folder / f"digits/vae-adam-seed{seed}-0000000{seed}"
        shutil.copytree(KEPT, run)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("seed: 0", f"seed: {seed}", 1))
    return folder


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, beside the index and the status."""
    files = []

    def noting(read):
        return lambda file: (files.append(file.name), read(file))[1]

    for name in ("read_yaml", "_results", "_log"):
        monkeypatch.setattr(finding, name, noting(getattr(finding, name)))
    return files


def told(folder):
    """What listings tell of the runs."""
    return [
        (str(state.run.path), state.config, state.results, state.progress, state.newest_score())
        for state in find(folder)
    ]


def test_files_that_did_not_change_are_read_once(runs, reads):
    first = told(runs)
    assert sorted(set(reads)) == ["config.yaml", "metrics.jsonl", "results.json"]
    assert len(reads) == 9
    reads.clear()
    assert told(runs) == first
    assert reads == []


def test_a_file_that_changed_is_read_again(runs, reads):
    told(runs)
    reads.clear()
    run = sorted(runs.glob("digits/*"))[1]
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 999, "epoch": 9, "score/parzen": -3.5}) + "\n")
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"epochs": 2', '"epochs": 7', 1))
    time = (run / "config.yaml").stat().st_mtime_ns
    text = (run / "config.yaml").read_text()
    (run / "new").write_text(text.replace("seed: 1", "seed: 5", 1))  # as long as the old one
    (run / "new").rename(run / "config.yaml")
    os.utime(run / "config.yaml", ns=(time, time))  # and as old
    state = find(runs)[1]
    assert sorted(reads) == ["config.yaml", "metrics.jsonl", "results.json"]
    assert (state.config.seed, state.results.epochs, state.epoch) == (5, 7, 9)
    assert state.newest_score().score.mean == -3.5


def test_a_run_that_is_new_or_gone_is_seen(runs):
    told(runs)
    shutil.copytree(KEPT, runs / "digits/vae-adam-seed9-00000009")
    shutil.rmtree(sorted(runs.glob("digits/*"))[0])
    assert [state.run.path.name[-1] for state in find(runs)] == ["1", "2", "9"]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff{", b'{"file": 3}\n[1]\n{"file": "x"}\n{"file": [1], "stamp": 0, "content": 0}\n']
)
def test_a_damaged_index_is_of_no_consequence(runs, content, tmp_path):
    first = told(runs)
    (index,) = (tmp_path / "cache/runs").iterdir()
    whole = index.read_bytes()
    for damaged in (content, whole[: len(whole) // 2] + content, whole[len(whole) // 2 :]):
        index.write_bytes(damaged)
        assert told(runs) == first


def test_no_place_for_an_index_costs_time_only(runs, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "file"))
    assert len(told(runs)) == 3


def test_the_index_does_not_grow_without_end(runs, tmp_path):
    told(runs)
    (index,) = (tmp_path / "cache/runs").iterdir()
    for n in range(130):
        with (runs / "digits/vae-adam-seed0-00000000/metrics.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": n + 100, "epoch": 3}) + "\n")
        find(runs)
    assert len(index.read_text().splitlines()) < 250
    assert len(told(runs)) == 3


def test_damaged_runs_are_listed_as_before(runs, genexp):
    one, other, _ = sorted(runs.glob("digits/*"))
    (one / "config.yaml").write_text("a: [")
    (other / "config.yaml").write_text("name: x")
    for _ in range(2):
        lines = genexp("runs").out.splitlines()
        assert sum(" ? " in line for line in lines) == 2


WORDS = """1e-3 1.0e-08 1e3 1.5e3 .5 -.5 1. 1_000 0x1f 010 2026-01-01 12:30:45 yes no on null ~ .inf -.inf 1.e5 .5e+3
.5e3 +1e5 1e 1.2.3 1.2e5 -2e-4 'a' True false e5 _1 [1,2e3] ${x} '1e-3' '-'"""


def test_yaml_is_read_as_omegaconf_reads_it(tmp_path):
    file = tmp_path / "a.yaml"
    for word in WORDS.split():
        file.write_text(f"a: {word}\nb:\n  c: {word}\n")
        content = OmegaConf.to_container(OmegaConf.load(file))
        assert repr(kept.read_yaml(file)) == repr(content), word
    content = OmegaConf.to_container(OmegaConf.load(KEPT / "config.yaml"))
    assert kept.read_yaml(KEPT / "config.yaml") == content
