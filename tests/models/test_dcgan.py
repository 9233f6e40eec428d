"""The convolutional adversarial nets: architecture and initialisation as published, ranges, colour."""

from types import SimpleNamespace

import pytest
import torch
from conftest import config_of
from torch import nn

from genexp import noise
from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models import draw
from genexp.models.adversarial import ranges
from genexp.models.conv_gan import ConvGAN
from genexp.models.dcgan import DCGAN
from genexp.models.gan import GAN

MODELS = {"dcgan": DCGAN, "conv_gan": ConvGAN, "gan": GAN}


def build(name, shape, *overrides, mean=0.3, std=0.2):
    settings = config_of(f"model={name}", *overrides).model
    settings = {key: value for key, value in settings.items() if key not in ("name", "_target_")}
    torch.manual_seed(0)
    return MODELS[name](DataSpec(shape, torch.full(shape, mean), std, 1000), noise.none(), **settings)


def shapes(network, x):
    """The shape behind each layer that changes it, without the batch."""
    found = []
    for layer in network:
        x = layer(x)
        if tuple(x.shape[1:]) not in found[-1:]:
            found.append(tuple(x.shape[1:]))
    return found


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(("side", "maps"), [(8, [4]), (28, [7, 14]), (32, [4, 8, 16]), (64, [4, 8, 16, 32])])
@pytest.mark.slow
def test_sides_are_halved_and_maps_doubled(side, maps, colours):
    model = build("dcgan", (colours, side, side), "model.channels=4")
    levels = range(len(maps))
    inside = [(4 * 2 ** (len(maps) - 1 - level), maps[level], maps[level]) for level in levels]
    assert shapes(model.generator, torch.randn(2, 100))[1:] == [*inside, (colours, side, side)]
    judged = shapes(model.discriminator, torch.rand(2, colours, side, side))
    assert judged[1 : len(maps) + 1] == inside[::-1]
    assert judged[-1] == ()
    outcome = model.play_both(torch.rand(3, colours, side, side))
    for player, part in model.players().items():
        gradient = torch.autograd.grad(outcome.losses[player], list(part.parameters()), retain_graph=True)
        assert all(g.isfinite().all() for g in gradient)
    samples = model.eval().sample(5, torch.Generator().manual_seed(0), None)
    assert samples.shape == (5, colours, side, side)
    assert 0 <= samples.min() <= samples.max() <= 1


@pytest.mark.slow
def test_the_published_architecture_for_64_pixels():
    """Radford et al. 2016, figure 1 and section 3: 1024 to 128 maps, batch norm but at two ends, N(0, 0.02²)."""
    model = build("dcgan", (3, 64, 64), "model.channels=128")
    ups = [layer for layer in model.generator if isinstance(layer, nn.ConvTranspose2d)]
    assert [(u.in_channels, u.out_channels, u.kernel_size, u.stride) for u in ups] == [
        (a, b, (5, 5), (2, 2)) for a, b in [(1024, 512), (512, 256), (256, 128), (128, 3)]
    ]
    kinds = [type(layer).__name__ for layer in model.generator]
    up = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert kinds == ["Linear", "Unflatten", "BatchNorm2d", "ReLU", *(3 * up), "ConvTranspose2d", "Tanh", "Affine"]
    kinds = [type(layer).__name__ for layer in model.discriminator]
    down = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Affine", "Conv2d", "LeakyReLU", *(3 * down), "Flatten", "Linear", "Flatten"]
    assert {layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert layer.weight.mean().abs() < 1e-3
            assert layer.bias is None or (layer.bias == 0).all()


def test_batch_norm_begins_around_1():
    model = build("dcgan", (1, 28, 28), "model.channels=128")
    scales = torch.cat([layer.weight for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.2)


def test_drawing_samples_leaves_the_model_as_it_was():
    model = build("dcgan", (1, 8, 8), "model.channels=4")
    model.play_both(torch.rand(20, 1, 8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = SimpleNamespace(shape=(1, 8, 8))
    first = draw(model, 30, torch.Generator().manual_seed(0), data)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = draw(model, 30, torch.Generator().manual_seed(0), data)
    assert torch.equal(first, again)
    assert not first.requires_grad


def test_the_published_optimizer_and_order_of_moves():
    config = config_of("model=dcgan")
    assert [config.optimizer[key] for key in ("name", "lr", "beta1", "beta2")] == ["adam", 2e-4, 0.5, 0.999]
    assert config.batch_size == 128
    moves = build("dcgan", (1, 8, 8)).updates()
    assert [update.players for update in moves] == [("discriminator",), ("generator",)]


def test_batch_norm_sees_data_and_samples_apart():
    model = build("dcgan", (1, 28, 28), "model.channels=4")
    seen = []
    model.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    model.play_both(torch.rand(6, 1, 28, 28))
    assert seen == [6, 6]


def test_samples_do_not_depend_on_their_company():
    model = build("dcgan", (1, 28, 28), "model.channels=4")
    for _ in range(3):
        model.play_both(torch.rand(20, 1, 28, 28))
    model.eval()
    codes = torch.randn(10, 100)
    assert torch.allclose(model.generator(codes)[:3], model.generator(codes[:3]), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 27, 27), (1, 4, 4), (1, 1, 2), (3, 32, 31)])
def test_sides_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(UsageError, match="halves images"):
        build("dcgan", shape)


# The convolutional nets of the 2014 code


@pytest.mark.slow
def test_the_published_convolutional_architecture_for_cifar10():
    """Sides behind convolution and pooling as pylearn2 has them: its partial_sum of 15 divides the second's 15."""
    model = build("conv_gan", (3, 32, 32))
    assert [tuple(p.shape) for p in model.generator.parameters()] == [
        (8000, 100), (8000,), (8000, 8000), (8000,), (80, 3, 5, 5), (3, 32, 32),
    ]  # fmt: skip
    found = shapes(model.discriminator, torch.rand(2, 3, 32, 32))
    assert found == [(3, 32, 32), (32, 16, 16), (32, 7, 7), (192, 5, 5), (4800,), (500,), (1,), ()]
    first = model.discriminator[2]
    assert tuple(first.conv(torch.rand(1, 3, 32, 32)).shape) == (1, 64, 33, 33)


def test_convolutional_maxout_is_the_maximum_of_its_pieces():
    layer = build("conv_gan", (3, 32, 32), "model.generator_hidden=5", "model.generator_maps=1").discriminator[2]
    x = torch.rand(2, 3, 32, 32)
    maps = layer.conv(x)
    expected = torch.maximum(maps[:, :32], maps[:, 32:])
    assert torch.equal(layer(x), nn.functional.max_pool2d(expected, 4, 2, ceil_mode=True))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 35), (1, 8, 8), (1, 1, 2)])
def test_other_sides_are_refused(shape):
    with pytest.raises(UsageError, match="3s"):
        build("conv_gan", shape, "model.generator_hidden=5")


# Ranges


@pytest.mark.parametrize(("output", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1), ("linear", -1.5, 3.5)])
def test_networks_work_in_the_generators_range_and_images_stay_in_0_to_1(output, low, high):
    """linear: data of mean 0 and standard deviation 1, here (0 − 0.3)/0.2 to (1 − 0.3)/0.2."""
    spec = DataSpec((1, 2, 2), torch.full((1, 2, 2), 0.3), 0.2, 1000)
    to_images, from_images, at_mean = ranges(output, spec)
    x = torch.tensor([0.0, 0.25, 1.0])
    assert torch.allclose(from_images(x)[[0, 2]], torch.tensor([float(low), float(high)]), atol=1e-5)
    if output == "linear":
        assert torch.allclose(to_images(from_images(x)), x, atol=1e-6)
    else:
        assert torch.allclose(to_images(torch.tensor([-50.0, 50.0])), torch.tensor([0.0, 1.0]))
    assert torch.allclose(to_images(at_mean), spec.pixel_mean.flatten(), atol=1e-6)


def test_the_published_fully_connected_recipe_for_cifar10():
    settings = config_of("experiment=goodfellow2014/gan_cifar10").model
    small = [f"model.{key}=[{','.join(map(str, settings[key]))}]" for key in ("generator_units",)]
    model = build("gan", (3, 32, 32), "model.generator_hidden=[30,20]", "model.generator_output=linear", *small,
                  "model.generator_output_init=0.5")  # fmt: skip
    kinds = [type(layer).__name__ for layer in model.generator]
    assert kinds == ["Linear", "ReLU", "Linear", "Sigmoid", "Linear", "Affine", "Unflatten"]
    assert 0.45 < model.generator[4].weight.abs().max() <= 0.5
    assert model.generator[2].weight.abs().max() <= 0.05
    assert (settings["generator_hidden"], settings["discriminator_hidden"]) == ([8000, 8000], [1600, 1600])


def test_units_for_too_few_layers_are_refused():
    with pytest.raises(UsageError, match="names 3 layers"):
        build("gan", (1, 8, 8), "model.generator_units=[relu,relu,tanh]")
