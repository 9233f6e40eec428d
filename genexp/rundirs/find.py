"""Finding run directories: below a folder, or by paths and globs. It does not import torch."""

import gc
import glob
import math
import os
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from genexp.config.components import lower_is_better
from genexp.config.kept import read_config
from genexp.config.schema import TrainConfig, flat
from genexp.errors import UsageError
from genexp.rundirs.directory import Run
from genexp.rundirs.names import OUTPUTS, hash_of
from genexp.rundirs.results import Evaluation, Results
from genexp.score import Score
from genexp.storage.files import identity, json_lines_with, was_set_aside

HASH_BEGINS = re.compile(r"[0-9a-f]{2,8}")
HASH_DIGITS = re.compile(r"[0-9a-f]{1,8}")
OF_A_RUN = (  # folders of a run in which no other run is sought, since listings take the longer the more they look into
    *("checkpoints", "chains", "figures", "filters", "reconstructions", "samples", "tensorboard", "translations"),
)


Compared = tuple[Hashable, str, Hashable]  # model and data set, a setting, and the choice of its group


class NewestScore(NamedTuple):
    """The newest score of a run, at the end of training or on the way."""

    name: str
    score: Score
    epoch: int


@dataclass(frozen=True)
class RunState:
    """A run directory as it is now."""

    run: Run
    config: TrainConfig | None  # None if config.yaml cannot be read
    status: str  # running, interrupted, failed, finished, killed (it says running, but no process holds it) or unknown
    epoch: int
    epochs: int
    error: str | None
    updated: float  # seconds since 1970
    results: Results | None
    earlier_epochs: int = 0  # of the stages before the last one, which a configuration and results do not count
    stage: str = ""  # the name of the stage in which training is, if there are several
    curve: dict[str, Any] | None = None  # the newest point of a score's curve in the log: name, value, step and epoch
    identity: dict[str, Any] = field(default_factory=dict)  # of the configuration

    @property
    def progress(self) -> str:
        """The epochs completed of those asked for, of all stages."""
        return (f"{self.stage}: " if self.stage else "") + f"{self.epoch}/{self.epochs}"

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Every score that was taken of the run, by its key, when they were asked for first."""
        return self.run.evaluations()

    @cached_property
    def digest(self) -> str | None:
        """The digest of the images that the run was trained on, if it is known."""
        return self.run.digest()

    def newest_score(self) -> NewestScore | None:
        """Return the newest score of the run, if it has one."""
        steps = self.results.steps if self.results is not None else 0
        if self.curve is not None and self.curve["step"] > steps:
            name, value = self.curve["name"], self.curve["value"]
            metric = self.config.metrics.get(name) if self.config is not None else None
            lower = metric is not None and lower_is_better(metric)
            return NewestScore(name, Score(value, None, f"{value:.4g}", lower_is_better=lower), self.curve["epoch"])
        scores = self.results.scores if self.results is not None else {}
        trained = self.results.epochs + self.earlier_epochs if self.results is not None else 0
        return next((NewestScore(name, score, trained) for name, score in scores.items()), None)


def _number(value: Any) -> Any:
    """Return a number of epochs from a file that may hold anything; 0 if it is none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


@contextmanager
def without_collection() -> Iterator[None]:
    """Spare the search for cycles among the objects of many thousand runs, which stay: it takes a quarter of the time.

    For commands that list runs, from `find` on to their end.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def find(outputs_dir: Path) -> list[RunState]:
    """Return every run below a folder, by path. Runs that were moved aside, and reruns, are left out."""
    return [state_of(Run(path)) for path in run_folders(outputs_dir)]


def run_folders(folder: Path) -> list[Path]:
    """Return the directories of all runs below a folder, sorted. Those moved aside, and reruns, are left out."""
    paths, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if "config.yaml" in files and "status.json" in files:
            paths.append(Path(place))
            folders[:] = [name for name in folders if name not in OF_A_RUN]
        known = {name: identity(os.path.join(place, name)) for name in folders}  # noqa: PTH118 (many: faster than Path)
        folders[:] = [name for name in folders if known[name] not in seen and name != "checkpoints"]
        seen |= set(known.values())  # a link may lead back
    return [path for path in sorted(paths) if not was_set_aside(path)]


def state_of(run: Run) -> RunState:
    """Return how far a run has come."""
    said = run.status()
    status = str(said.get("status", "unknown"))
    if status == "running" and not run.is_held(if_unknown=True):
        status = "killed"
    try:
        config = read_config(run.config_file)
    except UsageError:
        config = None
    results = Results.read(run.results_file)
    log = _log(run.metrics_file)
    epoch = _number(said.get("epoch"))
    if status == "finished":  # runs of genexp 0.1 count the epochs of the last stage alone there
        epoch = 0 if results is None else max(results.epochs, _number(log.get("epoch")))
    elif said.get("epoch") is None:  # a status that ends a run early does not say
        epoch = _number(log.get("epoch"))
    epochs = _number(said.get("epochs")) or (config.epochs if config else 0)
    earlier = epochs - config.epochs if config is not None else 0
    if status == "finished":
        earlier = epoch - results.epochs if results is not None else 0
    try:
        updated = datetime.fromisoformat(str(said.get("updated"))).timestamp()
    except ValueError:
        updated = run.status_file.stat().st_mtime
    return RunState(
        run=run,
        config=config,
        status=status,
        epoch=epoch,
        epochs=max(epoch, epochs),
        error=str(said["error"]) if said.get("error") else None,
        updated=updated,
        results=results,
        earlier_epochs=max(0, earlier),
        stage=str(said["stage"]) if said.get("stage") and status != "finished" else "",
        curve=log.get("curve"),
        identity=config.identity() if config is not None else {},
    )


def _log(file: Path) -> dict[str, Any]:
    """Return the last epoch in metrics.jsonl, and the newest point of a score's curve, as far as there are any."""
    content, log = b"", dict[str, Any]()
    with suppress(OSError):
        content = file.read_bytes()
    log["epoch"] = next((line["epoch"] for line in json_lines_with(content, "epoch") if "epoch" in line), None)
    for line in json_lines_with(content, "score/"):
        name = next(key for key in line if key.startswith("score/"))
        if isinstance(line[name], float):
            place = {key: _number(line.get(key)) for key in ("step", "epoch")}
            return log | {"curve": {"name": name.removeprefix("score/"), "value": line[name], **place}}
    return log


def matching(pattern: str, outputs_dir: str = OUTPUTS) -> list[Run]:
    """Return the runs that a path, a glob or the beginning of a hash names.

    A glob leaves out runs that were moved aside, and reruns. A hash is sought below `outputs_dir`, and in FOLDER/HASH
    below the folder. Raises UsageError if several hashes begin so.
    """
    pattern = str(Path(pattern).expanduser())
    named = Run(Path(pattern))
    if named.config_file.is_file():  # a name may hold brackets
        return [named]
    runs = [Run(Path(path)) for path in sorted(glob.glob(pattern))]  # noqa: PTH207 (Path's own takes no absolute one)
    runs = [run for run in runs if run.config_file.is_file() and not was_set_aside(run.path)]
    return runs or _by_hash(pattern, Path(outputs_dir).expanduser())


def _by_hash(pattern: str, outputs_dir: Path) -> list[Run]:
    folder, _, beginning = pattern.rpartition(os.sep)
    if not HASH_BEGINS.fullmatch(beginning):
        return []
    hashes = {path: hash_of(path) or "" for path in run_folders(Path(folder) if folder else outputs_dir)}
    paths = [path for path, name in hashes.items() if name.startswith(beginning)]
    if len(paths) > 1:
        listed = "\n".join(f"  {path}" for path in paths)
        raise UsageError(f"run={pattern}: {len(paths)} runs' hashes begin so; give more of it, or a path:\n{listed}")
    return [Run(path) for path in paths]


def hashes_below(beginning: str, outputs_dir: str = OUTPUTS) -> list[str]:
    """Return the names HASH or FOLDER/HASH, sorted, that runs have and that begin so; none if it begins no hash."""
    folder, sign, digits = beginning.rpartition(os.sep)
    if not HASH_DIGITS.fullmatch(digits):
        return []
    names = {hash_of(path) or "" for path in run_folders(Path(folder or outputs_dir).expanduser())}
    return sorted(f"{folder}{sign}{name}" for name in names if name.startswith(digits))


def named_runs(patterns: Iterable[str], outputs_dir: str = OUTPUTS) -> list[Run]:
    """Return the runs that paths, globs and hashes name. Raises UsageError for one that names no run."""
    matches = [(pattern, matching(pattern, outputs_dir)) for pattern in patterns]
    for pattern, runs in matches:
        if not runs:
            below = [deeper for deeper in (f"{pattern}/*/*", f"{pattern}/*") if pattern and matching(deeper)]
            hint = f"run='{below[0]}' takes those in it" if below else "`genexp runs` lists them"
            raise UsageError(f"run={pattern}: there is no run's directory; {hint}")
    several = len(matches) > 1  # the shell has expanded a glob, and leaves nothing out
    return [run for _, runs in matches for run in runs if not (several and was_set_aside(run.path))]


def same_but_path(config: TrainConfig, digest: str) -> list[Run]:
    """Return the runs beside a configuration's that are the same experiment on the same images, from another place."""

    def without_path(identity: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in flat(identity).items() if key != "dataset.path"}

    runs = [Run(path.parent) for path in sorted(config.directory().parent.glob("*/data.json"))]
    same = []
    for run in runs:
        if run.digest() == digest and not was_set_aside(run.path):
            with suppress(UsageError):  # a damaged configuration is of no use here
                if without_path(run.config.identity()) == without_path(config.identity()):
                    same.append(run)
    return same


def differing_settings(states: Iterable[RunState]) -> dict[Path, str]:
    """Return for each run the settings, but for the seed, in which it differs from other runs of its model and data.

    Where the choice of a group differs, such as the optimizer, its settings are compared with those of equal choice.
    """
    settings: dict[Path, list[tuple[Compared, str]]] = {}
    values: dict[Compared, set[str]] = defaultdict(set)
    parts: dict[str, tuple[str, str, str]] = {}  # of the names, which most runs have in common
    for state in states:
        settings[state.run.path] = own_settings = []
        if (config := state.config) is None:
            continue
        of, own = (config.model["name"], config.dataset["name"]), flat(state.identity)
        for key, value in own.items():
            group, _, name = parts[key] if key in parts else parts.setdefault(key, key.rpartition("."))
            if key == "seed" or name == "_target_":
                continue
            compared = (of, key, None if name == "name" else own.get(f"{group}.name"))
            text = str(value)
            own_settings.append((compared, text))
            values[compared].add(text)

    def setting(key: str, value: str) -> str:
        group, _, name = parts[key]
        return f"{group if name == 'name' else name}={value}"

    return {
        path: " ".join(setting(compared[1], value) for compared, value in own if len(values[compared]) > 1)
        for path, own in settings.items()
    }
