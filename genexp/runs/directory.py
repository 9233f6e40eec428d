"""The run directory: found again by what the experiment is, held by one process, described by its own files."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genexp.config.schema import GROUPS, TrainConfig
from genexp.errors import GenexpError, HeldError, UsageError
from genexp.runs import provenance, results
from genexp.storage.files import PARTIAL, aside, atomic, make_folder, read_json, sync, write_json
from genexp.text import now

LOCK = ".lock"
WEIGHTS = "model.safetensors"  # of an exported run, in the place of its checkpoints
OURS = (  # beginnings of what only training writes, complete or not
    *(
        f".{name}."
        for name in ("config.yaml", "status.json", "data.json", "provenance.json", "metrics.jsonl", "error.txt")
    ),
    *(".uncommitted-", "checkpoints", "samples", "reconstructions", "filters", "tensorboard"),
)
FOREIGN_AGE = 86400  # seconds after which a file that others had begun to write is taken for left behind
PATIENCE = 1.0  # seconds; `is_held` of another process holds a lock for an instant


class Run:
    """A run directory that this process holds, until `close` or the end of a `with`."""

    def __init__(self, path: Path, *locks: filelock.BaseFileLock) -> None:
        self.path = path
        self._locks = locks
        self._known: dict[str, Any] = {}

    @classmethod
    def hold(cls, config: TrainConfig) -> "Run":
        """Make the directory of this configuration, or find it again; with `fresh`, move an old one aside.

        What it holds stays as it is until `begin`. Raises UsageError when that is another experiment, GenexpError when
        the directory cannot be written or another process holds it.
        """
        path = config.directory()
        _refuse_other_experiments(path, config)
        with _writing(path):
            held = cls(path, _hold(path))
            try:
                if config.fresh and _holds_a_run(path):
                    old = aside(path)
                    with filelock.FileLock(path / results.LOCK):  # an evaluation may be about to write there
                        path.rename(old)
                    sync(path.parent)
                    print(f"moved the old run to {old}", flush=True)
                    # The old lock is kept, too: who waited for it would else get it, and take the new directory for his
                    held._locks += (_hold(path),)
                held.sweep_up()
            except BaseException:
                held.close()
                raise
        return held

    def begin(self, config: TrainConfig) -> None:
        """Keep the configuration, and say that the run is trained from now on. Raises GenexpError."""
        with _writing(self.path):
            if _holds_a_run(self.path):  # first, or a run killed from here on would pass for the finished one it was
                self.set_status("running")
            self.write_text("config.yaml", OmegaConf.to_yaml(config.model_dump()))
            self.set_status("running")

    def close(self) -> None:
        for lock in self._locks:
            lock.release()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sweep_up(self) -> None:
        """Remove what a killed process had begun to write; what others than training write, once it is a day old."""
        for file in list(self.path.rglob(f".*{PARTIAL}")):
            with suppress(FileNotFoundError):
                ours = file.relative_to(self.path).parts[0].startswith(OURS)
                if not ours and time.time() - file.stat().st_mtime < FOREIGN_AGE:
                    continue
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink()

    def write_text(self, name: str, text: str) -> None:
        """Replace one of the run's files, so that a reader sees the old text or the new one, whole."""
        with atomic(self.path / name) as stream:
            stream.write(text.encode())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / name, content)

    def set_status(self, status: str, **details: Any) -> None:
        """running, interrupted, failed or finished; `details`, such as epoch and step, are said again with the next."""
        self._known |= details
        holder = {"pid": os.getpid(), "host": platform.node(), "command": provenance.command_line}
        self.write_json("status.json", {"status": status, **self._known, **holder, "updated": now()})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GenexpError(
            f"the run directory {path} cannot be written: {error.strerror}\n"
            "Set outputs_dir=FOLDER (or run_dir=FOLDER) to a place that can"
        ) from error


def finished(config: TrainConfig) -> dict[str, Any] | None:
    """The results of this configuration's run, if it finished at least its epochs, with all that is asked for now."""
    path = config.directory()
    if config.fresh:
        return None
    _refuse_other_experiments(path, config)
    if not (path / "results.json").is_file():
        return None
    results = read_json(path / "results.json")
    status = read_json(path / "status.json")
    stored = _kept_config(path)
    if status.get("status") != "finished" or stored.metrics != config.metrics:
        return None
    if config.log.projector and not stored.log.projector:
        return None
    return results if _whole(results) and results["epochs"] >= config.epochs else None


def _whole(results: dict[str, Any]) -> bool:
    """Whether these are results as training writes them; where another program was at them, they are made again."""
    scores = results.get("scores")
    if not isinstance(scores, dict) or not isinstance(results.get("epochs"), int):
        return False
    known = {"train_seconds", "images_per_second"} <= results.keys()
    return known and all(isinstance(score, dict) and "summary" in score for score in scores.values())


def threads_begun(config: TrainConfig) -> int | None:
    """The CPU threads with which this configuration's run was begun, if it was: more or fewer round differently."""
    sessions = [] if config.fresh else read_json(config.directory() / "provenance.json").get("sessions", [])
    threads = sessions[-1].get("threads") if sessions and isinstance(sessions[-1], dict) else None
    return threads if isinstance(threads, int) and threads > 0 else None


def refuse_other_data(config: TrainConfig, digest: str) -> None:
    """Raise UsageError when this configuration's run was trained on other images than those with this digest."""
    path = config.directory()
    _refuse_other_experiments(path, config)
    trained_on = read_json(path / "data.json").get("digest", digest)
    if not config.fresh and trained_on != digest:
        raise UsageError(
            f"the images of dataset={config.dataset['name']} have changed: {path} was trained on others\n"
            "Put the old ones back, or set fresh=true to start over (the old run is moved aside)"
        )


def _refuse_other_experiments(path: Path, config: TrainConfig) -> None:
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long
        raise GenexpError(
            f"the run directory {path} cannot be: {error.strerror}\nSet run_dir=FOLDER (or name) to something shorter"
        ) from error
    if there and not path.is_dir():
        raise GenexpError(f"the run directory {path} is a file\nSet run_dir=FOLDER to another place")
    if not path.is_dir():
        return
    if is_export(path):
        raise UsageError(f"{path} is an export of a run, and is not trained\nSet run_dir=FOLDER to another place")
    if not _holds_a_run(path):
        if all(entry.name in (LOCK, "status.json") or entry.name.endswith(PARTIAL) for entry in path.iterdir()):
            return  # what a run leaves that was killed as it began
        raise UsageError(f"{path} is not a run's directory and is not empty\nSet run_dir=FOLDER to another place")
    if config.fresh:
        return
    ours, theirs = flat(config.identity()), flat(_kept_config(path).identity())
    if ours != theirs:
        raise UsageError(
            f"{path} holds another experiment:\n{differences(theirs, ours)}\n"
            "Give this one another place (run_dir=FOLDER, or none: each experiment has a directory of its own), or set "
            "fresh=true to start over there (the old run is moved aside)"
        )


def differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """A table of the settings in which two flat dictionaries differ."""
    rows: list[tuple[str, ...]] = [("setting", "there", "here")]
    for key in {**there, **here}:
        if there.get(key) != here.get(key):
            rows.append((key, *(str(side[key]) if key in side else "–" for side in (there, here))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _holds_a_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("config.yaml", "checkpoints"))


def is_export(path: Path) -> bool:
    """Whether this is a folder that `genexp export` made, not a run's directory."""
    return (path / WEIGHTS).is_file() and not (path / "status.json").exists()


def read_config(path: Path) -> TrainConfig:
    """The configuration that a run directory keeps. Raises UsageError when it is missing or damaged."""
    file = path / "config.yaml"
    try:
        config = TrainConfig.model_validate(OmegaConf.to_container(OmegaConf.load(file)))
        if not all("name" in getattr(config, group) for group in GROUPS):
            raise ValueError("a component has no name")
        return config
    except (OSError, ValueError, RecursionError, OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"{file} is missing, damaged or from another version of genexp") from error


def _kept_config(path: Path) -> TrainConfig:
    try:
        return read_config(path)
    except UsageError as error:
        raise UsageError(f"{error}\nSet fresh=true to start over (the old run is kept)") from error


def _hold(path: Path) -> filelock.BaseFileLock:
    make_folder(path)
    lock = filelock.FileLock(path / LOCK)  # the system lets go of it when its holder dies, however that was
    try:
        lock.acquire(timeout=PATIENCE)
    except filelock.Timeout as error:
        who = holder(read_json(path / "status.json"))
        raise HeldError(f"another process is training {path}: {who}\nWait for it, or stop it") from error
    return lock


def holder(said: dict[str, Any]) -> str:
    """Who holds a lock, by what was written down when it was taken."""
    doing = f" ({said['command']})" if said.get("command") else ""
    return f"process {said.get('pid', 'unknown')} on {said.get('host', 'another machine')}{doing}"


def is_held(path: Path, unless_known: bool = False) -> bool:
    """Whether a process trains the run now; `unless_known` if we may not write in the directory, and cannot tell."""
    if not (path / LOCK).exists():
        return False
    try:
        with filelock.FileLock(path / LOCK).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return unless_known


def amend_status(path: Path, was: str, **changes: Any) -> None:
    """Change the status of a run that ended as its process could not say; not if it says something else than `was`.

    If another process is at it by now, or nothing can be written, it stays.
    """
    with suppress(filelock.Timeout, OSError), filelock.FileLock(path / LOCK).acquire(timeout=0):
        status = read_json(path / "status.json")
        if status.get("status") == was:
            write_json(path / "status.json", status | changes)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.latent_dim': 100, ...} of a nested dictionary."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
