"""results.json: the results of a run's training, and every score that was taken of the run, keyed by its settings."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import filelock

from genexp.config.components import Component, defining, settings_of
from genexp.score import Score
from genexp.storage.files import PARTIAL, free, read_json, write_json, writing

LOCK = ".results.lock"  # of results.json; whoever moves the run's directory aside takes it, too
RAW = {"weights": "raw"}  # what distinguishes the scores of raw weights, in a run with averaged ones
SCORES = ("scores", "raw_scores")  # fields of Results
DAMAGED = (AttributeError, KeyError, TypeError, ValueError)  # errors of content that is not as it was written


@dataclass(frozen=True)
class Results:
    """The results of a finished training."""

    epochs: int
    steps: int
    train_seconds: float
    images_per_second: float
    provenance: dict[str, Any]
    scores: dict[str, Score]  # by the metric's name in the configuration
    raw_scores: dict[str, Score] = field(default_factory=dict)  # of the raw weights, in a run with averaged ones
    remarks: list[str] = field(default_factory=list)  # what is conspicuous, see `training.remarks`

    @classmethod
    def read(cls, file: Path) -> "Results | None":
        """Return the results in the file; None if it is missing, or is not as training writes it."""
        return cls.from_json(read_json(file))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Results | None":
        """Return the results in the content of results.json; None if it is not as training writes it."""
        content = {"provenance": {}, "raw_scores": {}, "remarks": []} | content
        try:
            known = {name: content[name] for name in FIELDS}
            for key in SCORES:
                known[key] = {name: Score.from_json(score, name) for name, score in content[key].items()}
        except DAMAGED:
            return None
        is_whole = isinstance(known["epochs"], int) and None not in known.values()
        return cls(**known) if is_whole else None

    def to_json(self) -> dict[str, Any]:
        scores = {key: {name: each.to_json() for name, each in getattr(self, key).items()} for key in SCORES}
        return {key: content for key, content in (vars(self) | scores).items() if key != "raw_scores" or content}


FIELDS = tuple(each.name for each in fields(Results))


@dataclass(frozen=True)
class Evaluation:
    """One score of a run, with all that it follows from."""

    metric: str
    settings: dict[str, Any]  # of the metric
    sampling: dict[str, Any]  # settings of the sampler that are not the run's own
    seed: int
    step: int
    epoch: float
    train_seconds: float
    score: Score
    provenance: dict[str, Any]

    @classmethod
    def from_json(cls, entry: dict[str, Any], scores: dict[str, Any]) -> "Evaluation":
        """Return the evaluation that an entry of results.json holds; its score may be the name of one of `scores`."""
        score = scores[entry["score"]] if isinstance(entry["score"], str) else entry["score"]
        known = {each.name: entry[each.name] for each in fields(cls)}
        return cls(**known | {"score": Score.from_json(score, entry["metric"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"score": self.score.to_json()}

    def is_by(self, metric: Component) -> bool:
        """Return True if it was taken by this metric under these settings."""
        return self.settings_of(metric) == defining(metric)

    def settings_of(self, metric: Component) -> Component:
        """Return `metric` under the settings of this score, without those that came later and are as before."""
        return defining({"name": self.metric, "_target_": metric["_target_"], **self.settings})


def key(metric: Component, sampling: dict[str, Any], seed: int, step: int, extractor: str | None) -> str:
    """Return the name of a score: the metric's name, and a digest of all that the score follows from.

    That includes the training step and, for a score of features, the extractor, whose name holds its weights' hash.
    """
    content = json.dumps([defining(metric), sampling, seed, step, extractor], sort_keys=True)
    return f"{metric['name']}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def evaluation(metric: Component, score: Score, **origin: Any) -> dict[str, Evaluation]:
    """Return a score under its key; `origin` are the other fields of `Evaluation`."""
    made = Evaluation(metric["name"], settings_of(metric), score=score, **origin)
    return {key(metric, made.sampling, made.seed, made.step, score.extractor): made}


def evaluations(file: Path) -> dict[str, Evaluation]:
    """Return every score of a run by its key; none if the file is missing or damaged."""
    content = read_json(file)
    try:
        scores, entries = content.get("scores", {}), content.get("evaluations", {})
        return {name: Evaluation.from_json(entry, scores) for name, entry in entries.items()}
    except DAMAGED:
        return {}


def record(file: Path, summary: dict[str, Any], added: dict[str, Evaluation], check: Callable[[], object]) -> None:
    """Set what `summary` holds in results.json and add evaluations; the rest of the file stays.

    A lock keeps two processes from losing what the other adds; `check` is called under it, and may refuse.
    A damaged file is moved aside. Raises GenexpError if the file cannot be written.
    """
    with writing(file, "The scores are not kept"), filelock.FileLock(file.with_name(LOCK)):
        check()
        for left_behind in file.parent.glob(f".{file.name}.*{PARTIAL}"):  # by a process that was killed
            left_behind.unlink()
        content, kept = read_json(file), evaluations(file)
        if file.exists() and (not content or (content.get("evaluations") and not kept)):
            damaged = free(file.parent, "results.damaged-", ".json")
            file.rename(damaged)
            print(f"warning: {file} is damaged; it was moved to {damaged}", flush=True)
            content = {}
        entries = {name: entry.to_json() for name, entry in (kept | added).items()}
        write_json(file, with_each_score_once(content | summary | {"evaluations": entries}))


def with_each_score_once(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of results.json with the name of a score in `scores` where an evaluation repeats it."""
    scores = content.get("scores", {})
    entries = {}
    for key, entry in content["evaluations"].items():
        score, metric = Score.from_json(entry["score"], entry["metric"]), entry["metric"]
        same = [name for name in scores if Score.from_json(scores[name], metric) == score]
        entries[key] = entry | {"score": same[0]} if same else entry
    return content | {"evaluations": entries}
