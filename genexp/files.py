"""Files that are written whole or not at all, and JSON that may be missing or damaged."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import platformdirs


def cache_folder(kind: str) -> Path:
    """Where what can be computed again is kept: below GENEXP_CACHE_DIR, else below the user's folder for caches."""
    return Path(os.environ.get("GENEXP_CACHE_DIR") or platformdirs.user_cache_dir("genexp")).expanduser() / kind


PARTIAL = ".partial"  # how a file is called until it is complete, and what a killed process leaves behind


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in; it appears under `path` only once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def sync(path: Path) -> None:
    """Have the system put on the disk what it was given of a file, or the names in a folder."""
    if path.is_dir() and os.name == "nt":  # there folders cannot be opened, and names are safe
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, but for a line that was cut short; none, if it is missing."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        with suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]
