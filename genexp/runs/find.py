"""`genexp runs`: what run directories there are, and how far each has come. Nothing is changed, torch is not loaded."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from genexp.config.schema import RunsConfig, TrainConfig
from genexp.errors import UsageError
from genexp.runs import directory as run
from genexp.storage.files import identity, read_json, read_json_lines, was_set_aside
from genexp.text import age


@dataclass(frozen=True)
class Found:
    """A run directory, as it is now."""

    path: Path
    config: TrainConfig | None  # None where config.yaml cannot be read
    status: str  # running, interrupted, failed, finished, killed (it says running, but nobody runs it) or unknown
    epoch: int
    epochs: int
    error: str | None
    updated: float  # seconds since 1970
    results: dict[str, Any]
    data_digest: str | None  # of the images that it was trained on

    def score(self) -> tuple[str, float, float | None, int] | None:
        """Name, mean, standard error and epoch of the newest score: at the end of training, or on the way."""
        epoch = _number(self.results.get("epochs"))
        for line in reversed(read_json_lines(self.path / "metrics.jsonl")):
            name = next((key for key in line if key.startswith("score/")), None)
            if name is not None and isinstance(line[name], float) and _number(line.get("epoch")) > epoch:
                return name.removeprefix("score/"), line[name], None, line["epoch"]
        scores = self.results.get("scores")
        for name, score in scores.items() if isinstance(scores, dict) else ():
            if isinstance(score, dict) and isinstance(score.get("mean"), float):
                return name, score["mean"], _number(score.get("stderr")) or None, epoch
        return None


def _number(value: Any) -> Any:
    """A number of epochs, of a file that may hold anything."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def find(outputs_dir: Path) -> list[Found]:
    """Every run directory below `outputs_dir`, by path; runs that were moved aside, and reruns, are left out."""
    return [_read(path) for path in sorted(_directories(outputs_dir)) if not was_set_aside(path)]


def _directories(folder: Path) -> Iterator[Path]:
    """The run directories, also in folders that are links to elsewhere."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if {"config.yaml", "status.json"} <= set(files):
            yield Path(place)
        known = {name: identity(Path(place, name)) for name in folders}
        folders[:] = [name for name in folders if known[name] not in seen and name != "checkpoints"]
        seen |= set(known.values())  # a link may lead to where one came from


def main(config: RunsConfig) -> None:
    """Print the table of runs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    folder = Path(config.outputs_dir).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; set outputs_dir=FOLDER to where runs are kept")
    words = config.filter.split() if isinstance(config.filter, str) else config.filter or []
    there = find(folder)
    own = differing(there)
    lines = [(found, line) for found in there if _matches(line := _line(found, own[found.path]), words)]
    if not lines:
        print(f"no run in {folder}{' matches ' + ' '.join(words) if words else ''}")
        return
    lines.sort(key=lambda pair: _order(pair[0], pair[1], config.sort))
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in lines[0][1]:
        table.add_column(column, no_wrap=True)
    for _, line in lines:
        table.add_row(*line.values())
    Console(width=Console(width=10**6).measure(table).maximum).print(table)  # a path that is cut is of no use
    for found, line in lines:
        if found.error and found.status == "failed":
            print(f"{line['run']} failed: {found.error.splitlines()[0]}")


def _read(path: Path) -> Found:
    status, results = read_json(path / "status.json"), read_json(path / "results.json")
    try:
        config = run.read_config(path)
    except UsageError:
        config = None
    said = str(status.get("status", "unknown"))
    if said == "running" and not run.is_held(path, unless_known=True):
        said = "killed"
    epochs = _number(status.get("epochs")) or (config.epochs if config else 0)
    epoch = _number(results.get("epochs") if said == "finished" else status.get("epoch"))
    if said != "finished" and status.get("epoch") is None:  # a status that ends a run early does not say
        lines = reversed(read_json_lines(path / "metrics.jsonl"))
        epoch = next((_number(line["epoch"]) for line in lines if "epoch" in line), 0)
    try:
        updated = datetime.strptime(str(status.get("updated")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        updated = (path / "status.json").stat().st_mtime
    digest = read_json(path / "data.json").get("digest")
    return Found(
        path,
        config,
        said,
        epoch,
        max(epoch, epochs),
        status.get("error") and str(status["error"]),
        updated,
        results,
        digest,
    )


def differing(there: Iterable[Found]) -> dict[Path, str]:
    """By path: the settings, but for the seed, in which a run differs from others of its model on its data set.

    Where the choice of a group differs, such as the optimizer, its settings are held against those of the same choice.
    """
    settings: dict[Path, list[tuple[Hashable, str, str]]] = {}  # what it is compared with, name and value
    seen: dict[Hashable, set[str]] = defaultdict(set)
    for found in there:
        config = found.config
        own = run.flat(config.identity()) if config else {}
        settings[found.path] = []
        for key, value in own.items():
            group, _, name = key.rpartition(".")
            if config is None or key == "seed" or name == "_target_":
                continue
            chosen = None if name == "name" else own.get(f"{group}.name")
            among = (config.model["name"], config.dataset["name"], key, chosen)
            settings[found.path].append((among, group if name == "name" else name, str(value)))
            seen[among].add(str(value))
    return {
        path: " ".join(f"{name}={value}" for among, name, value in own if len(seen[among]) > 1)
        for path, own in settings.items()
    }


def _line(found: Found, own: str) -> dict[str, str]:
    """What is shown of a run, column by column."""
    config, score = found.config, found.score()
    shown = ""
    if score is not None:
        name, mean, stderr, epoch = score
        shown = f"{name} {mean:.4g}" if stderr is None else f"{name} {mean:.1f} ± {stderr:.1f}"
        shown += f" (epoch {epoch})" if epoch < found.epoch else ""
    return {
        "status": found.status,
        "progress": f"{found.epoch}/{found.epochs}",
        "score": shown,
        "age": age(time.time() - found.updated),
        "model": config.model["name"] if config else "?",
        "dataset": config.dataset["name"] if config else "?",
        "seed": str(config.seed) if config else "?",
        "settings": own,
        "run": str(found.path),
    }


def _matches(line: dict[str, str], words: list[str]) -> bool:
    """Whether the line holds every word; `status:killed` is sought in its column, and has to be all of it."""
    for word in words:
        column, colon, value = word.partition(":")
        if colon and column not in line:
            raise UsageError(f"filter={word}: there is no column '{column}'; there are {', '.join(line)}")
        if line[column] != value if colon else word not in " ".join(line.values()):
            return False
    return True


def _order(found: Found, line: dict[str, str], sort: str) -> tuple[Any, ...]:
    match sort:
        case "status":
            return found.status, line["run"]
        case "progress":
            return -found.epoch / max(found.epochs, 1), line["run"]
        case "score":
            score = found.score()
            return -score[1] if score and math.isfinite(score[1]) else math.inf, line["run"]
        case "age":
            return -found.updated, line["run"]
    return (line["run"],)
