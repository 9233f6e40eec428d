"""Training jobs as processes of their own, a few at a time. The end of one does not touch another.

The processes are forked from a server that has imported torch and run nothing, so that a job begins at once. Where
there is no fork, each is a new interpreter. A job whose parent dies saves and leaves.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.schema import TrainConfig
from genexp.config.source import imports
from genexp.errors import DataError, DivergedError, GenexpError, HeldError, UsageError
from genexp.signals import INTERRUPTED, lead_a_session, leave_once, without_usr2
from genexp.sweeps.jobs import RUNNING, Ending, Job
from genexp.text import now, print_any_text

FAREWELL = 5.0  # seconds that a job has to leave when it is told to leave at once
IMPORTED = ("genexp.sweeps.jobserver", "genexp.commands.train")  # in this order
LONGEST = 10_000  # characters of a job's last message: more would fill the pipe, which is read after it
SERVER_DIED = 255  # the exit code of a process whose server died: nobody knows its own
Work = Callable[[TrainConfig, CommandLine], Any]  # what a job's process does


class Process(NamedTuple):
    """The process of a running job, the slot that it takes, and the pipe by which it says how it ended."""

    slot: int
    process: Any
    ending: Connection


def _context(jobs: Iterable[Job]) -> Any:
    """Return what starts processes here; its server, if it has one, begins with what jobs like these import."""
    method = "forkserver" if sys.platform == "linux" else "spawn"  # macOS forbids much to a process that was forked
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        targets = {job.config.dataset["_target_"] for job in jobs if job.config is not None}
        modules = {module for target in targets for module in imports(target.rpartition(".")[0])}
        context.set_forkserver_preload([*IMPORTED, *sorted(modules)])
    return context


def get_ready(jobs: Iterable[Job]) -> None:
    """Begin to start the server of processes for jobs like these, without waiting for it."""
    if _context(jobs).get_start_method() == "forkserver":
        with without_usr2():
            forkserver.ensure_running()


class Slots:
    """At most `n` jobs at once. They share the CPU's threads, and each gets a GPU if there are any.

    On leaving the context, running jobs are told to save and leave, and waited for; a second interruption kills them.
    """

    def __init__(self, n: int, jobs: Iterable[Job] = ()) -> None:
        """`jobs` are some of those to come: the modules of their data sets are imported once for all."""
        self._context = _context(jobs)
        self.n = n
        self._processes: dict[Job, Process] = {}

    @property
    def running(self) -> list[Job]:
        return list(self._processes)

    def start(self, job: Job, log: Path, work: Work | None = None) -> None:
        """Start the job's process in a free slot; its output is appended to `log`.

        It trains the job's run, unless other `work` is given, a function of a module.
        """
        assert job.config is not None
        slot = min(set(range(self.n)) - {running.slot for running in self._processes.values()})
        gpus = visible_gpus() if job.config.device.kind in ("auto", "cuda") else []
        threads = job.config.device.threads or job.run.threads() or max(1, cores() // self.n)
        device = job.config.device.model_copy(update={"threads": threads})
        config = job.config.model_copy(update={"device": device})
        ours, theirs = self._context.Pipe(duplex=False)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ)  # the server of processes has the environment and folder of its beginning
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        work = work or partial(_train, further=job.further)
        for attempt in (1, 2):
            arguments = (work, config, job.line, log, Path.cwd(), environment, theirs)
            process = self._context.Process(target=_work, args=arguments)
            try:
                with without_usr2():
                    process.start()
                break
            except (EOFError, ConnectionError) as error:  # the server died; the next process starts a new one
                if attempt == 2:
                    raise GenexpError("no process can be started: its server dies, perhaps short of memory") from error
        theirs.close()
        self._processes[job] = Process(slot, process, ours)

    def wait(self, seconds: float) -> list[tuple[Job, Ending]]:
        """Return the jobs that have ended; wait until one does, but no longer than that."""
        if not self._processes:
            time.sleep(seconds)
            return []
        connection.wait([running.process.sentinel for running in self._processes.values()], seconds)
        ended = [job for job, running in self._processes.items() if not running.process.is_alive()]
        return [(job, self._ending(job)) for job in ended]

    def stop(self, jobs: list[Job], at_once: bool = False) -> None:
        """Tell the jobs to save and leave; or, if they were told before, to leave at once."""
        for job in jobs:
            if (running := self._processes.get(job)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(running.process.pid, signal.SIGINT if at_once else signal.SIGTERM)

    def __enter__(self) -> "Slots":
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(self.running)
        try:
            while self._processes:
                self.wait(1.0)
        finally:  # reached early by a second interruption
            self.stop(self.running, at_once=True)
            end = time.monotonic() + FAREWELL
            try:
                while self._processes and time.monotonic() < end:
                    self.wait(0.1)
            finally:
                for running in self._processes.values():
                    running.process.kill()
                while self._processes:
                    self.wait(1.0)

    def _ending(self, job: Job) -> Ending:
        """Return how the process of a job ended, and give its slot free."""
        _, process, pipe = self._processes.pop(job)
        process.join()
        code = process.exitcode
        ending: Ending | None = None
        with suppress(EOFError, OSError):
            ending = pipe.recv() if pipe.poll() else None
        pipe.close()
        process.close()  # a job whose server died takes this for our death, and leaves
        if ending is not None:
            return ending
        if code == SERVER_DIED:
            return Ending(code, "its server of processes died, perhaps for want of memory", lost=True)
        error = f"left with exit code {code} before it was finished"
        if code < 0:
            memory = " (the system does so when memory runs out)" if -code == getattr(signal, "SIGKILL", None) else ""
            name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
            error = f"killed by {name}{memory}"
        if job.state == RUNNING:
            job.run.amend_status("running", status="failed", error=error)
        return Ending(code or 1, error)


def cores() -> int:
    """Return the number of CPU cores that this process may use, or was told to use."""
    for variable in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):  # Ray sets the first
        if os.environ.get(variable, "").isdigit():
            return max(1, int(os.environ[variable]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, without asking torch."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def _train(config: TrainConfig, line: CommandLine, further: dict[str, Component]) -> None:
    """Train a run, then take further scores of it that it lacks."""
    from genexp.commands import evaluate, train

    train.main(config, line, patient=True)
    if further:
        evaluate.after_training(config, further, line.folder)


def _work(
    work: Work,
    config: TrainConfig,
    line: CommandLine,
    log: Path,
    folder: Path,
    environment: dict[str, str],
    pipe: Connection,
) -> None:
    """Do the work of a job's process. It sends an Ending at its end."""
    gc.freeze()  # collections look at what the job makes, not at what was imported before
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    lead_a_session(signal.default_int_handler, leave_once)  # the sweep hears Ctrl-C and passes it on
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    print_any_text()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    print(f"{now()} {line}", flush=True)
    try:
        ending = Ending(0, None, answer=work(config, line))
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", flush=True)
        ending = Ending(INTERRUPTED, str(interrupt)[:LONGEST] or "interrupted")
    except GenexpError as error:
        print(f"genexp: {error}", flush=True)
        ending = Ending(
            error.exit_code,
            str(error)[:LONGEST],
            held=isinstance(error, HeldError),
            hopeless=isinstance(error, UsageError | DivergedError),
            without_data=isinstance(error, DataError),
        )
    except BaseException as error:
        traceback.print_exc()
        ending = Ending(1, f"{type(error).__name__}: {error}"[:LONGEST])
    pipe.send(ending)
    sys.exit(ending.code)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
