"""Weights as safetensors, which other programs read, too: tensors, metadata, and a digest of both.

Nothing in such a file is executed.
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
from genexp.text import first_line

DIGEST = "sha256"  # the key of the digest in the metadata; safetensors alone does not notice a changed bit


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata, whole or not at all. Tensors that share memory are written as copies."""
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = save(copies, metadata | {DIGEST: _digest(copies, metadata)})
    with atomic(path) as stream:
        stream.write(content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata.

    Raises GenexpError if the file cannot be read, or its digest is wrong.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        if metadata.pop(DIGEST, None) != _digest(tensors, metadata):
            raise ValueError("its digest is not that of its content")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise GenexpError(f"{path} is damaged or cannot be read ({first_line(error)})") from error
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
