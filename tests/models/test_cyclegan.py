"""The losses of CycleGAN written out anew, its pool, its networks, and translations whose truth is known."""

import pytest
import torch
from conftest import config_of
from torch import nn

from genexp import noise
from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models import evaluating
from genexp.models.cyclegan import CycleGAN, discriminator, patch

SETTINGS = {"channels": 4, "blocks": 1, "discriminator_channels": 4, "cycle": 10.0, "identity": None, "pool": 5}


def spec(a=1, b=1, side=16, other=None):
    shape = lambda channels, side: DataSpec((channels, side, side), torch.zeros(channels, side, side), 0.3, 10)  # noqa: E731
    first, second = shape(a, side), shape(b, other or side)
    return DataSpec(first.shape, first.pixel_mean, 0.3, 10, (), second)


def build(a=1, b=1, side=16, **settings):
    torch.manual_seed(0)
    return CycleGAN(spec(a, b, side), noise.none(), **SETTINGS | settings)


def pair(a=1, b=1, side=16, n=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, a, side, side, generator=generator), torch.rand(n, b, side, side, generator=generator)


def test_losses_are_those_of_the_paper():
    """Zhu et al. 2017, equations 1 to 3 with squared errors (section 4), and the identity term of section 5.2."""
    model, (a, b) = build(pool=0), pair()
    g, f, d_a, d_b = model.generator_ab, model.generator_ba, model.discriminator_a, model.discriminator_b
    losses, watched = model.play(a, b)
    scaled = lambda x: 2 * x - 1  # noqa: E731
    l1 = lambda x, y: nn.functional.l1_loss(scaled(x), scaled(y))  # noqa: E731
    mse = lambda x, value: nn.functional.mse_loss(x, torch.full_like(x, value))  # noqa: E731
    cycle = l1(f(g(a)), a) + l1(g(f(b)), b)
    identity = l1(g(b), b) + l1(f(a), a)
    adversarial = mse(d_b(g(a)), 1.0) + mse(d_a(f(b)), 1.0)
    total = adversarial + 10 * cycle + 5 * identity
    assert losses["generator_ab"].item() == pytest.approx(total.item(), rel=1e-4)
    assert losses["generator_ba"] is losses["generator_ab"]
    for name, network, real, fake in (("a", d_a, a, f(b)), ("b", d_b, b, g(a))):
        expected = 0.5 * mse(network(real), 1.0) + 0.5 * mse(network(fake), 0.0)
        assert losses[f"discriminator_{name}"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert watched["cycle"].item() == pytest.approx(cycle.item(), rel=1e-4)


def test_each_player_moves_on_its_own_loss():
    model, (a, b) = build(), pair()
    losses, _ = model.play(a, b)
    for name in ("discriminator_a", "discriminator_b"):
        others = [p for player, part in model.players().items() if player != name for p in part.parameters()]
        gradients = torch.autograd.grad(losses[name], others, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in gradients)


def test_the_pool_returns_earlier_images_and_keeps_the_new_ones():
    model = build(pool=4)
    torch.manual_seed(3)
    number = iter(range(1000))
    batch = lambda n: torch.stack([torch.full((1, 16, 16), float(next(number))) for _ in range(n)])  # noqa: E731
    first = model.from_pool(model.pool_a, batch(4))
    assert first[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert model.pool_a[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    model.pooled.fill_(4)
    swapped = 0
    for _ in range(500):
        before, new = set(model.pool_a[:, 0, 0, 0].tolist()), batch(1)
        returned = model.from_pool(model.pool_a, new)[0, 0, 0, 0].item()
        after = set(model.pool_a[:, 0, 0, 0].tolist())
        if returned == new[0, 0, 0, 0].item():
            assert after == before
        else:
            swapped += 1
            assert before - after == {returned}
            assert after - before == {new[0, 0, 0, 0].item()}
    assert 200 < swapped < 300


def in_turn(pool, stored, images):
    """Return what the published code's pool returns, with the same draws: one image after another."""
    chosen = []
    swaps, places = torch.rand(len(images)).tolist(), torch.randint(len(pool), (len(images),)).tolist()
    for image, swap, place in zip(images, swaps, places, strict=True):
        if stored < len(pool):
            pool[stored] = image
            stored += 1
        elif swap < 0.5:
            earlier = pool[place].clone()
            pool[place] = image
            image = earlier
        chosen.append(image)
    return torch.stack(chosen)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_minibatches_go_through_the_pool_one_image_after_another(n):
    """Also one that fills it up, and one in which two images meet the same place."""
    model, generator = build(pool=5), torch.Generator().manual_seed(2)
    pool = model.pool_a.clone()
    for stored in range(0, 90, n):
        images = torch.rand(n, 1, 16, 16, generator=generator)
        model.pooled.fill_(min(stored, 5))
        torch.manual_seed(stored)
        expected = in_turn(pool, min(stored, 5), images)
        torch.manual_seed(stored)
        assert torch.equal(model.from_pool(model.pool_a, images), expected)
        assert torch.equal(model.pool_a, pool)


def test_the_pool_is_state():
    model, (a, b) = build(), pair()
    model.play(a, b)
    assert int(model.pooled) == 3
    assert model.pool_b[:3].abs().sum() > 0
    assert model.pool_b[3:].abs().sum() == 0
    model.play(a, b)
    assert int(model.pooled) == 5
    assert {"pool_a", "pool_b", "pooled"} <= model.state_dict().keys()


@pytest.mark.parametrize(("strided", "side"), [(0, 7), (1, 16), (2, 34), (3, 70)])
def test_one_value_of_a_discriminator_sees_a_patch(strided, side):
    assert patch(strided) == side
    size = max(side, 8) + 32
    network = discriminator(1, max(side, 8), 2)
    for layer in network.modules():  # so that a change anywhere in the patch is seen, and norms carry nothing further
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1.0)
    network = nn.Sequential(*[layer for layer in network if not isinstance(layer, nn.InstanceNorm2d)])
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    out = network(x)
    middle = out.shape[2] // 2
    (gradient,) = torch.autograd.grad(out[0, 0, middle, middle], x)
    seen = gradient[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [side, side]


@pytest.mark.parametrize("side", [8, 14, 16, 28, 32, 64])
def test_translations_have_the_shape_of_the_other_data_set(side):
    model, (a, b) = build(3, 1, side), pair(3, 1, side, n=2)
    with evaluating(model):
        assert model.translate(a, "b").shape == b.shape
        assert model.translate(b, "a").shape == a.shape
        assert 0 <= model.translate(a, "b").min() <= model.translate(a, "b").max() <= 1
    assert model.play(a, b).losses.keys() == model.players().keys()


def test_identity_is_left_out_where_channels_differ_unless_it_is_asked_for():
    assert build(1, 3).identity == 0
    assert build(3, 3).identity == 0.5
    assert build(1, 1, identity=0.0).identity == 0
    with pytest.raises(UsageError, match=r"model.identity=0.5 compares .* 1 and 3 channels\nSet model.identity=0"):
        build(1, 3, identity=0.5)


@pytest.mark.parametrize(("a", "b", "side"), [(2, 1, 16), (1, 4, 16), (1, 1, 15), (1, 1, 6)])
def test_other_shapes_are_refused(a, b, side):
    with pytest.raises(UsageError, match="grey and colour images with even sides of 8 pixels or more"):
        build(a, b, side)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=ring"], "dataset_b.transform=inverted is of images"),
        (
            ["dataset=digits", "dataset@dataset_b=ring"],
            "dataset_b=ring are 1×8×8 and 2; choose images",
        ),
        (["dataset=digits", "dataset@dataset_b=mnist"], "1×8×8 and 1×28×28; choose images of the same height"),
        (["dataset=digits", "dataset_b.transform=mirrored"], "dataset_b.transform=mirrored: should be 'inverted'"),
        (["dataset=digits", "noise=masking"], "model=cyclegan corrupts no images: leave out noise"),
        (["dataset=digits", "~dataset@dataset_b"], "choose the second one by dataset@dataset_b=NAME"),
        (["dataset=digits", "dataset_b.transform=coloured", "model.identity=0.5"], "Set model.identity=0"),
        (["dataset=digits", "dataset_b=mnist"], "the second data set is chosen by dataset@dataset_b=mnist"),
        (["dataset=other_half"], "metrics.translation_error is brought by two of the choices"),
        (["dataset=digits", "dataset@dataset_b=null"], "to leave it out, write ~dataset@dataset_b"),
        (["dataset=digits", "dataset@dataset_b=digits"], "the true translations are known with"),
    ],
)
def test_pairs_that_do_not_go_together_are_refused(genexp, tmp_path, request, words, said):
    if words[-1].endswith("=mnist"):
        request.getfixturevalue("mnist_dir")
    extra = ["+metric@metrics.translation_error=translation_error"] if words[-1] == "dataset@dataset_b=digits" else []
    answer = genexp("train", "model=cyclegan", *words, *extra)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert not (tmp_path / "outputs").exists()


def test_defaults_are_the_papers_terms():
    model = config_of("model=cyclegan", "dataset=digits").model
    assert (model["cycle"], model["identity"], model["pool"]) == (10.0, None, 50)
    optimizer = config_of("model=cyclegan", "dataset=digits").optimizer
    assert (optimizer["lr"], optimizer["beta1"]) == (2e-4, 0.5)
