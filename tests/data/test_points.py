"""Points: their bounds, and their densities against torch.distributions and numerical integration."""

import math

import pytest
import torch
from conftest import config_of
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genexp.data import SPLITS, Bounds, DataSet
from genexp.data.mixtures import gaussian_1d, grid, mixture_1d, ring
from genexp.data.remarks import mistake
from genexp.training import build

TWO = {"means": [-1.0, 2.0], "stds": [0.5, 1.0], "weights": [1.0, 3.0]}
SETS = {
    "gaussian_1d": 1, "mixture_1d": 1, "ring": 2, "grid": 2, "two_moons": 2, "swiss_roll": 2,
}  # fmt: skip


def made(name, *words):
    config = config_of("model=gan", f"dataset={name}", *words)
    return build.data_set(config.dataset, "data")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.slow
def test_points_lie_within_their_bounds_and_are_the_same_each_time(name):
    data, again, more = made(name), made(name), made(name, "dataset.n=700")
    assert data.shape == (SETS[name],)
    assert (data.train.dtype, len(data.train), len(more.train), len(more.test)) == (torch.float32, 100_000, 700, 10_000)
    assert all(getattr(data, split).min() > 0 and getattr(data, split).max() < 1 for split in SPLITS)
    assert data.digest() == again.digest()
    assert mistake(data) is None
    assert not torch.equal(data.valid, data.test)
    if name not in ("ring", "grid"):
        assert made(name, "dataset.seed=1").digest() != data.digest()


def of_distributions(mixture):
    return MixtureSameFamily(
        Categorical(mixture.weights),
        Independent(Normal(mixture.means, mixture.stds[:, None].expand_as(mixture.means)), 1),
    )


@pytest.mark.parametrize(
    "data",
    [
        gaussian_1d(None, n=9, mean=3.0, std=2.0, seed=0),
        mixture_1d(None, n=9, seed=0, **TWO),
        ring(None, n=9, radius=1.0, std=0.01),
        grid(None, n=9, spacing=2.0, std=0.05),
    ],
    ids=["gaussian_1d", "mixture_1d", "ring", "grid"],
)
def test_a_density_is_that_of_torch_distributions(data):
    points = data.bounds.coordinates(data.test)
    far = points * 3 + 1
    for x in (points, far):
        assert torch.allclose(data.density.log_prob(x), of_distributions(data.density).log_prob(x), rtol=1e-9)


def test_points_are_drawn_from_their_density():
    data = mixture_1d(None, n=100_000, seed=0, **TWO)
    x = data.bounds.coordinates(data.train)[:, 0]
    assert x.mean().item() == pytest.approx(0.25 * -1 + 0.75 * 2, abs=0.02)
    second = 0.25 * (0.25 + 1) + 0.75 * (1 + 4)
    assert x.square().mean().item() == pytest.approx(second, abs=0.05)
    assert data.labels["train"].double().mean().item() == pytest.approx(0.75, abs=0.01)
    assert data.bounds == Bounds((-4.0,), (8.0,))


def test_curves_are_where_they_should_be():
    moons = made("two_moons", "dataset.std=1e-6")
    x, labels = moons.bounds.coordinates(moons.train), moons.labels["train"]
    centre = torch.stack([labels.double(), 0.5 * labels], 1)
    assert torch.allclose((x - centre).norm(dim=1), torch.ones(len(x), dtype=torch.float64), atol=1e-4)
    assert x[labels == 0, 1].min() > -1e-4
    assert x[labels == 1, 1].max() < 0.5 + 1e-4
    roll = made("swiss_roll", "dataset.std=1e-6")
    x = roll.bounds.coordinates(roll.train)
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    turns = (radius - angle) / (2 * math.pi)
    assert torch.allclose(turns, turns.round(), atol=1e-4)
    assert 1.5 * math.pi - 1e-3 < radius.min() < radius.max() < 4.5 * math.pi + 1e-3
    assert roll.labels == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=mixture_1d", "dataset.means=[0]"], "dataset.means has 1 mode, dataset.stds 2"),
        (["dataset=gaussian_1d", "dataset.std=0"], "dataset.std=0: should be greater than 0"),
        (["dataset=two_moons", "dataset.n=0"], "dataset.n=0"),
        (["dataset=two_moons", "+metric@metrics.kl=kl"], "metrics.kl: divergences need data whose density is known"),
        (["dataset=two_moons", "+metric@metrics.modes=modes"], "metrics.modes: modes are known of mixtures only"),
        (["dataset=ring", "model=dcgan"], "model=dcgan convolves images, and this data set has points in 2 dimensions"),
        (["dataset=ring", "model=conv_gan"], "model=conv_gan convolves images"),
        (["dataset=digits", "+metric@metrics.js=js"], "metrics.js: divergences need data whose density is known"),
        (["dataset=gaussian_1d", "metric@metrics.fid=fid"], "features are of images, and this data set has points"),
        (["dataset=gaussian_1d", "model=vae"], "set model.likelihood=gaussian"),
    ],
)
def test_points_where_they_do_not_belong_are_refused(genexp, tmp_path, words, said):
    answer = genexp("train", "model=gan", *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("model", ["gan", "vae"])
@pytest.mark.slow
def test_models_train_on_all_of_them(genexp, name, model):
    small = {
        "gan": ["model.generator_hidden=[16]", "model.discriminator_hidden=[8]", "model.latent_dim=4"],
        "vae": ["model.hidden=[16]", "model.latent_dim=2", "model.likelihood=gaussian", "metrics.iwae.n_samples=2"],
    }
    words = ["train", f"model={model}", f"dataset={name}", "dataset.n=500", "epochs=1", "batch_size=100", *small[model]]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert (answer.run / "samples/epoch-0001.png").exists()
    assert genexp("sample", f"run={answer.run}", "n=50").code == 0
    assert genexp("export", str(answer.run)).code == 0
    for kind in ("samples", "curves"):
        assert genexp("figure", f"run={answer.run}", f"kind={kind}").code == 0


def test_mistakes_of_a_data_set_are_named():
    points = torch.rand(5, 2)
    bounds = Bounds((0.0, 0.0), (1.0, 1.0))
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    labels = torch.tensor([0, 1, -1, 2])
    assert mistake(DataSet(images, images, images, {"train": labels})) is None
    for data, said in (
        (DataSet(points, points, points), "train split has the shape (5, 2); it should be (N, C, H, W)"),
        (DataSet(images, images, images, bounds=bounds), "it should be (N, d), N ≥ 1, since there are bounds"),
        (DataSet(images, images[:, :, :1], images), "valid split has the shape (4, 1, 1, 2)"),
        (DataSet(images, images, images[:0]), "test split has the shape (0, 1, 2, 2)"),
        (DataSet(images, images, images, {"train": labels[:3]}), "train labels should be (4,) int64, not (3,)"),
        (
            DataSet(images, images, images, {"test": labels.float()}),
            "test labels should be (4,) int64, not (4,) torch.float32",
        ),
        (DataSet(images, images, images, {"train": labels}, classes=("a", "b")), "have 2, which is no class: 0 to 1"),
        (DataSet(images, images, images, {"train": labels - 1}), "have -2, which is no class: 0 to 1, or −1 for none"),
    ):
        assert said in mistake(data), mistake(data)


def test_classes_have_names():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    labels = {"train": torch.tensor([0, 1, -1]), "test": torch.tensor([0, 2, 0])}
    data = DataSet(images, images, images, labels)
    assert (data.class_names(), data.spec().classes) == (("0", "1", "2"), ("0", "1", "2"))
    unlabelled = DataSet(images, images, images, {"train": torch.full((3,), -1), "test": labels["test"]})
    assert (unlabelled.has_labels, unlabelled.class_names(), unlabelled.spec().classes) == (False, ("0", "1", "2"), ())
    assert DataSet(images, images, images).class_names() == ()
    assert data.batch("train", slice(0, 2)).keys() == {"images", "labels"}
    assert data.batch("valid").keys() == {"images"}


def test_points_have_the_digest_that_earlier_runs_kept():
    """Of genexp 0.1.0, which had points as images of 1×1×2: its runs on them open and go on."""
    assert ring(None, n=2000, radius=1.0, std=0.01).digest() == "7266c7517372854a"
