"""The classifier of a data set: trained once, reproducibly, kept on the disk, and named by the hash of its weights."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import filelock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genexp import rng
from genexp.data import DataSet
from genexp.metrics.extractors import Extractor, exact_convolutions
from genexp.storage.checkpoint import write
from genexp.storage.files import cache_folder

SEED = 0  # the classifier's own: it is the same whatever the run's is
CHUNK = 500  # images that it sees at a time


@dataclass(frozen=True)
class Recipe:
    """How the classifier is made. Another recipe is another classifier, kept beside the first."""

    version: int = 2  # to be raised when the code below comes to mean something else
    channels: tuple[int, int] = (16, 32)
    features: int = 64
    steps: int = 2500  # five epochs of MNIST
    batch_size: int = 100
    lr: float = 3e-3
    weight_decay: float = 0.05

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


RECIPE = Recipe()


class Classifier(nn.Module):
    """Two convolutions and two layers, like LeNet-5 (LeCun et al. 1998), for images of any size."""

    scale: Tensor  # makes the mean square of the training images' features 1, about what KID's kernel is made for

    def __init__(self, shape: tuple[int, int, int], classes: int, recipe: Recipe) -> None:
        super().__init__()
        channels, height, width = shape
        first, second = recipe.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(second * -(-height // 4) * -(-width // 4), recipe.features)
        self.output = nn.Linear(recipe.features, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, recipe.features), never negative, and logits (n, classes), of images (n, C, H, W) in [0, 1]."""
        features = torch.relu(self.hidden(self.convolutions(images)))
        return features * self.scale, self.output(features)


def classifier(data: DataSet) -> Extractor:
    """The classifier of a data set: trained on its training images and labels the first time, then read from the disk.

    It is kept in a cache, under the digests of data and recipe; one process trains it, others wait.
    """
    file = cache_folder("classifiers") / f"{data.digest()}-{RECIPE.digest()}.pt"
    with _locked(file):
        kept = _read(file)
        if kept is None:
            print(f"training a classifier of this data set for its features, once; kept in {file.parent}", flush=True)
            network = train_classifier(data)
            weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            kept = {"weights": weights, "sha256": _sha256(weights), "accuracy": accuracy(network, data)}
            _keep(file, kept)
    network = _untrained(data)
    network.load_state_dict(kept["weights"])
    network = network.to(data.train.device).eval()
    return Extractor(f"classifier-{kept['sha256'][:8]}", kept["accuracy"], network, CHUNK)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def train_classifier(data: DataSet) -> Classifier:
    """A classifier trained by `RECIPE`, the same each time on the same device.

    On a processor one thread trains it, since sums depend on how many there are.

    Learning rates by the one-cycle schedule (Smith and Topin 2018). Default generators are left as they were.
    """
    device = data.train.device
    network = _untrained(data).to(device)
    network.to(memory_format=torch.channels_last)  # a fifth faster on processors
    optimizer = torch.optim.AdamW(network.parameters(), lr=RECIPE.lr, weight_decay=RECIPE.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE.lr, total_steps=RECIPE.steps)
    labelled = (data.labels["train"] >= 0).nonzero()[:, 0]
    with torch.enable_grad(), exact_convolutions():
        for batch in islice(_batches(len(labelled)), RECIPE.steps):
            rows = labelled[batch.to(device)]
            loss = F.cross_entropy(network(data.images("train", rows))[1], data.labels["train"][rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    vectors = Extractor("", None, network, CHUNK).of(len(data.train), lambda rows: data.images("train", rows)).vectors
    network.scale /= vectors.square().mean().sqrt()
    return network


def accuracy(network: Classifier, data: DataSet) -> float:
    """The share, in [0, 1], of the labelled test images that are classified rightly."""
    found = Extractor("", None, network, CHUNK).of(len(data.test), lambda rows: data.images("test", rows))
    labels = data.labels["test"]
    return (found.logits.argmax(1) == labels)[labels >= 0].cpu().double().mean().item()


def _untrained(data: DataSet) -> Classifier:
    channels, height, width = data.train.shape[1:]
    with torch.random.fork_rng(devices=[]):
        rng.reseed(torch.device("cpu"), SEED, "classifier")
        return Classifier((channels, height, width), int(data.labels["train"].max()) + 1, RECIPE)


def _batches(n: int) -> Iterator[Tensor]:
    """Rows of full batches, epoch after epoch, without end."""
    size = min(RECIPE.batch_size, n)
    for epoch in count():
        order = torch.randperm(n, generator=rng.generator(torch.device("cpu"), SEED, "classifier's batches", epoch))
        yield from order[: n // size * size].view(-1, size)


def _locked(file: Path) -> AbstractContextManager[object]:
    """The lock on a kept classifier; nothing where there can be no file to lock."""
    lock = filelock.FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that trains a classifier in {file.parent}", flush=True)
        return lock.acquire()
    except OSError:
        return nullcontext()


def _read(file: Path) -> dict[str, Any] | None:
    """What is kept in the file, if it is there and whole."""
    try:
        kept: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if _sha256(kept["weights"]) != kept["sha256"] or not 0 <= kept["accuracy"] <= 1:
            raise ValueError("its hash is another")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"warning: {file} is damaged ({reason}); its classifier is trained again", flush=True)
        return None
    return kept


def _keep(file: Path, kept: dict[str, Any]) -> None:
    try:
        write(file, kept)
    except OSError as error:
        print(
            f"warning: {file.parent}: {error.strerror}; the classifier is not kept, and trained each time", flush=True
        )


def _sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
