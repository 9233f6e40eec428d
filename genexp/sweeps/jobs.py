"""The jobs of a sweep or a search: a training run each, and its state."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError
from genexp.rundirs.directory import Run
from genexp.rundirs.results import Results
from genexp.score import Score
from genexp.signals import INTERRUPTED

WAITING, RUNNING, FINISHED, FAILED, STOPPED, PRUNED = "waiting", "running", "finished", "failed", "stopped", "pruned"
LOSSES = 3  # times that a job is begun again after its server of processes died
OF_THE_SWEEP = ("hydra", "sweep.", "fresh=")  # beginnings of settings that are not a job's own


@dataclass(frozen=True)
class Ending:
    """The end of a job's process: its exit code, and why it did not finish."""

    code: int  # exit code, or the number of the signal that killed it, negative
    error: str | None  # None if it finished
    held: bool = False  # another process holds its run
    lost: bool = False  # it may live on, and finish, but cannot be followed any more
    hopeless: bool = False  # it would end in the same way again
    without_data: bool = False  # its data set is missing or damaged
    answer: Any = None  # what its work returned


@dataclass(eq=False)
class Job:
    """A run to be trained, and how it fares."""

    settings: tuple[str, ...]  # those that make it, as one would type them
    run: Run
    config: TrainConfig | None = None  # None for a trial that ended in an earlier session
    line: CommandLine | None = None  # that makes this run alone; None for such a trial, too
    name: str = ""  # what it is called in tables, if not by its settings
    further: dict[str, Component] = field(default_factory=dict)  # metrics that are taken once the run is trained
    state: str = WAITING
    cause: str = ""  # of a failure
    attempts: int = 0
    results: Results | None = None
    elsewhere: bool = False  # another process holds its run
    pruned: bool = False  # it was told to stop, since its validation curve falls behind
    first_seen: tuple[float, int] | None = None  # time and step of its first sign of life in this session

    @classmethod
    def of(
        cls, line: CommandLine, config: TrainConfig, name: str = "", further: dict[str, Component] | None = None
    ) -> "Job":
        """Return the job of a command line, with its results if it is finished.

        Raises UsageError if its directory holds another experiment.
        """
        own = tuple(word for word in line.overrides if not word.startswith(OF_THE_SWEEP))
        folder = None if line.folder is None else str(Path(line.folder).absolute())
        alone = replace(line, overrides=own, folder=folder, words=())
        job = cls(alone.settings, Run(config.directory()), config, alone, name, further or {})
        job.take_results()
        return job

    def take_results(self) -> bool:
        """Finish the job if its run is finished; return True if it is.

        Where the images are at a path, which may have changed since, only the job's own process can tell.
        """
        results = self.finished()
        if results is None or self.config is None or "path" in self.config.dataset:
            return False
        self.finish(results)
        return True

    def finished(self) -> Results | None:
        """Return the run's results if it is trained as asked and has all further scores.

        Raises UsageError if its directory holds another experiment.
        """
        results = self.run.finished(self.config) if self.config is not None else None
        return results if results is not None and not self.run.lacking(self.further, results.steps) else None

    @property
    def scores(self) -> dict[str, Score]:
        return self.results.scores if self.results is not None else {}

    def summary(self) -> str:
        """Return its scores, or why it has none."""
        if self.state == FINISHED:
            scores = {name: score.summary if score.reason else str(score) for name, score in self.scores.items()}
            return ", ".join(f"{name} {score}" for name, score in scores.items())
        return self.cause

    def start(self) -> None:
        """Note that its process was started."""
        self.state, self.cause, self.first_seen, self.elsewhere, self.pruned = RUNNING, "", None, False, False
        self.attempts += 1

    def finish(self, results: Results | None) -> None:
        """Note that it finished with these results."""
        self.state, self.cause, self.results, self.elsewhere = FINISHED, "", results, False

    def end(self, ending: Ending, retries: int) -> None:
        """Note how its process ended, and whether it will be started again."""
        if ending.error is None:
            self.finish(Results.read(self.run.results_file))
            return
        with suppress(UsageError):  # of a run that cannot be read any more
            if self.take_results():  # it was told to leave when it was done
                return
        self.cause = ending.error.splitlines()[0]
        if ending.code == INTERRUPTED:
            self.state, self.cause = (PRUNED if self.pruned else STOPPED), self.cause.partition(",")[0]
        elif ending.held:  # no attempt of ours: it is looked at again once the other process has left it
            self.state, self.elsewhere, self.attempts = WAITING, True, self.attempts - 1
        elif ending.lost and self.attempts <= retries + LOSSES:  # it may save, or even finish
            self.state, self.elsewhere = WAITING, True
        elif self.attempts <= retries and not ending.hopeless:
            self.state = WAITING
        else:
            self.state = FAILED

    def look_elsewhere(self) -> bool:
        """Find out whether another process holds a waiting job's run, or finished it; return True if that changed."""
        before, self.elsewhere = self.elsewhere, self.run.is_held()
        if before and not self.elsewhere and (results := self.finished()) is not None:
            self.finish(results)
        return self.elsewhere != before


def common_settings(jobs: Sequence[Job]) -> set[str]:
    """Return the settings that all jobs have."""
    return set.intersection(*(set(job.settings) for job in jobs)) if len(jobs) > 1 else set()


def set_stopped(jobs: Sequence[Job]) -> None:
    """Note of each job that runs or waits that it was stopped with the sweep, or never began."""
    for job in jobs:
        if job.state in (RUNNING, WAITING):
            job.cause = "interrupted" if job.state == RUNNING or job.attempts else "not begun"
            job.state = STOPPED
