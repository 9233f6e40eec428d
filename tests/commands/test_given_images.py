"""`genexp encode`, `reconstruct`, `denoise` and `evaluate images=`: a user's own images through a run's model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from images import plain, unlabelled, unscaled, write
from PIL import Image

import genexp as door
from genexp.data.digits import digits

VAE = ("model=vae", "dataset=digits", "epochs=3", "metrics.parzen.n_samples=100")
DAE = ("model=dae", "dataset=digits", "epochs=3", "metrics.parzen.n_samples=100")


@pytest.fixture
def own(tmp_path):
    """Digits as an array, and the first of them as image files, dark on light, of other sizes, in subfolders."""
    images = digits(tmp_path).images("test")[:25].numpy()
    np.savez(tmp_path / "own.npz", images=images)
    for number, image in enumerate(images[:6]):
        picture = Image.fromarray((255 * (1 - image[0])).astype(np.uint8)).resize((20, 16))
        write(tmp_path / "photos" / f"{number % 2}" / f"{number}.png", np.asarray(picture))
    (tmp_path / "photos" / "broken.png").write_text("no image")
    return images


def written(answer, name):
    assert answer.code == 0, answer.out + answer.err
    line = next(line for line in answer.out.splitlines() if line.startswith(f"{name}: "))
    with np.load(line.removeprefix(f"{name}: ").partition(" (")[0], allow_pickle=False) as content:
        return dict(content)


@pytest.mark.slow
def test_codes_and_reconstructions_are_those_of_the_model(genexp, finished, own):
    run = finished(*VAE).run
    opened = door.load(run)
    content = written(genexp("encode", f"run={run}", "images=own.npz"), "codes")
    assert np.array_equal(content["codes"], opened.encode(own).numpy())
    assert content["names"].tolist() == [str(number) for number in range(25)]
    content = written(genexp("reconstruct", f"run={run}", "images=own.npz", "out=mine.npz"), "reconstructions")
    assert np.array_equal(content["reconstructions"], opened.reconstruct(own).numpy())
    assert np.array_equal(content["images"], own)
    grid = unlabelled(np.asarray(unscaled("mine.png")), 10)
    assert grid.shape == (2 * 2 * 33 + 1, 10 * 33 + 1, 3)  # two full rows of images and what they became


def test_image_files_are_cut_and_resized_as_a_folder_is(genexp, finished, own):
    run = finished(*VAE).run
    answer = genexp("encode", f"run={run}", "images=photos")
    content = written(answer, "codes")
    assert content["names"].tolist() == [f"{number % 2}/{number}.png" for number in (0, 2, 4, 1, 3, 5)]
    assert "1 of 7 images are left out: broken.png" in answer.out
    assert "6 images of photos, each cut to its middle and resized to 8×8 grey" in answer.out
    assert "invert=true exchanges black and white" in answer.out
    inverted = genexp("reconstruct", f"run={run}", "images=photos", "invert=true")
    assert "exchanges" not in inverted.out
    with Image.open("photos/1/3.png") as picture:
        middle = picture.crop((2, 0, 18, 16)).resize((8, 8), Image.Resampling.BICUBIC)
    shown = written(inverted, "reconstructions")["images"][4, 0]
    assert np.array_equal(shown, 1 - np.asarray(middle, np.float32) / 255)
    one = written(genexp("encode", f"run={run}", "images=photos/1/3.png"), "codes")
    assert np.allclose(one["codes"], content["codes"][4:5], atol=1e-6)


@pytest.mark.slow
def test_denoising_removes_noise(genexp, finished, own):
    run = finished(*DAE, "epochs=40").run
    content = written(genexp("denoise", f"run={run}", "images=own.npz", "corrupt=true"), "denoised")
    errors = [np.square(content[name] - own).mean() for name in ("corrupted", "denoised")]
    assert errors[1] < 0.6 * errors[0]
    again = written(genexp("denoise", f"run={run}", "images=own.npz", "corrupt=true", "out=a.npz"), "denoised")
    assert np.array_equal(again["corrupted"], content["corrupted"])
    np.savez("noisy.npz", images=content["corrupted"])
    clean = written(genexp("denoise", f"run={run}", "images=noisy.npz"), "denoised")
    assert np.array_equal(clean["denoised"], content["denoised"])


@pytest.mark.slow
def test_unlike_images_are_the_least_likely(genexp, finished, own):
    run = finished(*VAE, "epochs=30").run
    noise = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez("mixed.npz", images=np.concatenate([own, noise]))
    answer = genexp("evaluate", f"run={run}", "images=mixed.npz", "out=scores.csv")
    assert answer.code == 0, answer.err
    with Path("scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows[:3]} == {"25", "26", "27"}
    values = [float(row["log_prob"]) for row in rows]
    assert values == sorted(values)
    expected = door.load(run).log_prob(np.concatenate([own, noise])).numpy()
    assert [expected[int(row["image"])] for row in rows] == pytest.approx(values, rel=1e-5)
    rebuilt = door.load(run).reconstruct(own).numpy()
    error = {row["image"]: float(row["reconstruction_error"]) for row in rows}
    assert error["7"] == pytest.approx(np.square(own[7] - rebuilt[7]).mean(), rel=1e-4)
    picture = unlabelled(np.asarray(unscaled("scores.png")), 10)
    assert picture.shape[:2] == (2 * 33 + 1, 10 * 33 + 1)
    results = (run / "results.json").read_text()
    assert "log_prob" not in results  # scores of the run are of its data


@pytest.mark.parametrize(
    ("command", "model", "words", "said"),
    [
        ("encode", VAE, [], "which images? genexp encode run=PATH images=FOLDER"),
        ("encode", VAE, ["images=nowhere"], "images=nowhere: there is no such file or folder"),
        ("encode", VAE, ["images=own.npz", "out=codes.csv"], "written as FILE.npz"),
        ("encode", VAE, ["images=wrong.npz"], "images=wrong.npz are 1×9×9, and those of the data 1×8×8"),
        ("encode", VAE, ["images=bright.npz"], "the images are from 0 to 7"),
        ("encode", VAE, ["images=two.npz"], "holds the arrays a, b: call the one that is meant images"),
        ("encode", VAE, ["images=own.npz", "label=3"], "is not trained with labels"),
        ("denoise", VAE, ["images=own.npz"], "was not trained to remove noise"),
        ("encode", ("model=gan", "dataset=digits", "epochs=1"), ["images=own.npz"], "model=gan has no encoder"),
        ("evaluate", ("model=gan", "dataset=digits", "epochs=1"), ["images=own.npz"], "gives no score of an image"),
        ("evaluate", VAE, ["out=scores.csv"], "go with images=FOLDER"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_done_is_said(genexp, finished, own, command, model, words, said):
    run = finished(*model).run
    np.savez("wrong.npz", images=np.zeros((3, 9, 9), np.float32))
    np.savez("bright.npz", images=np.full((3, 8, 8), 7, np.float32) * (np.arange(3) > 0)[:, None, None])
    np.savez("two.npz", a=own, b=own)
    answer = genexp(command, f"run={run}", *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert "Traceback" not in answer.err


def test_only_broken_files_are_an_error(genexp, finished, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("no image")
    answer = genexp("encode", f"run={finished(*VAE).run}", "images=none")
    assert (answer.code, "none of them can be used: a.png" in answer.err) == (1, True), answer.err


@pytest.mark.slow
def test_a_conditional_model_needs_the_label(genexp, finished, own):
    run = finished(*VAE, "model.conditional=true").run
    answer = genexp("encode", f"run={run}", "images=own.npz")
    assert (answer.code, "give label=CLASS" in answer.err) == (2, True)
    content = written(genexp("encode", f"run={run}", "images=own.npz", "label=3"), "codes")
    labels = torch.full((25,), 3)
    assert np.array_equal(content["codes"], door.load(run).encode(own, labels=labels).numpy())


def test_a_folder_of_colour_images_for_a_colour_model(genexp, tmp_path):
    for number in range(12):
        write(tmp_path / "rgb" / f"{number}.png", np.stack([plain(20 * number, 8)] * 3, 2))
    words = ["model=ae", "dataset=folder", "dataset.path=rgb", "dataset.size=8", "epochs=1", "batch_size=2"]
    words += ["model.hidden=[8]", "model.latent_dim=2", "model.code_components=2", "metrics.parzen.n_samples=4"]
    run = genexp("train", *words).run
    content = written(genexp("reconstruct", f"run={run}", "images=rgb"), "reconstructions")
    assert content["images"].shape == content["reconstructions"].shape == (12, 3, 8, 8)


# evaluate samples=


@pytest.mark.slow
def test_samples_of_a_file_score_as_those_of_the_run_that_made_them(genexp, finished):
    words = ["metric@metrics.fid=fid", "metrics.fid.n_samples=200", "metrics.parzen.n_samples=200"]
    run = finished(*VAE).run
    assert genexp("sample", f"run={run}", "n=200", "out=drawn.npz").code == 0
    assert genexp("evaluate", "samples=drawn.npz", "dataset=digits", *words, "out=scores.json").code == 0
    scores = json.loads(Path("scores.json").read_text())["scores"]
    with np.load("drawn.npz") as content:
        samples = content["samples"]
    data = digits(Path())
    test, valid = data.images("test"), data.images("valid")
    assert scores["parzen"]["mean"] == pytest.approx(door.parzen(samples, test, valid).mean, rel=1e-6)
    assert scores["fid"]["mean"] > 0
    assert scores["parzen"]["n_samples"] == 200
    fewer = genexp("evaluate", "samples=drawn.npz", "dataset=digits")
    assert "note: parzen is of all 200 samples, not of 10,000" in fewer.out


@pytest.mark.slow
def test_test_images_as_samples_score_best(genexp, own):
    fid = ["metric@metrics.fid=fid", "~metrics.parzen", "dataset=digits", "metrics.fid.n_samples=300"]
    images = digits(Path())
    means = []
    for name, samples in (("own", images.images("test")), ("noise", torch.rand(300, 1, 8, 8))):
        np.savez(f"{name}.npz", samples=samples.numpy())
        assert genexp("evaluate", f"samples={name}.npz", *fid, f"out={name}.json").code == 0
        means.append(json.loads(Path(f"{name}.json").read_text())["scores"]["fid"]["mean"])
    assert means[0] == pytest.approx(0, abs=1e-3)
    assert means[1] > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["samples=own.npz", "dataset=digits", "+metric@metrics.elbo=elbo"], "need a model with a posterior"),
        (["samples=nowhere", "dataset=digits"], "samples=nowhere: there is no such file or folder"),
        (["samples=own.npz", "dataset=digits", "run=x"], "there is no setting 'run'"),
        (["samples=own.npz", "dataset=digits", "out=x.csv"], "written as FILE.json"),
        (["samples=own.npz", "dataset=ring"], "those of the data 2"),
    ],
)
def test_samples_that_cannot_be_scored_are_said(genexp, own, words, said):
    answer = genexp("evaluate", *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
