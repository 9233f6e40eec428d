"""Files that are written whole or not at all, and JSON that may be missing or damaged."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import platformdirs

from genexp.errors import GenexpError


def cache_folder(kind: str) -> Path:
    """Where what can be computed again is kept: below GENEXP_CACHE_DIR, else below the user's folder for caches."""
    return Path(os.environ.get("GENEXP_CACHE_DIR") or platformdirs.user_cache_dir("genexp")).expanduser() / kind


Identity = tuple[int, int]  # of a folder: its device and inode
TAIL = 2**14  # bytes at the end of a file that are sure to hold its last line
RERUN = ".rerun"  # what a run's directory is called, behind its name, when it is trained again beside it
PARTIAL = ".partial"  # how a file is called until it is complete, and what a killed process leaves behind


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in; it appears under `path` only once it is complete and on the disk."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files private; these are to be shared like any other
        Path(name).replace(path)
        sync(path.parent)  # or the new name may be lost with the power, though the content is not
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def writing(place: object, remedy: str) -> Iterator[None]:
    """Turn an OSError within it into a GenexpError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise GenexpError(f"{place} cannot be written: {error.strerror}\n{remedy}") from error


def would_write(path: Path) -> None:
    """Raise the OSError with which writing this file would end, as far as one can know before there is anything."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(nearest, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it appears under `path` only once it is complete. What is there is moved to `aside(path)`."""
    make_folder(path.parent)
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    old, this = aside(path) if path.exists() else None, identity(made)
    try:
        yield made
        refuse_if_moved(made, this)
        made.chmod(0o755)  # as above
        if old is not None:
            path.rename(old)
        try:
            made.rename(path)
        except OSError:
            if old is not None:
                old.rename(path)
            raise
        sync(path.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def aside(path: Path) -> Path:
    """Where what lies under `path` is moved to when something new takes its place: PATH.old-1, or the next one free."""
    return next(place for n in range(1, 10**6) if not (place := path.with_name(f"{path.name}.old-{n}")).exists())


def identity(folder: Path) -> Identity:
    """What a folder keeps under whatever name. Raises OSError if there is none."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def refuse_if_moved(folder: Path, was: Identity) -> None:
    """Raise GenexpError if there is another folder under this name by now, or none, as after `fresh=true`."""
    if not folder.is_dir() or identity(folder) != was:
        raise GenexpError(f"{folder} was moved aside meanwhile; nothing is kept")


def was_set_aside(path: Path) -> bool:
    """Whether a directory's name says that it is no run to count: an old one, or one run again."""
    return ".old-" in path.name or path.name.endswith(RERUN)


def make_folder(path: Path) -> None:
    """Make the folder and those above it, so that a power cut does not take them back."""
    if path.is_dir():
        return
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Have the system put on the disk what it was given of a file, or the names in a folder."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # there folders cannot be opened, and names are safe
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows flushes what it may write
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # as some network file systems say
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file, so that a reader sees the old content or the new one, whole."""
    with atomic(path) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What one of a run's JSON files holds; nothing, if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def last_json_line(path: Path) -> dict[str, Any]:
    """The last whole object of a file of JSON lines, without reading all of it; nothing, if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL))
            lines = stream.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(line), dict):
                return found
    return {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, but for lines that are damaged; none, if it is missing."""
    try:
        texts = path.read_bytes().splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]
