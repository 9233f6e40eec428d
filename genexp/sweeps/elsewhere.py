"""Sweeps on other machines, by the launchers of Hydra's plugins: Slurm by submitit, and Ray.

A launcher is told to run the jobs that are not finished. What became of each is read from its run directory: a
launcher that does not complain is no proof that all went well.
"""

import importlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from genexp.config.check import checked
from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.compose import SOURCE, initialized, plain_mistakes, spelled
from genexp.errors import GenexpError, UsageError
from genexp.sweeps.jobs import FAILED, FINISHED, RUNNING, STOPPED, WAITING, Job
from genexp.sweeps.schedule import LOOK, PATIENCE, Queue, work_off
from genexp.text import first_line

HERE = ("genexp", "basic")  # choices of hydra/launcher that run the jobs on this machine


def is_elsewhere(line: CommandLine) -> bool:
    """Return True if hydra/launcher chooses another launcher than this machine's processes."""
    choices = [word.partition("=")[2] for word in line.overrides if word.startswith("hydra/launcher=")]
    return any(choice not in HERE for choice in choices)


def run_elsewhere(jobs: list[Job], line: CommandLine, folder: Path) -> None:
    """Have the launcher run the jobs that wait; what they print goes to `folder`. All have the same further metrics."""
    try:
        queue = Queue(jobs)
        while queue.is_open:
            for job in jobs:
                if job.state == WAITING:
                    job.look_elsewhere()
            ready = [job for job in jobs if job.state == WAITING and not job.elsewhere]
            if ready:
                _hand_over(ready, line, folder)
            else:
                time.sleep(LOOK)
    except KeyboardInterrupt as interrupt:
        running_on = "jobs that were handed over may run on, until `scancel` or `ray stop` ends them"
        raise KeyboardInterrupt(f"interrupted; {running_on}; the same command goes on") from interrupt


def _launch(jobs: list[Job], line: CommandLine, folder: Path) -> list[Exception | None]:
    """Have the launcher train each job, and wait for all; return the errors of those that failed."""
    of_hydra = tuple(word for word in line.overrides if word.startswith("hydra"))
    of_the_sweep = [word for word in line.overrides if word.startswith("sweep.")]
    source = [f"from={SOURCE}"] if line.kept is not None else []
    overrides = [[*source, *of_the_sweep, *spelled(job.line)] for job in jobs if job.line is not None]
    alone = replace(line, words=(), multirun=False)
    task = partial(train_here, here=Path.cwd(), folder=folder.resolve(), line=alone, further=jobs[0].further)
    master = replace(line, overrides=of_hydra)
    with initialized(master) as words:
        with plain_mistakes(master):
            loader = GlobalHydra.instance().config_loader()
            config = loader.load_configuration(line.command, words, run_mode=RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        with _waiting_for_all(launcher):
            returned: Sequence[Any] = launcher.launch(overrides, 0)
    ends = [each._return_value if isinstance(each, JobReturn) else each for each in returned]
    return [end if isinstance(end, Exception) else None for end in ends]


def train_here(
    composed: DictConfig, here: Path, folder: Path, line: CommandLine, further: dict[str, Component]
) -> None:
    """Train one job on the machine where a launcher calls this. Raises GenexpError if it fails.

    `here` is the folder where the sweep was started, `folder` that of the sweep; `further` metrics are taken after
    training. The job trains in a process of its own: a launcher whose own process dies loses or repeats other jobs.
    """
    try:
        os.chdir(here)
    except OSError as error:
        raise GenexpError(f"{platform.node()} does not see {here}, where the sweep was started") from error
    if str(here) not in sys.path:  # a user's own models may be there
        sys.path.append(str(here))
    settings = tuple(word for word in HydraConfig.get().overrides.task if word != f"from={SOURCE}")
    config = checked("train", composed).model_copy(update={"fresh": False})  # old runs were moved aside before
    job = Job.of(replace(line, overrides=settings), config, further=further)
    work_off(Queue([job]), config.sweep, folder, set())
    if job.state != FINISHED:
        raise GenexpError(job.cause)


def _hand_over(jobs: list[Job], line: CommandLine, folder: Path) -> None:
    """Have the jobs launched, and note what became of each."""
    before = [job.run.status() for job in jobs]
    errors: Sequence[Exception | None] = [None] * len(jobs)
    interrupted = False
    try:
        errors = _launch(jobs, line, folder)
    except (UsageError, KeyboardInterrupt) as raised:
        interrupted = isinstance(raised, KeyboardInterrupt)
        raise
    except Exception as raised:  # the launcher ran none of them, or lost them all
        errors = [raised] * len(jobs)
    finally:
        end_of_patience = time.monotonic() + (0 if interrupted else PATIENCE)
        while any(job.run.is_held() for job in jobs) and time.monotonic() < end_of_patience:
            time.sleep(LOOK)  # a job whose launcher's process was killed saves, and leaves
        for job, old, error in zip(jobs, before, errors, strict=True):
            status = job.run.status()
            _read_ending(job, status if status != old else {}, error, interrupted)


def _read_ending(job: Job, status: dict[str, Any], error: Exception | None, interrupted: bool) -> None:
    """Note what became of a job, from the new status of its run and the launcher's error."""
    results = None
    with suppress(UsageError):
        results = job.finished()
    ended = status.get("status")
    if results is not None:
        job.finish(results)
    elif job.run.is_held():
        job.state, job.cause = RUNNING, "it still runs"
    elif ended == "interrupted":
        job.state, job.cause = STOPPED, f"interrupted at step {status.get('step', 0)}"
    elif ended == "failed":
        job.state, job.cause = FAILED, str(status.get("error", "")).partition("\n")[0]
    elif not interrupted:
        job.state = FAILED
        job.cause = _in_a_line(error) if error else "it left no result, and no word why; see the launcher's own logs"


def _in_a_line(error: Exception) -> str:
    """Return in one line what a launcher says of a job; submitit and Ray say it in many."""
    if isinstance(error, GenexpError):
        return first_line(error)
    text = str(error).strip()
    if lost := re.search(r"has not produced any output \(state: ([^)]+)", text):
        return f"the launcher's process was lost ({lost[1]})"
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    telling = lines[-1 if "Traceback" in text else 0] if lines else ""
    return f"the launcher said: {type(error).__name__}: {telling}".rstrip(": ")


@contextmanager
def _waiting_for_all(launcher: Any) -> Iterator[None]:
    """Make submitit and Ray wait for all jobs and return their errors; by themselves they raise the first one."""
    plugin = type(launcher).__module__
    if "submitit" in plugin:
        owner, name = importlib.import_module("submitit").Job, "results"
    elif "ray" in plugin:
        owner, name = importlib.import_module("ray"), "get"
    else:
        yield
        return
    original = getattr(owner, name)

    def returning_errors(*arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        except Exception as error:
            return [error] if name == "results" else error

    setattr(owner, name, returning_errors)
    try:
        yield
    finally:
        setattr(owner, name, original)
