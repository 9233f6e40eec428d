"""Estimates of how long the jobs of a sweep will take: each kind of job is tried for a moment, in its own process."""

import heapq
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.schema import TrainConfig
from genexp.rundirs.pace import StagePace, epochs_done, scoring_seconds, seconds_left
from genexp.sweeps.jobs import FINISHED, Ending, Job
from genexp.sweeps.schedule import LOOK
from genexp.sweeps.slots import Slots


@dataclass(frozen=True)
class Estimate:
    """The work that a job still has to do."""

    done: int  # epochs, of all stages
    epochs: int
    seconds: float  # of training; NaN if it is not known
    scoring: float | None  # seconds, as an earlier run of the kind took; None if there is none


def try_out(jobs: Sequence[Job], n: int) -> dict[Job, Ending]:
    """Try each job's training for a moment, as if `n` ran at once; return how that ended, with its stages' paces.

    Nothing is kept. What is wrong with a job is known before any job begins.
    """
    waiting, endings = list(jobs), dict[Job, Ending]()
    if not waiting:
        return endings
    with Slots(n, waiting) as slots:  # which share the threads as the jobs will
        while waiting or slots.running:
            while waiting and len(slots.running) < slots.n:
                job = waiting.pop(0)
                slots.start(job, Path(os.devnull), partial(_measure, further=job.further))
            endings |= dict(slots.wait(LOOK))
    return endings


def _measure(config: TrainConfig, _line: CommandLine, further: dict[str, Component]) -> list[StagePace]:
    from genexp.training.measure import measure

    return measure(config, further)


def estimate(job: Job, kind: Sequence[Job], ending: Ending | None) -> Estimate:
    """Return what a job still has to do, from its own log or from how the trial of its kind ended.

    `kind` are the jobs that differ from it in their seed alone, itself among them.
    """
    assert job.config is not None
    scoring = next((seconds for each in kind if (seconds := scoring_seconds(each.run)) is not None), None)
    if job.state == FINISHED:
        epochs = job.run.epochs(job.results) if job.results is not None else job.config.epochs
        return Estimate(epochs, epochs, 0.0, 0.0)
    stages: list[StagePace] = ending.answer if ending is not None and ending.answer is not None else []
    if not stages:
        return Estimate(0, job.config.epochs, math.nan, scoring)
    epochs = sum(stage.epochs for stage in stages)
    seconds = seconds_left(job.run, stages)
    return Estimate(epochs_done(job.run, stages), epochs, seconds, scoring if seconds else 0.0)


def together(seconds: Sequence[float], n: int) -> float:
    """Return how long jobs of these lengths take that are begun in this order, `n` at once."""
    ends = [0.0] * n
    for length in seconds:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)
