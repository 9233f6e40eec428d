"""Checkpoints: written whole or not at all, loaded without executing anything, the newest undamaged one found.

A checkpoint is the zip archive that torch.save makes, with a SHA-256 of itself as the archive's comment.
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

KEEP = 2
BEST = "best.pt"  # beside the newest: the state with the best validation score of those that were scored
COMMENT = len(b"sha256:") + 64
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` steps; keep it and the newest before it.

    What lies after it goes too: a checkpoint that could not be read, and that training has gone back behind.
    """
    path = folder / f"step-{step:09d}.pt"
    write(path, state)
    earlier = [other for other in checkpoints(folder) if other.name < path.name]
    for other in set(checkpoints(folder)) - {path, *earlier[: KEEP - 1]}:
        other.unlink(missing_ok=True)
    return path


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state to one file with its digest, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)  # not to the file: torch turns a full disk into an error that does not say so
    archive = buffer.getbuffer()
    archive[-2:] = COMMENT.to_bytes(2, "little")  # a zip archive ends in its comment, and in the length of that before
    with atomic(path) as stream:
        stream.write(archive)
        stream.write(_comment(archive))


def load(path: Path) -> dict[str, Any]:
    """A state, on the CPU; nothing that the file contains is executed.

    Raises GenexpError if the file cannot be read, or is not as it was written.
    """
    try:
        content = memoryview(path.read_bytes())
        if content[-COMMENT:] != _comment(content[:-COMMENT]):
            raise ValueError("its digest is not that of its content")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds no state")
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) else (str(error) or type(error).__name__).splitlines()[0]
        raise GenexpError(f"{path} is damaged or cannot be read ({reason})") from error
    return state


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def load_latest(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint and its state, on the CPU; None if there is none.

    One that is damaged is named to `warn`, and passed over. Raises GenexpError when there are some and all are.
    """
    paths = checkpoints(folder)
    for path in paths:
        try:
            return path, load(path)
        except GenexpError as error:
            if not path.exists():  # who trains the run has made a newer one, and taken this one away
                return load_latest(folder, warn)
            warn(f"{error}; the one before it is taken")
    if paths:
        raise GenexpError(f"no checkpoint in {folder} can be read\nSet fresh=true to start over (the old run is kept)")
    return None


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Within it, the state in `path` is given to a model. Raises GenexpError when it is of something else."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0].removesuffix(":")
        raise GenexpError(
            f"{path} holds the state of another model ({said})\n"
            "Put the run's own checkpoint back, or train with fresh=true (the old run is kept)"
        ) from error


def _comment(archive: memoryview) -> bytes:
    return b"sha256:" + hashlib.sha256(archive).hexdigest().encode()
