"""Grey images made binary: what the pixels are, which seed decides them, and where they are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import assert_same_state, config_of, interrupted_at, last_checkpoint, read_metrics, without_times
from images import unlabelled, unscaled
from PIL import Image

from genexp import rng
from genexp.data import DataSet
from genexp.data.digits import digits
from genexp.device import select
from genexp.errors import UsageError
from genexp.metrics import Subject, classifier
from genexp.metrics.nearest import nearest
from genexp.models import Model, Outcome, Update
from genexp.training.loop import Minibatches
from genexp.training.plan import Plan

SPLITS = ("train", "valid", "test")
VAE = [
    *("train", "model=vae", "dataset=digits", "dataset.binarize=fresh", "epochs=3", "model.hidden=[16]"),
    *("model.latent_dim=3", "metrics.parzen.n_samples=50", "metrics.iwae.n_samples=5", "device.threads=1"),
]


def levels(binary, grey):
    """Return, for each of the digits' 17 levels of grey, the share of white pixels, and how many pixels there are."""
    level = (16 * grey).round().long().flatten()
    count = torch.bincount(level, minlength=17)
    white = torch.bincount(level, weights=binary.flatten().double(), minlength=17)
    return white / count.clamp(min=1), count


def assert_bernoulli(binary, grey):
    """Assert that pixels are 0 or 1, and white as often as their greys say, within five standard errors."""
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    share, count = levels(binary, grey)
    p = torch.arange(17) / 16
    assert ((share - p).abs() <= 5 * (p * (1 - p) / count.clamp(min=1)).sqrt()).all()
    deviation = ((binary - grey) / (grey * (1 - grey)).sqrt()).flatten(1)  # not finite where a pixel is sure
    products = (deviation[:, 1:] * deviation[:, :-1])[(deviation[:, 1:] + deviation[:, :-1]).isfinite()]
    assert abs(products.mean()) < 5 / len(products) ** 0.5  # neighbours are drawn independently


class OfPixels(Model):
    """A model that only receives minibatches."""

    sample_kind = "mean"

    def updates(self):
        return [Update(("pixels",), lambda images: Outcome({}, {}), repeats=2)]

    def players(self):
        return {}

    def sample(self, n, generator, data):
        raise NotImplementedError

    @property
    def device(self):
        return torch.device("cpu")


def minibatch(data, step, seed=0):
    """Return the rows and the images of the two minibatches of a step of training."""
    model = OfPixels()
    plan = Plan.of(model, 100, len(data.train))
    minibatches = Minibatches(data, plan.last, 100, seed, model)
    given = minibatches.given(step)
    rng.reseed(model.device, seed, "step", step)
    images = [minibatches.batch(update, given, number)["images"] for update, number in plan.last.moves]
    return given["rows"], torch.stack(images)


def test_a_threshold_is_at_one_half(tmp_path):
    data, grey = digits(tmp_path, binarize="threshold"), digits(tmp_path)
    for split in SPLITS:
        assert torch.equal(data.images(split), (getattr(grey, split) >= 8).float())  # 16 is white
    assert torch.equal(data.labels["test"], grey.labels["test"])


def test_fixed_draws_are_the_datas_own(tmp_path):
    torch.manual_seed(1)
    first = digits(tmp_path, binarize="fixed")
    torch.manual_seed(2)
    again, grey = digits(tmp_path, binarize="fixed"), digits(tmp_path)
    for split in SPLITS:
        assert torch.equal(first.images(split), again.images(split))
        assert_bernoulli(first.images(split), grey.images(split))
    assert torch.equal(Subject(OfPixels(), first, 3).data.images("test"), first.images("test"))
    assert torch.equal(minibatch(first, 2)[1], first.images("train")[minibatch(first, 2)[0]])


def test_fresh_draws_of_training_follow_from_the_step_and_the_seed(tmp_path):
    data, grey = digits(tmp_path, binarize="fresh"), digits(tmp_path)
    steps = [minibatch(data, step) for step in range(20)]
    assert_bernoulli(torch.cat([images.flatten(0, 1) for _, images in steps]),
                     torch.cat([grey.images("train", rows.flatten()) for rows, _ in steps]))  # fmt: skip
    assert torch.equal(minibatch(data, 7)[1], steps[7][1])
    assert torch.equal(minibatch(data.drawn(5), 7)[1], steps[7][1])  # whatever a score draws
    same_images = DataSet(*(data.train[:1].expand(200, -1, -1, -1) for _ in SPLITS), white=16, fresh=True)
    drawn = [minibatch(same_images, step, seed)[1] for step, seed in ((0, 0), (1, 0), (0, 1))]
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])
    assert not torch.equal(drawn[0][0], drawn[0][1])  # two minibatches of a step
    assert not torch.equal(drawn[0][0, 0], drawn[0][0, 1])  # two uses of an image in a minibatch


def test_fresh_draws_of_a_score_follow_from_its_seed_whatever_is_asked_for(tmp_path):
    data, grey = digits(tmp_path, binarize="fresh"), digits(tmp_path)
    scored = Subject(OfPixels(), data, 4).data
    whole = scored.images("test")
    assert_bernoulli(whole, grey.images("test"))
    assert torch.equal(whole, Subject(OfPixels(), data, 4).data.images("test"))
    for size in (1, 7, 100):
        parts = [scored.images("test", slice(start, start + size)) for start in range(0, 300, size)]
        assert torch.equal(torch.cat(parts), whole)
    rows = torch.tensor([[3, 299], [3, 0]])
    assert torch.equal(scored.images("test", rows), whole[rows])
    assert not torch.equal(whole, Subject(OfPixels(), data, 5).data.images("test"))
    assert torch.equal(scored.batch("test", slice(5))["labels"], grey.labels["test"][:5])


def test_nearest_images_are_those_of_the_draws(tmp_path):
    data = digits(tmp_path, binarize="fresh").drawn(2)
    rows, distances = nearest(data.images("train", slice(10, 15)), data)
    assert distances.max() == 0
    assert torch.equal(data.images("train", rows), data.images("train", slice(10, 15)))


def test_two_data_sets_are_drawn_apart(tmp_path):
    data = digits(tmp_path, binarize="fresh")
    pair = DataSet(data.train, data.valid, data.test, white=16, fresh=True, second=data).drawn(3)
    assert torch.equal(pair.images("test"), data.drawn(3).images("test"))
    assert not torch.equal(pair.second.images("test"), pair.images("test"))
    assert_bernoulli(pair.second.images("test"), digits(tmp_path).images("test"))


def test_what_a_model_is_told_of_fresh_images_are_the_moments_of_their_draws(tmp_path):
    data = digits(tmp_path, binarize="fresh")
    spec, draws = data.spec(), torch.stack([data.drawn(seed).images("train") for seed in range(40)])
    error = 4 * 0.5 / np.sqrt(40 * len(data.train))
    assert torch.allclose(spec.pixel_mean, draws.mean((0, 1)), atol=error)
    assert spec.pixel_std == pytest.approx(draws.std().item(), rel=1e-3)
    assert torch.equal(spec.pixel_mean, digits(tmp_path).spec().pixel_mean)
    fixed = digits(tmp_path, binarize="fixed")
    assert fixed.spec().pixel_std == pytest.approx(fixed.images("train").std().item(), rel=1e-4)


def test_folds_are_drawn_as_the_splits_that_they_are(tmp_path):
    grey = digits(tmp_path)
    folds = ((grey.test, grey.valid), (grey.valid, grey.test))
    data = DataSet(grey.train, *folds[1], white=16, folds=folds)
    fixed, fresh = data.binarized("fixed"), data.binarized("fresh").drawn(3)
    assert torch.equal(fixed.folds[1][0], fixed.valid)
    assert torch.equal(fixed.folds[1][1], fixed.test)
    assert torch.equal(fresh.of_folds()[1].images("test"), fresh.images("test"))
    assert_bernoulli(fixed.of_folds()[0].images("test"), grey.images("valid"))
    assert_bernoulli(fresh.of_folds()[0].images("valid"), grey.images("test"))


@pytest.mark.slow
def test_a_run_is_known_by_how_its_images_are_binarized(tmp_path):
    plain = config_of("model=vae", "dataset=digits")
    assert "binarize" not in plain.identity()["dataset"]
    ways = [config_of("model=vae", "dataset=digits", f"dataset.binarize={how}") for how in ("fresh", "fixed")]
    assert len({config.directory() for config in (plain, *ways)}) == 3
    digests = [digits(tmp_path, binarize=how).digest() for how in ("none", "threshold", "fresh", "fixed")]
    assert len(set(digests)) == 4
    assert digits(tmp_path).digest() == digests[0]
    assert digits(tmp_path, binarize="fresh").drawn(9).digest() == digests[2]  # a score's seed makes no other data


def test_one_classifier_serves_the_scores_of_all_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path))
    asked = []

    def derived(file, **_):
        asked.append(file)
        raise InterruptedError

    def train(data):
        asked.append(data.images("train"))
        raise InterruptedError

    data = digits(tmp_path, binarize="fresh")
    for replaced, function in (("derived", derived), ("train_classifier", train)):
        with monkeypatch.context() as patch:
            patch.setattr(classifier, replaced, function)
            for seed in (1, 2):
                with pytest.raises(InterruptedError):
                    classifier.classifier(data.drawn(seed))
    assert asked[0] == asked[1]
    assert torch.equal(asked[2], asked[3])


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_where_an_uninterrupted_one_ends(genexp):
    whole = genexp(*VAE)
    assert whole.code == 0, whole.err
    with interrupted_at(16):
        assert genexp(*VAE, "outputs_dir=stopped").code == 130
    resumed = genexp(*VAE, "outputs_dir=stopped")
    assert "going on from epoch 1.4" in resumed.out
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert without_times(read_metrics(resumed.run)) == without_times(read_metrics(whole.run))
    scores = [json.loads((run / "results.json").read_text())["scores"] for run in (resumed.run, whole.run)]
    assert scores[0] == scores[1]
    reconstructions = "reconstructions/epoch-0003.png"
    assert (resumed.run / reconstructions).read_bytes() == (whole.run / reconstructions).read_bytes()


@pytest.mark.slow
def test_a_run_is_scored_again_as_at_its_end_and_every_picture_is_drawn(genexp, tmp_path):
    run = genexp(*VAE).run
    first = json.loads((run / "results.json").read_text())["scores"]
    shutil.copytree(run, tmp_path / "again")
    (tmp_path / "again/results.json").unlink()
    answer = genexp("evaluate", "run=again")
    assert answer.code == 0, answer.err
    entries = json.loads((tmp_path / "again/results.json").read_text())["evaluations"].values()
    assert {entry["metric"]: entry["score"]["mean"] for entry in entries} == {
        name: score["mean"] for name, score in first.items()
    }
    assert genexp("evaluate", "run=again", "seed=1").code == 0
    for kind in ("neighbours", "reconstructions", "interpolation", "manifold"):
        drawn = genexp("figure", f"run={run}", f"kind={kind}", "rows=2", "columns=3", f"out={kind}.png")
        assert drawn.code == 0, drawn.err
    picture = unlabelled(np.asarray(unscaled(run / "reconstructions/epoch-0003.png").convert("L")), 10)
    image = (
        digits(tmp_path, binarize="fresh").to(select("auto", None)).drawn(0).images("valid")[1, 0].cpu()
    )  # a tile of 32 pixels, 1 from the next
    assert (picture[1:33, 34:66] == 255 * np.kron(image, np.ones((4, 4)))).all()


@pytest.mark.slow
def test_a_model_of_stages_takes_fresh_draws_for_its_codes(genexp):
    words = [
        "train",
        "model=stacked_dae",
        "dataset=digits",
        "dataset.binarize=fresh",
        "model.hidden=[12,8]",
        "model.masking=[0.1,0.2]",
        "epochs=2",
    ]
    words += ["model.pretrain_epochs=2", "model.chains=20", "model.burn_in=5", "metrics.parzen.n_samples=50"]
    whole = genexp(*words)
    assert whole.code == 0, whole.err
    with interrupted_at(30):  # in the second stage
        assert genexp(*words, "outputs_dir=stopped").code == 130
    assert_same_state(last_checkpoint(genexp(*words, "outputs_dir=stopped").run), last_checkpoint(whole.run))


@pytest.mark.slow
def test_images_that_are_not_grey_are_refused(genexp, tmp_path):
    colours = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(UsageError, match="images of 3 channels"):
        DataSet(colours, colours, colours).binarized("threshold")
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"pictures/{number}.png")
    folder = ["dataset=folder", "dataset.path=pictures", "dataset.size=8", "dataset.binarize=fresh", "data_dir=data"]
    for words, said in (
        (folder, "dataset.binarize=fresh is for grey images, and these are images of 3 channels"),
        (["dataset=ring", "dataset.binarize=fixed"], "there is no setting 'dataset.binarize' here"),
        (["dataset=cifar10", "dataset.binarize=fixed"], "it is one of dataset=digits"),
        (["dataset=digits", "dataset.binarize=half"], "'none', 'threshold', 'fresh' or 'fixed'"),
    ):
        answer = genexp("train", "model=vae", *words)
        assert (answer.code, said in answer.err) == (2, True), answer.err
        assert not (tmp_path / "outputs").exists()
    small = ["model.hidden=[8]", "model.latent_dim=2", "metrics.parzen.n_samples=20", "epochs=1", "batch_size=4"]
    answer = genexp("train", "model=vae", *folder, "dataset.channels=1", *small)
    assert answer.code == 0, answer.err


@pytest.mark.slow
def test_the_other_half_is_of_images_that_stay(genexp):
    small = ["model.channels=2", "model.blocks=1", "model.discriminator_channels=2", "model.pool=7", "epochs=1"]
    words = ["train", "model=cyclegan", "dataset=digits", *small, "~metric@metrics.translation_accuracy"]
    refused = genexp(*words, "dataset.binarize=fresh")
    assert (refused.code, "Set dataset.binarize to fixed or threshold" in refused.err) == (2, True), refused.err
    answer = genexp(*words, "dataset.binarize=threshold", "batch_size=100")
    assert answer.code == 0, answer.err
