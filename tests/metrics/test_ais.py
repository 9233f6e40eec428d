"""log Z by enumeration against brute force, by annealed importance sampling against enumeration, and the metric."""

import itertools
import json
import math

import pytest
import torch
from scipy.special import logsumexp

from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.metrics.ais import ais
from genexp.metrics.partition import (
    BaseRates,
    LogZ,
    estimated_log_z,
    exact_draws,
    exact_log_z,
    inverse_temperatures,
    reverse_log_z,
)
from genexp.models.boltzmann import RBMLayer
from genexp.models.rbm import RBM
from genexp.noise import none

SETTINGS = {"runs": 100, "temperatures": 500, "reverse": True, "burn_in": 50, "exact": None, "split": "test"}
TRAINED = {
    "visible": "bernoulli", "hidden": 12, "gibbs_steps": 1, "persistent_chains": 50, "chain_end": "draw",
    "chains": 10, "burn_in": 5, "thinning": 1, "chain_start": "images", "sample_kind": "draw",
}  # fmt: skip


def random_machine(seed, inputs=20, units=8, visible="bernoulli", std=0.7):
    torch.manual_seed(seed)
    machine = RBMLayer(inputs, units, visible)
    for parameter in machine.parameters():
        parameter.data.normal_(0, std)
    return machine.requires_grad_(False)


def uniform(machine):
    return BaseRates(torch.zeros(machine.inputs), torch.zeros(machine.units))


@pytest.fixture(scope="module")
def data():
    return digits(None)


def trained(data, seed, visible="bernoulli"):
    torch.manual_seed(seed)
    model = RBM(data.spec(), none(), **TRAINED | {"visible": visible})
    optimizer = torch.optim.SGD(model.parameters(), 0.1 if visible == "bernoulli" else 0.003)
    for _ in range(600):
        images = data.images("train", torch.randint(len(data.train), (100,)))
        optimizer.zero_grad()
        model.play(images).losses["rbm"].backward()
        optimizer.step()
    return model.requires_grad_(False)


@pytest.mark.parametrize(("inputs", "units"), [(3, 5), (5, 3), (6, 6)])
def test_enumeration_is_the_sum_over_all_pairs_of_states(inputs, units):
    machine = random_machine(0, inputs, units)
    w, b, c = (p.double().numpy() for p in (machine.weight, machine.hidden_bias, machine.visible_bias))
    pairs = itertools.product(itertools.product([0, 1], repeat=inputs), itertools.product([0, 1], repeat=units))
    brute_force = logsumexp([c @ v + b @ h + h @ w @ v for v, h in pairs])
    assert exact_log_z(machine) == pytest.approx(brute_force, abs=1e-10)


def test_enumeration_with_gaussian_units_is_the_integral():
    machine = random_machine(0, 1, 5, "gaussian")
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    integral = torch.trapezoid((-machine.double().free_energy(x[:, None])).exp(), x).log()
    assert exact_log_z(machine) == pytest.approx(integral.item(), abs=1e-8)


def test_enumeration_in_chunks_is_the_same(monkeypatch):
    machine = random_machine(0, 30, 9)
    whole = exact_log_z(machine)
    monkeypatch.setattr("genexp.metrics.partition.ROWS", 64)
    assert exact_log_z(machine) == pytest.approx(whole, abs=1e-10)


def test_exact_draws_have_the_machine_s_distribution():
    machine, generator = random_machine(1, 3, 4), torch.Generator().manual_seed(0)
    v = exact_draws(machine, 50_000, generator)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    frequency = torch.bincount((v @ torch.tensor([4.0, 2, 1])).long(), minlength=8) / len(v)
    assert torch.allclose(frequency, (-machine.free_energy(states)).softmax(0), atol=0.01)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annealing_a_random_machine_agrees_with_enumeration_from_both_sides(seed, visible):
    machine = random_machine(seed, visible=visible, std=0.7 if visible == "bernoulli" else 0.3)
    exact, generator = exact_log_z(machine), torch.Generator().manual_seed(seed)
    base = BaseRates(torch.randn(20, generator=generator), torch.randn(8, generator=generator))  # of both sides
    estimate, _ = estimated_log_z(machine, base, 200, 300, generator)
    assert 0 < estimate.stderr < 0.1
    assert abs(estimate.value - exact) < 3 * estimate.stderr
    assert estimate.low < exact < estimate.high
    above = reverse_log_z(machine, base, exact_draws(machine, 200, generator), 300, generator)
    assert abs(above.value - exact) < 3 * above.stderr
    assert above.low < exact < above.high


def test_with_few_temperatures_the_two_directions_enclose_log_z():
    machine = random_machine(3, 30, 10, std=1.2)
    exact, below, above = exact_log_z(machine), [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        below.append(estimated_log_z(machine, uniform(machine), 2, 2, generator)[0].value)
        above.append(reverse_log_z(machine, uniform(machine), exact_draws(machine, 2, generator), 2, generator).value)
    assert sum(below) / 40 < exact - 0.3
    assert sum(above) / 40 > exact + 0.3


@pytest.mark.parametrize(("seed", "visible"), [(0, "bernoulli"), (1, "bernoulli"), (2, "gaussian")])
def test_annealing_a_trained_machine_agrees_with_enumeration(data, seed, visible):
    model = trained(data, seed, visible)
    subject = Subject(model, data, seed)
    exact = ais(subject, **SETTINGS)
    assert exact.details["method"] == "enumeration"
    estimate = ais(subject, **SETTINGS | {"exact": False})
    details = estimate.details
    assert details["method"] == "ais"
    for side in ("", "_reverse"):
        assert abs(details[f"log_z{side}"] - exact.details["log_z"]) < 3 * details[f"log_z{side}_stderr"] < 0.5
    assert estimate.mean - exact.mean == pytest.approx(exact.details["log_z"] - details["log_z"], abs=1e-6)
    images = data.images("test").flatten(1) / model.scale
    if visible == "gaussian":
        constant = 64 * math.log(model.scale)
        by_hand = -model.layer.free_energy(images).mean().item() - exact.details["log_z"] - constant
        assert exact.mean == pytest.approx(by_hand, abs=1e-4)


def test_probabilities_of_all_images_sum_to_one():
    """The metric's log p(x), over every binary image of 9 pixels."""
    machine = random_machine(0, 9, 4)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)))
    log_p = -machine.free_energy(states).double() - exact_log_z(machine)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_published_temperatures():
    betas = inverse_temperatures(14_500)
    assert [betas[0], betas[500], betas[4500], betas[14_500]] == pytest.approx([0, 0.5, 0.9, 1])
    steps = torch.tensor(betas).double().diff()
    assert torch.allclose(steps[:500], torch.tensor(0.5 / 500).double(), atol=1e-6)
    assert torch.allclose(steps[4500:], torch.tensor(0.1 / 10_000).double(), atol=1e-6)
    assert inverse_temperatures(1) == [0, 1]


def test_the_standard_error_is_that_of_the_mean_weight():
    weights = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    estimate = LogZ.of_weights(weights.log(), 5.0)
    stderr = weights.std().item() / 2
    assert estimate.value == pytest.approx(5 + math.log(3))
    assert estimate.stderr == pytest.approx(stderr / 3)
    assert estimate.high == pytest.approx(5 + math.log(3 + 3 * stderr))
    assert estimate.low == -math.inf  # 3 − 3·1.08 is negative
    assert estimate.effective_runs == pytest.approx(144 / 50)
    close = LogZ.of_weights((weights + 20).log(), 0.0)
    assert close.low == pytest.approx(math.log(23 - 3 * stderr))


def test_grey_images_are_scored_as_draws(data):
    model = trained(data, 0)
    generator = torch.Generator().manual_seed(1)
    images = data.images("test", slice(50))
    grey = model.log_unnormalized(images, generator)
    binary = torch.rand(50, 64, generator=torch.Generator().manual_seed(1)) < images.flatten(1)
    assert torch.equal(grey, -model.layer.free_energy(binary.float()))
    assert torch.equal(
        model.log_unnormalized(images.round(), generator), -model.layer.free_energy(images.flatten(1).round())
    )


def test_what_cannot_be_scored_is_refused(data):
    from genexp.metrics import GivenSamples

    with pytest.raises(UsageError, match="needs a model with a partition function, such as model=rbm"):
        ais(Subject(GivenSamples(data.images("test"), "draw"), data, 0), **SETTINGS)
    torch.manual_seed(0)
    large = RBM(data.spec(), none(), **TRAINED | {"hidden": 26})
    with pytest.raises(UsageError, match="at most 25 binary units, and the model's have 64 and 26 units"):
        ais(Subject(large, data, 0), **SETTINGS | {"exact": True})


@pytest.mark.slow
def test_a_run_is_scored_and_its_settings_are_checked(genexp):
    words = ["train", "model=rbm", "dataset=digits", "epochs=1", "metrics.parzen.n_samples=100", "model.burn_in=2"]
    scored = genexp(*words, "model.hidden=30", "+metric@metrics.ais=ais", "metrics.ais.temperatures=100")
    assert scored.code == 0, scored.err
    score = json.loads((scored.run / "results.json").read_text())["scores"]["ais"]
    assert (score["runs"], score["temperatures"], score["n_points"]) == (100, 100, 300)
    for setting in ("runs=1", "temperatures=0", "burn_in=-1"):
        refused = genexp(*words, "+metric@metrics.ais=ais", f"metrics.ais.{setting}")
        assert refused.code == 2
        assert f"metrics.ais.{setting}" in refused.err
    gan = genexp("train", "model=vae", "dataset=digits", "+metric@metrics.ais=ais")
    assert (gan.code, "partition function" in gan.err) == (2, True)
