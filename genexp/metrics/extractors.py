"""Networks that turn images into features, and Inception, whose weights the user provides."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genexp.data import DataSet
from genexp.errors import UsageError

# A context in which an NVIDIA device convolves reproducibly, in float32 and not in TF32.
exact_convolutions = partial(torch.backends.cudnn.flags, enabled=True, deterministic=True, allow_tf32=False)
INCEPTION_CHUNK = 50  # images at a time: each one becomes 299×299 pixels and hundreds of maps of that size


class Features(NamedTuple):
    """The outputs of a network for n images."""

    vectors: Tensor  # (n, d) float32, the last hidden layer
    logits: Tensor  # (n, classes) float32


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features; `name` identifies its weights."""

    name: str
    accuracy: float | None  # the share, in [0, 1], of test images that it classifies correctly; None if unknown
    network: Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, C, H, W) float32 in [0, 1] -> vectors, logits
    chunk: int  # images at a time; it is fixed, so that an image always has the same features

    def __call__(self, images: Tensor) -> Features:
        """Return the features of (n, C, H, W) float32 images in [0, 1], on their device."""
        return self._in_chunks(len(images), images.__getitem__)

    def of_split(self, data: DataSet, split: str, rows: Tensor | None = None) -> Features:
        """Return the features of a split, or of some of its rows."""
        if rows is None:
            return self._in_chunks(len(getattr(data, split)), lambda chunk: data.images(split, chunk))
        return self._in_chunks(len(rows), lambda chunk: data.images(split, rows[chunk]))

    def _in_chunks(self, n: int, images: Callable[[slice], Tensor]) -> Features:
        """Return the features of n images. `images` returns a chunk of them, since all would take gigabytes."""
        with torch.no_grad(), exact_convolutions():
            parts = [self.network(images(slice(i, i + self.chunk))) for i in range(0, n, self.chunk)]
        vectors, logits = zip(*parts, strict=True)
        return Features(torch.cat(vectors).float(), torch.cat(logits).float())


def inception(file: Path, device: torch.device) -> Extractor:
    """Return the Inception network of `_inception`, loaded once until the file changes. Raises its UsageErrors."""
    try:
        changed = file.stat().st_mtime_ns
    except OSError as error:
        raise UsageError(f"weights={file} cannot be read: {error.strerror}") from error
    return _inception(file, device, changed)


@lru_cache(maxsize=1)
def _inception(file: Path, device: torch.device, _changed: int) -> Extractor:
    """Return the Inception network that defines IS, FID and KID, as ported by torch-fidelity, with weights from `file`.

    Its features are the 2048 of the last pooling; its logits are without biases. Grey images are repeated to three
    channels, and pixels are rounded to eight bits. The name holds the first 8 digits of the file's SHA-256, like the
    name of the original file. Raises UsageError if the file is missing, unsafe to load, or of another network.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"weights={file} cannot be read: {error.strerror}") from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types of error for a file of something else
        raise UsageError(
            f"weights={file} is damaged, or holds more than tensors, which would be unsafe to load\n"
            "Take the original file, or save the state dict of one that you trust by torch.save"
        ) from error

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # takes seconds to import

    tensors_only = io.BytesIO()  # torch-fidelity would execute code in a file, so it gets the tensors alone
    torch.save(state, tensors_only)
    tensors_only.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # it draws initial weights before it loads the given ones
            network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], tensors_only).to(device)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(f"weights={file} holds weights of another network than torch-fidelity's Inception") from error

    def extract(images: Tensor) -> tuple[Tensor, Tensor]:
        vectors, logits = network((255 * images).round().to(torch.uint8).expand(-1, 3, -1, -1))
        return vectors, logits

    name = f"inception-{hashlib.sha256(content).hexdigest()[:8]}"
    return Extractor(name, None, extract, INCEPTION_CHUNK)
