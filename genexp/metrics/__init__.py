"""What metrics share: the subject that they score, and what they declare about themselves.

A metric is a function of a `Subject` and settings that returns a `Score`. It is seeded, exact to a stated precision,
and does not depend on the batch size.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.errors import GenexpError, UsageError
from genexp.models import Model, draw

Metric = TypeVar("Metric", bound=Callable[..., Any])
Content = TypeVar("Content")
Refusal = Callable[[Model, DataSet, Mapping[str, Any]], str | None]  # model, data, settings -> why it cannot be scored


class Subject:
    """A model to be scored, its data, and the seed of every draw. What several metrics need is made once."""

    def __init__(self, model: Model, data: DataSet, seed: int) -> None:
        self.model, self.data, self.seed = model, data, seed
        self._made: dict[Hashable, Any] = {}

    @property
    def sample_kind(self) -> str:
        """What a sample is, "draw" or "mean"."""
        return self.model.sample_kind

    def samples(self, n: int) -> Tensor:
        """Return n samples of the model, (n, C, H, W) float32 in [0, 1]; every metric gets the same ones.

        Raises GenexpError if a value is not finite.
        """
        return self.once(("samples", n), lambda: self._draw(n))

    def once(self, key: Hashable, make: Callable[[], Content]) -> Content:
        """Return what `make` returned when this key was asked for the first time."""
        if key not in self._made:
            self._made[key] = make()
        made: Content = self._made[key]
        return made

    def _draw(self, n: int) -> Tensor:
        generator = rng.generator(self.data.train.device, self.seed, "scored samples")
        samples = draw(self.model, n, generator, self.data).float()
        if not samples.isfinite().all():
            raise GenexpError("the model's samples are not all finite numbers, so they have no score")
        return samples


def requires(refusal: Refusal) -> Callable[[Metric], Metric]:
    """Declare when a metric cannot be taken: `refusal` returns the reason, or None.

    Training asks before its first step. A call of the metric raises the reason as UsageError.
    """

    def mark(metric: Metric) -> Metric:
        @functools.wraps(metric)
        def checked(subject: Subject, **settings: Any) -> Any:
            reason = refusal(subject.model, subject.data, settings)
            if reason is not None:
                raise UsageError(reason)
            return metric(subject, **settings)

        checked.refusal = refusal  # type: ignore[attr-defined]
        return cast(Metric, checked)

    return mark


def lower_is_better(metric: Metric) -> Metric:
    """Declare that lower values of a metric are better. `config.components` reads this decorator from the source."""
    metric.lower_is_better = True  # type: ignore[attr-defined]
    return metric
