"""Networks that turn images into features, and Inception, with weights that are given."""

import hashlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from genexp.errors import UsageError

INCEPTION_CHUNK = 50  # images at a time: each becomes 299×299 and hundreds of maps of that


class Features(NamedTuple):
    """What a network sees in n images."""

    vectors: Tensor  # (n, d) float32, its last hidden layer
    logits: Tensor  # (n, classes) float32


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features; `name` identifies its weights."""

    name: str
    accuracy: float | None  # the share, in [0, 1], of test images that it classifies rightly; None if it is not known
    network: Callable[[Tensor], tuple[Tensor, Tensor]]  # (n, C, H, W) float32 in [0, 1] -> vectors, logits
    chunk: int  # images at a time: fixed, so that the features of an image are always the same

    def __call__(self, images: Tensor) -> Features:
        """The features of (n, C, H, W) float32 images in [0, 1], on their device."""
        return self.of(len(images), images.__getitem__)

    def of(self, n: int, images: Callable[[slice], Tensor]) -> Features:
        """The features of images 0 to n − 1, of which `images` gives those asked for: all would take gigabytes."""
        with torch.no_grad(), exact_convolutions():
            parts = [self.network(images(slice(i, min(i + self.chunk, n)))) for i in range(0, n, self.chunk)]
        vectors, logits = zip(*parts, strict=True)
        return Features(torch.cat(vectors).float(), torch.cat(logits).float())


def exact_convolutions() -> AbstractContextManager[object]:
    """Within it an NVIDIA device convolves in float32, not in the shorter TF32, and the same way each time."""
    flags: AbstractContextManager[object] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return flags


def inception(file: Path, device: torch.device) -> Extractor:
    """torch-fidelity's port of the Inception network that IS, FID and KID are defined by, with the weights in `file`.

    Its features are the 2048 of the last pooling, its logits those without biases. Grey images are repeated to three
    channels, and all are rounded to eight bits. The name holds the first 8 digits of the file's SHA-256, as the name
    of the original file does. Raises UsageError when the file is missing, unsafe to load, or of another network.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"weights={file} cannot be read: {error.strerror}") from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a file of something else raises whatever its bytes lead to
        raise UsageError(
            f"weights={file} is damaged, or holds more than tensors, which would be unsafe to load\n"
            "Take the original file, or save the state dict of one that you trust by torch.save"
        ) from error

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # takes seconds to import

    checked = io.BytesIO()  # torch-fidelity loads what it is given without care: these are the tensors and no more
    torch.save(state, checked)
    checked.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights before it reads them
            network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], checked).to(device)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"weights={file} holds the weights of another network than torch-fidelity's Inception"
        ) from error

    def see(images: Tensor) -> tuple[Tensor, Tensor]:
        colour = images.expand(-1, 3, -1, -1)
        vectors, logits = network((255 * colour).round().to(torch.uint8))
        return vectors, logits

    name = f"inception-{hashlib.sha256(content).hexdigest()[:8]}"
    return Extractor(name, None, see, INCEPTION_CHUNK)
