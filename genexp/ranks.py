"""Which one this process is of those that torchrun started to train one run together. It does not import torch."""

import os


def size() -> int:
    """Return the number of processes that train together; 1 for a process that was started alone."""
    return max(1, _number("WORLD_SIZE", 1))


def rank() -> int:
    """Return the number of this process among them, from 0; the one of rank 0 leads the others."""
    return _number("RANK", 0) if size() > 1 else 0


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise
