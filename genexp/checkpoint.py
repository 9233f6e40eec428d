"""Checkpoints: written whole or not at all, loaded without executing anything, the newest readable one found."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genexp.errors import GenexpError
from genexp.files import atomic

KEEP = 2
BEST = "best.pt"  # beside the newest: the state with the best validation score of those that were scored
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


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
    """Write a state to one file, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)  # not to the file: torch turns a full disk into an error that does not say so
    with atomic(path) as stream:
        stream.write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """A state, on the CPU; nothing that the file contains is executed. Raises GenexpError if it cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise GenexpError(f"{path} cannot be read ({(str(error) or type(error).__name__).splitlines()[0]})") from error
    return state


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def load_latest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest readable state, on the CPU; None if there is no checkpoint.

    One that cannot be read is named to `warn`, and passed over. Raises GenexpError when there are some and none can.
    """
    paths = checkpoints(folder)
    for path in paths:
        try:
            return load(path)
        except GenexpError as error:
            warn(str(error))
    if paths:
        raise GenexpError(f"no checkpoint in {folder} can be read\nSet fresh=true to start over (the old run is kept)")
    return None
