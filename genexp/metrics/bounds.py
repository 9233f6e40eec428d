"""Lower bounds of the log-likelihood, in nats, for models with a posterior q(z | x): means over a split's images."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from genexp import rng
from genexp.metrics import Subject, mean_and_errors, of_models
from genexp.models import Asking, Batch, Model, evaluating
from genexp.ranges import PositiveInt, Split
from genexp.score import Score
from genexp.text import count, with_decimals

ROWS = 5000  # codes decoded at a time


@runtime_checkable
class HasPosterior(Protocol):
    """A model with a posterior q(z | x), so that its log-likelihood can be bounded.

    The methods of a conditional model take `labels`, (n,), as well, and bound log p(x | y).
    """

    def lower_bound(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a lower bound of log p(x) for each image, (n,), from one draw of its code."""

    def log_weights(self, images: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Return log p(x, z) − log q(z | x) for k draws of each image's code, (n, k)."""


has_posterior = of_models(HasPosterior, "bounds need a model with a posterior, such as model=vae")


@has_posterior
def elbo(subject: Subject, *, split: Split) -> Score:
    """Return the evidence lower bound E_q[log p(x | z)] − KL(q(z | x) ‖ p(z)), in nats.

    z is drawn once for each image, and the divergence is in closed form. Source: Kingma and Welling 2014, equation 3.
    """
    return _bound(subject, "elbo", split, 1, "one draw of each code")


@has_posterior
def iwae(subject: Subject, *, n_samples: PositiveInt, split: Split) -> Score:
    """Return the importance-weighted bound E[log 1/K Σ_k p(x, z_k) / q(z_k | x)], z_k ~ q, in nats.

    K is `n_samples`; the bound rises with K towards log p(x). Source: Burda et al. 2016, equation 8.
    """
    return _bound(subject, "iwae", split, n_samples, f"K = {n_samples:,}")


def _bound(subject: Subject, name: str, split: str, k: int, draws: str) -> Score:
    model, data, seed = subject.model, subject.data, subject.seed
    assert isinstance(model, Model)
    assert isinstance(model, HasPosterior)
    n = len(getattr(data, split))
    rows = max(1, ROWS // k)
    bounds = []
    with evaluating(model):
        for start in range(0, n, rows):
            generator = rng.generator(data.device, seed, name, start)
            batch = data.batch(split, slice(start, start + rows))
            if name == "elbo":
                bounds.append(Asking(model.lower_bound)(batch, generator))
            else:
                bounds.append(importance_weighted(model, batch, k, generator))
    mean, _, stderr = mean_and_errors(torch.cat(bounds).double().cpu())
    of = "log p(x | y), " if model.conditional else ""
    summary = f"{with_decimals(mean, stderr, 1)} nats on {count(n, f'{split} image')} ({of}{draws})"
    return Score(mean, stderr, summary, split=split, n_samples=k, details={"n_points": n, "seed": seed})


def importance_weighted(model: HasPosterior, batch: Batch, k: int, generator: torch.Generator) -> Tensor:
    """Return log 1/K Σ_k p(x, z_k) / q(z_k | x) of each image of a batch, (n,) float64, z_k ~ q."""
    parts = [min(ROWS, k - first) for first in range(0, k, ROWS)]
    log_weights = [Asking(model.log_weights)(batch, part, generator) for part in parts]
    return torch.cat(log_weights, 1).double().logsumexp(1) - math.log(k)
