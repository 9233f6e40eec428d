"""Weights in a file that other programs read, too: safetensors, with what they are, and a digest of all of it.

Nothing that such a file contains is executed.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genexp.errors import GenexpError
from genexp.storage.files import atomic

DIGEST = "sha256"  # in the metadata, of all the rest: safetensors itself does not notice a changed bit


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors with what is to be known about them, whole or not at all; tied ones are written as copies."""
    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = save(apart, about | {DIGEST: _digest(apart, about)})
    with atomic(path) as stream:
        stream.write(content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and what is known about them.

    Raises GenexpError if the file cannot be read, or is not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if about.pop(DIGEST, None) != _digest(tensors, about):
            raise ValueError("its digest is not that of its content")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise GenexpError(f"{path} is damaged or cannot be read ({reason})") from error
    return tensors, about


def _digest(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
