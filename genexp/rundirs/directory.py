"""A run's directory: the names of its files, what they hold, and the lock of the process that trains it."""

import os
import platform
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
from omegaconf import OmegaConf

from genexp.config.components import Component, defining
from genexp.config.kept import differences, read_config
from genexp.config.schema import TrainConfig, flat
from genexp.errors import GenexpError, HeldError, UsageError
from genexp.rundirs import results
from genexp.rundirs.results import Results
from genexp.score import Score
from genexp.storage import files
from genexp.storage.files import PARTIAL, Within, last_json_line, read_json, write_json, writing
from genexp.text import now

LOCK = ".lock"
EVENTS = "events.out.tfevents.*"  # TensorBoard's files, one for each session of a run
TRAINING_WRITES = (  # beginnings of names that only training writes, complete or not
    *(".config.yaml.", ".status.json.", ".data.json.", ".provenance.json.", ".metrics.jsonl.", ".error.txt."),
    *(".uncommitted-", "checkpoints", "samples", "reconstructions", "filters", "chains", "translations", "tensorboard"),
    *("projector", ".projector_config.pbtxt."),
)
FOREIGN_AGE = 86400  # seconds after which another command's unfinished file counts as left behind
PATIENCE = 1.0  # seconds; `is_held` of another process holds a lock for an instant
ANOTHER_PLACE = "Set outputs_dir=FOLDER (or run_dir=FOLDER) to a place that can"


class Run:
    """A run's directory, or an export of one. It is looked up once and passed on."""

    config_file = Within("config.yaml")
    status_file = Within("status.json")
    results_file = Within("results.json")
    provenance_file = Within("provenance.json")
    data_file = Within("data.json")
    metrics_file = Within("metrics.jsonl")
    error_file = Within("error.txt")
    weights_file = Within("model.safetensors")  # of an export, instead of checkpoints
    checkpoints = Within("checkpoints")
    best_file = Within("checkpoints/best.pt")  # the state with the best validation score of those scored
    samples = Within("samples")
    figures = Within("figures")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = files.identity(path)  # another run may get this name
        self._config: tuple[tuple[int, int], TrainConfig] | None = None  # with the file's time and inode
        self._told: dict[str, Any] = {}  # details of the status that are repeated with the next one

    @property
    def config(self) -> TrainConfig:
        """The configuration that the run keeps, read again only if the file changed. Raises UsageError."""
        try:
            file = self.config_file.stat()
            version = file.st_mtime_ns, file.st_ino
        except OSError:
            version = 0, 0
        if self._config is None or self._config[0] != version:
            self._config = version, read_config(self.config_file)
        return self._config[1]

    @property
    def tensorboard(self) -> Path:
        """The folder of the event files: the run's own, or `tensorboard` in it if the run was begun with them there."""
        earlier = self.path / "tensorboard"
        return earlier if any(earlier.glob(EVENTS)) else self.path

    @property
    def is_export(self) -> bool:
        """True for a folder that `genexp export` made."""
        return self.weights_file.is_file() and not self.status_file.exists()

    def status(self) -> dict[str, Any]:
        """Return what status.json says now; nothing if it is missing or damaged."""
        return read_json(self.status_file)

    def step(self) -> int:
        """Return the steps that the run has completed and saved, as its status says."""
        step = self.status().get("step")
        return step if isinstance(step, int) and step > 0 else 0

    def epochs(self, trained: Results) -> int:
        """Return the epochs of all stages of a finished training; its results count those of the last stage alone."""
        logged = last_json_line(self.metrics_file).get("epoch")
        return max(trained.epochs, logged) if isinstance(logged, int) else trained.epochs

    def sessions(self) -> list[dict[str, Any]]:
        """Return the provenance of each session that trained the run."""
        sessions = read_json(self.provenance_file).get("sessions", [])
        return [session for session in sessions if isinstance(session, dict)]

    def digest(self) -> str | None:
        """Return the digest of the images that the run was trained on, if it is known."""
        digest = read_json(self.data_file).get("digest")
        return None if digest is None else str(digest)

    def evaluations(self) -> dict[str, results.Evaluation]:
        """Return every score that was taken of the run, by its key."""
        return results.evaluations(self.results_file)

    def score(self, metric: Component, sampling: dict[str, Any], seed: int, step: int) -> Score | None:
        """Return the score of the run by a metric, at a step, if it was taken; None if not."""
        taken = (each for each in self.evaluations().values() if each.is_by(metric) and each.sampling == sampling)
        return next((each.score for each in taken if (each.seed, each.step) == (seed, step)), None)

    def lacking(self, metrics: dict[str, Component], step: int) -> list[str]:
        """Return the names of the metrics by which the run is not scored at a step, from its own seed and sampler.

        A score by any extractor counts: its name is not known before the images are loaded.
        """
        if not metrics:
            return []
        scored = [each for each in self.evaluations().values() if each.step == step and not each.sampling]
        own = [each for each in scored if each.seed == self.config.seed]
        return [name for name, metric in metrics.items() if not any(each.is_by(metric) for each in own)]

    def finished(self, config: TrainConfig) -> Results | None:
        """Return the results if the run finished all that is asked for. Raises UsageError for another experiment."""
        if config.fresh:
            return None
        self.refuse_other_experiment(config)
        kept = Results.read(self.results_file)
        if kept is None or kept.epochs < config.epochs or self.status().get("status") != "finished":
            return None
        lacks_projector = config.log.projector and not self.config.log.projector
        same_metrics = _defining(self.config.metrics) == _defining(config.metrics)
        return kept if same_metrics and not lacks_projector else None

    def threads(self) -> int | None:
        """Return the CPU threads of the newest session: another number would round differently."""
        threads = self.sessions()[-1].get("threads") if self.sessions() else None
        return threads if isinstance(threads, int) and threads > 0 else None

    def processes(self) -> int | None:
        """Return how many processes trained the run together in its newest session; None if it was not trained yet."""
        return int(self.sessions()[-1].get("processes", 1)) if self.sessions() else None

    def refuse_if_moved(self) -> None:
        """Raise GenexpError if another run has this name by now, as after `fresh=true`."""
        files.refuse_if_moved(self.path, self.identity)

    def refuse_other_images(self, digest: str, data_set: str, remedy: str) -> None:
        """Raise UsageError if the run was trained on other images than those with this digest."""
        if self.digest() not in (None, digest):
            others = f"these are not the images that {self.path} was trained on"
            raise UsageError(f"{data_set}: {others}\nPut those back, or {remedy}")

    def refuse_other_experiment(self, config: TrainConfig) -> None:
        """Raise UsageError if the directory holds another experiment or no run, GenexpError if it cannot be one."""
        with writing(f"the run directory {self.path}", "Set run_dir=FOLDER (or name) to something shorter"):
            exists = self.path.exists()  # an OSError is of a name that is too long
        if not exists:
            return
        another_place = "Set run_dir=FOLDER to another place"
        if not self.path.is_dir():
            raise GenexpError(f"the run directory {self.path} is a file\n{another_place}")
        if self.is_export:
            raise UsageError(f"{self.path} is an export of a run, and is not trained\n{another_place}")
        if not self._holds_a_run():
            leftovers = (LOCK, self.status_file.name)  # of a run that was killed as it began
            if not all(entry.name in leftovers or entry.name.endswith(PARTIAL) for entry in self.path.iterdir()):
                raise UsageError(f"{self.path} is not a run's directory and is not empty\n{another_place}")
        elif not config.fresh:
            try:
                ours, theirs = flat(config.identity()), flat(self.config.identity())
            except UsageError as error:
                raise UsageError(f"{error}\nSet fresh=true to start over (the old run is kept)") from error
            if ours != theirs:
                raise UsageError(
                    f"{self.path} holds another experiment:\n{differences(theirs, ours)}\n"
                    f"{another_place} or leave it out, or set fresh=true to start over (the old run is moved aside)"
                )

    def _holds_a_run(self) -> bool:
        return self.config_file.exists() or self.checkpoints.exists()

    @contextmanager
    def held(self, config: TrainConfig) -> Iterator[None]:
        """Hold the directory's lock within it, so that no other process trains the run; with `fresh`, of a new run.

        The directory is made if there is none. Raises UsageError if it holds another experiment, GenexpError if it
        cannot be written, HeldError if another process holds it.
        """
        self.refuse_other_experiment(config)
        with ExitStack() as locks:
            with writing(f"the run directory {self.path}", ANOTHER_PLACE):
                locks.enter_context(self._lock())
                if config.fresh and self._holds_a_run():
                    old = files.aside(self.path)
                    with filelock.FileLock(self.path / results.LOCK):  # an evaluation may be writing there
                        self.path.rename(old)
                    files.sync(self.path.parent)
                    print(f"moved the old run to {old}", flush=True)
                    locks.enter_context(self._lock())  # the old lock is kept, for processes that wait for it
                self.identity = files.identity(self.path)
                self._remove_unfinished_files()
            yield

    def _lock(self) -> AbstractContextManager[object]:
        """Make the directory, and take its lock, which is released as the returned context ends."""
        files.make_folder(self.path)
        lock = filelock.FileLock(self.path / LOCK)  # the system releases it when its holder dies
        try:
            return lock.acquire(timeout=PATIENCE)
        except filelock.Timeout as error:
            message = f"another process is training {self.path}: {holder(self.status())}"
            raise HeldError(f"{message}\nWait for it, or stop it") from error

    def _remove_unfinished_files(self) -> None:
        """Remove files that a killed process left unfinished; those of other commands once they are a day old."""
        for file in list(self.path.rglob(f".*{PARTIAL}")):
            with suppress(FileNotFoundError):
                of_training = file.relative_to(self.path).parts[0].startswith(TRAINING_WRITES)
                if not of_training and time.time() - file.stat().st_mtime < FOREIGN_AGE:
                    continue
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink()

    def begin(self, config: TrainConfig, digest: str, command: str) -> None:
        """Write the configuration and the digest of the images, and set the status to running. Raises GenexpError."""
        self._told = {"command": command}
        with writing(f"the run directory {self.path}", ANOTHER_PLACE):
            if self._holds_a_run():  # first: a run killed from here on must not pass for the finished one it was
                self.set_status("running")
            self.write_text(self.config_file, OmegaConf.to_yaml(config.model_dump()))
            self.set_status("running")
            write_json(self.data_file, {"digest": digest})

    def write_text(self, file: Path, text: str) -> None:
        """Replace one of the run's files. A reader sees the old text or the new one, whole."""
        with files.atomic(file) as stream:
            stream.write(text.encode(errors="backslashreplace"))

    def add_session(self, from_step: int, provenance: dict[str, Any]) -> None:
        """Add a session of training, from this step on, to provenance.json."""
        sessions = [*self.sessions(), {"from_step": from_step, **provenance}]
        write_json(self.provenance_file, {"sessions": sessions})

    def set_status(self, status: str, **details: Any) -> None:
        """Set the status to running, interrupted, failed or finished. The next status repeats the details."""
        self._told |= details
        process = {"pid": os.getpid(), "host": platform.node(), "updated": now()}
        write_json(self.status_file, {"status": status, **self._told, **process})

    def amend_status(self, was: str, **changes: Any) -> None:
        """Change the status of a run whose process could not, if it still says `was` and no process holds the run."""
        with suppress(filelock.Timeout, OSError), filelock.FileLock(self.path / LOCK).acquire(timeout=0):
            status = self.status()
            if status.get("status") == was:
                write_json(self.status_file, status | changes)

    def is_held(self, if_unknown: bool = False) -> bool:
        """Return True if a process trains the run now; `if_unknown` where the directory may not be written."""
        if not (self.path / LOCK).exists():
            return False
        try:
            with filelock.FileLock(self.path / LOCK).acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:
            return if_unknown


def holds_run(names: Collection[str]) -> bool:
    """Return True if a folder with files of these names is the directory of a run, or an export of one."""
    return "config.yaml" in names and ("status.json" in names or "model.safetensors" in names)


def _defining(metrics: dict[str, Component]) -> dict[str, Component]:
    """Return the metrics without settings that came later and have their value as before."""
    return {name: defining(metric) for name, metric in metrics.items()}


def holder(status: dict[str, Any]) -> str:
    """Return which process holds a lock, by what it wrote when it took the lock."""
    command = f" ({status['command']})" if status.get("command") else ""
    return f"process {status.get('pid', 'unknown')} on {status.get('host', 'another machine')}{command}"
