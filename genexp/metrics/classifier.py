"""A classifier for each data set, whose features are compared: trained once, reproducibly, and cached on the disk."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genexp import rng
from genexp.alive import doing
from genexp.data import DataSet
from genexp.metrics.extractors import Extractor, Features, exact_convolutions
from genexp.storage.checkpoint import write
from genexp.storage.derived import derived
from genexp.storage.files import cache_folder

# The recipe: another recipe makes another classifier, in another cache file.
VERSION = 2  # raise it when a change of the code below changes the classifier
CHANNELS = (16, 32)
FEATURES = 64
STEPS = 2500  # five epochs of MNIST
BATCH_SIZE = 100
LR = 3e-3
WEIGHT_DECAY = 0.05

SEED = 0  # of the initial weights and the minibatches, whatever the run's seed is
CHUNK = 500  # images classified at a time


class Classifier(nn.Module):
    """Two convolutions and two layers, like LeNet-5 (LeCun et al. 1998), for images of any size."""

    scale: Tensor  # makes the mean square of the training images' features 1, which suits KID's kernel

    def __init__(self, shape: torch.Size, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        first, second = CHANNELS
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(second * -(-height // 4) * -(-width // 4), FEATURES)
        self.output = nn.Linear(FEATURES, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, FEATURES), never negative, and logits (n, classes) of images (n, C, H, W) in [0, 1]."""
        features = torch.relu(self.hidden(self.convolutions(images)))
        return features * self.scale, self.output(features)


def classifier(data: DataSet) -> Extractor:
    """Return the classifier of a data set as an extractor, which is named by the hash of its weights.

    It is trained on the training images and labels the first time, then read from a cache file.
    """
    data = replace(data, second=None).drawn(SEED)  # it knows nothing of a second data set, nor of a score's seed
    file = cache_folder("classifiers") / f"{data.digest()}-{recipe_digest()}.pt"

    def train() -> dict[str, Any]:
        print(f"training a classifier of this data set for its features, once; kept in {file.parent}", flush=True)
        with doing("training the classifier"):
            network = train_classifier(data)
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        logits, labels = _features(network, data, "test").logits, data.labels["test"]
        accuracy = (logits.argmax(1) == labels)[labels >= 0].cpu().double().mean().item()
        return {"weights": weights, "sha256": _sha256(weights), "accuracy": accuracy}

    state = derived(file, read=_read, make=train, write=write, what="the classifier")
    network = _untrained(data)
    network.load_state_dict(state["weights"])
    network = network.to(data.device).eval()
    return Extractor(f"classifier-{state['sha256'][:8]}", state["accuracy"], network, CHUNK)


def recipe_digest() -> str:
    """Return 8 hexadecimal digits that identify the recipe. Its names and their order are part of the digest."""
    recipe = {
        "version": VERSION,
        "channels": CHANNELS,
        "features": FEATURES,
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "lr": LR,
        "weight_decay": WEIGHT_DECAY,
    }
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:8]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()  # sums depend on the number of threads
def train_classifier(data: DataSet) -> Classifier:
    """Train a classifier by the recipe and return it; the result is always the same on the same device.

    Learning rates follow the one-cycle schedule (Smith and Topin 2018). Default generators are left as they were.
    """
    device = data.device
    network = _untrained(data).to(device)
    network.to(memory_format=torch.channels_last)  # a fifth faster on processors
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
    labelled = (data.labels["train"] >= 0).nonzero()[:, 0]
    size = min(BATCH_SIZE, len(labelled))
    with torch.enable_grad(), exact_convolutions():
        for step in range(STEPS):
            epoch, batch = divmod(step, len(labelled) // size)  # full minibatches only
            if batch == 0:
                generator = rng.generator(torch.device("cpu"), SEED, "classifier's batches", epoch)
                order = torch.randperm(len(labelled), generator=generator)
            rows = labelled[order[batch * size : (batch + 1) * size]]
            loss = F.cross_entropy(network(data.images("train", rows))[1], data.labels["train"][rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.scale /= _features(network, data, "train").vectors.square().mean().sqrt()
    return network


def _features(network: Classifier, data: DataSet, split: str) -> Features:
    return Extractor("", None, network, CHUNK).of_split(data, split)


def _untrained(data: DataSet) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        rng.reseed(torch.device("cpu"), SEED, "classifier")
        return Classifier(data.train.shape[1:], int(data.labels["train"].max()) + 1)


def _read(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    if _sha256(state["weights"]) != state["sha256"] or not 0 <= state["accuracy"] <= 1:
        raise ValueError("its weights do not match their hash")
    return state


def _sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
