"""results.json: what a run's training came to, and every score that was ever taken of it, keyed by its settings."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import filelock

from genexp.config.schema import Component, settings_of
from genexp.errors import GenexpError
from genexp.storage.files import Identity, read_json, refuse_if_moved, write_json

FILE = "results.json"
LOCK = ".results.lock"  # of this file; who moves the run's directory aside takes it, too
LOWER_IS_BETTER = ("fid", "kid", "ms_ssim")


def key(metric: Component, sampling: dict[str, Any], seed: int, step: int, extractor: str | None) -> str:
    """A name for one score: the metric's, and a digest of all that it follows from.

    That includes the step of training, and of a score of features the name of their extractor, which holds the hash
    of its weights.
    """
    what = json.dumps([metric, sampling, seed, step, extractor], sort_keys=True)
    return f"{metric['name']}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def evaluations(run: Path) -> dict[str, dict[str, Any]]:
    """Every score of the run by its key: `metric`, `settings`, `sampling`, `step`, `epoch`, `score`, `provenance`."""
    kept: dict[str, dict[str, Any]] = read_json(run / FILE).get("evaluations", {})
    return kept if _whole(kept) else {}


def _whole(evaluations: Any) -> bool:
    """Whether these are evaluations as `record` writes them; another program may have been at the file."""
    fields = {"metric", "settings", "sampling", "seed", "step", "epoch", "train_seconds", "score", "provenance"}
    return isinstance(evaluations, dict) and all(
        isinstance(one, dict) and fields <= one.keys() for one in evaluations.values()
    )


def record(run: Path, summary: dict[str, Any], added: dict[str, dict[str, Any]], of: Identity | None = None) -> None:
    """Set what `summary` holds and add evaluations; what else is in the file stays.

    A lock keeps two processes from losing what the other adds; a file that cannot be read is moved aside, not replaced.
    Raises GenexpError when the file cannot be written, or the run is no more that `of` which the scores are.
    """
    file = run / FILE
    try:
        with filelock.FileLock(run / LOCK):
            if of is not None:
                refuse_if_moved(run, of)
            content = read_json(file)
            if file.exists() and not (content and _whole(content.get("evaluations", {}))):
                places = (run / f"results.damaged-{n}.json" for n in range(1, 10**6))
                aside = next(place for place in places if not place.exists())
                file.rename(aside)
                print(f"warning: {file} is damaged; it was moved to {aside}", flush=True)
                content = {}
            content |= summary | {"evaluations": content.get("evaluations", {}) | added}
            write_json(file, content)
    except OSError as error:
        raise GenexpError(f"{file} cannot be written: {error.strerror}; the scores are not kept") from error


def evaluation(
    metric: Component,
    score: dict[str, Any],
    *,
    sampling: dict[str, Any],
    seed: int,
    step: int,
    epoch: float,
    train_seconds: float,
    provenance: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """One score under its key, with all that it follows from; to be given to `record`."""
    return {
        key(metric, sampling, seed, step, score.get("extractor")): {
            "metric": metric["name"],
            "settings": settings_of(metric),
            "sampling": sampling,
            "seed": seed,
            "step": step,
            "epoch": epoch,
            "train_seconds": round(train_seconds, 3),
            "score": score,
            "provenance": provenance,
        }
    }


def on_valid(score: dict[str, Any]) -> float | None:
    """A score's mean on validation images, by which settings and states are chosen; None if it is not taken there."""
    value = score.get("valid_mean", score["mean"] if score.get("split") == "valid" else None)
    return None if value is None else float(value)


def shown(score: dict[str, Any]) -> str:
    """The mean and its standard error, with two digits of the latter."""
    mean, stderr = score["mean"], score["stderr"]
    if not stderr:  # a count has none, and of equal values it is 0
        return f"{mean:g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"
