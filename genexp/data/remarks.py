"""Remarks on a data set before training: mistakes in it, copies across splits, hardly any contrast."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from genexp.data import CHUNK, SPLITS, DataSet

LEAST_RANGE = 0.3  # between the least and the largest value of training images, of the range from black to white
LEAST_STD = 0.05  # of the values of training images
SPLIT_PAIRS = (("test", "train"), ("valid", "train"), ("test", "valid"))
TITLES = {"train": "training", "valid": "validation", "test": "test"}


def remarks(data: DataSet, has_white: bool) -> Iterator[str]:
    """Yield a sentence for each thing that makes scores of these images misleading; none for points.

    `has_white` says that the data set has a setting for the value of white.
    """
    if data.bounds is not None:
        return
    for (split, other), n in copies(data).items():
        ours, theirs = (f"{TITLES[name]} images" for name in (split, other))
        total = len(getattr(data, split))
        yield f"{n:,} of {total:,} {ours} are copies of {theirs}, equal in each value; scores of copies flatter a model"
    low, high = (end.item() / data.white for end in data.train.aminmax())
    std = (data.train[:CHUNK].float() / data.white).std(correction=0).item()
    if high - low < LEAST_RANGE or std < LEAST_STD:
        remedy = "; if white has another value in the files, set dataset.white, as to 4095 for 12 bits"
        yield (
            f"the training images have almost no contrast: values from {low:.3f} to {high:.3f}, standard deviation "
            f"{std:.3f}, where 0 is black and 1 is white{remedy if has_white else ''}"
        )


def mistake(data: DataSet) -> str | None:
    """Return what is wrong with the data set, for data sets from outside; None if nothing is."""
    ndim = 4 if data.bounds is None else 2
    for split in SPLITS:
        images: Tensor = getattr(data, split)
        if images.ndim != ndim or images.shape[1:] != data.train.shape[1:] or not len(images):
            expected = "(N, C, H, W), N ≥ 1" if ndim == 4 else "(N, d), N ≥ 1, since there are bounds"
            return f"its {split} split has the shape {tuple(images.shape)}; it should be {expected}, as train"
        low, high = (end.item() for end in images.aminmax())
        if not 0 <= low <= high <= data.white:  # NaN is not
            return f"its {split} split has values from {low:g} to {high:g}; they should be in [0, {data.white}]"
        labels = data.labels.get(split)
        if labels is None:
            continue
        if labels.shape != (len(images),) or labels.is_floating_point() or labels.dtype == torch.bool:
            return f"its {split} labels should be ({len(images)},) int64, not {tuple(labels.shape)} {labels.dtype}"
        last = len(data.class_names()) - 1
        outside = labels[(labels < -1) | (labels > last)]
        if len(outside):
            return f"its {split} labels have {int(outside[0])}, which is no class: 0 to {last}, or −1 for none"
    return None


def copies(data: DataSet) -> dict[tuple[str, str], int]:
    """Return how many images of a split are in another split, too, equal in each value; pairs without any are left out.

    Validation images that a data set puts behind its training images on request are not counted.
    """
    of_split = {split: _hashes(getattr(data, split)) for split in TITLES}
    counts: dict[tuple[str, str], int] = {}
    for split, other in SPLIT_PAIRS:
        ours, theirs = of_split[split], of_split[other]
        theirs_as_set = set(theirs)
        n = sum(image in theirs_as_set for image in ours)
        if n and (split, theirs[-len(ours) :]) != ("valid", ours):
            counts[split, other] = n
    return counts


def _hashes(images: Tensor) -> list[bytes]:
    """Return a hash of each of (N, C, H, W) images."""
    rows: list[bytes] = []
    for chunk in torch.split(images.flatten(1), CHUNK):
        rows += [hashlib.blake2b(image.data, digest_size=16).digest() for image in chunk.cpu().contiguous().numpy()]
    return rows
