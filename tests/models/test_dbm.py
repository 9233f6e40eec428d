"""Deep Boltzmann machines against their energy, summed over all states."""

import itertools

import pytest
import torch
from conftest import config_of

from genexp.data import DataSpec
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics.partition import exact_log_z
from genexp.models import draw, evaluating
from genexp.models.dbm import DBM, binary_entropy, mean_field
from genexp.noise import masking, none

SETTINGS = {
    "hidden": [3, 2], "pretrain_epochs": 2, "pretrain_gibbs_steps": 1, "mean_field_steps": 30, "gibbs_steps": 2,
    "persistent_chains": 5, "centered": False,
    "chains": 4, "burn_in": 3, "thinning": 1, "chain_start": "images", "sample_kind": "draw",
}  # fmt: skip
SPEC = DataSpec((1, 2, 2), torch.linspace(0.1, 0.9, 4).view(1, 2, 2), 0.3, 1000)


def build(seed=0, std=0.8, **settings):
    torch.manual_seed(seed)
    model = DBM(SPEC, none(), **SETTINGS | settings).double()
    for parameter in model.parameters():
        parameter.data.normal_(0, std)
    return model


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def biases(model):
    """The bias of each layer of units, from v up."""
    stack = model.stack
    middle = [(lower.hidden_bias + upper.visible_bias) / 2 for lower, upper in itertools.pairwise(stack)]
    return [stack[0].visible_bias, *middle, stack[-1].hidden_bias]


def energy(model, layers):
    """E of states (n, units) of v, h¹, h² and so on, from its definition."""
    found = -sum(x @ bias for x, bias in zip(layers, biases(model), strict=True))
    pairs = zip(model.stack, itertools.pairwise(layers), strict=True)
    return found - sum(((below @ layer.weight.T) * above).sum(1) for layer, (below, above) in pairs)


def split(model, joint):
    return joint.split([4, *(layer.units for layer in model.stack)], 1)


@pytest.mark.parametrize("hidden", [[3, 2], [3, 2, 4]])
def test_the_machine_between_the_groups_has_the_partition_function(hidden):
    model = build(hidden=hidden)
    joint = states(4 + sum(hidden))
    log_z = (-energy(model, split(model, joint))).logsumexp(0)
    assert exact_log_z(model.machine()) == pytest.approx(log_z.item(), abs=1e-9)
    layers = split(model, joint)
    even, odd = torch.cat(layers[::2], 1), torch.cat(layers[1::2], 1)
    w, b, c = model.parameters_of_groups()
    assert torch.allclose(-(even @ b) - odd @ c - ((even @ w) * odd).sum(1), energy(model, layers))


@pytest.mark.parametrize("hidden", [[3, 2], [3, 2, 4]])
def test_mean_field_bounds_the_likelihood_from_below(hidden):
    model, v = build(hidden=hidden), states(4)
    h = states(sum(hidden))
    pairs = torch.cat([v.repeat_interleave(len(h), 0), h.repeat(len(v), 1)], 1)
    exact = (-energy(model, split(model, pairs))).view(len(v), len(h)).logsumexp(1)
    bound = model.log_unnormalized(v.view(-1, 1, 2, 2), torch.Generator())
    assert (bound <= exact + 1e-12).all()
    assert (exact - bound).max() < 0.5
    for layer in model.stack[1:]:
        layer.weight.data.zero_()  # then q is the posterior
    exact = (-energy(model, split(model, pairs))).view(len(v), len(h)).logsumexp(1)
    assert torch.allclose(model.log_unnormalized(v.view(-1, 1, 2, 2), torch.Generator()), exact)


@pytest.mark.parametrize("hidden", [[3, 2], [3, 2, 4]])
def test_mean_field_ends_at_its_fixed_point(hidden):
    model, v = build(hidden=hidden, std=0.5), states(4)
    odd, even, field = mean_field(model.machine(), v, 100)
    parts = [v, *torch.zeros(len(hidden))]
    odd_parts = odd.split(hidden[::2], 1)
    even_parts = even.split([4, *hidden[1::2]], 1)
    parts[::2], parts[1::2] = even_parts, odd_parts
    assert torch.equal(even_parts[0], v)
    for place in range(1, len(parts)):
        logits = parts[place - 1] @ model.stack[place - 1].weight.T + biases(model)[place]
        if place < len(hidden):
            logits = logits + parts[place + 1] @ model.stack[place].weight
        assert torch.allclose(parts[place], torch.sigmoid(logits), atol=1e-8)
    assert torch.allclose(odd, field.sigmoid())


@pytest.mark.parametrize("hidden", [[3, 2], [3, 2, 4]])
def test_the_joint_gradient_is_that_of_the_energies_of_data_and_chains(hidden):
    model = build(hidden=hidden)
    images = states(4)[3:11].view(-1, 1, 2, 2)
    model.persistent_states = torch.randint(2, model.persistent_states.shape).double()
    before = model.persistent_states.clone()
    torch.manual_seed(3)
    loss = model.play(images).losses["dbm"]
    gradients = torch.autograd.grad(loss, list(model.layers.parameters()))
    torch.manual_seed(3)  # the same chains
    machine, after, model.persistent_states = model.machine(), model.persistent_states, before
    even = before
    for _ in range(2):
        odd = machine.draw_visible(even)
        even = machine.draw_hidden(odd)
    assert torch.equal(after, even)
    data_odd, data_even, _ = mean_field(machine, images.flatten(1), 30)

    def layers(even, odd):
        evens, odds = even.split([4, *hidden[1::2]], 1), odd.split(hidden[::2], 1)
        return [part for pair in itertools.zip_longest(evens, odds) for part in pair if part is not None]

    data, chain = layers(data_even, data_odd), layers(machine.hidden_means(odd), odd)
    gap = energy(model, data).mean() - energy(model, chain).mean()
    assert loss.item() == pytest.approx(gap.item(), abs=1e-10)
    expected = torch.autograd.grad(gap, list(model.layers.parameters()))
    for (name, _), gradient, by_autograd in zip(model.layers.named_parameters(), gradients, expected, strict=True):
        # A bias between two layers is the mean of two parameters, and has to move as fast as any other.
        is_half = "bias" in name and name not in ("0.visible_bias", f"{len(hidden) - 1}.hidden_bias")
        assert torch.allclose(gradient, (1 + is_half) * by_autograd, atol=1e-12)


@pytest.mark.parametrize("centered", [False, True])
def test_the_bias_between_two_layers_moves_by_its_whole_gradient(centered):
    model = build(hidden=[3, 2, 4], centered=centered)
    model.persistent_states = torch.randint(2, model.persistent_states.shape).double()
    loss = model.play(states(4)[3:11].view(-1, 1, 2, 2)).losses["dbm"]
    loss.backward()
    _, even, odd = (group.detach().clone() for group in model.parameters_of_groups())
    first, second, top = model.stack
    for parameter in model.layers.parameters():
        parameter.data -= 0.1 * parameter.grad
    _, even_after, odd_after = (group.detach() for group in model.parameters_of_groups())
    assert torch.allclose(odd_after - odd, -0.1 * torch.cat([first.hidden_bias.grad, top.hidden_bias.grad]))
    assert torch.allclose(even_after - even, -0.1 * torch.cat([first.visible_bias.grad, second.hidden_bias.grad]))
    assert torch.equal(first.hidden_bias.grad, second.visible_bias.grad)


@pytest.mark.parametrize("hidden", [[3, 2], [3, 2, 4]])
def test_the_sampler_s_chains_have_the_model_s_distribution(hidden):
    model, generator = build(hidden=hidden, std=0.5).float(), torch.Generator().manual_seed(0)
    joint = states(4 + sum(hidden)).float()
    p = (-energy(model, split(model, joint))).softmax(0).view(16, -1).sum(1)
    with evaluating(model):
        state = model.first_states(torch.zeros(40_000, 4), generator)
        for _ in range(30):
            state, images = model.next_states(state, generator)
    assert torch.equal(images.flatten(1), state[:, :4])
    frequency = torch.bincount((images.flatten(1) @ torch.tensor([8.0, 4, 2, 1])).long(), minlength=16) / 40_000
    assert torch.allclose(frequency, p, atol=0.01)


def test_layers_are_pretrained_with_copies_for_the_missing_neighbour():
    model, x = build(hidden=[3, 2, 4]), torch.rand(6, 1, 2, 2, dtype=torch.float64)
    first, middle, top = model.stack
    v = x.flatten(1)
    assert torch.allclose(first.hidden_means(v), torch.sigmoid(2 * v @ first.weight.T + first.hidden_bias))
    h = first.hidden_means(v)
    assert torch.allclose(first.visible_means(h), torch.sigmoid(h @ first.weight + first.visible_bias))
    assert torch.allclose(middle.hidden_means(h), torch.sigmoid(2 * h @ middle.weight.T + middle.hidden_bias))
    u = middle.hidden_means(h)
    assert torch.allclose(middle.visible_means(u), torch.sigmoid(2 * u @ middle.weight + middle.visible_bias))
    assert torch.allclose(top.hidden_means(u), torch.sigmoid(u @ top.weight.T + top.hidden_bias))
    t = top.hidden_means(u)
    assert torch.allclose(top.visible_means(t), torch.sigmoid(2 * t @ top.weight + top.visible_bias))
    stages = model.stages()
    assert [(stage.name, stage.epochs) for stage in stages] == [
        ("layer 1", 2), ("layer 2", 2), ("layer 3", 2), ("joint", None)
    ]  # fmt: skip
    assert torch.equal(stages[2].codes(x), u)
    assert [stage.updates[0].players for stage in stages] == [("layer_1",), ("layer_2",), ("layer_3",), ("dbm",)]


def test_a_sample_begins_at_training_images_or_at_base_rates():
    data = digits(None)
    for start in ("images", "base_rates"):
        model = DBM(data.spec(), none(), **SETTINGS | {"chain_start": start, "sample_kind": "mean", "burn_in": 0})
        samples = draw(model, 10, torch.Generator().manual_seed(0), data)
        assert samples.shape == (10, 1, 8, 8)
        assert torch.allclose(samples.mean(0), data.spec().pixel_mean, atol=0.05)  # W is nearly 0


def test_the_entropy_of_binary_units():
    p = torch.tensor([0.0, 0.5, 1.0, 0.1], dtype=torch.float64)
    assert binary_entropy(p).tolist() == pytest.approx([0, 0.6931471805599453, 0, 0.3250829733914482])


def test_what_it_cannot_take_is_refused():
    with pytest.raises(UsageError, match="model=dbm has no corrupted input: leave out noise"):
        DBM(SPEC, masking(probability=0.1), **SETTINGS)
    with pytest.raises(UsageError, match="points of the plane are no shades of grey"):
        DBM(DataSpec((2,), torch.full((2,), 0.5), 0.3, 10), none(), **SETTINGS)
    for hidden in ("[5]", "[5,5,5,5]"):
        with pytest.raises(UsageError, match=r"model.hidden"):
            config_of("model=dbm", f"model.hidden={hidden}")


def test_chains_begin_at_training_images_and_then_go_on():
    model, images = build(persistent_chains=7), states(4)[3:6].view(-1, 1, 2, 2)
    model.stages()[-1].begin(images)
    begun = model.persistent_states.clone()
    assert torch.equal(begun[:, :4], images.flatten(1)[[0, 1, 2, 0, 1, 2, 0]])
    assert set(begun.unique().tolist()) == {0.0, 1.0}
    model.play(images)
    assert model.persistent_states.shape == begun.shape
    assert not torch.equal(model.persistent_states, begun)


def test_a_centered_machine_keeps_its_zeros():
    model = build(hidden=[3, 2, 4], centered=True)
    weight, _, _ = model.parameters_of_groups()
    loss = model.play(states(4).view(-1, 1, 2, 2)).losses["dbm"]
    gradients = torch.autograd.grad(loss, list(model.layers.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (weight[:4, 3:] == 0).all()
    assert (weight != 0).sum() == sum(layer.weight.numel() for layer in model.stack)
