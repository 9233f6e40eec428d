"""The signals by which a person, a scheduler or a closed terminal ends a program: SIGINT, SIGTERM and SIGHUP."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

LEAVE = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one of them
INTERRUPTED = 130  # exit code
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def handled_by(handler: Handler) -> Iterator[dict[int, Any]]:
    """Let a handler hear the ending signals; yield the handlers before it, which are restored at the end.

    A signal that was ignored when the program began stays ignored, as SIGHUP is by nohup; but SIGINT is always heard.
    Only the main thread can set handlers: in another one this does nothing.
    """
    heard = [signal.SIGINT, *(number for number in LEAVE if signal.getsignal(number) != signal.SIG_IGN)]
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in heard if is_main}
    try:
        yield before
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def deferred() -> Iterator[None]:
    """Raise a KeyboardInterrupt that is asked for within it at its end: an import cut short leaves half a module."""
    asked = []
    with handled_by(lambda *_: asked.append(True)):
        yield
    if asked:
        raise KeyboardInterrupt


def leave_once(_number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at the first signal to leave; ignore the next: sweep and system may both send one."""
    for number in LEAVE:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def lead_a_session(interrupt: Handler | signal.Handlers, leave: Handler | signal.Handlers) -> None:
    """Make this process the leader of a session, which Ctrl-C in a terminal does not reach; set its handlers."""
    with suppress(PermissionError, AttributeError):  # it leads a session already, or the system has none
        os.setsid()
    signal.signal(signal.SIGINT, interrupt)
    for number in LEAVE:
        signal.signal(number, leave)


@contextmanager
def without_usr2() -> Iterator[None]:
    """Start processes within it that do not hear SIGUSR2, by which Slurm tells a job that its time is nearly up.

    Submitit answers that signal and ends the job, which then saves as on any other interruption.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class Stop:
    """A request to stop training: the first signal asks for it, and a second one stops at once.

    A `patient` one, of a sweep's job, is stopped at once by SIGINT alone: several may tell a job to leave, once each.
    """

    patient: bool = False
    heard: bool = False  # a signal
    told: bool = False  # by another process that trains the same run
    deferring: bool = True

    @property
    def requested(self) -> bool:
        return self.heard or self.told

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals within it. A patient one that was asked to stop goes on hearing them."""
        with handled_by(self._hear) as before:
            try:
                yield
            finally:
                if self.patient and self.requested:
                    before.clear()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        again, self.heard = self.heard, True
        if again and self.patient and number != signal.SIGINT:
            return
        if again or not self.deferring:
            raise KeyboardInterrupt

    def at_once(self) -> None:
        """Stop at once from now on: there is nothing to save first."""
        self.deferring = False
        if self.requested:
            raise KeyboardInterrupt
