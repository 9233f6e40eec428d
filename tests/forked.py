"""A `genexp` command in a process of its own, which begins in an instant: its server has imported torch already."""

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from genexp import cli, signals
from genexp.sweeps.slots import IMPORTED


class Forked:
    """A running command. What it prints lies in files."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Begin `genexp WORDS` in a folder; `before` is called in the process first, and is a function of a module."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*IMPORTED, "genexp.cli", "genexp.training.world", "sklearn.datasets"])
        self._log = folder / f".log-{time.monotonic_ns()}"
        surroundings = os.environ | dict(env or {})
        self._process = context.Process(target=_work, args=(folder, words, surroundings, self._log, before))
        self._process.start()
        atexit.register(self._process.kill)  # a test that failed does not end it
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code of a command that ended, None of one that runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float | None = 120) -> int | None:
        """Wait for the end; return the exit code, or None of a command that runs on."""
        self._process.join(seconds)
        return self.poll()

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._read("out")

    @property
    def err(self) -> str:
        """What it printed to standard error so far."""
        return self._read("err")

    def _read(self, name: str) -> str:
        file = self._log.with_suffix(f".{name}")
        return file.read_text() if file.exists() else ""


def _work(
    folder: Path, words: tuple[str, ...], env: Mapping[str, str], log: Path, before: Callable[[], None] | None
) -> None:
    for number in signals.LEAVE:  # which the server ignores
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(log.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.fsync = lambda descriptor: None  # which a kill does not undo; power cuts are traced in a process of their own
    sys.argv = ["genexp", *words]
    if before is not None:
        before()
    sys.exit(cli.main())
