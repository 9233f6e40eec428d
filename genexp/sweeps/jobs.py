"""Training jobs as processes of their own, a few at a time: what happens to one does not touch another.

The processes are forked from a server that has imported torch and run nothing, so that a job begins at once; where
there is no fork, each is a new interpreter. A job whose parent dies saves and leaves.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from genexp.config.schema import TrainConfig, imports
from genexp.errors import DivergedError, GenexpError, HeldError, UsageError
from genexp.runs import directory as run
from genexp.runs import provenance
from genexp.signals import LEAVE
from genexp.text import now

INTERRUPTED = 130
FAREWELL = 5.0  # seconds that a job has to leave at once when it is told to for the second time
IMPORTED = (
    "genexp.sweeps.jobserver",
    "genexp.commands.train",
    "torch._dynamo",
)  # in this order; torch's optimizers import the last
LONGEST = 10_000  # characters of what a job says at its end: more would fill the pipe, which is read after that
SERVER_DIED = 255  # the exit code of a process whose server died: nobody knows its own


@dataclass(frozen=True, eq=False)
class Job:
    """A training run that is to be made."""

    config: TrainConfig
    overrides: tuple[str, ...]  # the settings that make it
    folder: str | None = None  # of the user's own configurations

    @property
    def command(self) -> str:
        """The command line that makes this run alone."""
        return provenance.shown(["train", *(["--config-dir", self.folder] if self.folder else []), *self.overrides])

    @property
    def directory(self) -> Path:
        return self.config.directory()


@dataclass(frozen=True)
class Ending:
    """How a job's process ended."""

    code: int  # exit code, or the number of the signal that killed it, negative
    error: str | None  # None if it finished
    held: bool = False  # another process holds its run
    lost: bool = False  # it may live on, and finish, but cannot be followed any more
    hopeless: bool = False  # it would end so again


class _Worker:
    """A running process, with the slot that it takes."""

    def __init__(self, job: Job, log: Path | None, slot: int, process: Any, said: Connection) -> None:
        self.job, self.log, self.slot, self.process, self.said = job, log, slot, process, said


class Slots:
    """At most `n` jobs at once: the CPU's threads are divided among them, and the GPUs, if there are any, dealt out.

    On leaving the context, jobs that are left are told to save and leave, and waited for; a second interruption kills
    them.
    """

    def __init__(self, n: int, jobs: Iterable[Job] = ()) -> None:
        """`jobs` are some of those to come: what their data sets import is imported once, not by each."""
        method = "forkserver" if sys.platform == "linux" else "spawn"  # macOS forbids much to a process that was forked
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            sources = {job.config.dataset["_target_"].rpartition(".")[0] for job in jobs}
            modules = {module for source in sources for module in imports(source)}
            self._context.set_forkserver_preload([*IMPORTED, *sorted(modules)])
        self.n = n
        self._workers: dict[Job, _Worker] = {}

    @property
    def running(self) -> list[Job]:
        return list(self._workers)

    @property
    def free(self) -> bool:
        return len(self._workers) < self.n

    def start(self, job: Job, log: Path | None) -> None:
        """Start the job's process, in a free slot; what it prints goes to the end of `log`, if there is one."""
        slot = min(set(range(self.n)) - {worker.slot for worker in self._workers.values()})
        gpus = visible_gpus() if job.config.device.kind in ("auto", "cuda") else []
        threads = job.config.device.threads or run.threads_begun(job.config) or max(1, cores() // self.n)
        device = job.config.device.model_copy(update={"threads": threads})
        config = job.config.model_copy(update={"device": device})
        ours, theirs = self._context.Pipe(duplex=False)
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)  # a server of processes has that of its beginning, as it has the folder
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        arguments = (config, job.command, log, Path.cwd(), environment, theirs)
        try:
            process = self._context.Process(target=_work, args=arguments)
            process.start()
        except (EOFError, ConnectionError):  # the server died; another one is begun
            process = self._context.Process(target=_work, args=arguments)
            try:
                process.start()
            except (EOFError, ConnectionError) as error:
                raise GenexpError(
                    "no process can be begun: what begins them dies, perhaps for want of memory"
                ) from error
        theirs.close()
        self._workers[job] = _Worker(job, log, slot, process, ours)

    def wait(self, seconds: float) -> list[tuple[Job, Ending]]:
        """The jobs that have ended; waits until one does, but no longer than that."""
        if not self._workers:
            time.sleep(seconds)
            return []
        connection.wait([worker.process.sentinel for worker in self._workers.values()], seconds)
        ended = [worker for worker in self._workers.values() if not worker.process.is_alive()]
        return [(worker.job, self._ending(worker)) for worker in ended]

    def stop(self, jobs: list[Job], at_once: bool = False) -> None:
        """Tell the jobs to save and leave; or, when they were told so before, to leave at once."""
        for job in jobs:
            if (worker := self._workers.get(job)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGINT if at_once else signal.SIGTERM)

    def __enter__(self) -> "Slots":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(self.running)
        try:
            while self._workers:
                self.wait(1.0)
        finally:  # interrupted once more
            self.stop(self.running, at_once=True)
            end = time.monotonic() + FAREWELL
            try:
                while self._workers and time.monotonic() < end:
                    self.wait(0.1)
            finally:
                for worker in self._workers.values():
                    worker.process.kill()
                while self._workers:
                    self.wait(1.0)

    def _ending(self, worker: _Worker) -> Ending:
        del self._workers[worker.job]
        worker.process.join()
        code = worker.process.exitcode
        said: Ending | None = None
        with suppress(EOFError, OSError):
            said = worker.said.recv() if worker.said.poll() else None
        worker.said.close()
        worker.process.close()  # a job whose server died takes it that we did, and leaves
        if said is not None:
            return said
        if code == SERVER_DIED:
            return Ending(code, "its server of processes died, perhaps for want of memory", lost=True)
        error = f"left with exit code {code} before it was finished"
        if code < 0:
            known = [number.name for number in signal.Signals if number == -code]
            memory = " (the system does so when memory runs out)" if "SIGKILL" in known else ""
            error = f"killed by {known[0] if known else f'signal {-code}'}{memory}"
        run.amend_status(worker.job.directory, "running", status="failed", error=error)
        return Ending(code or 1, error)


def cores() -> int:
    """How many CPU cores this process may use, or was told to use."""
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):  # Ray sets the first
        if os.environ.get(variable, "").isdigit():
            return max(1, int(os.environ[variable]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not asked."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def _work(
    config: TrainConfig, command: str, log: Path | None, folder: Path, environment: dict[str, str], say: Connection
) -> None:
    """What a job's process does."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the sweep, which passes it on, and not the jobs a second time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in LEAVE:
        signal.signal(number, _leave)
    if log is not None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    provenance.command_line = command
    print(f"{now()} {command}", flush=True)
    try:
        from genexp.commands import train

        train.main(config, patient=True)
        ending = Ending(0, None)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", flush=True)
        ending = Ending(INTERRUPTED, str(interrupt)[:LONGEST] or "interrupted")
    except GenexpError as error:
        print(f"genexp: {error}", flush=True)
        hopeless = isinstance(error, UsageError | DivergedError)
        ending = Ending(error.exit_code, str(error)[:LONGEST], held=isinstance(error, HeldError), hopeless=hopeless)
    except BaseException as error:
        traceback.print_exc()
        ending = Ending(1, f"{type(error).__name__}: {error}"[:LONGEST])
    say.send(ending)
    sys.exit(ending.code)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave, but once: the sweep tells it, and the system may tell all processes, and then the sweep is gone, too."""
    for number in LEAVE:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
