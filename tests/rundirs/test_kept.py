"""A run and an export of genexp 0.1.0 open, score, sample and go on, and the same command finds the run."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, last_checkpoint, read_metrics, without_times
from images import unscaled
from PIL import Image

from genexp.rundirs.directory import Run

NAME = "vae-adam-seed0-88c605f2"
COMMAND = [
    *("train", "model=vae", "dataset=digits", "model.hidden=[8]", "model.latent_dim=2", "device=cpu"),
    *(
        "metrics.parzen.n_samples=200",
        "metrics.iwae.n_samples=5",
        "metric@metrics.fid=fid",
        "metrics.fid.n_samples=200",
    ),
    *("log.scores_every_epochs=1", "device.threads=1"),
]


@pytest.fixture
def kept(tmp_path):
    """The kept run, in the place where its command looks for it."""
    place = tmp_path / "outputs" / "digits" / NAME
    shutil.copytree(ROOT / "tests" / "kept" / NAME, place)
    return place


@pytest.fixture
def export(tmp_path):
    shutil.copytree(ROOT / "tests" / "kept" / "export", tmp_path / "export")
    return tmp_path / "export"


def test_the_same_command_finds_the_run_and_reports_it(genexp, kept):
    before = {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    answer = genexp(*COMMAND, "epochs=2")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("already finished, 2 epochs;")
    assert "parzen: -7.6 ± 0.4 nats" in answer.out
    assert answer.run.name == NAME
    assert {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_the_run_goes_on_to_where_an_uninterrupted_one_ends(genexp, kept):
    answer = genexp(*COMMAND, "epochs=4", "~metrics.fid")
    assert answer.code == 0, answer.err
    assert "going on from epoch 2" in answer.out
    whole = genexp(*COMMAND, "epochs=4", "~metrics.fid", "outputs_dir=whole")
    for name, value in last_checkpoint(whole.run)["model"].items():  # other processors may round differently
        torch.testing.assert_close(last_checkpoint(kept)["model"][name], value, rtol=1e-3, atol=1e-5)
    assert [line["step"] for line in read_metrics(kept)] == [line["step"] for line in read_metrics(whole.run)]
    epochs = [evaluation.epoch for evaluation in Run(kept).evaluations().values()]
    assert sorted(set(epochs)) == [2, 4]  # the old scores stay


def test_its_scores_are_known_with_the_way_that_is_better(genexp, kept):
    scores = Run(kept).finished(Run(kept).config).scores
    assert {name: score.lower_is_better for name, score in scores.items()} == {
        "parzen": False,
        "fid": True,
        "elbo": False,
        "iwae": False,
    }
    evaluations = Run(kept).evaluations()
    assert sorted(evaluation.score.n_samples for evaluation in evaluations.values()) == [1, 5, 100, 200, 200]
    assert "parzen -7.6 ± 0.4" in genexp("runs").out


def test_a_score_that_was_taken_is_not_taken_again_and_a_new_one_is_added(genexp, kept):
    words = ["evaluate", str(kept), "metrics.parzen.n_samples=100", "~metrics.fid"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert answer.out.count("scored before") == 3
    assert genexp(*words, "seed=1").out.count("scored before") == 0
    content = json.loads((kept / "results.json").read_text())
    assert len(content["evaluations"]) == 8
    at_the_end = [entry["score"] for entry in content["evaluations"].values() if isinstance(entry["score"], str)]
    assert sorted(at_the_end) == ["elbo", "fid", "iwae", "parzen"]  # each score stands there once now
    assert content["scores"]["parzen"]["mean"] == Run(kept).evaluations()[next(iter(content["evaluations"]))].score.mean


@pytest.mark.parametrize("what", ["kept", "export"])
def test_it_samples_as_it_did(genexp, request, what):
    place = request.getfixturevalue(what)
    picture = np.asarray(Image.open(ROOT / "tests/kept/export/samples.png"))
    answer = genexp("sample", str(place), "n=64", "out=s.png", "device=cpu")
    assert answer.code == 0, answer.err
    drawn = np.asarray(unscaled("s.png")).astype(int)
    assert np.abs(drawn - picture).max() <= 1  # grey levels, on any processor


@pytest.mark.slow
def test_the_export_scores_and_is_not_trained(genexp, export):
    answer = genexp("evaluate", str(export), "metrics.parzen.n_samples=50", "~metrics.fid")
    assert answer.code == 0, answer.err
    assert "(50 samples" in answer.out
    assert answer.out.count("scored before") == 2
    assert "an export of a run" in genexp(*COMMAND, f"run_dir={export}").err


def test_a_run_begun_now_ends_as_the_kept_one(genexp, kept):
    """The same weights, lines and scores as genexp 0.1.0 made."""
    answer = genexp(*COMMAND, "epochs=2", "~metrics.fid", "outputs_dir=new")
    assert answer.code == 0, answer.err
    ours, theirs = last_checkpoint(answer.run), last_checkpoint(kept)
    for name, value in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], value, rtol=1e-3, atol=1e-5)
    lines = [without_times(read_metrics(run)) for run in (answer.run, kept)]
    for one, other in zip(*lines, strict=True):
        shared = {name: value for name, value in other.items() if "fid" not in name}
        of_then = {name: value for name, value in one.items() if name != "loss/valid"}  # which 0.1.0 did not log
        assert of_then == pytest.approx(shared, rel=1e-3)
