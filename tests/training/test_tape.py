"""A tape's playing against the computation itself."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genexp.models.layers import Dropout, Maxout
from genexp.training import tape
from genexp.training.tape import Tape

SHAPE = (8, 6)


@pytest.fixture(autouse=True)
def small_results_share_memory(monkeypatch):
    monkeypatch.setattr(tape, "LARGE", 1)


def views_and_writing(x):
    y = x.t().unflatten(0, (2, 3)).clone()
    y[0].mul_(2).add_(x[:, :3].t())
    halves = torch.cat(y.sum(0, keepdim=True).flatten(1).chunk(2, 1), 0)
    return torch.where(halves > 0, halves, halves.exp() - 1).cumsum(1).to(torch.float64).flip(0)


def gradients(x):
    layers = nn.Sequential(Maxout(6, 4, 2), nn.ReLU(), nn.Linear(4, 3), nn.Softplus())
    for parameter in layers.parameters():  # the same at each call, as a model's are
        parameter.data.fill_(0.1).view(-1)[::2] = -0.3
    parameters = list(layers.parameters())
    loss = nn.functional.binary_cross_entropy_with_logits(layers(x), x[:, 3:].sigmoid())
    first = torch.autograd.grad(loss, parameters, create_graph=True)
    return torch.cat([each.flatten() for each in torch.autograd.grad(first[0].square().sum(), parameters[:1])])


def draws(x):
    dropped = Dropout(0.3)(x) + torch.randn_like(x) + torch.bernoulli(x.sigmoid())
    return dropped + torch.empty(x.shape).uniform_() * torch.rand(6)


def rows(x):
    return (x * 50).to(torch.uint8)[x[:, 0].argsort(), :2] / 255


def losses_that_need_room(x):
    """The memory of some of these numbers is that of all summands at first."""
    kept, target = x * 3, x.sigmoid()
    losses = [nn.functional.huber_loss(x, target), nn.functional.binary_cross_entropy(target, target.round())]
    return kept + torch.stack([*losses, nn.functional.soft_margin_loss(x, target)]).sum() + kept


def factors(x):
    q, r = torch.linalg.qr(x.exp())
    return q @ r.triu() + x


def complex_numbers(x):
    z = torch.complex(x, x + 1)
    w = torch.fft.fft(z.conj() * z, dim=0)
    return (w.conj().imag.neg() @ z.mH.real).exp().log1p() + z.conj().sum().imag


def in_place_views(x):
    y = (x + 1).unsqueeze_(0)
    y = (y * 2).squeeze_(0).t_()
    return y.add(1).transpose_(0, 1) + x


def results_beside_what_is_changed(x):
    mean, variance = torch.zeros(6), torch.ones(6)
    normal = torch.ops.aten._native_batch_norm_legit(x, None, None, mean, variance, True, 0.1, 1e-5)[0]
    return normal + mean + nn.functional.rrelu(x, training=True)


@pytest.mark.parametrize(
    "compute",
    [
        *(views_and_writing, gradients, draws, rows, losses_that_need_room, factors, complex_numbers, in_place_views),
        results_beside_what_is_changed,
    ],
)
def test_playing_is_computing_again_on_new_values(compute):
    x = torch.rand(SHAPE)
    record = Tape()
    result = record.record(lambda: compute(x))
    assert record.why_not is None
    for seed in range(3):
        x.copy_(torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))
        torch.manual_seed(seed)
        expected = compute(x.clone())
        torch.manual_seed(seed)
        record.play()
        assert result.dtype == expected.dtype
        assert torch.equal(result.detach(), expected.detach())


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0, 0]),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: (x > 0).int().unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
)
def test_what_depends_on_values_cannot_be_repeated(compute):
    def ask():
        compute(torch.rand(SHAPE))
        return torch.ones(3)

    record = Tape()
    record.record(ask)
    assert record.why_not == "it reads a value back"
    assert not record.calls


def doubled(times, held=False):
    def compute():
        x, all_results = torch.ones(SHAPE), []
        for _ in range(times - 1):
            x = x * 2
            all_results += [x] if held else []
            x.view(-1)  # no memory of its own
        return torch.stack(all_results).sum(0) if held else x

    return compute


@pytest.mark.parametrize(
    ("compute", "why_not"),
    [
        (doubled(6), None),
        (doubled(7), "all its results together take more than 0 MiB"),
        (doubled(3, held=True), None),
        (doubled(4, held=True), "it needs more than 0 MiB at a time"),
    ],
)
def test_a_large_computation_is_not_held(compute, why_not):
    """Of 192 bytes each: one after another, two at a time; held, n − 1 of them and their stack."""
    record = Tape(most=192 * 4, most_recorded=192 * (6 if why_not is None or "all" in why_not else 100))
    record.record(compute)
    assert record.why_not == why_not
    assert bool(record.calls) == (why_not is None)


def test_results_share_memory_and_what_is_still_needed_is_not_overwritten():
    x = torch.rand(SHAPE)

    def compute():
        early = x * 3
        chain = early
        for _ in range(20):
            chain = (chain + 1).t().contiguous().t()
        return early + chain  # early is needed to the end

    record = Tape()
    result = record.record(compute)
    places = {tape._place(tensor) for tensor in tape._tensors(record.calls)}
    assert len(places) == 5  # of x, of the result, of `early`, and two in turn
    x.fill_(2.0)
    record.play()
    assert torch.equal(result, torch.full(SHAPE, 32.0))


def test_the_smallest_of_very_many_results_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(tape, "MOST_SHARING", 3)
    x = torch.rand(SHAPE)

    def compute():
        few, many = x, torch.cat([x, x])
        for _ in range(5):
            few, many = few + 1, many + 2
        return torch.cat([few, few]) + many

    record = Tape()
    result = record.record(compute)
    assert len({tape._place(tensor) for tensor in tape._tensors(record.calls)}) == 1 + 1 + 2 + 3 + 5 + 1
    x.zero_()
    record.play()
    assert torch.equal(result, torch.full((16, 6), 15.0))


def test_a_result_may_be_undefined():
    layer, x = nn.LSTM(6, 3), torch.rand(2, *SHAPE)
    record = Tape()
    record.record(lambda: torch.autograd.grad(layer(x)[0].square().sum(), [layer.weight_ih_l0])[0])
    assert record.calls


def test_sparse_tensors_are_not_recorded():
    table = nn.Embedding(5, 3, sparse=True)
    record = Tape()
    record.record(lambda: torch.autograd.grad(table(torch.tensor([1, 2])).sum(), [table.weight])[0].to_dense())
    assert record.why_not == "it has sparse tensors"


def assert_apart(sizes, lives):
    """Pieces whose lives overlap do not overlap in memory, and nothing lies outside of the block."""
    offsets, block = tape._packed(sizes, lives)
    assert offsets.keys() == sizes.keys()
    for one, other in combinations(sizes, 2):
        if lives[one][0] <= lives[other][1] and lives[other][0] <= lives[one][1]:
            assert offsets[one] + sizes[one] <= offsets[other] or offsets[other] + sizes[other] <= offsets[one]
    assert all(offset % 64 == 0 and offset + sizes[place] <= block for place, offset in offsets.items())
    busiest = max(sum(sizes[p] for p in sizes if lives[p][0] <= t <= lives[p][1]) for t in range(30))
    assert busiest <= block <= sum(-(-size // 64) * 64 for size in sizes.values())


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=12))
def test_pieces_of_memory_lie_apart(pieces):
    sizes = {number: size for number, (size, _, _) in enumerate(pieces)}
    assert_apart(sizes, {number: (first, first + length) for number, (_, first, length) in enumerate(pieces)})


def test_a_tape_keeps_no_graph():
    x = torch.rand(SHAPE, requires_grad=True)

    def compute():
        loss = x.square().exp().sum()
        return torch.autograd.grad(loss, [x])[0]

    record = Tape()
    record.record(compute)
    assert record.calls
    for call in record.calls:
        assert [each for each in tape._tensors([call.args, call.keywords]) if each.grad_fn is not None] == []
