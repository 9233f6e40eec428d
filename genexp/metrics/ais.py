"""The log-likelihood of models with a partition function, by annealed importance sampling or enumeration."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genexp import rng
from genexp.data import CHUNK, DataSet
from genexp.metrics import GivenSamples, Subject, mean_and_errors, of_models, requires
from genexp.metrics.partition import (
    ENUMERABLE,
    BaseRates,
    LogZ,
    estimated_log_z,
    exact_draws,
    exact_log_z,
    is_enumerable,
    reverse_log_z,
)
from genexp.models import Model, evaluating
from genexp.models.boltzmann import RBMLayer
from genexp.ranges import AtLeastTwo, Count, PositiveInt, Split
from genexp.score import Score
from genexp.text import count, with_decimals


@runtime_checkable
class HasPartition(Protocol):
    """A model whose log p(x) is known, or bounded from below, but for the log Z of a restricted Boltzmann machine."""

    log_likelihood: str  # what `log_unnormalized` gives: "exact", or "lower bound"

    def machine(self) -> RBMLayer:
        """Return a machine with the model's partition function: its own layer, the top one, or two groups of layers."""

    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return visible field (inputs,) and hidden logits (units,) of the machine from which annealing starts."""

    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return log p(x) + log Z of each image, (n,), or a lower bound of it, in nats."""


def _refusal(model: Model | GivenSamples, _data: DataSet, settings: Mapping[str, Any]) -> str | None:
    assert isinstance(model, HasPartition)
    machine = model.machine()
    if settings["exact"] and not is_enumerable(machine):
        sides = f"{machine.inputs:,} and {machine.units:,} units"
        return f"exact=true enumerates a side of at most {ENUMERABLE} binary units, and the model's have {sides}"
    return None


@of_models(HasPartition, "it needs a model with a partition function, such as model=rbm, dbn or dbm")
@requires(_refusal)
def ais(
    subject: Subject,
    *,
    runs: AtLeastTwo,
    temperatures: PositiveInt,
    reverse: bool,
    burn_in: Count,
    exact: bool | None,
    split: Split,
) -> Score:
    """Return the mean log p(x) of a split's images, or a lower bound of it, in nats.

    log Z is exact where one side of the model has at most ENUMERABLE binary units, unless `exact` is false; else it is
    estimated by annealed importance sampling in `runs` runs over `temperatures` (Salakhutdinov and Murray 2008). An
    estimate that is too low makes the score too high, so with `reverse` runs from the model's own draws estimate log Z
    from the other side. Those begin `burn_in` Gibbs steps behind resampled ends of the first ones, or at exact draws
    where these are to be had. The score's standard error is over images; that of log Z stands beside it.
    """
    model, data, seed = subject.model, subject.data, subject.seed
    assert isinstance(model, Model)
    assert isinstance(model, HasPartition)
    with evaluating(model):
        machine, base = model.machine(), BaseRates(*model.base_rates())
        generator, warning = rng.generator(model.device, seed, "ais"), None
        if exact or (exact is None and is_enumerable(machine)):
            log_z, words, details = _exact(machine)
        else:
            log_z, words, details = _estimated(machine, base, runs, temperatures, reverse, burn_in, generator)
            warning = _warning(details)
        unnormalized = _unnormalized(model, data, split, seed)
    mean, _, stderr = mean_and_errors(unnormalized - log_z)
    n = len(unnormalized)
    of = "" if model.log_likelihood == "exact" else f", a {model.log_likelihood}"
    summary = f"{with_decimals(mean, stderr, 1)} nats on {count(n, f'{split} image')} ({words}{of})"
    details |= {"log_z": log_z, "log_likelihood": model.log_likelihood, "n_points": n, "seed": seed}
    return Score(mean, stderr, summary, split=split, warning=warning, details=details)


def _warning(details: dict[str, Any]) -> str | None:
    """Return a warning if log Z from the two sides differs by more than 3 standard errors, and by half a nat."""
    if "log_z_reverse" not in details:
        return None
    gap = details["log_z_reverse"] - details["log_z"]
    if abs(gap) <= max(0.5, 3 * (details["log_z_stderr"] + details["log_z_reverse_stderr"])):
        return None
    return (
        f"log Z from the two sides differs by {gap:.2f} nats, and so may the score: set more metrics.ais.temperatures"
    )


def _exact(machine: RBMLayer) -> tuple[float, str, dict[str, Any]]:
    log_z = exact_log_z(machine)
    return log_z, f"log Z {log_z:.2f}, exact", {"method": "enumeration"}


def _estimated(
    machine: RBMLayer,
    base: BaseRates,
    runs: int,
    temperatures: int,
    reverse: bool,
    burn_in: int,
    generator: torch.Generator,
) -> tuple[float, str, dict[str, Any]]:
    """Return log Z, words about it, and what else is known of the estimate."""
    estimate, v = estimated_log_z(machine, base, runs, temperatures, generator)
    details = {
        "method": "ais",
        "log_z": estimate.value,
        "runs": runs,
        "temperatures": temperatures,
        **_details("", estimate),
    }
    words = f"log Z {estimate.value:.2f} ± {estimate.stderr:.2f}"
    if reverse:
        if is_enumerable(machine):
            v = exact_draws(machine, runs, generator)
        for _ in range(0 if is_enumerable(machine) else burn_in):
            v = machine.gibbs(v, generator)
        above = reverse_log_z(machine, base, v, temperatures, generator)
        details |= {"log_z_reverse": above.value, **_details("_reverse", above)}
        words += f", from the other side {above.value:.2f}"
    return estimate.value, words, details


def _details(side: str, estimate: LogZ) -> dict[str, Any]:
    """Return what defines an estimate of log Z; an interval without a lower end has null there."""
    low = None if estimate.low == -torch.inf else estimate.low
    high = None if estimate.high == torch.inf else estimate.high
    return {
        f"log_z{side}_stderr": estimate.stderr,
        f"log_z{side}_interval": [low, high],
        f"effective_runs{side}": round(estimate.effective_runs, 1),
    }


def _unnormalized(model: HasPartition, data: DataSet, split: str, seed: int) -> Tensor:
    """Return log p(x) + log Z of a split's images, (n,) float64; those of a chunk follow from the chunk's own seed."""
    of_chunks = []
    for start in range(0, len(getattr(data, split)), CHUNK):
        generator = rng.generator(data.device, seed, "ais images", start)
        images = data.images(split, slice(start, start + CHUNK))
        of_chunks.append(model.log_unnormalized(images, generator).cpu().double())
    return torch.cat(of_chunks)
