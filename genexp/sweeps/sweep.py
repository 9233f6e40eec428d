"""`genexp train -m`: the jobs of a sweep, checked before the first one starts. A finished job is not run again."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from genexp.alive import doing
from genexp.config.command_line import CommandLine
from genexp.config.components import is_diagnosis
from genexp.config.compose import each_job
from genexp.config.many import configurations
from genexp.config.mistakes import options_of
from genexp.config.schema import Sweep
from genexp.errors import UsageError
from genexp.sweeps.board import close
from genexp.sweeps.elsewhere import is_elsewhere, run_elsewhere
from genexp.sweeps.jobs import FINISHED, OF_THE_SWEEP, WAITING, Job, common_settings, set_stopped
from genexp.sweeps.schedule import Queue, fail_if_any, held, work_off
from genexp.sweeps.slots import get_ready
from genexp.text import count, nearest

MANY = 50  # jobs that take more than a moment to compose


def main(line: CommandLine) -> None:
    """Run the jobs of a sweep that are not finished, here or by another launcher; print and keep a ranked table.

    Raises UsageError, before anything runs, for a wrong job; GenexpError if a job failed.
    """
    jobs = plan(line)
    first = jobs[0].config
    assert first is not None
    folder = Path(first.outputs_dir).expanduser() / "sweeps" / _name(jobs)
    shared = common_settings(jobs)
    with held(folder, str(line)):
        jobs = [_begun_afresh(job) for job in jobs]
        if finished := sum(job.state == FINISHED for job in jobs):
            print(f"finished already: {finished} of {count(len(jobs), 'job')}", flush=True)
        carry_out(jobs, line, first.sweep, folder, shared, first.again())
        if first.report:
            from genexp.commands import report  # which takes a tenth of a second to import

            report.at_the_end([job.run for job in jobs if job.run.status()], folder / report.NAME, str(line))
    fail_if_any(jobs, first.again())


def carry_out(jobs: list[Job], line: CommandLine, settings: Sweep, folder: Path, shared: set[str], again: str) -> None:
    """Run the jobs that wait, here or by the launcher that `line` chooses; print and keep the table of all.

    `folder` is where the table and the logs are kept, `again` the command that goes on after an interruption.
    """
    try:
        if is_elsewhere(line):
            run_elsewhere(jobs, line, folder)
        else:
            work_off(Queue(jobs), settings, folder, shared)
    except KeyboardInterrupt as interrupt:
        if is_elsewhere(line):
            raise
        saved = "jobs that ran were saved" if any(job.attempts for job in jobs) else "no job had begun"
        raise KeyboardInterrupt(f"interrupted; {saved}, {again} goes on") from interrupt
    finally:
        set_stopped([job for job in jobs if job.state == WAITING] if is_elsewhere(line) else jobs)
        close(jobs, folder, settings.rank_by, shared)


def plan(line: CommandLine) -> list[Job]:
    """Return the jobs of a sweep. Raises UsageError if one is wrong, or its directory holds another run."""
    lines = each_job(line)
    if not lines:
        raise UsageError(f"no job follows from {' '.join(line.overrides)}: a range or list there is empty")
    if len(lines) > MANY:
        print(f"checking {len(lines)} jobs", flush=True)
    jobs: list[Job] = []
    by_path: dict[Path, Job] = {}
    composed = configurations(lines)
    for number, each in enumerate(lines, 1):
        try:
            with doing(f"checking job {number:,} of {len(lines):,}"):
                config = next(composed)
                job = Job.of(each, config)
        except UsageError as error:
            own = " ".join(word for word in each.settings if not word.startswith(OF_THE_SWEEP))
            raise UsageError(f"job {number} ({own}): {error}\nNo job was started") from error
        if config.search is not None:
            raise UsageError("search= is a sweep of its own: leave out -m, and give values as search.ranges")
        other = by_path.setdefault(job.run.path, job)
        if other is not job:
            raise _one_run(other, job)
        jobs.append(job)
        if number == 1 and len(lines) > MANY and job.state == WAITING and not is_elsewhere(line):
            get_ready(jobs)  # while the others are checked
    _refuse_unknown_rank(jobs)
    return jobs


def _one_run(one: Job, other: Job) -> UsageError:
    if other.config is not None and other.config.run_dir is not None:
        return UsageError("run_dir= names one directory for several jobs of a sweep; leave it out")
    pairs = ((one, other), (other, one))
    own = [" ".join(word for word in job.settings if word not in alike.settings) for job, alike in pairs]
    which = f"{own[0] or 'one job'} and {own[1] or 'another'} are one run" if any(own) else "a job is there twice"
    others = "log.scores_every_epochs=N scores a run on its way, and genexp evaluate under other settings"
    return UsageError(f"{which}: {one.run.path}\nSweep what makes another experiment; {others}")


def _refuse_unknown_rank(jobs: list[Job]) -> None:
    configs = [job.config for job in jobs if job.config is not None]
    by, metrics = configs[0].sweep.rank_by, {name: each for config in configs for name, each in config.metrics.items()}
    known = list(metrics)
    if is_diagnosis(metrics.get(str(by))):
        raise UsageError(f"sweep.rank_by={by} describes the samples and does not say what is better; name a score")
    if by is not None and by not in known:
        remedy = f"; metric@metrics.{by}={by} adds it" if by in options_of("metric") else nearest(by, known)
        raise UsageError(f"sweep.rank_by={by}: the runs are scored by {', '.join(known) or 'nothing'}{remedy}")


def _begun_afresh(job: Job) -> Job:
    """Return a job with fresh=true without it, its old run moved aside at once; the command can then go on later."""
    if job.config is None or not job.config.fresh:
        return job
    with job.run.held(job.config):
        pass
    return Job(job.settings, job.run, job.config.model_copy(update={"fresh": False}), job.line)


def _name(jobs: Sequence[Job]) -> str:
    """Return the name of a sweep's folder: the settings that are swept, and a digest of the runs."""
    shared = common_settings(jobs)
    swept = sorted({word.partition("=")[0] for job in jobs for word in job.settings if word not in shared})
    keys = "-".join(re.sub(r"\W+", "_", key).strip("_") for key in swept)[:60] or "one"
    paths = "\n".join(sorted(str(job.run.path) for job in jobs))
    digest = hashlib.sha256(paths.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{keys}-{digest}"
