"""Stacked denoising autoencoders against their formulas, and the sampler in the top layer."""

import pytest
import torch
from conftest import config_of

from genexp import noise
from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.models import draw, evaluating
from genexp.models.stacked_dae import StackedDAE

SETTINGS = {
    "hidden": [7, 5], "masking": [0.25, 0.5], "pretrain_epochs": 2, "fine_tuning": True,
    "chains": 4, "burn_in": 3, "thinning": 1, "chain_state": "draw",
}  # fmt: skip
SPEC = DataSpec((1, 3, 4), torch.linspace(0.1, 0.9, 12).view(1, 3, 4), 0.3, 1000)


def build(**settings):
    torch.manual_seed(0)
    model = StackedDAE(SPEC, noise.none(), **SETTINGS | settings)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def images(n=6):
    return torch.rand(n, 1, 3, 4, generator=torch.Generator().manual_seed(1))


def test_a_layer_reconstructs_its_clean_input_from_a_masked_one():
    model, x = build(), images().flatten(1)
    layer = model.stack[0]
    torch.manual_seed(7)
    loss = model.play_layer(0, images()).losses["layer_1"].item()
    torch.manual_seed(7)
    kept = (torch.rand_like(x) >= 0.25).float()
    w, b, c = (t.detach().double() for t in (layer.linear.weight, layer.linear.bias, layer.decoder.bias))
    h = torch.sigmoid((x * kept).double() @ w.T + b)
    p = torch.sigmoid(h @ w + c)
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean().item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_second_layer_is_trained_on_clean_codes_of_the_first():
    model = build()
    stages = model.stages()
    assert [(stage.name, stage.epochs) for stage in stages] == [("layer 1", 2), ("layer 2", 2), ("fine-tuning", None)]
    assert [stage.updates[0].players for stage in stages] == [("layer_1",), ("layer_2",), ("autoencoder",)]
    assert stages[0].codes is None
    first = model.stack[0]
    assert torch.allclose(stages[1].codes(images()), torch.sigmoid(first.linear(images().flatten(1))))
    assert [stage.epochs for stage in build(fine_tuning=False).stages()] == [2, None]


def test_decoding_undoes_layers_in_reverse():
    model = build()
    codes = torch.rand(4, 5)
    first, second = model.stack
    below = torch.sigmoid(codes @ second.linear.weight + second.decoder.bias)
    expected = torch.sigmoid(below @ first.linear.weight + first.decoder.bias)
    assert torch.allclose(model.decode(codes).flatten(1), expected, atol=1e-6)
    assert model.encode(images()).shape == (6, 5)


def test_filters_of_upper_layers_are_sums_of_lower_ones():
    model = build()
    filters = model.filters()
    first, second = (layer.linear.weight for layer in model.stack)
    assert {name: tuple(weights.shape) for name, weights in filters.items()} == {"layer_1": (7, 12), "layer_2": (5, 12)}
    assert torch.allclose(filters["layer_2"], second @ first)


@pytest.mark.parametrize("fine_tuning", [False, True])
def test_without_masking_and_with_means_the_chain_follows_the_reconstruction(fine_tuning):
    data = digits(None)
    settings = {"masking": [0.0, 0.0], "chain_state": "mean", "burn_in": 2, "fine_tuning": fine_tuning}
    small = StackedDAE(data.spec(), noise.none(), **SETTINGS | settings)
    generator = torch.Generator().manual_seed(0)
    samples = draw(small, 4, generator, data)
    rows = torch.randint(len(data.train), (4,), generator=torch.Generator().manual_seed(0))
    with evaluating(small):
        images, top = data.images("train", rows), small.stack[1]
        state = small.encode(images, 1)
        for _ in range(3):
            codes = small.encode(images) if fine_tuning else top.encoder(state)
            images, state = small.decode(codes), torch.sigmoid(top.decoder(codes))
        assert torch.allclose(samples, images, atol=1e-6)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match=r"model.masking=\[0.1\] is of 1 layer, but model.hidden=\[7, 5\] has 2"):
        build(masking=[0.1])
    with pytest.raises(UsageError, match="leave out noise"):
        StackedDAE(SPEC, noise.masking(probability=0.1), **SETTINGS)
    with pytest.raises(UsageError, match="this data set has points"):
        StackedDAE(DataSpec((2,), torch.full((2,), 0.5), 0.3, 10), noise.none(), **SETTINGS)


@pytest.mark.slow
def test_the_published_sizes():
    model = config_of("model=stacked_dae").model
    assert (model["hidden"], model["masking"]) == ([1000, 1000, 1000], [0.1, 0.2, 0.3])
