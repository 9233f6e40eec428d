"""Scores: plain functions of a model and splits, seeded, exact to stated precision, independent of batch size.

Each is called with (model, data, seed) and its settings, and returns a dictionary: `mean`, its standard error `stderr`
(None where there is none), `summary` for people, and all that defines the score.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from genexp.data import DataSet
from genexp.models import Model

Score = TypeVar("Score", bound=Callable[..., dict[str, Any]])


def requires(holds: Callable[[Model, DataSet], bool], said: str) -> Callable[[Score], Score]:
    """Mark a score that not every model or data set has, so that it is refused before training and not after."""

    def mark(score: Score) -> Score:
        score.refusal = lambda model, data: None if holds(model, data) else said  # type: ignore[attr-defined]
        return score

    return mark
