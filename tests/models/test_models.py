"""Every model on the digits and every experiment for a few steps, through the command line."""

import json
import os
import pickle
import re
import signal

import numpy as np
import pytest
import torch
from conftest import assert_same_state, config_of, interrupted_at, last_checkpoint, read_metrics
from images import unlabelled, unscaled
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples import AUTOENCODERS, CHAINS, DIGITS, EXPERIMENTS, FAST, MODELS, OTHER_SIZES
from genexp.data import DataSet
from genexp.training import build
from genexp.training import session as module

ON_DIGITS = ["dataset=digits", "epochs=2", *FAST]
ON_POINTS = {  # points are no shades of grey
    "ae": ["model.reconstruction=squared_error"],
    "dae": ["model.reconstruction=squared_error", "noise=gaussian"],
    "cae": ["model.reconstruction=squared_error"],
    "vae": ["model.likelihood=gaussian"],
    "gan": [],  # the discriminator's output stands beside the samples
}

SCORES = {"vae": {"parzen", "elbo", "iwae"}, "cyclegan": {"parzen", "translation_error"}}
SCORES |= {model: {"parzen", "chain"} for model in CHAINS}
SCORES |= {model: {"parzen", "chain", "ais"} for model in ("rbm", "dbm", "dbn")}
PLAYERS = {model: {"autoencoder"} for model in AUTOENCODERS} | {
    "stacked_dae": {"layer_1", "layer_2", "autoencoder"},
    "stacked_cae": {"layer_1", "layer_2"},
    "gsn": {"gsn"},
    "rbm": {"rbm"},
    "dbn": {"layer_1", "layer_2"},
    "dbm": {"layer_1", "layer_2", "dbm"},
    "cyclegan": {"generator_ab", "generator_ba", "discriminator_a", "discriminator_b"},
    "stacked_gan": {"generator_1", "discriminator_1", "generator_2", "discriminator_2"},
}
LAST_PLAYERS = {  # those of the last stage
    "stacked_dae": {"autoencoder"},
    "stacked_cae": {"layer_2"},
    "dbn": {"layer_2"},
    "dbm": {"dbm"},
    "stacked_gan": {"generator_2", "discriminator_2"},
}
LAST_PICTURES = {
    "stacked_dae": "epoch-0004-fine-tuning.png",
    "stacked_cae": "epoch-0003-layer_2.png",
    "dbn": "epoch-0003-layer_2.png",
    "dbm": "epoch-0004-joint.png",
    "stacked_gan": "epoch-0003-both_generators.png",
}
FILTERS = {model: ["weights/encoder"] for model in AUTOENCODERS} | {
    **{model: ["weights/layer_1", "weights/layer_2"] for model in ("stacked_dae", "stacked_cae", "dbn", "dbm")},
    "rbm": ["weights/hidden"],
    **{"gsn": ["weights/layer_1"], "gan": ["weights/discriminator"], "stacked_gan": ["weights/discriminator"]},
}
RECONSTRUCTING = (*AUTOENCODERS, "gsn")


def events(run):
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return accumulator


@pytest.fixture
def whole(finished):
    """Return what training the model answers; three tests look at the same run."""
    return lambda model: finished(f"model={model}", *ON_DIGITS, *DIGITS[model], "outputs_dir=whole")


def test_every_model_is_tested_here():
    assert set(MODELS) == set(DIGITS) | OTHER_SIZES


@pytest.mark.parametrize("model", DIGITS)
@pytest.mark.slow
def test_every_model_trains_on_digits_is_sampled_scored_and_shown(whole, model):
    answer = whole(model)
    assert answer.code == 0, answer.err
    sizes = (598, 150, 150) if model == "cyclegan" else (1197, 300, 300)
    assert "{:,} train, {:,} valid, {:,} test".format(*sizes) in answer.out
    assert "warning" not in answer.err.lower()
    results = json.loads((answer.run / "results.json").read_text())
    assert set(results["scores"]) == SCORES.get(model, {"parzen"})
    for name, found in results["scores"].items():
        assert np.isfinite(found["mean"])
        if name not in ("translation_error", "chain"):
            in_nats = f"{name}: {found['mean']:.1f} ± {found['stderr']:.1f} nats on {sizes[2]} test images"
            assert in_nats in answer.out
    last = LAST_PICTURES.get(model, "epoch-0002.png")
    assert unscaled(answer.run / "samples" / last).size == (8 * 33 + 1, 8 * 33 + 1)

    shown = events(answer.run).Tags()
    players = PLAYERS.get(model, {"discriminator", "generator"})
    assert {f"loss/{player}" for player in players} <= set(shown["scalars"])
    last_players = LAST_PLAYERS.get(model, players)
    recorded = {f"{curve}/{player}" for player in last_players for curve in ("loss", "lr")}
    assert recorded <= set(read_metrics(answer.run)[-1])
    pictures = {"samples", *FILTERS.get(model, [])}
    if model in AUTOENCODERS:
        assert shown["histograms"] == [f"{model}/codes"]
    if model in RECONSTRUCTING:
        pictures.add("valid/reconstructions")
        rows = 6 if model == "dae" else 4  # with the corrupted inputs between
        picture = unlabelled(np.asarray(unscaled(answer.run / "reconstructions" / last)), 10)
        assert picture.shape == (rows * 33 + 1, 10 * 33 + 1, 3)
    if model in CHAINS:
        pictures.add("samples/chains")
        assert unscaled(answer.run / "chains" / last).size == (16 * 33 + 1, 8 * 33 + 1)
    if model == "cyclegan":
        pictures.add("valid/translations")
    assert set(shown["images"]) == pictures
    on_validation = {"loss/valid", "reconstruction"} & set(read_metrics(answer.run)[-1])
    assert bool(on_validation) == (model in RECONSTRUCTING)
    assert "_hparams_/session_start_info" in events(answer.run).summary_metadata


@pytest.mark.parametrize("model", DIGITS)
@pytest.mark.slow
def test_drawing_more_pictures_and_scores_changes_nothing_in_training(genexp, whole, model):
    often = ["log.samples_every_epochs=1", "log.scores_every_epochs=1"]  # where the whole run has them at its end alone
    watched, plain = genexp("train", f"model={model}", *ON_DIGITS, *DIGITS[model], *often), whole(model)
    assert not any("score/parzen" in line for line in read_metrics(plain.run)[:-1])
    assert_same_state(last_checkpoint(plain.run), last_checkpoint(watched.run))


@pytest.mark.slow
def test_watched_values_of_the_autoencoders(genexp):
    vae = genexp("train", "model=vae", "dataset=digits", "epochs=1", *FAST, *DIGITS["vae"])
    line = read_metrics(vae.run)[-1]
    assert line["loss/autoencoder"] == pytest.approx(line["reconstruction"] + line["kl"], rel=1e-5)
    assert 0 <= line["active_dims"] <= 5
    cae = genexp("train", "model=cae", "dataset=digits", "epochs=1", *FAST, *DIGITS["cae"], "model.contraction=0.5")
    line = read_metrics(cae.run)[-1]
    assert line["loss/autoencoder"] == pytest.approx(line["reconstruction"] + 0.5 * line["penalty"], rel=1e-5)


@pytest.mark.parametrize("model", DIGITS)
@pytest.mark.slow
def test_every_model_stopped_and_resumed_is_the_uninterrupted_run(genexp, whole, model):
    words = ["train", f"model={model}", *ON_DIGITS, *DIGITS[model]]
    with interrupted_at(7):
        assert genexp(*words).code == 130
    resumed, uninterrupted = genexp(*words), whole(model)
    assert re.search("going on from (layer 1, |first generator, )?epoch", resumed.out)
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(uninterrupted.run))
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (resumed.run, uninterrupted.run)]
    assert scores[0] == scores[1]


VARIANTS = [
    ["model=ae", "model.tied=true", "model.hidden=[20,10]", "model.hidden_units=tanh", "noise=masking",
     "model.code_components=2"],
    ["model=ae", "model.hidden=[]", "model.latent_dim=100", "model.output_units=linear",
     "model.reconstruction=squared_error", "model.code_components=1"],
    ["model=dae", "model.walkback_steps=3", "noise=gaussian", "model.reconstruction=squared_error", *DIGITS["dae"]],
    ["model=dae", "model.chain_state=mean", "model.sample_kind=draw", "noise=masking", *DIGITS["dae"]],
    ["model=cae", "model.hidden=[20]", *DIGITS["cae"]],
    ["model=cae", "model.penalty=stochastic", "model.code_units=tanh", "noise=gaussian", *DIGITS["cae"]],
    ["model=vae", "model.likelihood=gaussian", "model.sample_kind=draw", "model.beta=4", *DIGITS["vae"]],
    ["model=vae", "noise=salt_and_pepper", "optimizer=adadelta", *DIGITS["vae"]],
    ["model=stacked_cae", "model.hessian=1", *DIGITS["stacked_cae"], "model.hidden=[20]"],
    ["model=gsn", "model.units=sigmoid", "model.chain_state=mean", "model.start=first_test_image", *DIGITS["gsn"]],
    ["model=dcgan", "model.updates=simultaneous", "model.generator_output=sigmoid", *DIGITS["dcgan"]],
    ["model=gan", "model.generator_output=linear", "model.generator_units=[tanh]", "noise=masking", *DIGITS["gan"]],
    ["model=gan", "optimizer@optimizers.generator=adam_gan", *DIGITS["gan"]],
    ["model=dcgan", "device.precision=bfloat16", *DIGITS["dcgan"]],
    ["model=cae", "device.precision=bfloat16", *DIGITS["cae"]],
    ["model=vae", "device.precision=bfloat16", *DIGITS["vae"]],
]  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda words: "+".join(words[:4]))
@pytest.mark.slow
def test_every_variant_trains(genexp, settings):
    answer = genexp("train", *settings, "dataset=digits", "epochs=1", *FAST)
    assert answer.code == 0, answer.err
    assert np.isfinite(json.loads((answer.run / "results.json").read_text())["scores"]["parzen"]["mean"])


@pytest.mark.slow
def test_a_player_may_have_an_optimizer_of_its_own(genexp):
    words = ["train", "model=gan", "dataset=digits", "epochs=1", *FAST, *DIGITS["gan"]]
    common = genexp(*words)
    own = genexp(*words, "optimizer@optimizers.generator=adam", "optimizers.generator.lr=3e-4")
    assert own.run != common.run
    line = read_metrics(own.run)[-1]
    assert (line["lr/generator"], line["lr/discriminator"]) == (3e-4, 0.1)
    assert "momentum/discriminator" in line
    assert "momentum/generator" not in line
    state = last_checkpoint(own.run)["optimizers"]
    assert "exp_avg" in state["generator"]["state"][0]
    assert "momentum_buffer" in state["discriminator"]["state"][0]


@pytest.mark.slow
def test_an_optimizer_for_a_player_that_is_not_there(genexp, tmp_path):
    answer = genexp("train", "model=ae", "dataset=digits", "optimizer@optimizers.generator=adam")
    assert (answer.code, "offers no optimizers.generator" in answer.err) == (2, True)
    answer = genexp("train", "model=gan", "dataset=digits", "+optimizer@optimizers.generater=adam")
    assert answer.code == 2
    assert "did you mean 'generator'?" in answer.err
    assert not list(tmp_path.iterdir())


def test_a_score_that_the_model_does_not_have_is_refused_before_training(genexp, tmp_path):
    answer = genexp("train", "model=gan", "dataset=digits", "+metric@metrics.iwae=iwae")
    assert answer.code == 2
    assert "metrics.iwae: bounds need a model with a posterior" in answer.err
    assert not list(tmp_path.iterdir())


def test_the_projector_shows_codes_with_labels_and_pictures(genexp):
    answer = genexp("train", "model=vae", "dataset=digits", "epochs=1", "log.projector=true", *FAST, *DIGITS["vae"])
    place = next(answer.run.rglob("tensors.tsv")).parent
    codes = np.loadtxt(place / "tensors.tsv")
    labels = np.loadtxt(place / "metadata.tsv")
    assert codes.shape == (300, 5)
    assert labels.shape == (300,)
    assert (place / "sprite.png").exists()
    assert (answer.run / "projector_config.pbtxt").exists()


@pytest.mark.slow
def test_the_projector_may_be_asked_for_later_and_needs_codes(genexp):
    words = ["train", "dataset=digits", "epochs=1", *FAST]
    first = genexp(*words, "model=vae", *DIGITS["vae"])
    assert not list(first.run.rglob("tensors.tsv"))
    later = genexp(*words, "model=vae", *DIGITS["vae"], "log.projector=true")
    assert later.run == first.run
    assert list(first.run.rglob("tensors.tsv"))
    assert "already finished" in genexp(*words, "model=vae", *DIGITS["vae"], "log.projector=true").out
    gan = genexp(*words, "model=gan", *DIGITS["gan"], "log.projector=true")
    assert (gan.code, "gan has no encoder" in gan.out) == (0, True)


@pytest.mark.slow
def test_a_sweep_over_models_and_mixtures_shows_every_score(genexp):
    words = ["dataset=ring,grid", "dataset.n=500", "epochs=1", "batch_size=100", "model.latent_dim=4"]
    answer = genexp("train", "-m", "model=gan,conv_gan", *words, "metrics.high_quality.n_samples=100")
    assert answer.code == 1
    table = answer.out[answer.out.rindex("4 jobs") :]
    assert table.count(" finished ") == 2
    assert table.count(" failed ") == 2  # conv_gan makes no points
    for said in ("modes", "high_quality", "–"):
        assert said in table
    assert table.count("convolves images") == 2


@pytest.mark.parametrize("dataset", ["ring", "grid"])
@pytest.mark.parametrize("model", ON_POINTS)
@pytest.mark.slow
def test_fully_connected_models_run_on_mixtures_and_are_scored_by_modes(genexp, model, dataset):
    words = ["train", f"model={model}", f"dataset={dataset}", "dataset.n=1000", "epochs=1", *DIGITS[model]]
    if model != "gan":
        refused = genexp(*words)
        assert (refused.code, "no shades of grey: set model." in refused.err) == (2, True)
    answer = genexp(*words, *ON_POINTS[model])
    assert answer.code == 0, answer.err
    scores = json.loads((answer.run / "results.json").read_text())["scores"]
    assert {"modes", "high_quality"} <= set(scores)
    assert "parzen" not in scores
    total = 8 if dataset == "ring" else 25
    assert f"modes: {scores['modes']['mean']:.0f} of {total} captured" in answer.out
    assert unscaled(answer.run / "samples" / "epoch-0001.png").size == ((1200, 600) if model == "gan" else (600, 600))


def small_cifar10(data_dir, monkeypatch):
    """Files of the true format, a hundred images each, with their own sums."""
    import hashlib

    from torchvision.datasets import CIFAR10

    folder = data_dir / CIFAR10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch():
        return {
            "data": random.integers(0, 256, (100, 3072), dtype=np.uint8),
            "labels": random.integers(0, 10, 100).tolist(),
        }

    monkeypatch.setattr(CIFAR10, "train_list", [write(name, batch()) for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [write(name, batch()) for name, _ in CIFAR10.test_list])
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta[1]})
    monkeypatch.setattr("genexp.data.cifar10.TRAINING_IMAGES", 400)


def small_tfd(data_dir):
    """Random faces in a file of the true format: 250 without labels, and 60 that are divided anew in each fold."""
    from scipy.io import savemat

    random = np.random.default_rng(0)
    folds = np.zeros((310, 5), dtype=np.uint8)
    folds[250:] = [[1 + (row + fold) % 3 for fold in range(5)] for row in range(60)]
    labels = np.where(folds[:, :1] > 0, random.integers(1, 8, (310, 1)), -1).astype(np.int16)
    (data_dir / "TFD").mkdir(parents=True)
    images = random.integers(0, 256, (310, 48, 48), dtype=np.uint8)
    savemat(data_dir / "TFD" / "TFD_48x48.mat", {"images": images, "labs_ex": labels, "folds": folds})


SMALL_TFD = [
    *("model.generator_hidden=[20,20]", "model.discriminator_hidden=[10]", "model.front_hidden=[15]"),
    *("model.generator_output_sparse=5", "model.pretrain_epochs=3"),
]


@pytest.mark.parametrize("step", [3, 6, 9])  # 2 steps an epoch: in the first stage, at its end, in the second
@pytest.mark.slow
def test_the_recipe_for_faces_goes_on_in_either_stage(genexp, tmp_path, step):
    small_tfd(tmp_path / "data")
    words = ["train", "experiment=goodfellow2014/gan_tfd", *SMALL_TFD, "epochs=3", "data_dir=data"]
    words += ["metrics.parzen.n_samples=50", "device.threads=1"]
    whole = genexp(*words, "outputs_dir=whole")
    with interrupted_at(step):
        assert genexp(*words).code == 130
    resumed = genexp(*words)
    assert f"going on from {'first generator' if step < 6 else 'both generators'}, epoch" in resumed.out
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (resumed.run, whole.run)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_faces_are_scored_on_all_folds_and_stand_in_the_table(genexp, tmp_path):
    small_tfd(tmp_path / "data")
    words = ["experiment=goodfellow2014/gan_tfd", *SMALL_TFD]
    answer = genexp("train", *words, "epochs=2", "data_dir=data", "metrics.parzen.n_samples=200")
    assert answer.code == 0, answer.err
    assert "nats over 5 folds (200 samples, σ = " in answer.out
    score = json.loads((answer.run / "results.json").read_text())["scores"]["parzen"]
    assert len(score["fold_means"]) == len(score["sigma"]) == 5
    assert score["mean"] == pytest.approx(np.mean(score["fold_means"]))
    assert score["stderr"] == pytest.approx(np.std(score["fold_means"]) / np.sqrt(5))
    again = genexp("evaluate", f"run={answer.run}", "data_dir=data", "metrics.parzen.n_samples=100")
    assert again.code == 0, again.err

    (tmp_path / "conf/paper").mkdir(parents=True)
    cell = f"{{value: 3, spread: 1, status: read, source: A book, train: [{', '.join(json.dumps(w) for w in words)}]}}"
    (tmp_path / "conf/paper/faces.yaml").write_text(f"""
name: faces
title: Faces
tables:
  "1":
    kind: parzen
    title: Faces
    columns:
      tfd: {{title: TFD, train: [dataset=tfd, metrics.parzen.n_samples=200], spread: across folds, on_request: true}}
    rows: [{{name: GAN, cells: {{tfd: {cell}}}}}]
""")
    table = genexp("table", "--config-dir", "conf", "paper=faces", "data_dir=data")
    assert table.code == 0, table.err
    assert f"{score['mean']:.1f} ± {score['stderr']:.1f}†".replace("-", "−") in table.out
    assert table.out.count("yardstick: ") == 4


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.slow
def test_every_experiment_makes_its_first_steps(genexp, monkeypatch, tmp_path, experiment, request):
    """As it ships, sizes included; stopped after two steps, and not saved, for some weigh a gigabyte."""
    dataset = config_of(f"experiment={experiment}").dataset["name"]
    data_dir = tmp_path / "data"
    if dataset == "cifar10":
        small_cifar10(data_dir, monkeypatch)
    elif dataset == "tfd":
        small_tfd(data_dir)
    elif dataset == "mnist":
        data_dir = request.getfixturevalue("mnist_dir")
    losses = []

    def show(self, tick):
        losses.append(tick.values)
        if tick.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module.Terminal, "show", show)
    monkeypatch.setattr(module, "save", lambda *_: None)
    answer = genexp("train", f"experiment={experiment}", f"data_dir={data_dir}", "log.every_steps=1")
    assert answer.code == 130, answer.err
    assert "interrupted at step 2" in answer.err
    assert len(losses) == 2
    for values in losses:
        assert all(np.isfinite(value) for value in values.values())
        assert any(name.startswith("grad_norm/") and value > 0 for name, value in values.items())


def folder_of(place, count, pixels):
    place.mkdir()
    for index in range(count):
        Image.fromarray(pixels(index)).save(place / f"{index:03d}.png")


def squares(index):
    colours = np.random.default_rng(index).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((9, 9, 1), np.uint8))


@pytest.mark.parametrize("model", ["dcgan", "vae"])
@pytest.mark.slow
def test_colour_images_from_a_folder_train_and_are_scored(genexp, tmp_path, model):
    folder = tmp_path / "pictures"
    folder_of(folder, 60, squares)
    small = {"dcgan": ["model.channels=4"], "vae": ["model.hidden=[16]", "model.latent_dim=4"]}[model]
    answer = genexp(
        "train", f"model={model}", "dataset=folder", "data_dir=data", f"dataset.path={folder}", "dataset.size=32",
        "epochs=1", "batch_size=10", "metrics.parzen.n_samples=50", *small,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "48 train, 6 valid, 6 test" in answer.out
    assert unscaled(answer.run / "samples" / "epoch-0001.png").size == (8 * 33 + 1, 8 * 33 + 1)


@pytest.mark.slow
def test_a_folder_that_has_changed_is_not_the_run_that_was_trained_on_it(genexp, tmp_path):
    folder = tmp_path / "pictures"
    folder_of(folder, 60, squares)
    words = [
        "train",
        "model=vae",
        "dataset=folder",
        "data_dir=data",
        f"dataset.path={folder}",
        "dataset.size=8",
        "epochs=1",
        *FAST[1:],
    ]
    words += ["batch_size=10", *DIGITS["vae"]]
    first = genexp(*words)
    assert first.code == 0, first.err
    assert "already finished" in genexp(*words).out
    (folder / "007.png").unlink()
    for epochs in ("epochs=1", "epochs=2"):
        answer = genexp(*words, epochs)
        assert (answer.code, "not the images that" in answer.err, "fresh=true" in answer.err) == (2, True, True)
    assert genexp(*words, "fresh=true").code == 0


@pytest.mark.parametrize(
    "settings",
    [["model=vae", "model.likelihood=gaussian", *DIGITS["vae"]],
     ["model=gan", "model.generator_output=linear", *DIGITS["gan"]]],
    ids=["vae", "gan"],
)  # fmt: skip
def test_images_without_contrast_are_no_crash(genexp, tmp_path, settings):
    folder = tmp_path / "black"
    folder_of(folder, 30, lambda index: np.zeros((8, 8), np.uint8))
    words = [
        "dataset=folder",
        "data_dir=data",
        f"dataset.path={folder}",
        "dataset.size=8",
        "dataset.channels=1",
        "epochs=1",
    ]
    answer = genexp("train", *words, "batch_size=10", "metrics.parzen.n_samples=20", *settings)
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("count", [1, 3, 15, 25])
def test_reconstructions_stand_below_what_the_encoder_saw(count):
    from genexp import rng
    from genexp.figures import pictures
    from genexp.figures.canvas import grid

    config = config_of("model=dae", "dataset=digits", *DIGITS["dae"])
    data = build.data_set(config.dataset, "data")
    data = DataSet(data.train, data.valid[:count], data.test, labels={}, white=16)
    model = build.training(config, data, torch.device("cpu")).model
    generator = lambda: rng.generator(torch.device("cpu"), 0, "test")  # noqa: E731
    columns, groups = min(count, 10), max(1, min(count, 20) // 10)
    picture = unlabelled(pictures.of_reconstructions(model, data, generator()), columns)
    assert picture.shape == (3 * groups * 33 + 1, columns * 33 + 1, 3)
    images = data.images("valid", slice(0, 20))
    seen = model.noise(images, generator())
    with torch.no_grad():
        made = model.eval().decode(model.encode(seen))
    rows = [kind[10 * group : 10 * group + columns] for group in range(groups) for kind in (images, seen, made)]
    assert np.array_equal(picture, grid(torch.cat(rows), columns=columns))


def test_samples_stay_in_0_to_1_whatever_range_the_generator_works_in(genexp):
    from genexp import rng
    from genexp.models import draw

    for output in ("sigmoid", "tanh", "linear"):
        config = config_of("model=gan", "dataset=digits", f"model.generator_output={output}", *DIGITS["gan"])
        data = build.data_set(config.dataset, "data")
        model = build.training(config, data, torch.device("cpu")).model
        samples = draw(model, 200, rng.generator(torch.device("cpu"), 0, "test"), data)
        assert samples.shape == (200, 1, 8, 8)
        assert 0 <= samples.min() <= samples.max() <= 1
        assert torch.allclose(samples.mean(0), data.spec().pixel_mean, atol=0.35)  # begins around the mean image
