"""genexp in Python, against the commands and against NumPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_metrics
from scipy.linalg import sqrtm
from scipy.special import logsumexp

import genexp as door
from genexp.errors import UsageError

ROOT = Path(__file__).parents[1]
WORDS = ["dataset=digits", "batch_size=100", "metrics.parzen.n_samples=200", "log.every_steps=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a VAE, an RBM and a GAN were trained."""
    place, here = tmp_path_factory.mktemp("api"), Path.cwd()
    os.chdir(place)
    try:
        vae = ["model=vae", "model.hidden=[32]", "model.latent_dim=5", "metrics.iwae.n_samples=7", *WORDS]
        door.train(*vae, epochs=2)
        rbm = ["model=rbm", "model.hidden=8", "+metric@metrics.ais=ais", "dataset.binarize=threshold", *WORDS]
        door.train(*rbm, epochs=1, seed=3)
        door.train("model=gan", "model.generator_hidden=[16]", "model.discriminator_hidden=[8]", *WORDS, epochs=1)
    finally:
        os.chdir(here)
    return place


@pytest.fixture
def runs(folder, monkeypatch):
    """The runs of the folder, by model."""
    monkeypatch.chdir(folder)
    return {row["model"]: door.load(row["run"]) for row in door.runs()}


@pytest.mark.slow
def test_importing_it_and_listing_runs_costs_no_torch(folder):
    program = "import sys, genexp; genexp.runs(); genexp.load; assert 'torch' not in sys.modules; print(dir(genexp))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert set(door.__all__) <= set(done.stdout.replace("'", "").strip("[]\n").split(", "))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'genexp' has no attribute 'lode'"):
        _ = door.lode


def test_a_training_is_that_of_the_command(runs, genexp, folder, monkeypatch):
    monkeypatch.chdir(folder)
    run = runs["vae"]
    assert run.config["epochs"] == 2
    assert run.config["model"]["latent_dim"] == 5
    kept = json.loads((run.path / "results.json").read_text())["scores"]
    assert {name: score.mean for name, score in run.scores.items()} == {
        name: each["mean"] for name, each in kept.items()
    }
    lines = read_metrics(run.path)
    assert all(len(values) == len(lines) for values in run.metrics.values())
    assert run.metrics["step"].tolist() == [line["step"] for line in lines]
    assert run.metrics["loss/autoencoder"].tolist()[-1] == lines[-1]["loss/autoencoder"]
    again = door.train(
        *("model=vae", "model.hidden=[32]", "metrics.iwae.n_samples=7", *WORDS), **{"model.latent_dim": 5, "epochs": 2}
    )
    assert again.path == run.path


@pytest.mark.parametrize("words", [["-m", "seed=1,2"], ["search=optuna"], ["--cfg", "job"]])
def test_what_is_not_one_run_is_refused(words):
    with pytest.raises(UsageError, match="one run"):
        door.train("model=vae", "dataset=digits", *words)


def test_runs_are_a_list_that_filters(folder, monkeypatch):
    monkeypatch.chdir(folder)
    rows = door.runs("outputs", filter="vae")
    assert [row["model"] for row in rows] == ["vae"]
    assert {"status", "score", "mean", "stderr", "dataset", "seed", "run"} <= rows[0].keys()
    with pytest.raises(UsageError, match="there is no folder"):
        door.runs("elsewhere")


def test_samples_are_those_of_the_command(runs, genexp, folder, monkeypatch):
    monkeypatch.chdir(folder)
    answer = genexp("sample", str(runs["gan"].path), "n=9", "seed=4", "out=nine.npz")
    assert answer.code == 0, answer.err
    assert np.array_equal(np.load("nine.npz")["samples"], runs["gan"].sample(9, seed=4).numpy())
    with pytest.raises(UsageError, match="not trained with labels"):
        runs["gan"].sample(2, label=3)


def test_codes_and_reconstructions_are_the_models_own_for_any_form_of_images(runs):
    run = runs["vae"]
    images = run.data.images("test", slice(0, 6)).cpu()
    grey = (images * 16).round().to(torch.uint8)[:, 0]
    codes = run.encode(images)
    with torch.no_grad():
        expected = run.model.eval().encode(images.to(run.model.device)).cpu()
    assert torch.equal(codes, expected)
    assert torch.equal(run.decode(codes.numpy()), run.reconstruct(images.numpy()))
    assert torch.allclose(run.encode((grey * 15).numpy()), run.encode(grey[:, None].float() * 15 / 255), atol=1e-6)


def test_log_prob_is_that_of_the_scores(runs):
    vae, rbm = runs["vae"], runs["rbm"]
    bound = vae.log_prob(vae.data.images("test"), k=7)
    assert bound.shape == (300,)
    assert bound.mean().item() == pytest.approx(vae.scores["iwae"].mean, abs=1e-6)
    exact = rbm.log_prob(rbm.data.images("test"))
    assert exact.mean().item() == pytest.approx(rbm.scores["ais"].mean, abs=1e-4)


def test_what_a_model_has_not_is_said(runs):
    images = runs["gan"].data.images("test", slice(0, 2))
    with pytest.raises(UsageError, match="model=gan has no method to encode"):
        runs["gan"].encode(images)
    with pytest.raises(UsageError, match=r"model=gan gives no log p\(x\)"):
        runs["gan"].log_prob(images)
    with pytest.raises(UsageError, match=r"the images are \(2, 1, 7, 8\); this run's are \(n, 1, 8, 8\)"):
        runs["vae"].encode(images[:, :, 1:])
    with pytest.raises(UsageError, match="values should be in"):
        runs["vae"].encode(images * 2 - 1)
    with pytest.raises(UsageError, match="there is no run's directory"):
        door.load("outputs/nothing")


def test_settings_of_a_run_may_be_given(runs):
    with pytest.raises(UsageError, match="keeps no best checkpoint"):
        _ = door.load(runs["vae"].path, "checkpoint=best").model


def test_a_run_shows_itself_with_its_samples(runs):
    shown = runs["vae"]._repr_html_()
    assert "data:image/png;base64," in shown
    assert f">{runs['vae'].scores['parzen'].summary}</td>" in shown
    assert str(runs["vae"].path) in repr(runs["vae"])


def test_parzen_is_the_formula_in_float64():
    random = np.random.default_rng(0)
    samples, valid, images = (random.random((n, 1, 4, 4)) for n in (50, 30, 20))

    def mean(x, sigma):
        d2 = ((x.reshape(len(x), 1, -1) - samples.reshape(1, 50, -1)) ** 2).sum(2)
        return logsumexp(-d2 / (2 * sigma**2), axis=1) - np.log(50) - 16 * np.log(sigma * np.sqrt(2 * np.pi))

    grid = [0.1, 0.2, 0.4]
    best = max(grid, key=lambda sigma: mean(valid, sigma).mean())
    score = door.parzen(samples, images, valid, grid)
    assert score.sigma == best
    assert score.mean == pytest.approx(mean(images, best).mean(), abs=1e-3)
    assert score.stderr == pytest.approx(mean(images, best).std() / np.sqrt(20), rel=1e-3)
    assert door.parzen(samples, images, sigma=0.3).mean == pytest.approx(mean(images, 0.3).mean(), abs=1e-3)
    with pytest.raises(UsageError, match="give valid=IMAGES"):
        door.parzen(samples, images)
    with pytest.raises(UsageError, match=r"the samples are from -1 to"):
        door.parzen(np.full((2, 1, 4, 4), -1.0), images, sigma=0.3)


def test_fid_and_prdc_are_of_features_or_of_images_by_a_function():
    random = np.random.default_rng(1)
    x, y = random.random((40, 1, 2, 2)), random.random((60, 1, 2, 2)) ** 2
    flat = [values.reshape(len(values), -1) for values in (x, y)]
    (m1, c1), (m2, c2) = ((values.mean(0), np.cov(values.T)) for values in flat)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert door.fid(*flat) == pytest.approx(expected, rel=1e-4)
    assert door.fid(x, y, lambda images: images.flatten(1)) == pytest.approx(expected, rel=1e-4)
    assert door.prdc(flat[0], flat[0], k=3) == pytest.approx(
        dict.fromkeys(("precision", "recall", "density", "coverage"), 1)
    )
    assert door.prdc(flat[0] + 100, flat[1], k=3)["precision"] == 0
    with pytest.raises(UsageError, match="give features=FUNCTION"):
        door.fid(x, y)


@pytest.mark.slow
def test_the_lecture_runs(tmp_path, monkeypatch):
    """The notebook's cells in order, with a hundredth of the epochs."""
    import matplotlib as mpl

    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "four_ways_to_make_digits.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "SHARE = 1.0" in cells[0]
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell.replace("SHARE = 1.0", "SHARE = 0.01"), "cell", "exec"), names)
    assert {row["model"] for row in door.runs()} == {"ae", "dae", "vae", "gan"}
    assert all(not cell.get("outputs") for cell in notebook["cells"])
