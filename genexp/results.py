"""results.json: what a run's training came to, and every score that was ever taken of it, keyed by its settings."""

import hashlib
import json
from pathlib import Path
from typing import Any

import filelock

from genexp.config import Component
from genexp.files import atomic, read_json

FILE = "results.json"


def key(metric: Component, sampling: dict[str, Any], seed: int, step: int) -> str:
    """A name for one score: the metric's, and a digest of all that it follows from, the step of training included."""
    what = json.dumps([metric, sampling, seed, step], sort_keys=True)
    return f"{metric['name']}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def evaluations(run: Path) -> dict[str, dict[str, Any]]:
    """Every score of the run by its key: `metric`, `settings`, `sampling`, `step`, `epoch`, `score`, `provenance`."""
    kept: dict[str, dict[str, Any]] = read_json(run / FILE).get("evaluations", {})
    return kept


def record(run: Path, summary: dict[str, Any], added: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Set what `summary` holds and add evaluations; what else is in the file stays. Returns the file's content.

    A lock keeps two processes from losing what the other adds.
    """

    with filelock.FileLock(run / ".results.lock"):
        content = read_json(run / FILE)
        content |= summary | {"evaluations": content.get("evaluations", {}) | added}
        with atomic(run / FILE) as stream:
            stream.write((json.dumps(content, indent=2) + "\n").encode())
    return content


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
    settings = {name: value for name, value in metric.items() if name not in ("name", "_target_")}
    return {
        key(metric, sampling, seed, step): {
            "metric": metric["name"],
            "settings": settings,
            "sampling": sampling,
            "seed": seed,
            "step": step,
            "epoch": epoch,
            "train_seconds": round(train_seconds, 3),
            "score": score,
            "provenance": provenance,
        }
    }
