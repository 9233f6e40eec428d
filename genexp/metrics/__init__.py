"""Scores: plain functions of a subject and settings, seeded, exact to stated precision, independent of batch size.

Each is called with a `Subject` and its settings, and returns a dictionary: `mean`, its standard error `stderr` (None
where there is none), `summary` for people, and all that defines the score.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

from genexp import random
from genexp.data import DataSet
from genexp.errors import GenexpError, UsageError
from genexp.models import Model, draw

Score = TypeVar("Score", bound=Callable[..., dict[str, Any]])
Made = TypeVar("Made")
Refusal = Callable[[Model, DataSet, Mapping[str, Any]], str | None]  # model, data, settings -> what is in the way


class Subject:
    """What is scored: a model, the data that it was trained on, and the seed that every draw follows from.

    What several scores need, such as the samples, is made once.
    """

    def __init__(self, model: Model, data: DataSet, seed: int) -> None:
        self.model, self.data, self.seed = model, data, seed
        self._made: dict[Hashable, Any] = {}

    @property
    def sample_kind(self) -> str:
        """What a sample is, "draw" or "mean"."""
        return self.model.sample_kind

    def samples(self, n: int) -> Tensor:
        """n samples of the model, (n, C, H, W) float32 in [0, 1]; the same for every score.

        Raises GenexpError when one is not finite.
        """
        return self.once(("samples", n), lambda: self._draw(n))

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes, which is called the first time that `key` is asked for."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def _draw(self, n: int) -> Tensor:
        generator = random.generator(self.data.train.device, self.seed, "scored samples")
        samples = draw(self.model, n, generator, self.data).float()
        if not samples.isfinite().all():
            raise GenexpError("the model's samples are not all finite numbers, so they have no score")
        return samples


def requires(refusal: Refusal) -> Callable[[Score], Score]:
    """Give a score that not every model, data set or setting will do for a `refusal`, which says what is in the way.

    It is asked before training begins, and raised as UsageError when the score is taken all the same.
    """

    def mark(score: Score) -> Score:
        @functools.wraps(score)
        def checked(subject: Subject, **settings: Any) -> dict[str, Any]:
            said = refusal(subject.model, subject.data, settings)
            if said is not None:
                raise UsageError(said)
            return score(subject, **settings)

        checked.refusal = refusal  # type: ignore[attr-defined]
        return cast(Score, checked)

    return mark
