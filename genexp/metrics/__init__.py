"""The common part of metrics: the subject that they score, and decorators that declare what a metric needs and prefers.

A metric is a function of a `Subject` and settings that returns a `Score`. It is seeded, exact to a stated precision,
and independent of the batch size.
"""

import functools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.errors import GenexpError, UsageError
from genexp.models import Model, draw, in_unit_range


@dataclass(frozen=True)
class GivenSamples:
    """Samples that are scored without a model."""

    images: Tensor  # (n, C, H, W) float32 in [0, 1]
    sample_kind: str  # "draw" or "mean"


Metric = TypeVar("Metric", bound=Callable[..., Any])
Content = TypeVar("Content")
Refusal = Callable[[Model | GivenSamples, DataSet, Mapping[str, Any]], str | None]  # (model, data, settings) -> reason


class Subject:
    """A model or given samples to score, with the data and the seed of every draw."""

    def __init__(self, model: Model | GivenSamples, data: DataSet, seed: int) -> None:
        self.model, self.data, self.seed = model, data.drawn(seed), seed
        self.sample_kind = model.sample_kind  # "draw" or "mean"
        self._cache: dict[Hashable, Any] = {}

    def samples(self, n: int) -> Tensor:
        """Return n samples, (n, C, H, W) float32 in [0, 1]; every metric gets the same ones.

        Of given samples it returns the first n. Raises GenexpError if a value of a model's samples is not finite, and
        UsageError if one is not in [0, 1].
        """
        model = self.model
        if isinstance(model, GivenSamples):
            return self.once("given samples", lambda: in_unit_range(model.images, "the given samples are"))[:n]
        return self.once(("samples", n), lambda: self._draw(model, n))

    def some_samples(self, n: int) -> Tensor:
        """Return any n samples: of those that a metric drew, if there are as many."""
        drawn = [key for key in self._cache if isinstance(key, tuple) and key[0] == "samples" and key[1] >= n]
        return self._cache[drawn[0]][:n] if drawn else self.samples(n)

    def once(self, key: Hashable, make: Callable[[], Content]) -> Content:
        """Return the result of `make`, which is called once for each key; metrics share results this way."""
        if key not in self._cache:
            self._cache[key] = make()
        return cast(Content, self._cache[key])

    def _draw(self, model: Model, n: int) -> Tensor:
        generator = rng.generator(self.data.device, self.seed, "scored samples")
        samples = draw(model, n, generator, self.data).float()
        if not samples.isfinite().all():
            raise GenexpError("the model's samples are not all finite numbers, so they have no score")
        return samples


def mean_and_errors(values: Tensor) -> tuple[float, float | None, float | None]:
    """Return the mean of (n,) values, their population standard deviation, and the standard error std / √n.

    Both errors are None for a single value, whose spread is not known.
    """
    if len(values) == 1:
        return values.item(), None, None
    std = values.std(correction=0).item()
    return values.mean().item(), std, std / math.sqrt(len(values))


def binomial_error(share: float, n: int) -> float | None:
    """Return the standard error √(share · (1 − share) / n) of a share of n; None for n = 1, as `mean_and_errors`."""
    return math.sqrt(share * (1 - share) / n) if n > 1 else None


def requires(refusal: Refusal) -> Callable[[Metric], Metric]:
    """Declare when a metric cannot be computed: `refusal` returns the reason, or None.

    Training calls `refusal` before its first step. A call of the metric raises the reason as UsageError. A metric may
    have several of these.
    """

    def mark(metric: Metric) -> Metric:
        earlier: Refusal = getattr(metric, "refusal", lambda *_: None)

        @functools.wraps(metric)
        def checked(subject: Subject, **settings: Any) -> Any:
            reason = refusal(subject.model, subject.data, settings)
            if reason is not None:
                raise UsageError(reason)
            return metric(subject, **settings)

        checked.refusal = lambda *given: refusal(*given) or earlier(*given)  # type: ignore[attr-defined]
        return cast(Metric, checked)

    return mark


def of_models(kind: type, reason: str) -> Callable[[Metric], Metric]:
    """Declare that a metric is of models of a class, or of a protocol that can be checked; `reason` names some.

    `config.suited` reads this decorator from the source, so that most other models are refused before torch is loaded.
    """
    return requires(lambda model, _data, _settings: None if isinstance(model, kind) else reason)


def lower_is_better(metric: Metric) -> Metric:
    """Declare that lower values of a metric are better. `config.components` reads this decorator from the source."""
    metric.lower_is_better = True  # type: ignore[attr-defined]
    return metric


def diagnosis(metric: Metric) -> Metric:
    """Declare that a metric describes samples and says nothing of what is better: no settings are chosen by it.

    `config.components` reads this decorator from the source.
    """
    return metric
