"""Files that can be made again from other data: decoded images, classifiers, yardsticks, downloads.

One process makes such a file and others wait for it. A damaged file is made again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import filelock

from genexp.text import first_line

Content = TypeVar("Content")


def derived(
    file: Path,
    *,
    read: Callable[[Path], Content],
    make: Callable[[], Content],
    write: Callable[[Path, Content], object],
    what: str,
) -> Content:
    """Return what `read` returns for the file, or what `make` makes, which `write` then keeps for the next time.

    `read` raises FileNotFoundError if there is no file, and any other exception if the file is damaged. `what` names
    the content in messages. If the file cannot be written, its content is made again each time.
    """
    with suppress(Exception):  # a damaged file is reported below, by the process that holds the lock
        return read(file)
    with made_by_one(file.with_suffix(".lock"), f"makes {what} in {file.parent}"):
        try:
            return read(file)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:  # a damaged file raises whatever its bytes lead to
            print(f"warning: {file} is damaged ({first_line(error)}); {what} is made again", flush=True)
        content = make()
        try:
            write(file, content)
        except OSError as error:
            print(f"warning: {file} cannot be written: {error.strerror}; {what} is made again each time", flush=True)
        return content


@contextmanager
def made_by_one(lock_file: Path, doing: str, must: bool = False) -> Iterator[None]:
    """Hold a lock, so that one process at a time makes something; a second one says what it waits for.

    Where no lock can be written, the work goes on without one, or with `must` raises OSError.
    """
    lock = filelock.FileLock(lock_file)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that {doing}", flush=True)
        lock.acquire()
    except (OSError, NotImplementedError):  # the second from a file system without locks
        if must:
            raise
    try:
        yield
    finally:
        lock.release()  # does nothing where there is none
