"""Score: what a metric returns, and how two scores compare. It does not import torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from genexp.errors import UsageError
from genexp.text import number, with_error

LOWER_IS_BETTER = ("fid", "kid", "ms_ssim")  # metrics whose kept scores do not say so: written by genexp 0.1.0


@dataclass(frozen=True)
class Score:
    """A metric's value for a model, and what defines it."""

    mean: float  # NaN where it is not known: `reason` says why, and JSON has null
    stderr: float | None  # standard error over what is scored; None where it is not known
    summary: str  # the score in words, for people
    split: str | None = None  # the images that were scored: train, valid or test
    valid_mean: float | None = None  # the mean on validation images, beside that on `split`
    n_samples: int | None = None  # samples of the model, or draws of each code
    sample_kind: str | None = None  # a sample is a "draw" or a "mean"
    sigma: float | list[float] | None = None  # window width of a Parzen score; one for each fold
    extractor: str | None = None  # name of the network whose features were compared, with the hash of its weights
    floor: float | None = None  # what real images score in the place of samples
    warning: str | None = None
    reason: str | None = None  # why the mean is not known
    lower_is_better: bool = False
    details: dict[str, Any] = field(default_factory=dict)  # further values that define the score

    @classmethod
    def of(cls, returned: Any, metric: str, lower_is_better: bool) -> "Score":
        """Return what a metric returned as a Score; a metric from outside genexp may return a dictionary.

        A mean that is NaN or infinite is not known, and so is a standard error that is NaN, infinite or negative.
        Raises UsageError if it is neither, its mean is of another type, or its direction was not declared.
        """
        if not isinstance(returned, Score | Mapping):
            raise UsageError(f"metrics.{metric} returns a {type(returned).__name__}; return a genexp.score.Score")
        try:
            score = returned if isinstance(returned, Score) else cls.from_json(returned)
            stderr = None if score.stderr is None else float(score.stderr)
            score = replace(score, mean=float(score.mean), stderr=stderr, summary=str(score.summary))
            if not score.is_known:
                reason = score.reason or f"metric {metric} gives {score.mean}"
                score = replace(score, mean=math.nan, stderr=None, summary=f"– ({reason})", reason=reason)
            elif stderr is not None and not 0 <= stderr < math.inf:
                score = replace(score, stderr=None)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"metrics.{metric} returns a score whose mean or stderr is no number: {error}") from error
        if score.lower_is_better and not lower_is_better:
            raise UsageError(
                f"metrics.{metric} returns a score with lower_is_better=True: declare it by the decorator "
                "genexp.metrics.lower_is_better, so that it is known before training"
            )
        return replace(score, lower_is_better=lower_is_better)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], metric: str = "") -> "Score":
        """Return a score that `to_json` wrote, or genexp 0.1.0. Raises KeyError if it has no mean."""
        known = {name: value for name, value in content.items() if name in OWN}
        if known["mean"] is None or known["mean"] != known["mean"]:  # genexp 0.1.0 wrote NaN
            known["mean"] = math.nan  # always this one: unlike others, it is equal to itself within a score
        known.setdefault("stderr", None)
        known.setdefault("summary", number(known["mean"], "g"))
        known.setdefault("lower_is_better", metric in LOWER_IS_BETTER)
        return cls(**known, details={name: value for name, value in content.items() if name not in OWN})

    def to_json(self) -> dict[str, Any]:
        """Return the score as one flat dictionary; fields that are None are left out, but for `stderr`."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "details"}
        return {name: value for name, value in own.items() if value is not None or name == "stderr"} | self.details

    @property
    def is_known(self) -> bool:
        """True if the mean is a number; NaN and infinities are none."""
        return math.isfinite(self.mean)

    @property
    def on_valid(self) -> float | None:
        """The mean on validation images, by which settings and checkpoints are chosen; None if it is not known."""
        return self.mean if self.valid_mean is None and self.split == "valid" else self.valid_mean

    def sort_key(self, lower_is_better: bool | None = None) -> float:
        """Return what to sort by: the best score has the lowest key. On validation images if it has a mean there.

        `lower_is_better` is what the metric declares now, where that is known; the score keeps what it declared then.
        """
        lower = self.lower_is_better if lower_is_better is None else lower_is_better
        return sort_key(self.mean if self.on_valid is None else self.on_valid, lower)

    def __str__(self) -> str:
        """The mean ± its standard error; "–" if the mean is not known."""
        return with_error(self.mean, self.stderr)


OWN = {each.name for each in fields(Score)} - {
    "details"
}  # the fields of a score in a file; what else is there, details


def sort_key(value: float, lower_is_better: bool) -> float:
    """Return what to sort the values of a score by: the best has the lowest key; NaN and infinities come last."""
    if not math.isfinite(value):
        return math.inf
    return value if lower_is_better else -value


def in_brief(scores: Mapping[str, Score | None], most: int = 3) -> str:
    """Return the first known scores as the end of a sentence: "; parzen 32.2 ± 0.9, fid 2.1"; nothing if none is."""
    known = [f"{name} {score}" for name, score in scores.items() if score is not None and score.is_known][:most]
    return f"; {', '.join(known)}" if known else ""
