"""Checkpoints of a run: they are written whole or not at all, and loading them executes nothing.

A checkpoint is the zip archive that torch.save writes, with its SHA-256 as the archive's comment.
"""

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from genexp.errors import GenexpError
from genexp.storage.files import atomic
from genexp.text import first_line

KEEP = 2  # checkpoints of a run
COMMENT = len(b"sha256:") + 64  # bytes
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` steps; keep this checkpoint and the one before it, and delete the others.

    A later checkpoint is left where it could not be read and training resumed from an earlier one.
    """
    path = folder / f"step-{step:09d}.pt"
    write(path, state)
    earlier = [other for other in checkpoints(folder) if other.name < path.name]
    for other in set(checkpoints(folder)) - {path, *earlier[: KEEP - 1]}:
        other.unlink(missing_ok=True)
    return path


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state with its digest, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)  # into memory: torch's own error for a full disk does not name it
    archive = buffer.getbuffer()
    archive[-2:] = COMMENT.to_bytes(2, "little")  # a zip archive ends with its comment's length and the comment
    with atomic(path) as stream:
        stream.write(archive)
        stream.write(_comment(archive))


def load(path: Path) -> dict[str, Any]:
    """Return a state, on the CPU, without executing anything in the file.

    Raises GenexpError if the file cannot be read, or its digest is wrong.
    """
    try:
        content = memoryview(path.read_bytes())
        if content[-COMMENT:] != _comment(content[:-COMMENT]):
            raise ValueError("its digest is not that of its content")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it has no state")
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise GenexpError(f"{path} is damaged or cannot be read ({reason})") from error
    return state


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint files in a folder, newest first, without the best one."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def load_latest(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest undamaged checkpoint and its state, on the CPU; None if the folder has no checkpoint.

    Calls `warn` with a message for each damaged one. Raises GenexpError if all are damaged.
    """
    paths = checkpoints(folder)
    for path in paths:
        try:
            return path, load(path)
        except GenexpError as error:
            if not path.exists():  # another process trains the run, and has replaced this checkpoint by a newer one
                return load_latest(folder, warn)
            warn(f"{error}; the one before it is used")
    if paths:
        raise GenexpError(f"no checkpoint in {folder} can be read\nSet fresh=true to start over (the old run is kept)")
    return None


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Raise GenexpError if the state in `path`, which is loaded within it, does not fit the model."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise GenexpError(
            f"{path} holds the state of another model ({first_line(error).removesuffix(':')})\n"
            "Put the run's own checkpoint back, or train with fresh=true (the old run is kept)"
        ) from error


def _comment(archive: memoryview) -> bytes:
    return b"sha256:" + hashlib.sha256(archive).hexdigest().encode()
