"""Files that are written whole or not at all, and JSON files that may be missing or damaged."""

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
from genexp.numbers import strict

TAIL = 2**14  # bytes at the end of a file that are sure to hold its last line
RERUN = ".rerun"  # end of the name of a run's directory that `genexp rerun` makes
PARTIAL = ".partial"  # end of a file's name until it is complete; a killed process leaves such files behind


class Within:
    """An attribute: the path of a file or folder, by its name in the directory at the owner's `path`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, _kind: type) -> Path:
        path: Path = owner.path
        return path / self.name


def cache_folder(kind: str) -> Path:
    """Return the folder for what can be computed again: below GENEXP_CACHE_DIR, else below the user's caches."""
    return Path(os.environ.get("GENEXP_CACHE_DIR") or platformdirs.user_cache_dir("genexp")).expanduser() / kind


@contextmanager
def writing(place: object, remedy: str) -> Iterator[None]:
    """Turn an OSError within it into a GenexpError that says which place cannot be written, why, and the remedy."""
    try:
        yield
    except OSError as error:
        raise GenexpError(f"{place} cannot be written: {error.strerror}\n{remedy}") from error


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write to. It appears under `path` only once it is complete and on the disk."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files private
        Path(name).replace(path)
        sync(path.parent)  # a power cut could lose the new name otherwise
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def would_write(path: Path) -> None:
    """Raise the OSError that writing this file would raise, as far as it can be known before."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    tempfile.TemporaryFile(dir=parent).close()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill. It appears under `path` once it is complete; an old one is moved to `aside(path)`."""
    make_folder(path.parent)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    old, begun = aside(path) if path.exists() else None, identity(folder)
    try:
        yield folder
        refuse_if_moved(folder, begun)
        folder.chmod(0o755)  # mkdtemp makes folders private
        if old is not None:
            path.rename(old)
        try:
            folder.rename(path)
        except OSError:
            if old is not None:
                old.rename(path)
            raise
        sync(path.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def aside(path: Path) -> Path:
    """Return the place to which an old file or folder is moved: PATH.old-1, or the next one that is free."""
    return free(path.parent, f"{path.name}.old-")


def free(folder: Path, begin: str, end: str = "") -> Path:
    """Return the first of BEGIN1END, BEGIN2END, ... that is not in the folder yet."""
    return next(place for n in range(1, 10**6) if not (place := folder / f"{begin}{n}{end}").exists())


def identity(folder: Path | str) -> tuple[int, int] | None:
    """Return the folder's device and inode, which a new name does not change; None if there is no such folder."""
    try:
        status = os.stat(folder)  # noqa: PTH116 (a listing has many: faster than Path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse_if_moved(folder: Path, was: tuple[int, int] | None) -> None:
    """Raise GenexpError if the folder under this name is not that one any more, as after `fresh=true`."""
    if identity(folder) != was:
        raise GenexpError(f"{folder} was moved aside meanwhile; nothing is kept")


def was_set_aside(path: Path) -> bool:
    """Return True if a directory's name says that it is an old run or a rerun, which do not count as runs."""
    return ".old-" in path.name or path.name.endswith(RERUN)


def make_folder(path: Path) -> None:
    """Make the folder and those above it, in a way that survives a power cut."""
    if path.is_dir():
        return
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Put a file's content, or the names in a folder, on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows cannot open folders, and names are safe there
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes only what it may write
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network file systems refuse
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file. A reader sees the old content or the new one, whole. NaN and infinities become null."""
    with atomic(path) as stream:
        stream.write((json.dumps(strict(content), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes().decode())  # twice as fast as `read_text`
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def last_json_line(path: Path) -> dict[str, Any]:
    """Return the last whole object of a file of JSON lines, without reading all of it; an empty one if none."""
    objects = read_json_lines(path, tail=TAIL)
    return objects[-1] if objects else {}


def read_json_lines(path: Path, tail: int | None = None) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines, or of its last `tail` bytes.

    Damaged lines are left out; a missing file has none.
    """
    objects = []
    with suppress(OSError), path.open("rb") as stream:
        if tail is not None:
            stream.seek(max(0, path.stat().st_size - tail))
        for line in stream:
            with suppress(ValueError, RecursionError):
                if isinstance(content := json.loads(line), dict):
                    objects.append(content)
    return objects


def json_lines_with(content: bytes, key: str) -> Iterator[dict[str, Any]]:
    """Find the objects of JSON lines that have a key that begins so, the last one first; only these are parsed.

    Damaged lines are left out.
    """
    text, end = f'"{key}'.encode(), len(content)
    while (place := content.rfind(text, 0, end)) >= 0:
        begin, newline = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
        with suppress(ValueError, RecursionError):
            line = json.loads(content[begin : newline if newline >= 0 else None])
            if isinstance(line, dict) and any(name.startswith(key) for name in line):
                yield line
        end = begin
