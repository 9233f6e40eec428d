"""Compare scores of features, and their networks, with closed forms, brute force and other implementations."""

import math
import threading

import numpy as np
import pytest
import torch
import yaml
from conftest import Fixed
from scipy.linalg import sqrtm
from scipy.ndimage import correlate

from genexp.config.components import check_component
from genexp.config.components import settings_of as settings_of_component
from genexp.config.schema import CONFIGS
from genexp.data import DataSet
from genexp.data.digits import digits
from genexp.data.mixtures import ring
from genexp.data.mnist import mnist
from genexp.errors import UsageError
from genexp.metrics import Subject, extractors, features
from genexp.metrics import classifier as classifier_module
from genexp.metrics.frechet import fid, frechet_distance
from genexp.metrics.inception_score import inception_score, split_scores
from genexp.metrics.kernel_distance import kid, squared_mmd, subset_distances
from genexp.metrics.ms_ssim import BETAS, ms_ssim, scales, similarity
from genexp.metrics.precision_recall import coverage, density, prdc, precision, recall, squared_radii
from genexp.rundirs.results import Evaluation
from genexp.score import Score
from genexp.storage import derived
from genexp.training import build

COMPARED = {"n_samples": 200, "split": "test", "features": "classifier", "weights": None}
BALLS = (precision, recall, density, coverage)
SCORES = {
    "inception_score": (inception_score, {"splits": 10}),
    "fid": (fid, {}),
    "kid": (kid, {"subsets": 5, "subset_size": 100}),
    "precision": (precision, {"k": 3}),
    "recall": (recall, {"k": 3}),
    "density": (density, {"k": 5}),
    "coverage": (coverage, {"k": 5}),
}


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def settings_of(name, **changed):
    chosen = COMPARED | SCORES[name][1] | changed
    return {key: value for key, value in chosen.items() if (name, key) != ("inception_score", "split")}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Use an empty cache, and train classifiers for a second only; return the folder of cached classifiers."""
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_module, "STEPS", 60)
    return tmp_path / "cache" / "classifiers"


@pytest.fixture(scope="module")
def dataset():
    return digits(None)


@pytest.fixture
def subject(cache, dataset):
    """Return a subject whose samples are training images with noise."""
    noise = torch.rand(dataset.images("train").shape, generator=torch.Generator().manual_seed(1))
    return Subject(Fixed(0.7 * dataset.images("train") + 0.3 * noise), dataset, 0)


# The distances themselves


def with_moments(x, mean, covariance):
    """Return the features, shifted and stretched to have exactly this mean and covariance."""
    x = x - x.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(x.numpy(), rowvar=False)), x.numpy().T)
    return torch.from_numpy((np.linalg.cholesky(covariance) @ white).T + mean)


def test_fid_of_exact_moments_is_the_closed_form():
    rng = np.random.default_rng(0)
    means, roots = rng.normal(size=(2, 6)), rng.normal(size=(2, 6, 9))
    one, other = roots @ roots.transpose(0, 2, 1)
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(one + other - 2 * sqrtm(one @ other).real)
    x, y = with_moments(gaussian(50, 6), means[0], one), with_moments(gaussian(80, 6, 1), means[1], other)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    diagonals = with_moments(x, means[0], np.diag([4.0] * 6)), with_moments(y, means[0], np.diag([9.0] * 6))
    assert frechet_distance(*diagonals) == pytest.approx(6 * (3 - 2) ** 2)


def test_fid_is_computed_in_float64():
    """In float32 the error of the means would be larger than the distance."""
    x = (gaussian(500, 4) + 1000).float()
    y = x + torch.tensor([1.0, 0, 0, 0])
    assert frechet_distance(x, y) == pytest.approx(1.0, abs=1e-6)


def test_fid_of_many_gaussian_features_approaches_the_closed_form():
    x, y = gaussian(100_000, 5), 2 * gaussian(100_000, 5, 1) + 0.5
    assert frechet_distance(x, y) == pytest.approx(5 * 0.5**2 + 5 * (2 - 1) ** 2, rel=0.02)


def test_kid_is_the_unbiased_estimator():
    x, y = gaussian(12, 5).numpy(), gaussian(9, 5, 1).numpy() + 0.3
    k = lambda a, b: (a @ b / 5 + 1) ** 3  # noqa: E731
    within = lambda z: np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])  # noqa: E731
    expected = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert squared_mmd(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-9)


def test_kid_agrees_with_torch_fidelity():
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = gaussian(40, 6), gaussian(40, 6, 1) * 1.5
    theirs = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=40, verbose=False)  # a permutation of all
    ours = subset_distances(x, y, subsets=3, subset_size=40, seed=0)
    assert ours.tolist() == pytest.approx([theirs["kernel_inception_distance_mean"]], rel=1e-9)  # subsets are the sets


def test_kid_of_one_distribution_is_zero_on_average_and_even_negative():
    distances = subset_distances(gaussian(4000, 8), gaussian(4000, 8, 1), subsets=50, subset_size=100, seed=0)
    assert abs(distances.mean()) < 4 * distances.std() / math.sqrt(50)
    assert distances.min() < 0 < distances.max()
    assert torch.equal(distances, subset_distances(gaussian(4000, 8), gaussian(4000, 8, 1), 50, 100, seed=0))
    assert not torch.equal(distances, subset_distances(gaussian(4000, 8), gaussian(4000, 8, 1), 50, 100, seed=1))


@pytest.mark.slow
def test_inception_scores_that_are_known():
    assert split_scores(torch.zeros(100, 7), 10, 0) == pytest.approx((1.0, 0.0))
    each = 60 * torch.eye(10).repeat(50, 1)
    assert split_scores(each, 1, 0)[0] == pytest.approx(10.0)
    assert split_scores(60 * torch.eye(10)[:1].repeat(50, 1), 5, 0)[0] == pytest.approx(1.0)  # one class only
    mean, std = split_scores(gaussian(101, 5), 10, 0)
    p = gaussian(101, 5).softmax(1)
    assert std > 0
    assert split_scores(gaussian(101, 5), 10, 1) != (mean, std)
    whole = (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
    assert split_scores(gaussian(101, 5), 1, 0)[0] == pytest.approx(whole)


def brute_force(points, samples, k):
    """Return precision, recall, density and coverage, computed from all the distances."""
    points, samples = points.double().numpy(), samples.double().numpy()
    distance = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))  # noqa: E731
    of_points = np.sort(distance(points, points), 1)[:, k]
    of_samples = np.sort(distance(samples, samples), 1)[:, k]
    d = distance(samples, points)
    return [
        (d <= of_points).any(1).mean(),
        (d <= of_samples[:, None]).any(0).mean(),
        (d < of_points).sum(1).mean() / k,
        (d < of_points).any(0).mean(),
    ]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tile", [1, 700, 2**22])
def test_balls_agree_with_brute_force(monkeypatch, k, tile):
    monkeypatch.setattr("genexp.metrics.precision_recall.TILE", tile)
    points, samples = gaussian(150, 4).float() + 30, 0.8 * gaussian(130, 4, 1).float() + 30.5
    means = [values.mean().item() for values in prdc(points, samples, k)]
    assert means == pytest.approx(brute_force(points, samples, k), abs=1e-12)
    assert all(0 < value < 1.5 for value in means)
    given = prdc(points, samples, k, squared_radii(points.double(), k))
    assert [values.mean().item() for values in given] == means


def test_precision_and_recall_agree_with_torch_fidelity():
    from torch_fidelity.metric_prc import prc_features_to_metric

    points, samples = gaussian(300, 6), 0.7 * gaussian(200, 6, 1) + 0.2
    theirs = prc_features_to_metric(samples, points, prc_neighborhood=3, verbose=False)
    ours = prdc(points, samples, 3)
    assert ours.precision.mean().item() == pytest.approx(theirs["precision"])
    assert ours.recall.mean().item() == pytest.approx(theirs["recall"])


def test_copies_and_collapsed_samples_are_ties_that_rounding_does_not_break():
    """A copy's distances are exactly the radii of balls; many equal samples have balls of radius 0."""
    points = 100 + gaussian(400, 20)
    copies = [values.mean().item() for values in prdc(points, points.clone(), 5)]
    assert copies == pytest.approx([1, 1, 1, 1], abs=1e-12)
    one = points[:1].expand(50, 20)
    values = prdc(points, one, 3)
    assert values.precision.mean() == 1
    assert values.recall.sum() == 1  # the point itself, at distance 0 of a ball of radius 0
    assert brute_force(points, one, 3) == pytest.approx([each.mean().item() for each in values], abs=1e-12)


def test_density_and_coverage_of_one_distribution_are_what_theory_says():
    """Naeem et al. 2020: their expectations are 1, and 1 − Π (n − i) / (2n − i), i = 1 to k, in any dimension."""
    n, k = 3000, 5
    values = prdc(gaussian(n, 10), gaussian(n, 10, 1), k)
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert values.coverage.mean().item() == pytest.approx(expected, abs=0.012)
    assert values.density.mean().item() == pytest.approx(1, abs=0.06)
    assert values.precision.mean().item() == pytest.approx(values.recall.mean().item(), abs=0.05)


# Similarity


def reference_similarity(x, y, betas, windows):
    """Return MS-SSIM of two grey images by SciPy, in float64, over windows inside the image or across its border."""
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    blur = lambda image: correlate(image, window, mode="mirror")  # noqa: E731
    total = 1.0
    for scale, beta in enumerate(betas):
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        contrast = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        last = scale == len(betas) - 1
        value = luminance * contrast if last else contrast
        if windows == "inside" or not last:
            value = value[5 : len(x) - 5, 5 : len(x) - 5]
        total *= max(value.mean(), 0) ** beta
        side = len(x) // 2
        x, y = (image[: 2 * side, : 2 * side].reshape(side, 2, side, 2).mean((1, 3)) for image in (x, y))
    return total


@pytest.mark.parametrize(("side", "expected"), [(8, 0), (10, 0), (11, 1), (28, 2), (32, 2), (48, 3), (64, 3), (176, 5)])
def test_as_many_scales_as_windows_fit_into(side, expected):
    assert scales(side) == expected
    if expected:
        assert similarity(torch.rand(1, 1, side, side), torch.rand(1, 1, side, side)).isfinite().all()


@pytest.mark.slow
def test_more_scales_are_impossible():
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    for side in range(11, 200):
        used = scales(side)
        assert side >> (used - 1) >= 11
        if used < 5 and side >> used >= 11:  # a window would fit, but torchmetrics refuses
            images = torch.rand(1, 1, side, side)
            with pytest.raises(ValueError, match="must be larger"):
                multiscale_structural_similarity_index_measure(
                    images, images, data_range=1.0, betas=(0.1,) * (used + 1)
                )


def pairs_of(side):
    """Return pairs of images from equal to unlike, and at the end one whose images differ at the border alone."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(6, 1, side, side, generator=generator)
    other = (one + torch.linspace(0, 2, 6).view(-1, 1, 1, 1) * torch.rand(one.shape, generator=generator)).clamp(0, 1)
    other[5] = one[5]
    other[5, :, [0, -1]] = 1 - one[5, :, [0, -1]]
    other[5, :, :, [0, -1]] = 1 - one[5, :, :, [0, -1]]
    return one, other


@pytest.mark.parametrize("windows", ["inside", "reflected"])
@pytest.mark.parametrize(("side", "n_scales"), [(28, 2), (32, 2), (64, 3), (176, 5)])
def test_similarity_agrees_with_an_independent_implementation(side, n_scales, windows):
    one, other = pairs_of(side)
    betas = np.array(BETAS[:n_scales]) / sum(BETAS[:n_scales])
    pairs = zip(one[:, 0].double().numpy(), other[:, 0].double().numpy(), strict=True)
    expected = [reference_similarity(x, y, betas, windows) for x, y in pairs]
    tolerance = 1e-12 if windows == "inside" else 1e-4  # torchmetrics computes in float32
    assert similarity(one, other, windows).tolist() == pytest.approx(expected, abs=tolerance)
    assert expected[0] == pytest.approx(1)


def test_windows_inside_count_a_border_as_often_as_they_see_it():
    one, other = pairs_of(28)
    inside, reflected = (similarity(one, other, windows)[5].item() for windows in ("inside", "reflected"))
    assert inside > 0.99  # the rings weigh little in the windows that hold them
    assert reflected < 0.9  # mirrored, they fill windows of their own


def test_similarity_of_colour_images_is_a_mean_over_channels_and_windows():
    one, other = (images[:4].expand(4, 3, 28, 28) for images in pairs_of(28))
    assert torch.allclose(similarity(one, other), similarity(one[:, :1], other[:, :1]), atol=1e-12)


def test_older_scores_of_similarity_are_told_from_new_ones():
    """Scores without the setting `windows` were taken over reflected borders."""
    metric = check_component("metrics.ms_ssim", yaml.safe_load((CONFIGS / "metric/ms_ssim.yaml").read_text()))
    assert metric["windows"] == "inside"
    settings = {name: value for name, value in settings_of_component(metric).items() if name != "windows"}
    kept = Evaluation("ms_ssim", settings, {}, 0, 1, 1, 1.0, Score(0.2, 0.1, ""), {})
    assert not kept.is_by(metric)
    assert kept.is_by(metric | {"windows": "reflected"})


def images_of(size=28, n=40):
    images = torch.randint(256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DataSet(images, images[:5], images[:20], labels={})


@pytest.mark.slow
def test_diversity_of_a_collapsed_model_is_1_and_more_varied_images_score_less():
    data = images_of()
    one = Subject(Fixed(torch.rand(1, 1, 28, 28).expand(30, 1, 28, 28)), data, 0)
    collapsed = ms_ssim(one, n_samples=30, n_pairs=700)
    assert collapsed.mean == pytest.approx(1, abs=1e-5)
    varied = ms_ssim(Subject(Fixed(data.images("train")), data, 0), n_samples=40, n_pairs=700)
    assert varied.mean < 0.5
    assert (varied.details["scales"], varied.details["n_pairs"], varied.details["floor_n"]) == (2, 700, 40)
    assert varied.mean == pytest.approx(varied.floor, abs=5 * varied.stderr)
    assert "scales: 2, windows: reflected; pairs of train images score 0." in varied.summary
    again = ms_ssim(Subject(Fixed(data.images("train")), data, 0), n_samples=40, n_pairs=700)
    assert again == varied
    assert ms_ssim(Subject(Fixed(data.images("train")), data, 1), n_samples=40, n_pairs=700).mean != varied.mean
    with pytest.raises(UsageError, match="at least 2 samples and 2 train images; n_samples=1"):
        ms_ssim(one, n_samples=1, n_pairs=3)


# The scores of a subject


@pytest.mark.parametrize("name", SCORES)
def test_a_score_holds_what_defines_it(subject, name):
    score, _ = SCORES[name]
    result = score(subject, **settings_of(name))
    assert result.extractor.startswith("classifier-")
    assert len(result.extractor) == len("classifier-") + 8
    assert result.details["extractor_accuracy"] > 0.5
    assert math.isfinite(result.mean)
    assert math.isfinite(result.floor)
    assert (result.n_samples, result.details["floor_n"], result.details["floor_split"]) == (200, 200, "train")
    assert (result.details["seed"], result.sample_kind, result.details["features"]) == (0, "draw", "classifier")
    assert result.extractor in result.summary
    assert "200 samples" in result.summary
    assert "200 train images score" in result.summary
    assert "\n" not in result.summary
    if name != "inception_score":
        assert (result.details["n_points"], result.split) == (300, "test")
        assert "300 test images" in result.summary
    assert (result.stderr is None) == (name in ("inception_score", "fid"))
    again = score(Subject(subject.model, subject.data, 0), **settings_of(name))
    assert again == result
    other = score(Subject(subject.model, subject.data, 1), **settings_of(name))
    assert other.floor != result.floor  # other training images
    assert (other.mean == result.mean) == (name not in ("inception_score", "kid"))  # whose draws are the seed's


def test_scores_are_those_of_the_features(subject):
    sets = features.FeatureSets(subject, COMPARED)
    samples, points, real = (part.vectors.double() for part in (sets.samples, sets.points, sets.floor))
    assert fid(subject, **COMPARED).mean == pytest.approx(frechet_distance(samples, points))
    assert fid(subject, **COMPARED).floor == pytest.approx(frechet_distance(real, points))
    assert [score(subject, k=3, **COMPARED).mean for score in BALLS] == pytest.approx(brute_force(points, samples, 3))
    assert [score(subject, k=3, **COMPARED).floor for score in BALLS] == pytest.approx(brute_force(points, real, 3))
    result = precision(subject, k=3, **COMPARED)
    assert result.stderr == pytest.approx(math.sqrt(result.mean * (1 - result.mean) / 200))


def test_what_scores_share_is_computed_once(subject, monkeypatch):
    calls = []
    compute = extractors.Extractor._in_chunks
    counted = lambda self, n, images: calls.append(n) or compute(self, n, images)  # noqa: E731
    monkeypatch.setattr(extractors.Extractor, "_in_chunks", counted)
    features.extractor(subject, "classifier", None)
    calls.clear()
    compare = "genexp.metrics.precision_recall.prdc"
    monkeypatch.setattr(compare, lambda *given: compared.append(1) or prdc(*given))
    compared = []
    for name, (score, _) in SCORES.items():
        score(subject, **settings_of(name, **({"k": 4} if score in BALLS else {})))
    assert sorted(calls) == [200, 200, 300]  # samples, training images, the split
    assert len(compared) == 2  # samples and floor, for all four


def test_more_samples_than_training_images_and_a_split_that_is_the_training_set(subject):
    samples = torch.rand(1500, 1, 8, 8)
    result = density(Subject(Fixed(samples), subject.data, 0), k=5, **COMPARED | {"n_samples": 1500})
    assert (result.n_samples, result.details["floor_n"]) == (1500, 1197)
    assert "1,197 train images score" in result.summary
    result = density(subject, k=5, **COMPARED | {"split": "train"})
    assert (result.details["n_points"], result.details["floor_n"], result.details["floor_split"]) == (1197, 200, "test")
    assert "200 test images score" in result.summary


def test_too_few_images_for_the_features_are_a_warning(subject):
    assert fid(subject, **COMPARED).warning is None
    assert "64 images are too few" in fid(subject, **COMPARED | {"n_samples": 64}).warning


@pytest.mark.parametrize(
    ("score", "changed", "message"),
    [
        (kid, {"subsets": 2, "subset_size": 201}, "subset_size=201.*at most the 200"),
        (kid, {"subsets": 2, "subset_size": 301, "n_samples": 1000}, "subset_size=301.*at most the 300"),
        (kid, {"subsets": 2, "subset_size": 1}, "subset_size=1: a subset has at least 2"),
        (precision, {"k": 200}, "k=200: .*there are 200 of one"),
        (fid, {"weights": "some.pth"}, "weights=some.pth is for features=inception"),
        (fid, {"features": "inception"}, "features=inception needs weights=FILE"),
        (
            fid,
            {"features": "inception", "weights": "/no/such.pth"},
            "weights=/no/such.pth cannot be read: No such file",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(subject, score, changed, message, cache):
    with pytest.raises(UsageError, match=message):
        score(subject, **COMPARED | changed)
    assert not cache.exists()  # before anything is trained


def test_splits_beyond_the_samples_are_refused(subject):
    with pytest.raises(UsageError, match=r"splits=10: each has at least 2 .* there are 19 of one"):
        inception_score(subject, **settings_of("inception_score", n_samples=19))


def test_data_without_labels_or_images_are_refused(cache, dataset):
    nameless = DataSet(dataset.train, dataset.valid, dataset.test, {"train": -torch.ones(1197, dtype=torch.int64)})
    with pytest.raises(UsageError, match="features=classifier needs labels of training and test images"):
        fid(Subject(Fixed(dataset.images("test")), nameless, 0), **COMPARED)
    with pytest.raises(UsageError, match="needs labels"):
        fid(Subject(Fixed(dataset.images("test")), images_of(), 0), **COMPARED)
    points = ring(None, n=300, radius=1.0, std=0.01)
    for name in (*SCORES, "ms_ssim"):
        component = yaml.safe_load((CONFIGS / "metric" / f"{name}.yaml").read_text(encoding="utf-8"))
        with pytest.raises(UsageError, match=f"metrics.{name}: "):
            build.check_metrics({name: component}, Fixed(None), points)
        if name == "kid":  # in subsets of 1,000, of which there are none among 300 test images
            with pytest.raises(UsageError, match=r"metrics.kid: subset_size=1000.*at most the 300"):
                build.check_metrics({name: component}, Fixed(None), dataset)
        elif name != "ms_ssim":
            build.check_metrics({name: component}, Fixed(None), dataset)
    with pytest.raises(UsageError, match="windows of 11×11 pixels, and these images are smaller"):
        build.check_metrics({"ms_ssim": component}, Fixed(None), dataset)


@pytest.mark.parametrize("name", [*SCORES, "ms_ssim"])
def test_the_shipped_settings_are_what_a_score_takes(name):
    component = yaml.safe_load((CONFIGS / "metric" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert component["name"] == name
    assert check_component(f"metrics.{name}", component) == component
    assert component["n_samples"] == 10_000
    with pytest.raises(UsageError, match="n_samples=0"):
        check_component(f"metrics.{name}", component | {"n_samples": 0})


# The classifier


@pytest.mark.slow
def test_the_classifier_of_the_digits_is_good_and_kept(monkeypatch, cache, dataset, capsys):
    monkeypatch.setattr(classifier_module, "STEPS", 400)
    state = torch.get_rng_state()
    extractor = classifier_module.classifier(dataset)
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.accuracy > 0.95
    assert f"training a classifier of this data set for its features, once; kept in {cache}" in capsys.readouterr().out

    test_features = extractor(dataset.images("test"))
    assert (test_features.vectors.shape, test_features.logits.shape) == ((300, 64), (300, 10))
    assert test_features.vectors.dtype == test_features.logits.dtype == torch.float32
    assert (test_features.logits.argmax(1) == dataset.labels["test"]).double().mean().item() == extractor.accuracy
    assert extractor(dataset.images("train")).vectors.square().mean().item() == pytest.approx(1, abs=1e-4)

    monkeypatch.setattr(classifier_module, "train_classifier", lambda data: pytest.fail("it was trained again"))
    again = classifier_module.classifier(dataset)
    assert (again.name, again.accuracy) == (extractor.name, extractor.accuracy)
    assert torch.equal(again(dataset.images("test")).vectors, test_features.vectors)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_training_again_makes_the_same_classifier_whatever_is_set_outside(cache, dataset, tmp_path, monkeypatch):
    threads, names = torch.get_num_threads(), []
    for seed, used in ((1, 1), (2, 2)):
        monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / str(seed)))
        torch.manual_seed(seed)
        torch.set_num_threads(used)
        try:
            with torch.no_grad():
                names.append(classifier_module.classifier(dataset).name)
            assert torch.get_num_threads() == used
        finally:
            torch.set_num_threads(threads)
    assert names[0] == names[1]


def test_classifiers_in_the_caches_of_users_still_serve():
    assert classifier_module.recipe_digest() == "3952e49f"


@pytest.mark.slow
def test_another_recipe_or_other_data_are_another_classifier(cache, dataset, monkeypatch):
    names = {classifier_module.classifier(dataset).name}
    monkeypatch.setattr(classifier_module, "STEPS", 61)
    names.add(classifier_module.classifier(dataset).name)
    turned = DataSet(dataset.train.flip(3), dataset.valid, dataset.test, dataset.labels, white=16)
    names.add(classifier_module.classifier(turned).name)
    assert len(names) == len(list(cache.glob("*.pt"))) == 3


@pytest.mark.parametrize("how", ["cut", "changed", "something else"])
@pytest.mark.slow
def test_a_damaged_cache_is_said_and_mended(cache, dataset, capsys, how):
    extractor = classifier_module.classifier(dataset)
    (file,) = cache.glob("*.pt")
    if how == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif how == "changed":
        state = torch.load(file, weights_only=True)
        state["weights"]["output.bias"][0] += 1e-3
        torch.save(state, file)
    else:
        torch.save([1, 2], file)
    capsys.readouterr()
    assert classifier_module.classifier(dataset).name == extractor.name
    output = capsys.readouterr().out
    assert f"warning: {file} is damaged (" in output
    assert "training a classifier" in output
    classifier_module.classifier(dataset)
    assert capsys.readouterr().out == ""


def test_a_cache_that_cannot_be_written_is_said(cache, dataset, capsys):
    cache.parent.write_text("no folder")
    assert classifier_module.classifier(dataset).accuracy > 0.5
    assert "cannot be written: Not a directory; the classifier is made again each time" in capsys.readouterr().out


def test_one_process_trains_and_another_waits(cache, dataset, monkeypatch):
    """Two threads hold separate locks, as two processes do."""
    trained, begun, go_on, waiting = [], threading.Event(), threading.Event(), threading.Event()
    train = classifier_module.train_classifier

    def slow(data):
        trained.append(1)
        begun.set()
        go_on.wait(30)
        return train(data)

    note_waiting = lambda text, **_: waiting.set() if "waiting for another process" in text else None  # noqa: E731
    monkeypatch.setattr(derived, "print", note_waiting, raising=False)
    monkeypatch.setattr(classifier_module, "train_classifier", slow)
    names = []
    threads = [
        threading.Thread(target=lambda: names.append(classifier_module.classifier(dataset).name)) for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    assert waiting.wait(30)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(trained) == 1
    assert len(set(names)) == 1


def test_neither_how_images_are_batched_nor_the_chunk_changes_features(cache, dataset, monkeypatch):
    extractor = classifier_module.classifier(dataset)
    images = dataset.images("train")
    whole = extractor(images)
    parts = torch.cat([extractor(part).vectors for part in images.split(77)])
    assert (parts - whole.vectors).abs().max() < 1e-5
    monkeypatch.setattr(classifier_module, "CHUNK", 123)
    assert (classifier_module.classifier(dataset)(images).logits - whole.logits).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 48, 48), (3, 9, 7)])
def test_the_classifier_takes_images_of_any_size(cache, shape, monkeypatch):
    monkeypatch.setattr(classifier_module, "STEPS", 2)
    images = torch.randint(256, (30, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    labels[4] = -1
    data = DataSet(images, images, images, dict.fromkeys(("train", "valid", "test"), labels))
    test_features = classifier_module.classifier(data)(data.images("test"))
    assert (test_features.vectors.shape, test_features.logits.shape) == ((30, 64), (30, 3))


@pytest.mark.timeout(900)
@pytest.mark.slow(70)
def test_the_classifier_of_mnist_is_right_about_99_in_100(mnist_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path))
    data = mnist(mnist_dir)
    extractor = classifier_module.classifier(data)
    assert extractor.accuracy >= 0.99
    subject = Subject(Fixed(data.images("valid")), data, 0)
    settings = COMPARED | {"n_samples": 5000}
    for score, margin in ((fid, 0.1), (precision, 0.03), (recall, 0.03), (density, 0.1), (coverage, 0.03)):
        result = score(subject, **({} if score is fid else {"k": 5}), **settings)
        assert result.mean == pytest.approx(result.floor, abs=margin)  # images held out are as good as any


# Inception


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Return a file with random weights of Inception, small enough that nothing overflows."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *given, **named: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(network.state_dict(), file)
    return file


@pytest.mark.slow
def test_inception_with_given_weights(inception_file, dataset):
    import hashlib

    state = torch.get_rng_state()
    extractor = extractors.inception(inception_file, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.name == f"inception-{hashlib.sha256(inception_file.read_bytes()).hexdigest()[:8]}"
    grey = dataset.images("test")[:4]
    outputs = extractor(grey)
    assert (outputs.vectors.shape, outputs.logits.shape) == ((4, 2048), (4, 1008))
    assert torch.equal(outputs.vectors, extractor(grey.expand(-1, 3, -1, -1)).vectors)
    assert torch.equal(outputs.vectors, extractor((255 * grey).round() / 255).vectors)  # eight bits are what it sees
    assert (extractor(grey[:1]).vectors - outputs.vectors[:1]).abs().max() < 1e-4 * outputs.vectors.abs().max()

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(inception_file))
    vectors, logits = theirs((255 * grey).round().to(torch.uint8).expand(-1, 3, -1, -1))
    assert torch.equal(outputs.vectors, vectors)
    assert torch.equal(outputs.logits, logits)


@pytest.mark.slow
def test_scores_by_inception_need_no_labels(inception_file):
    data = images_of(16, n=6)
    small = DataSet(data.train[:4], data.valid[:4], data.test[:4], labels={})
    subject = Subject(Fixed(data.images("train")), small, 0)
    settings = {"n_samples": 3, "split": "test", "features": "inception", "weights": str(inception_file)}
    result = kid(subject, subsets=2, subset_size=3, **settings)
    assert result.extractor.startswith("inception-")
    assert result.details["extractor_accuracy"] is None
    assert result.details["weights"] == str(inception_file)


class Unsafe:
    """An object that creates a file when pickle loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_weights_that_would_execute_something_are_refused(tmp_path):
    file, touched = tmp_path / "weights.pth", tmp_path / "touched"
    torch.save({"weights": Unsafe(touched)}, file)
    with pytest.raises(UsageError, match=r"weights.pth is damaged, or holds more than tensors, .*unsafe"):
        extractors.inception(file, torch.device("cpu"))
    assert not touched.exists()


@pytest.mark.slow
def test_weights_of_something_else_are_refused(inception_file, tmp_path):
    file = tmp_path / "weights.pth"
    for other in ({"weight": torch.zeros(3)}, [1, 2], torch.zeros(3)):
        torch.save(other, file)
        with pytest.raises(UsageError, match="weights of another network than torch-fidelity's Inception"):
            extractors.inception(file, torch.device("cpu"))
    for content in (b"", b"no weights", inception_file.read_bytes()[:10_000]):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is damaged"):
            extractors.inception(file, torch.device("cpu"))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        extractors.inception(tmp_path, torch.device("cpu"))
