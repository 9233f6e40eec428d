"""The one loop that runs the jobs of sweeps and searches, a few at a time."""

import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from genexp.config.schema import Sweep
from genexp.errors import GenexpError
from genexp.rundirs.directory import LOCK, holder
from genexp.storage.files import make_folder, read_json, write_json, writing
from genexp.sweeps.board import display
from genexp.sweeps.jobs import FAILED, RUNNING, STOPPED, WAITING, Job
from genexp.sweeps.slots import Slots
from genexp.text import count

HOLDER = "holder.json"  # the process that was last at work on a sweep
LOOK = 0.5  # seconds between two looks at the jobs
PATIENCE = 5.0  # seconds between two looks at runs that another process holds


class Queue:
    """Jobs to be run, in their order. A search asks for more as it goes."""

    def __init__(self, jobs: list[Job], total: int | None = None) -> None:
        self.jobs = jobs
        self.total = total  # how many there will be; None if these are all
        self._looked = 0.0

    def next(self, running: list[Job]) -> Job | None:
        """Return the first job that waits and whose run no process holds; of a search, also one that just ended."""
        busy = {job.run.path for job in running}
        ready = (job for job in self.jobs if job.state == WAITING and not job.elsewhere)
        return next((job for job in ready if job.run.path not in busy), None)

    @property
    def is_open(self) -> bool:
        """True while there are jobs to start."""
        return any(job.state == WAITING for job in self.jobs)

    def ended(self, job: Job) -> None:
        """Take note of a job whose process ended."""

    def look(self, slots: Slots) -> list[Job]:
        """Look at the runs that other processes hold, every PATIENCE seconds; return the jobs that changed."""
        if time.monotonic() <= self._looked + PATIENCE:
            return []
        self._looked = time.monotonic()
        return [job for job in self.jobs if job.state == WAITING and job.look_elsewhere()]


def work_off(queue: Queue, settings: Sweep, folder: Path, shared: set[str], example: Iterable[Job] = ()) -> None:
    """Run the jobs of a queue, `settings.jobs` at once, each in a process of its own; show how they fare.

    `folder` is where the output of each job is kept; `example` are jobs like those to come. On an interruption, running
    jobs save and leave.
    """
    stopping = False
    slots = Slots(min(settings.jobs, queue.total or len(queue.jobs)), [*queue.jobs, *example])
    with display(queue.jobs, shared, queue.total) as show, slots:
        while slots.running or (queue.is_open and not stopping):
            for job in queue.look(slots):
                show(job)
            while len(slots.running) < slots.n and not stopping and (next_job := queue.next(slots.running)) is not None:
                if next_job.state == WAITING:
                    slots.start(next_job, folder / "logs" / f"{next_job.run.path.name}.txt")
                    next_job.start()
                show(next_job)
            for job, ending in slots.wait(LOOK):
                job.end(ending, 0 if stopping else settings.retries)
                queue.ended(job)
                show(job)
                if job.state == FAILED and settings.fail_fast and not stopping:
                    stopping = True
                    slots.stop(slots.running)
            show(None)


def fail_if_any(jobs: list[Job], again: str) -> None:
    """Raise GenexpError if a job did not finish; `again` is the command that goes on."""
    failed = sum(job.state == FAILED for job in jobs)
    stopped = sum(job.state in (STOPPED, RUNNING) for job in jobs)
    counts = [f"{n} {what}" for n, what in ((failed, "failed"), (stopped, "did not come to their end")) if n]
    if counts:
        raise GenexpError(f"of {count(len(jobs), 'job')} {', '.join(counts)}; {again} runs only what is not finished")


@contextmanager
def held(folder: Path, command: str) -> Iterator[None]:
    """Hold the folder of a sweep's table and logs within it. Raises GenexpError if another process holds it."""
    with writing(folder, "Set outputs_dir=FOLDER to a place that can"):
        make_folder(folder)
        lock = filelock.FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            process = holder(read_json(folder / HOLDER))
            raise GenexpError(f"another process is at work on {folder}: {process}\nWait for it, or stop it") from error
        write_json(folder / HOLDER, {"pid": os.getpid(), "host": platform.node(), "command": command})
    try:
        yield
    finally:
        lock.release()
