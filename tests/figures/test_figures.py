"""Figures: nearest training images, the place of each image in a picture, and the curves of a run."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Fixed, config_of
from images import unlabelled

from genexp import rng
from genexp.data import DataSet
from genexp.data.digits import digits
from genexp.data.mnist import mnist
from genexp.errors import GenexpError, UsageError
from genexp.figures import kinds as figures
from genexp.figures import pictures
from genexp.figures.canvas import FRAME, grid
from genexp.figures.curves import Marks, curves, save_figure
from genexp.metrics import nearest
from genexp.models import Model, draw, evaluating
from genexp.models.samplers import ChainSampler
from genexp.training import build

CPU = torch.device("cpu")
SMALL = {
    "vae": ["model=vae", "model.hidden=[32]", "model.latent_dim=5"],
    "plane": ["model=vae", "model.hidden=[32]", "model.latent_dim=2"],
    "ae": ["model=ae", "model.hidden=[32]", "model.latent_dim=5", "model.code_components=2"],
    "gan": ["model=gan", "model.generator_hidden=[32]", "model.discriminator_hidden=[16]", "model.latent_dim=8"],
    "gan_plane": ["model=gan", "model.generator_hidden=[32]", "model.discriminator_hidden=[16]", "model.latent_dim=2"],
}


def generator(index=0):
    return rng.generator(CPU, 0, "test", index)


def untrained(kind, *overrides, dataset="digits", data=None):
    """Return an untrained model, and its data: `data`, or else `dataset`."""
    config = config_of(f"dataset={dataset}", *SMALL[kind], *overrides)
    data = data or build.data_set(config.dataset, "data")
    return build.model(config.model, config.noise, data.spec(), 0, CPU), data


def coloured(n=40, size=9):
    """Return random colour images whose size is larger than the digits' and does not divide 28."""
    images = torch.randint(256, (3, n, 3, size, size), generator=generator(), dtype=torch.uint8)
    labels = torch.arange(n) % 3
    return DataSet(*images, labels={"train": labels, "valid": labels, "test": labels})


def shows(picture, row, column, image, gap=1, atol=0.003):
    """Return True if this place of a grid shows the image, (C, H, W), clamped to [0, 1]."""
    channels, height, width = image.shape
    scale = max(1, -(-28 // min(height, width)))
    top, left = gap + row * (height * scale + gap), gap + column * (width * scale + gap)
    enlarged = picture[top : top + height * scale, left : left + width * scale]
    shown = torch.as_tensor(enlarged[::scale, ::scale, :channels].transpose(2, 0, 1) / 255)
    return torch.allclose(shown, image.clamp(0, 1).double(), atol=atol)


def by_force(images, data, split="train"):
    """Return the rows of the nearest images and their distances, computed in float64."""
    x, y = images.flatten(1).double(), data.images(split).flatten(1).double()
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.argmin(1), distances.amin(1)


@pytest.mark.parametrize("block", [2**22, 1000])
@pytest.mark.parametrize("split", ["train", "test"])
def test_nearest_images_are_those_of_brute_force(monkeypatch, block, split):
    monkeypatch.setattr(nearest, "BLOCK", block)
    for data in (untrained("vae")[1], coloured(), untrained("gan", dataset="ring")[1]):
        images = torch.rand(30, *data.train.shape[1:], generator=generator())
        rows, distances = nearest.nearest(images, data, split)
        expected, how_far = by_force(images, data, split)
        assert torch.equal(rows, expected)
        assert torch.allclose(distances.double(), how_far, atol=1e-6)


def test_the_nearest_image_is_right_where_a_product_in_float32_is_not():
    white = torch.full((25, 1, 28, 28), 255, dtype=torch.uint8)
    white[:, 0, 5, 5] -= torch.tensor([9, 8, 7, 6, 5, 1, 4, 3, 2, *range(10, 26)], dtype=torch.uint8)
    data = DataSet(white, white, white, labels={})
    images = torch.cat([torch.ones(1, 1, 28, 28), torch.zeros(9, 1, 28, 28)])
    rows, distances = nearest.nearest(images, data)
    assert rows[0] == 5
    assert distances[0].item() == pytest.approx(1 / 255, rel=1e-5)
    assert torch.equal(rows[1:], torch.full((9,), 24))


def test_training_images_are_at_distance_0_from_themselves():
    _, data = untrained("vae")
    rows, distances = nearest.nearest(data.images("train"), data)
    assert distances.max() < 1e-7
    assert torch.equal(data.train[rows], data.train)


@pytest.mark.slow
def test_nearest_among_all_of_mnist_is_fast(mnist_dir):
    data = mnist(mnist_dir)
    images = torch.rand(100, 1, 28, 28, generator=generator())
    started = time.perf_counter()
    rows, distances = nearest.nearest(images, data)
    assert time.perf_counter() - started < 10  # under 1 s, when nothing else runs
    exact = (data.images("train", rows) - images).double().flatten(1).norm(dim=1)
    assert torch.allclose(distances.double(), exact, atol=1e-5)
    expected, _ = by_force(images[:5], data)
    assert torch.equal(rows[:5], expected)


@pytest.mark.parametrize("load", [lambda: untrained("vae")[1], coloured], ids=["digits", "colour"])
def test_the_last_column_holds_the_nearest_training_images_of_the_one_beside_it(load):
    data = load()
    shape, gap = tuple(data.train.shape[1:]), figures.GAP
    samples = torch.rand(12, *shape, generator=generator())
    picture = figures.neighbours(Fixed(samples), data, generator(), rows=3, columns=5)
    frame = gap // 2
    for row in range(3):
        assert all(shows(picture, row, column, samples[4 * row + column], gap) for column in range(4))
        nearest_rows, _ = by_force(samples[4 * row + 3, None], data)
        assert shows(picture, row, 4, data.images("train", nearest_rows)[0], gap)
    side = shape[1] * max(1, -(-28 // shape[1]))
    left = gap + 4 * (side + gap)
    framed = (picture == FRAME).all(2)
    assert framed[gap : gap + side, left - frame : left].all()
    assert framed[gap : gap + side, left + side : left + side + frame].all()
    assert framed[gap - frame : gap, left : left + side].all()
    assert not framed[:, : left - frame].any()


@pytest.mark.slow
def test_samples_are_those_of_the_model_in_rows_and_columns():
    model, data = untrained("vae")
    picture = figures.samples(model, data, generator(), rows=2, columns=5)
    assert np.array_equal(picture, grid(draw(model, 10, generator(), data), columns=5))
    model, data = untrained("gan", dataset="ring")
    assert figures.samples(model, data, generator(), rows=2, columns=5).shape == (600, 1200, 3)  # with D(x) beside


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_lines_between_draws_from_the_prior(kind):
    model, data = untrained(kind)
    picture = figures.interpolation(model, data, generator(), rows=3, columns=5)
    starts, ends = model.draw_codes(6, generator()).chunk(2)
    with evaluating(model):
        expected = [model.decode(codes) for codes in (starts, 0.75 * starts + 0.25 * ends, (starts + ends) / 2, ends)]
    for row in range(3):
        for column, images in zip((0, 1, 2, 4), expected, strict=True):
            assert shows(picture, row, column, images[row], gap=figures.GAP)
    side = 32 + figures.GAP
    framed = [column for column in range(5) if tuple(picture[figures.GAP - 1, column * side + side // 2]) == FRAME]
    assert framed == [0, 4]


def test_lines_between_codes_of_test_images_of_different_classes():
    model, data = untrained("ae")
    picture = figures.interpolation(model, data, generator(), rows=40, columns=3)
    starts, ends = figures._pairs(data, 40, generator())
    assert (data.labels["test"][starts] != data.labels["test"][ends]).all()
    with evaluating(model):
        codes = [model.encode(data.images("test", rows)) for rows in (starts, ends)]
        expected = [model.decode(code) for code in (codes[0], (codes[0] + codes[1]) / 2, codes[1])]
    for row in range(40):
        assert all(shows(picture, row, column, expected[column][row], gap=figures.GAP) for column in range(3))


@pytest.mark.parametrize("label", [-1, 3])
def test_lines_between_test_images_where_there_is_one_class(label):
    _, data = untrained("ae")
    data = replace(data, labels={split: torch.full_like(labels, label) for split, labels in data.labels.items()})
    starts, ends = figures._pairs(data, 500, generator())
    assert (starts != ends).all()
    with pytest.raises(UsageError, match="needs two test images"):
        figures._pairs(replace(data, test=data.test[:1]), 3, generator())


class Darker(ChainSampler, Model):
    """A chain that halves its image at each step; every second one is a sample."""

    sample_kind, chains, burn_in, thinning = "mean", 5, 7, 2

    def players(self):
        return {}

    def chain(self, images, generator, data):
        return images, lambda state: (state / 2, state / 2)


def test_chains_begin_at_training_images_and_go_on_to_the_right():
    data = digits(None)
    picture = figures.chains(Darker(), data, generator(), rows=3, columns=4)
    rows = torch.randint(len(data.train), (3,), generator=generator())
    for row, image in enumerate(data.images("train", rows)):
        assert all(shows(picture, row, column, image / 4**column) for column in range(4))
    with pytest.raises(UsageError, match="kind=chains: this model samples without a Markov chain"):
        figures.chains(*untrained("vae"), generator(), 3, 4)


def test_reconstructions_in_rows_and_columns():
    model, data = untrained("ae")
    picture = unlabelled(figures.reconstructions(model, data, generator(), rows=3, columns=7), 7)
    images = data.images("valid", slice(0, 21))
    with evaluating(model):
        reconstructed = model.decode(model.encode(images))
    for index in range(21):
        row, column = divmod(index, 7)
        assert shows(picture, 2 * row, column, images[index])
        assert shows(picture, 2 * row + 1, column, reconstructed[index])


def test_a_grid_of_a_gaussian_prior_is_at_the_inverse_cdf():
    model, data = untrained("plane")
    codes = figures.prior_quantiles(model, generator(), rows=4, columns=10).view(4, 10, 2)
    normal = torch.distributions.Normal(0, 1)
    across, upwards = (normal.icdf((torch.arange(n) + 0.5) / n) for n in (10, 4))
    assert torch.allclose(codes[..., 0], across.expand(4, 10), atol=0.015)
    assert torch.allclose(codes[..., 1], upwards.flip(0)[:, None].expand(4, 10), atol=0.015)
    picture = figures.manifold(model, data, generator(), 4, 10, "pca")
    with evaluating(model):
        code = torch.stack([across[9], upwards[3]])
        corner = model.decode(code[None])[0]
    assert shows(picture, 0, 9, corner, atol=0.02)
    assert picture.shape == (4 * 33 + 1, 10 * 33 + 1, 3)


def test_grids_of_the_other_priors():
    uniform, _ = untrained("gan_plane", "model.prior=uniform")
    codes = figures.prior_quantiles(uniform, generator(), 5, 5).view(5, 5, 2)
    places = math.sqrt(3) * (2 * (torch.arange(5) + 0.5) / 5 - 1)
    assert torch.allclose(codes[0, :, 0], places, atol=0.015)
    assert torch.allclose(codes[:, 0, 1], places.flip(0), atol=0.015)
    spherical, data = untrained("gan_plane", "model.prior=spherical")
    codes = figures.prior_quantiles(spherical, generator(), 2, 4)
    angles = torch.arange(8) * (math.pi / 4)
    assert torch.allclose(codes, math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], 1), atol=1e-5)
    assert figures.manifold(spherical, data, generator(), 2, 4, "pca").shape == (2 * 33 + 1, 4 * 33 + 1, 3)


def test_principal_components_are_those_of_the_singular_values():
    codes = np.random.default_rng(0).normal(size=(200, 6)) * [5, 3, 2, 1, 1, 0.1] + 7
    places, names = figures._project(codes, "pca", generator())
    left, values, _ = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    expected = left[:, :2] * values[:2]
    assert np.allclose(places * np.sign((places * expected).sum(0)), expected)
    shares = 100 * values**2 / (values**2).sum()
    assert names == (
        f"first principal component: {shares[0]:.1f} % of the variance",
        f"second principal component: {shares[1]:.1f} % of the variance",
    )


def test_codes_of_two_dimensions_are_their_own_map():
    codes = np.random.default_rng(0).normal(size=(20, 2))
    places, names = figures._project(codes, "tsne", generator())
    assert places is codes
    assert names == ("code, first dimension", "code, second dimension")


def has(picture, colour):
    return (abs(picture.astype(int) - colour).max(2) <= 3).any()


ORANGE = (255, 127, 14)  # the second class


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.slow
def test_a_map_of_codes_is_coloured_by_class(monkeypatch, method):
    monkeypatch.setattr(figures, "MAPPED", 60)
    model, data = untrained("ae")
    picture = figures.manifold(model, data, generator(), 5, 5, method)
    assert (picture.shape[2], picture.dtype) == (3, np.uint8)
    assert np.array_equal(picture, figures.manifold(model, data, generator(), 5, 5, method))
    assert has(picture, ORANGE)
    bare = replace(data, labels={split: torch.full_like(labels, -1) for split, labels in data.labels.items()})
    assert not has(figures.manifold(model, bare, generator(), 5, 5, method), ORANGE)


@pytest.mark.slow
def test_maps_of_a_few_images_many_classes_and_points():
    model, data = untrained("ae")
    few = replace(data, test=data.test[:5], labels={"test": data.labels["test"][:5]})
    assert figures.manifold(model, few, generator(), 5, 5, "tsne").ndim == 3
    many = replace(data, labels={"test": torch.arange(300) % 60})
    assert figures.manifold(model, many, generator(), 5, 5, "pca").ndim == 3
    model, data = untrained("ae", "model.reconstruction=squared_error", dataset="grid")
    assert figures.manifold(model, data, generator(), 5, 5, "pca").ndim == 3


def test_maps_that_cannot_be_drawn():
    model, data = untrained("ae")
    few = replace(data, test=data.test[:4], labels={"test": data.labels["test"][:4]})
    with pytest.raises(UsageError, match=r"needs 5 test images.*here are 4 images and codes of 5"):
        figures.manifold(model, few, generator(), 5, 5, "pca")
    with pytest.raises(UsageError, match="codes of two dimensions or more"):
        figures._project(np.zeros((100, 1)), "tsne", generator())
    with pytest.raises(GenexpError, match="all test images have the same code"):
        figures._project(np.ones((100, 3)), "tsne", generator())


def test_what_a_model_has_not_is_refused():
    model, data = untrained("gan")
    with pytest.raises(UsageError, match=r"kind=reconstructions: .*reconstructs no images.*\n.*kind=samples"):
        figures.reconstructions(model, data, generator(), 2, 3)
    with pytest.raises(UsageError, match=r"kind=manifold: .*no encoder.*\n.*model.latent_dim=2"):
        figures.manifold(model, data, generator(), 2, 3, "pca")
    with pytest.raises(UsageError, match=r"kind=interpolation: .*neither a prior.*\n.*kind=samples"):
        figures.interpolation(Fixed(data.images("train")), data, generator(), 2, 3)


@pytest.mark.parametrize("kind", ["neighbours", "interpolation", "reconstructions", "manifold"])
def test_points_of_the_plane_are_not_laid_side_by_side(kind):
    model, data = untrained("plane", "model.likelihood=gaussian", dataset="ring")
    method = ["pca"] if kind == "manifold" else []
    with pytest.raises(UsageError, match=f"kind={kind}: points.*\n.*kind=samples"):
        getattr(figures, kind)(model, data, generator(), 2, 3, *method)


@pytest.mark.parametrize("kind", ["samples", "neighbours", "interpolation", "manifold"])
def test_pictures_follow_from_the_generator_and_work_in_colour(kind):
    model, data = untrained("plane", "model.sample_kind=draw", data=coloured())
    method = ["pca"] if kind == "manifold" else []
    draw_it = lambda index: getattr(figures, kind)(model, data, generator(index), 2, 3, *method)  # noqa: E731
    picture = draw_it(0)
    assert (picture.shape[2], picture.dtype) == (3, np.uint8)
    assert np.array_equal(picture, draw_it(0))
    assert not np.array_equal(picture, draw_it(1))
    assert model.training


def lines_of_a_gan(epochs=4, per_epoch=10):
    """Return lines of metrics.jsonl, one for each five steps, with scores every other epoch."""
    lines = []
    for step in range(5, epochs * per_epoch + 1, 5):
        line = {"step": step, "epoch": step // per_epoch, "time": 1e9 + step, "loss/discriminator": 0.5 + 1 / step}
        line |= {"loss/generator": 1.0, "D(x)": 0.6, "D(G(z))": 0.3, "grad_norm/generator": 1e3 / step**3}
        line |= {"lr/discriminator": 0.1, "lr/generator": 0.1, "images_per_second": 2300.0, "novelty": 1.0}
        if step % (2 * per_epoch) == 0:
            line |= {"score/parzen": 10.0 * step, "score/modes": 3}
        lines.append(line)
    return lines


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def test_curves_show_what_the_lines_hold():
    figure = curves(lines_of_a_gan(), "gan on digits")
    axes = panels(figure)
    assert list(axes) == [
        "losses", "discriminator's output", "gradients", "speed", "Parzen-window log-likelihood", "modes captured",
        "novelty",
    ]  # fmt: skip
    assert figure.get_supxlabel() == "constant: lr of discriminator 0.1, lr of generator 0.1"
    assert all(each.lines for each in axes.values())
    assert figure.get_suptitle() == "gan on digits"
    assert [line.get_label() for line in axes["losses"].lines] == ["discriminator", "generator"]
    assert [text.get_text() for text in axes["losses"].get_legend().get_texts()] == ["discriminator", "generator"]
    assert [line.get_label() for line in axes["discriminator's output"].lines] == ["D(x)", "D(G(z))"]
    x, y = axes["losses"].lines[0].get_data()
    assert np.allclose(x, np.arange(5, 41, 5) / 10)
    assert np.allclose(y, 0.5 + 1 / np.arange(5, 41, 5))
    x, y = axes["Parzen-window log-likelihood"].lines[0].get_data()
    assert (list(x), list(y)) == ([2, 4], [200, 400])
    assert axes["Parzen-window log-likelihood"].lines[0].get_marker() == "o"
    assert (axes["losses"].get_xlabel(), axes["losses"].get_ylabel()) == ("epoch", "nats")
    assert (axes["gradients"].get_yscale(), axes["speed"].get_yscale()) == ("log", "linear")
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_a_setting_that_changes_has_a_panel_and_no_cell_is_empty():
    lines = lines_of_a_gan()
    lines[-1]["lr/generator"] = 0.05
    figure = curves(lines, "gan on digits")
    assert "learning rate" in panels(figure)
    assert figure.get_supxlabel() == ""
    for each in (figure, curves(lines_of_a_gan(), "seven panels")):
        cells = [axes.get_subplotspec() for axes in each.axes]
        for row in {cell.rowspan.start for cell in cells}:
            of_row = [cell for cell in cells if cell.rowspan.start == row]
            columns = [column for cell in of_row for column in cell.colspan]
            assert columns == list(range(of_row[0].get_gridspec().ncols))


def test_sessions_and_the_best_checkpoint_are_marked_in_every_panel():
    figure = curves(lines_of_a_gan(), "gan on digits", None, Marks(sessions=(15, 25), best=20, best_by="parzen"))
    for axes in figure.axes:
        marked = [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]
        assert marked == [1.5, 2.5, 2.0]
    assert "grey line: a later session began" in figure.get_supxlabel()
    assert "green line: the best checkpoint, by parzen on validation images" in figure.get_supxlabel()


def test_curves_of_a_run_in_its_first_epoch_are_over_steps():
    figure = curves(lines_of_a_gan(per_epoch=1000)[:1], "begun")
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert list(figure.axes[0].lines[0].get_xdata()) == [5]
    assert figure.axes[0].lines[0].get_marker() == "o"  # a line of one point would not be seen


def test_values_that_are_not_finite_are_left_out_and_nothing_is_refused():
    lines = lines_of_a_gan()
    for line in lines:
        line |= {"score/parzen": -math.inf} if "score/parzen" in line else {}
        line["novelty"] = math.nan
    lines[0]["loss/generator"] = math.nan
    axes = panels(curves(lines, "broken"))
    assert not {"Parzen-window log-likelihood", "novelty"} & set(axes)
    assert len(axes["losses"].lines[1].get_xdata()) == len(lines) - 1
    for nothing in ([], [{"step": 5, "epoch": 1, "time": 1.0}]):
        with pytest.raises(UsageError, match="nothing logged"):
            curves(nothing, "nothing")


def test_curves_are_written_the_same_twice(tmp_path):
    lines = [{name: line[name] for name in ("step", "epoch", "loss/generator")} for line in lines_of_a_gan()]
    for suffix in (".svg", ".png"):
        for name in ("one", "other"):
            save_figure(curves(lines, "gan"), tmp_path / name / f"curves{suffix}")
        contents = [(tmp_path / name / f"curves{suffix}").read_bytes() for name in ("one", "other")]
        assert contents[0] == contents[1]
    assert b"<svg" in (tmp_path / "one" / "curves.svg").read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["curves.png", "curves.svg"]


def test_filters_of_the_largest_norm_are_drawn_in_the_order_of_the_norms():
    weights = torch.randn(100, 16, generator=generator()) * torch.rand(100, 1, generator=generator(1))
    model, data = SimpleNamespace(filters=lambda: {"layer": weights}), SimpleNamespace(shape=(1, 4, 4))
    chosen = torch.stack(sorted(weights, key=lambda each: -float(each.square().sum()))[:64])
    expected = grid((0.5 + 0.5 * chosen / chosen.abs().amax(1, keepdim=True)).view(64, 1, 4, 4))
    assert np.array_equal(pictures.of_filters(model, data)["layer"], expected)
