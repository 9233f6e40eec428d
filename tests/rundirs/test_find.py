"""Listings of runs: what they tell, and how little they parse for it."""

import json
import shutil

import pytest
import yaml
from conftest import ROOT
from omegaconf import OmegaConf

from genexp.config import kept
from genexp.rundirs.find import find

KEPT = ROOT / "tests/kept/vae-adam-seed0-88c605f2"


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "outputs"
    for seed in range(3):
        run = folder / f"digits/vae-adam-seed{seed}-0000000{seed}"
        shutil.copytree(KEPT, run)
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("seed: 0", f"seed: {seed}", 1))
    return folder


def test_settings_that_runs_have_in_common_are_parsed_once(runs, monkeypatch):
    parsed = []
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, loader: (parsed.append(text), load(text, loader))[1])
    kept._parsed.cache_clear()
    assert [state.config.seed for state in find(runs)] == [0, 1, 2]
    assert parsed.count("seed: 1\n") == 1
    assert len(parsed) == len(set(parsed)) == 2 + len(load((KEPT / "config.yaml").read_text(), kept.Loader))


def test_a_file_that_changed_is_told_as_it_is(runs):
    find(runs)
    run = sorted(runs.glob("digits/*"))[1]
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 999, "epoch": 9, "score/parzen": -3.5}) + "\n")
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"epochs": 2', '"epochs": 7', 1))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("seed: 1", "seed: 5", 1))
    state = find(runs)[1]
    assert (state.config.seed, state.results.epochs, state.epoch) == (5, 7, 9)
    assert state.newest_score().score.mean == -3.5


LOG = [
    b'{"step": 1, "epoch": 1, "score/parzen": -5.5, "note": "score/fid"}',
    b'{"step": 2, "epoch": 2, "score/parzen": null}',
    b'{"step": 3, "epoch": 3, "loss": {"epoch": 99, "score/parzen": 1.5}, "text": "\\"score/x\\": 2"}',
    b'{"step": 4, "epochs": 5, "about": ["epoch", "score/parzen"]}',
    b'{"step": 5, "epoch": 6, "score/parz',
    b'["epoch", "score/parzen"]',
    b'"score/parzen"',
    b"\xff\x00",
]


@pytest.mark.parametrize("whole", range(len(LOG) + 1))
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_the_newest_lines_of_a_log_are_found_from_its_end(runs, whole, end):
    state = next(run for run in runs.glob("digits/*") if "seed0" in run.name)
    (state / "results.json").unlink()
    (state / "status.json").write_text("{}")
    (state / "metrics.jsonl").write_bytes(b"\n".join(LOG[:whole]) + end)
    told = find(runs)[0]
    assert told.epoch == min(whole, 3)
    score = told.newest_score()
    assert (score and (score.name, score.score.mean, score.epoch)) == (("parzen", -5.5, 1) if whole else None)


def test_a_run_that_is_new_or_gone_is_seen(runs):
    find(runs)
    shutil.copytree(KEPT, runs / "digits/vae-adam-seed9-00000009")
    shutil.rmtree(sorted(runs.glob("digits/*"))[0])
    assert [state.run.path.name[-1] for state in find(runs)] == ["1", "2", "9"]


def test_damaged_runs_are_listed_as_before(runs, genexp):
    one, other, _ = sorted(runs.glob("digits/*"))
    (one / "config.yaml").write_text("a: [")
    (other / "config.yaml").write_text("name: x")
    for _ in range(2):
        lines = genexp("runs").out.splitlines()
        assert sum(" ? " in line for line in lines) == 2


WORDS = """1e-3 1.0e-08 1e3 1.5e3 .5 -.5 1. 1_000 0x1f 010 2026-01-01 12:30:45 yes no on null ~ .inf -.inf 1.e5 .5e+3
.5e3 +1e5 1e 1.2.3 1.2e5 -2e-4 'a' True false e5 _1 [1,2e3] ${x} '1e-3' '-'"""


DOCUMENTS = """a: 1

# of b
b: 2
---
a: &x [1, 2]
b: *x
---
a: [1,
b, c]
d: 2
---
a: "x

  y"
b: |
  c: 1

  d: 2

c: x
  y
---
a:
- 1
- b: 2
"e": 3
? f
: 4
---
a: {b: 1,
  c: 2}
a: 3
---
a: 1
b
---
"""


def test_yaml_is_read_as_omegaconf_reads_it():
    for word in WORDS.split():
        text = f"a: {word}\nb:\n  c: {word}\n"
        assert repr(kept._content(text)) == repr(OmegaConf.to_container(OmegaConf.create(text))), word
    text = (KEPT / "config.yaml").read_text()
    assert kept._content(text) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize("text", DOCUMENTS.split("---\n"))
def test_a_document_is_read_as_a_whole_where_its_settings_cannot_stand_alone(text):
    try:
        expected = yaml.load(text, kept.Loader)
    except yaml.YAMLError as error:
        with pytest.raises(type(error)):
            kept._content(text)
    else:
        assert (kept._content(text) or None) == expected
