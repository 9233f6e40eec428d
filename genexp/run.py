"""The run directory: found again by what the experiment is, held by one process, described by its own files."""

import os
from pathlib import Path
from typing import Any

import filelock
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genexp.config import TrainConfig
from genexp.errors import GenexpError, UsageError
from genexp.files import atomic, read_json, write_json
from genexp.provenance import now


class Run:
    """A run directory that this process holds; `close` lets go of it."""

    def __init__(self, path: Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, config: TrainConfig) -> "Run":
        """Make the directory of this configuration, or find it again; with `fresh`, move an old one aside.

        Raises UsageError when it holds another experiment, GenexpError when it cannot be written or another process
        holds it.
        """
        path = config.directory()
        _refuse_other_experiments(path, config)
        try:
            lock = _hold(path)
            if config.fresh and _holds_a_run(path):
                aside = next(
                    place for n in range(1, 10**6) if not (place := path.with_name(f"{path.name}.old-{n}")).exists()
                )
                path.rename(aside)
                lock.release()
                print(f"moved the old run to {aside}", flush=True)
                lock = _hold(path)
            run = cls(path, lock)
            run.set_status("running")  # first, or a run killed from here on would pass for the finished one it was
            run.write_text("config.yaml", OmegaConf.to_yaml(config.model_dump()))
        except OSError as error:
            raise GenexpError(
                f"the run directory {path} cannot be written: {error.strerror}\n"
                "Set outputs_dir=FOLDER (or run_dir=FOLDER) to a place that can"
            ) from error
        return run

    def close(self) -> None:
        self._lock.release()

    def write_text(self, name: str, text: str) -> None:
        """Replace one of the run's files, so that a reader sees the old text or the new one, whole."""
        with atomic(self.path / name) as stream:
            stream.write(text.encode())

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / name, content)

    def set_status(self, status: str, **details: Any) -> None:
        """running, interrupted, failed or finished, with what else is known: epoch, step, error."""
        self.write_json("status.json", {"status": status, **details, "pid": os.getpid(), "updated": now()})


def finished(config: TrainConfig) -> dict[str, Any] | None:
    """The results of this configuration's run, if it finished at least its epochs, with all that is asked for now."""
    path = config.directory()
    if config.fresh or not (path / "results.json").is_file():
        return None
    _refuse_other_experiments(path, config)
    results = read_json(path / "results.json")
    status = read_json(path / "status.json")
    stored = _kept_config(path)
    if status.get("status") != "finished" or stored.metrics != config.metrics:
        return None
    if config.log.projector and not stored.log.projector:
        return None
    return results if results.get("epochs", 0) >= config.epochs else None


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
    if path.exists() and not path.is_dir():
        raise GenexpError(f"the run directory {path} is a file\nSet run_dir=FOLDER to another place")
    if not path.is_dir() or {entry.name for entry in path.iterdir()} <= {".lock"}:
        return
    if not _holds_a_run(path):
        raise UsageError(f"{path} is not a run's directory and is not empty\nSet run_dir=FOLDER to another place")
    if config.fresh:
        return
    ours, theirs = flat(config.identity()), flat(_kept_config(path).identity())
    differences = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]
    if differences:
        shown = ", ".join(f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in differences[:4])
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UsageError(
            f"{path} holds another experiment ({shown}{more})\n"
            "Set run_dir=FOLDER to another place, or fresh=true to start over there (the old run is moved aside)"
        )


def _holds_a_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("config.yaml", "status.json", "checkpoints"))


def read_config(path: Path) -> TrainConfig:
    """The configuration that a run directory keeps. Raises UsageError when it is missing or damaged."""
    file = path / "config.yaml"
    try:
        return TrainConfig.model_validate(OmegaConf.to_container(OmegaConf.load(file)))
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"{file} is missing, damaged or from another version of genexp") from error


def _kept_config(path: Path) -> TrainConfig:
    try:
        return read_config(path)
    except UsageError as error:
        raise UsageError(f"{error}\nSet fresh=true to start over (the old run is kept)") from error


def _hold(path: Path) -> filelock.BaseFileLock:
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        holder = read_json(path / "status.json").get("pid", "unknown")
        raise GenexpError(f"another process (pid {holder}) is training {path}\nWait for it, or stop it") from error
    return lock


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.latent_dim': 100, ...} of a nested dictionary."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
