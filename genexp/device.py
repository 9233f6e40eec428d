"""The device that a run computes on, its CPU threads, and the precision of its matrix products."""

import inspect
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from genexp.errors import UsageError
from genexp.text import count

ALL_THREADS = torch.get_num_threads()  # read before a run of this process sets its own number


def select(kind: str, threads: int | None) -> torch.device:
    """Set the number of CPU threads and return the device. Raises UsageError if this machine has none of this kind."""
    torch.set_num_threads(threads or ALL_THREADS)
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name in kinds if kinds[name]]
    if kind == "auto":
        kind = available[0]
    if kind not in available:
        raise UsageError(
            f"device={kind}: this machine has no {kind.upper()} device that torch can use; "
            f"use device=auto or device={available[0]}"
        )
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 in convolutions, too, as it is in products
    torch.backends.cudnn.deterministic = True
    return torch.device(kind, 0) if kind != "cpu" else torch.device("cpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which matrix products run in `precision`, each weight cast once, and all else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def never_compiled(function: Callable[..., Any]) -> None:
    """Have a function that torch wraps for `torch.compile` not import torch._dynamo, which takes a second.

    torch looks for what to call under this name first. A torch that has another name imports the module, and all else
    is as before.
    """
    plain = inspect.unwrap(function)
    setattr(plain, "__dynamo_disable", plain)


def why_not_in_memory(n: int, shape: Sequence[int]) -> str | None:
    """Return why n float32 samples of a shape cannot be held in this machine's memory; None if they can."""
    needed, there = 4 * n * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed <= there:
        return None
    return (
        f"{count(n, 'sample')} take {needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f} GiB of memory"
    )
