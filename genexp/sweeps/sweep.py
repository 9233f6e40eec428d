"""`genexp train -m`: the jobs of a sweep, run here or handed to another launcher. What is finished stays finished."""

import hashlib
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from genexp.config import schema as config
from genexp.errors import GenexpError, UsageError
from genexp.runs import directory as run
from genexp.runs import provenance
from genexp.storage.files import make_folder, read_json, write_json
from genexp.sweeps.board import FAILED, FINISHED, RUNNING, STOPPED, WAITING, Row, close, common, display
from genexp.sweeps.jobs import INTERRUPTED, Ending, Job, Slots

if TYPE_CHECKING:
    from omegaconf import DictConfig

Task = Callable[["DictConfig"], None]  # what is called with each job's configuration, wherever that is

HOLDER = "holder.json"  # who was the last to be at work on a sweep
LOSSES = 3  # times that a job is begun again after its server of processes died
LOOK = 0.5  # seconds between two looks at the jobs
PATIENCE = 5.0  # seconds between two looks at runs that another process holds


def plan(composed: Sequence[tuple[Sequence[str], "DictConfig"]]) -> list[Job]:
    """The jobs of these overrides, each with the configuration that Hydra composed of them.

    Raises UsageError, before anything runs, if a job's configuration is wrong, or its directory holds another run.
    """
    from genexp.config.compose import as_typed, options_of  # which imports Hydra

    jobs: list[Job] = []
    homes: dict[Path, Job] = {}
    for number, (words, whole) in enumerate(composed, 1):
        typed = as_typed(words)
        try:
            job = _job(typed, whole.hydra, config.load("train", config.without_hydra(whole)))
            run.finished(job.config)  # refuses a directory that holds another experiment
        except UsageError as error:
            raise UsageError(f"job {number} ({' '.join(_own(typed))}): {error}\nNo job was started") from error
        if job.config.search is not None:
            raise UsageError("search= is a sweep of its own: leave out -m, and give values as search.ranges")
        if (other := homes.setdefault(job.directory, job)) is not job:
            raise _one_run(other, job)
        jobs.append(job)
    by, known = jobs[0].config.sweep.rank_by, list(dict.fromkeys(name for job in jobs for name in job.config.metrics))
    if by is not None and by not in known:
        remedy = f"; metric@metrics.{by}={by} adds it" if by in options_of("metric") else config.nearest(by, known)
        raise UsageError(f"sweep.rank_by={by}: the runs are scored by {', '.join(known) or 'nothing'}{remedy}")
    return jobs


def _one_run(one: Job, other: Job) -> UsageError:
    if other.config.run_dir is not None:
        return UsageError("run_dir= names one directory for several jobs of a sweep; leave it out")
    own = [" ".join(word for word in job.overrides if word not in alike.overrides)
           for job, alike in ((one, other), (other, one))]  # fmt: skip
    which = f"{own[0] or 'one job'} and {own[1] or 'another'} are one run" if any(own) else "a job is there twice"
    return UsageError(
        f"{which}: {one.directory}\nSweep what makes another experiment; log.scores_every_epochs=N shows how a run "
        "fares on its way, and genexp evaluate takes other scores of it"
    )


def run_here(jobs: list[Job]) -> None:
    """Run what is not finished yet, `sweep.jobs` at once, each in a process of its own; show, rank and keep the table.

    Raises GenexpError when a job failed, KeyboardInterrupt when interrupted.
    """
    again = jobs[0].config.again()
    with held(jobs[0].config.outputs_dir, "sweeps", _name(jobs)) as folder:
        rows = [begun(job) for job in _begun_afresh(jobs)]
        try:
            _run(rows, folder)
        except KeyboardInterrupt as interrupt:
            saved = "jobs that ran were saved" if any(row.attempts for row in rows) else "no job had begun"
            raise KeyboardInterrupt(f"interrupted; {saved}, {again} goes on") from interrupt
        finally:
            say_stopped(rows)
            close(rows, folder, jobs[0].config.sweep.rank_by, common(rows), jobs[0].config.metrics)
    fail_if_any(rows, again)


def run_elsewhere(jobs: list[Job], launch: Callable[[list[Job], Task], Sequence[Exception | None]]) -> None:
    """Have another launcher run what is not finished yet; what became of each job is read from its directory.

    `launch` has the task called with each job's configuration, and returns what it knows of those that failed. Raises
    GenexpError when a job failed: that the launcher does not complain is no proof that all went well.
    """
    with held(jobs[0].config.outputs_dir, "sweeps", _name(jobs)) as folder:
        rows = [begun(job) for job in _begun_afresh(jobs)]
        todo = [row for row in rows if row.state != FINISHED]
        _say_finished(rows)
        source = next((word for word in jobs[0].overrides if word.startswith("from=")), None)
        task = partial(job, here=Path.cwd(), logs=folder.resolve() / "logs", source=source)
        try:
            for turn in _turns(todo):
                _hand_over(turn, lambda jobs: launch(jobs, task))
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                "interrupted; jobs that were handed over may run on, until their launcher's own command (scancel, ray "
                "stop) stops them; the same command goes on"
            ) from interrupt
        finally:
            say_stopped([row for row in rows if row.state == WAITING])
            close(rows, folder, jobs[0].config.sweep.rank_by, common(rows), jobs[0].config.metrics)
    fail_if_any(rows, jobs[0].config.again())


def job(composed: "DictConfig", here: Path | None = None, logs: Path | None = None, source: str | None = None) -> None:
    """One job of a sweep, on whatever machine a launcher calls this. Raises GenexpError when it failed.

    `here` is the folder where the sweep was started, `logs` that for what jobs print, and `source` the word from=PATH.
    It trains in a process of its own: the death of that is then an error like any other, while that of a launcher's
    own process makes it lose or repeat other jobs.
    """
    from hydra.core.hydra_config import HydraConfig

    from genexp.config.compose import SOURCE

    if here is not None:
        _enter(here)
    hydra = HydraConfig.get()
    words = [source if source and word == f"from={SOURCE}" else word for word in hydra.overrides.task]
    checked = config.load("train", composed).model_copy(update={"fresh": False})  # old runs were moved aside before
    alone = _job(words, hydra, checked)
    log = logs / f"{alone.directory.name}.txt" if logs is not None else None
    row = Row.of(alone)
    with Slots(1) as slots:
        while row.state == WAITING and row.job is not None:
            while row.elsewhere and run.is_held(row.directory):
                time.sleep(PATIENCE)
            row.start()
            with _deaf():
                slots.start(row.job, log)
            while not (ended := slots.wait(LOOK)):
                continue
            ((_, ending),) = ended
            end(row, ending, alone.config.sweep.retries)
    if ending.error is not None:
        raise GenexpError(ending.error)


def _begun_afresh(jobs: list[Job]) -> list[Job]:
    """The jobs with fresh=true, their old runs moved aside: at once, so that without it the command goes on."""
    made = []
    for job in jobs:
        if job.config.fresh:
            with run.Run.hold(job.config):
                pass
            job = Job(job.config.model_copy(update={"fresh": False}), job.overrides, job.folder)
        made.append(job)
    return made


def begun(job: Job) -> Row:
    """The row of a job, with its results if it is finished."""
    made = Row.of(job)
    if (done := _finished(job)) is not None:
        made.finish(done)
    return made


def _finished(job: Job) -> dict[str, Any] | None:
    """The results of a finished run; of one on images at a path, which may have changed since, its process says it."""
    return None if "path" in job.config.dataset else run.finished(job.config)


def end(row: Row, ending: Ending, retries: int) -> None:
    """Say in the row what became of its process, and whether it is to be begun again."""
    if ending.error is None:
        row.finish(read_json(row.directory / "results.json"))
        return
    with suppress(UsageError):  # of a run that cannot be read any more
        if row.job is not None and (done := _finished(row.job)) is not None:  # it was told to leave when it was done
            row.finish(done)
            return
    row.cause = ending.error.splitlines()[0]
    if ending.code == INTERRUPTED:
        row.state, row.cause = STOPPED, row.cause.partition(",")[0]
    elif ending.held:  # no attempt of ours: it is looked at again when the other process has left it
        row.state, row.elsewhere, row.attempts = WAITING, True, row.attempts - 1
    elif ending.lost and row.attempts <= retries + LOSSES:  # it may save, or even end well
        row.state, row.elsewhere = WAITING, True
    elif row.attempts <= retries and not ending.hopeless:
        row.state = WAITING
    else:
        row.state = FAILED


def say_stopped(rows: list[Row]) -> None:
    """Let the rows of jobs that were stopped with the sweep, or never began, say so."""
    for row in rows:
        if row.state in (RUNNING, WAITING):
            row.cause = "interrupted" if row.state == RUNNING or row.attempts else "not begun"
            row.state = STOPPED


def fail_if_any(rows: list[Row], again: str) -> None:
    """Raise GenexpError if a job did not come to its end; `again` is the command that goes on."""
    failed = sum(row.state == FAILED for row in rows)
    stopped = sum(row.state in (STOPPED, RUNNING) for row in rows)
    if failed or stopped:
        counts = [f"{failed} failed"] * bool(failed) + [f"{stopped} did not come to their end"] * bool(stopped)
        raise GenexpError(f"of {len(rows)} jobs {', '.join(counts)}; {again} runs only what is not finished")


@contextmanager
def held(outputs_dir: str, kind: str, name: str) -> Iterator[Path]:
    """The folder of a sweep's table and logs, held by this process. Raises GenexpError if another holds it."""
    folder = Path(outputs_dir).expanduser() / kind / name
    try:
        make_folder(folder)
        lock = filelock.FileLock(folder / run.LOCK)
        lock.acquire(timeout=0)
        write_json(folder / HOLDER, {"pid": os.getpid(), "host": platform.node(), "command": provenance.command_line})
    except filelock.Timeout as error:
        who = run.holder(read_json(folder / HOLDER))
        raise GenexpError(f"another process is at work on {folder}: {who}\nWait for it, or stop it") from error
    except OSError as error:
        raise GenexpError(
            f"{folder} cannot be written: {error.strerror}\nSet outputs_dir=FOLDER to a place that can"
        ) from error
    try:
        yield folder
    finally:
        lock.release()


def _run(rows: list[Row], folder: Path) -> None:
    _say_finished(rows)
    jobs = [row.job for row in rows if row.job is not None]
    settings = jobs[0].config.sweep
    looked, stopping = 0.0, False
    with display(rows, common(rows)) as show, Slots(min(settings.jobs, len(jobs)), jobs) as slots:
        while slots.running or any(row.state == WAITING for row in rows):
            if time.monotonic() > looked + PATIENCE:
                looked = time.monotonic()
                for changed in _look_elsewhere(rows):
                    show(changed)
            while slots.free and (row := _next(rows)) is not None and row.job is not None:
                slots.start(row.job, folder / "logs" / f"{row.directory.name}.txt")
                row.start()
                show(row)
            for ended, ending in slots.wait(LOOK):
                row = next(row for row in rows if row.job is ended)
                end(row, ending, 0 if stopping else settings.retries)
                show(row)
                if row.state == FAILED and settings.fail_fast and not stopping:
                    stopping = True
                    slots.stop(slots.running)
            if stopping:
                say_stopped([row for row in rows if row.state == WAITING])
            show(None)


def _say_finished(rows: list[Row]) -> None:
    old = sum(row.state == FINISHED for row in rows)
    if old:
        print(f"finished already: {old} of {len(rows)} jobs", flush=True)


def _look_elsewhere(rows: list[Row]) -> list[Row]:
    """Find out which of the jobs that wait are run by another process, and what became of those that were.

    Returns those of which there is something new.
    """
    changed = []
    for row in rows:
        if row.state == WAITING and row.job is not None:
            was, row.elsewhere = row.elsewhere, run.is_held(row.directory)
            if was and not row.elsewhere and (done := run.finished(row.job.config)) is not None:
                row.finish(done)
            if row.elsewhere != was:
                changed.append(row)
    return changed


def _next(rows: list[Row]) -> Row | None:
    """The next job to start: one whose run nobody is at."""
    return next((row for row in rows if row.state == WAITING and not row.elsewhere), None)


def _job(words: Sequence[str], hydra: Any, checked: config.TrainConfig) -> Job:
    """The job that these words make, where Hydra's own settings are `hydra`."""
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return Job(checked, _own(words), folders[0] if folders else None)


def _own(words: Sequence[str]) -> tuple[str, ...]:
    """The words that are of a job, and not of how the sweep is run."""
    return tuple(word for word in words if not word.startswith(("hydra", "sweep.", "fresh=")))


def _turns(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows in lists to be run one after another: another process may be at some."""
    while any(row.state == WAITING for row in rows):
        _look_elsewhere(rows)
        free = [row for row in rows if row.state == WAITING and not row.elsewhere]
        if free:
            yield free
        else:
            time.sleep(LOOK)


def _hand_over(rows: list[Row], launch: Callable[[list[Job]], Sequence[Exception | None]]) -> None:
    """Have the rows' jobs launched, and say in the rows what became of them."""
    before = [_status(row) for row in rows]
    errors: Sequence[Exception | None] = [None] * len(rows)
    interrupted = True
    try:
        errors = launch([row.job for row in rows if row.job is not None])
        interrupted = False
    except Exception as raised:  # of whatever kind: the launcher ran none of them, or lost them all
        errors = [raised] * len(rows)
        interrupted = False
    finally:
        end_of_patience = time.monotonic() + (0 if interrupted else PATIENCE)
        while any(run.is_held(row.directory) for row in rows) and time.monotonic() < end_of_patience:
            time.sleep(LOOK)  # a job whose launcher's process was killed saves, and leaves
        for row, old, error in zip(rows, before, errors, strict=True):
            _read_ending(row, _status(row) if _status(row) != old else {}, error, interrupted)


def _read_ending(row: Row, status: dict[str, Any], error: Exception | None, interrupted: bool) -> None:
    """Say in the row what became of its job, from what its run's status now says and what its launcher knows."""
    assert row.job is not None
    try:
        done = run.finished(row.job.config)
    except UsageError:
        done = None
    ended = status.get("status")
    said = str(status.get("error", "")).splitlines()[:1]
    if done is not None:
        row.finish(done)
    elif run.is_held(row.directory):
        row.state, row.cause = RUNNING, "it still runs"
    elif ended == "interrupted":
        row.state, row.cause = STOPPED, f"interrupted at step {status.get('step', 0)}"
    elif ended == "failed":
        row.state, row.cause = FAILED, "".join(said)
    elif not interrupted:
        row.state = FAILED
        row.cause = _in_a_line(error) if error else "it left no result, and no word why; see the launcher's own logs"


def _status(row: Row) -> dict[str, Any]:
    return read_json(row.directory / "status.json")


def _in_a_line(error: Exception) -> str:
    """What a launcher says of a job, or of all; submitit and Ray say it in many lines."""
    if isinstance(error, GenexpError):
        return str(error).splitlines()[0]
    text = str(error).strip()
    lost = re.search(r"has not produced any output \(state: ([^)]+)", text)
    if lost:
        return f"the launcher's process was lost ({lost[1]})"
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    telling = lines[-1 if "Traceback" in text else 0] if lines else ""
    return f"the launcher said: {type(error).__name__}: {telling}".rstrip(": ")


def _enter(folder: Path) -> None:
    """Go to the folder where the sweep was started: paths are relative to it, and a user's own models may be there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise GenexpError(f"{platform.node()} does not see {folder}, where the sweep was started") from error
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started within does not hear SIGUSR2, by which Slurm tells all processes that their time is nearly up.

    It is submitit's to answer; that ends the job, which then saves as on any other interruption.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _name(jobs: list[Job]) -> str:
    """What a sweep's folder is called: by the settings that are swept, and a digest of the runs."""
    shared = common([Row.of(job) for job in jobs])
    swept = sorted({word.partition("=")[0] for job in jobs for word in job.overrides if word not in shared})
    keys = "-".join(re.sub(r"\W+", "_", key).strip("_") for key in swept)[:60] or "one"
    digest = hashlib.sha256("\n".join(sorted(str(job.directory) for job in jobs)).encode()).hexdigest()[:8]
    return f"{keys}-{digest}"
