"""A sign of life on a terminal: while a command prints nothing for some seconds, a line says what it does.

The line goes away when something is printed. A pipe or a file gets nothing of it.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from genexp.text import duration

PATIENCE = 2.0  # seconds without output before the line is shown
REFRESH = 0.5  # seconds between two looks
ERASE = "\r\x1b[2K"
CODES = re.compile(r"(?:\x1b\[[0-9;?]*[a-zA-Z])+$")  # such as those that show the cursor


class Watch:
    """The line at the bottom of a terminal, and what it has to know: when something was printed, what is being done."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal
        self.works: list[str] = []  # what is being done, the innermost last
        self.lock = threading.RLock()
        self._last, self._at_line_start, self._is_shown = time.monotonic(), True, False
        self._ended = threading.Event()

    def begin(self) -> None:
        threading.Thread(target=self._look, daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        with self.lock:
            self._erase()

    def printing(self, text: str) -> None:
        """Make room for text that is printed next."""
        self._erase()
        self._last = time.monotonic()
        visible = CODES.sub("", text)
        self._at_line_start = visible.endswith("\n") if visible else self._at_line_start

    def _look(self) -> None:
        while not self._ended.wait(REFRESH):
            with self.lock:
                silent = time.monotonic() - self._last
                if silent >= PATIENCE and self._at_line_start and not self._ended.is_set():
                    self._show(silent)

    def _show(self, silent: float) -> None:
        work = self.works[-1] if self.works else "working"
        room = shutil.get_terminal_size().columns - 1
        time_shown = f" ... {duration(silent)}"
        self.terminal.write(f"{ERASE}{work[: max(0, room - len(time_shown))]}{time_shown}"[: room + len(ERASE)])
        self.terminal.flush()
        self._is_shown = True

    def _erase(self) -> None:
        if self._is_shown:
            self.terminal.write(ERASE)
            self.terminal.flush()
            self._is_shown = False


class Watched:
    """A stream to a terminal that tells its watch what is printed; in all else the stream itself."""

    def __init__(self, stream: TextIO, watch: Watch) -> None:
        self._stream, self.watch = stream, watch

    def write(self, text: str) -> int:
        with self.watch.lock:
            self.watch.printing(text)
            return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def watched() -> Iterator[None]:
    """Show signs of life within it, if standard output is a terminal."""
    out, err = sys.stdout, sys.stderr
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    watch = Watch(out)
    streams: Any = sys
    streams.stdout = Watched(out, watch)
    streams.stderr = Watched(err, watch) if err.isatty() else err
    watch.begin()
    try:
        yield
    finally:
        watch.end()
        sys.stdout, sys.stderr = out, err


@contextmanager
def doing(work: str) -> Iterator[None]:
    """Say what is being done within it, if it takes long and a terminal is watched."""
    watch = getattr(sys.stdout, "watch", None)
    if not isinstance(watch, Watch):
        yield
        return
    watch.works.append(work)
    try:
        yield
    finally:
        watch.works.remove(work)


def current() -> str:
    """Return what is being done, the innermost; "" if nothing is said of it."""
    watch = getattr(sys.stdout, "watch", None)
    return watch.works[-1] if isinstance(watch, Watch) and watch.works else ""
