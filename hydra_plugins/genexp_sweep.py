"""Hydra's side of a sweep: it says what the jobs are; `genexp.sweep` runs them, or hands them to another launcher.

Hydra looks for its plugins in the package `hydra_plugins`, and imports this one at each start: so nothing heavy here.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

MANY = 50  # jobs that take more than a moment to compose


class GenexpSweeper(BasicSweeper):
    """Composes and checks all jobs before the first one runs, whichever launcher runs them."""

    def __init__(self) -> None:
        super().__init__(max_batch_size=None)

    def sweep(self, arguments: list[str]) -> Any:
        from genexp.errors import UsageError
        from genexp.sweeps import sweep

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (batch,) = self.split_arguments(parser.parse_overrides(arguments), None)
        if not batch:
            raise UsageError(f"no job follows from {' '.join(arguments)}: a range or list there is empty")
        if len(batch) > MANY:
            print(f"checking {len(batch)} jobs", flush=True)
        jobs = sweep.plan([(words, _compose(self.hydra_context, self.config, words)) for words in batch])
        if isinstance(self.launcher, GenexpLauncher):
            return sweep.run_here(jobs)
        words = dict(zip(jobs, batch, strict=True))
        return sweep.run_elsewhere(jobs, lambda todo, task: self._launch([words[job] for job in todo], task))

    def _launch(self, overrides: list[Sequence[str]], task: TaskFunction) -> list[Exception | None]:
        """Have the launcher call the task for each job, and wait for all; the errors of those that failed."""
        assert self.launcher is not None
        assert self.hydra_context is not None
        assert self.config is not None
        self.launcher.setup(hydra_context=self.hydra_context, task_function=task, config=self.config)
        with _forgiving(self.launcher):
            returned: Sequence[Any] = self.launcher.launch([list(words) for words in overrides], 0)
        return [_error(job) for job in returned]


class GenexpLauncher(Launcher):
    """Runs each job in a process of its own on this machine, `sweep.jobs` at once."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs of another sweeper. Raises GenexpError, after the last one has ended, if one failed."""
        from genexp.sweeps import sweep

        composed = [(list(words), _compose(self.hydra_context, self.config, words)) for words in job_overrides]
        sweep.run_here(sweep.plan(composed))
        returned = []
        for words, config in composed:
            returned.append(JobReturn(overrides=words, cfg=config, status=JobStatus.COMPLETED))
        return returned


@contextmanager
def _forgiving(launcher: Launcher) -> Iterator[None]:
    """Make the launchers of submitit and Ray wait for all jobs, with an exception in the place of what one returned.

    By themselves they raise the first one, and leave the others to themselves: when a job was cancelled, for instance.
    """
    plugin = type(launcher).__module__
    if "submitit" in plugin:
        owner, name = importlib.import_module("submitit").Job, "results"
    elif "ray" in plugin:
        owner, name = importlib.import_module("ray"), "get"
    else:
        yield
        return
    original = getattr(owner, name)

    def forgiving(*arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        except Exception as error:
            return [error] if name == "results" else error

    setattr(owner, name, forgiving)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _error(returned: Any) -> Exception | None:
    """Why a job failed, if it did, from what a launcher has in the place of its return."""
    if isinstance(returned, JobReturn):
        failed = returned.status == JobStatus.FAILED and isinstance(returned._return_value, Exception)
        return returned._return_value if failed else None
    return returned if isinstance(returned, Exception) else None


def _compose(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    composed: DictConfig = context.config_loader.load_sweep_config(config, list(overrides))
    return composed
