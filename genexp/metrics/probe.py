"""Errors of simple classifiers on a model's codes, from few labels and from all: how much the codes are worth."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from genexp import rng
from genexp.data import DataSet
from genexp.errors import UsageError
from genexp.metrics import GivenSamples, Subject, lower_is_better, of_models, requires
from genexp.models import HasDiscriminator, Model, evaluating
from genexp.models.samplers import CHUNK
from genexp.ranges import AtLeastTwo, PositiveInt, Split
from genexp.score import Score
from genexp.text import with_error
from genexp.threads import one_for_blas

Array = np.ndarray[Any, Any]
FEW = 100  # labels of the smallest set
ITERATIONS = 300  # of the linear classifier's optimizer


@runtime_checkable
class Encodes(Protocol):
    """A model with an encoder."""

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes, (n, d), of images."""


def _refusal(model: Model | GivenSamples, data: DataSet, settings: Mapping[str, Any]) -> str | None:
    if isinstance(model, Model) and model.conditional:
        return "it asks what codes say of the labels, and a conditional model is given them"
    split = settings["split"]
    if any(name not in data.labels or bool((data.labels[name] < 0).any()) for name in ("train", split)):
        return "it needs a label of each image, and this data set has none"
    if int(data.labels["train"].min()) == int(data.labels["train"].max()):
        return "it tells classes apart, and all images are of one"
    return None


@dataclass(frozen=True)
class Errors:
    """The errors of a classifier over draws of its labelled images."""

    mean: float
    spread: float | None  # standard deviation; None of one draw

    def __str__(self) -> str:
        return with_error(100 * self.mean, None if self.spread is None else 100 * self.spread)


@lower_is_better
@of_models(Encodes, "it probes codes, and this model has no encoder")
@requires(_refusal)
def probe(
    subject: Subject, *, split: Split, n_labels: PositiveInt, draws: AtLeastTwo, neighbours: PositiveInt
) -> Score:
    """Return the share of a split's images that a linear classifier on the codes gets wrong, with `n_labels` labels.

    It is multinomial logistic regression on standardised codes, on `draws` random sets of training images. The
    summary's ± are standard deviations over these sets. Beside it stand the errors with 100 labels and with all, those
    of the `neighbours` nearest neighbours, and as yardsticks those of the pixels, and of as many principal components
    as a code has dimensions: `linear_codes_100`, `nearest_pixels_all` and so on, each with its `_spread`.
    """
    model = subject.model
    assert isinstance(model, Encodes)
    return _probed(subject, model.encode, split, n_labels, draws, neighbours)


@lower_is_better
@of_models(HasDiscriminator, "it probes a discriminator, and this model has none")
@requires(_refusal)
def discriminator_probe(
    subject: Subject, *, split: Split, n_labels: PositiveInt, draws: AtLeastTwo, neighbours: PositiveInt
) -> Score:
    """Return the same as `probe` of what the discriminator's last layer is given: its last hidden layer, flat."""
    model = subject.model
    assert isinstance(model, Model)
    return _probed(subject, partial(_last_hidden, model), split, n_labels, draws, neighbours)


def _last_hidden(model: Model, images: Tensor) -> Tensor:
    """Return what the last layer that `logits` calls is given, for images (n, C, H, W).

    Raises UsageError if that calls no linear layer and no convolution.
    """
    assert isinstance(model, HasDiscriminator)
    given: list[Tensor] = []  # to each layer, in the order of the calls

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0])

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                hooks.callback(module.register_forward_pre_hook(keep).remove)
        model.logits(images)
    if not given:
        raise UsageError(f"{type(model).__name__}: its discriminator has no nn.Linear or nn.Conv2d to be probed")
    return given[-1]


def _probed(
    subject: Subject,
    encode: Callable[[Tensor], Tensor],
    split: Split,
    n_labels: PositiveInt,
    draws: AtLeastTwo,
    neighbours: PositiveInt,
) -> Score:
    model, data = subject.model, subject.data
    assert isinstance(model, Model)
    train, test = (_flat(data.images(name)) for name in ("train", split))
    labels, wanted = (data.labels[name].cpu().numpy() for name in ("train", split))
    with evaluating(model):
        codes, test_codes = _codes(encode, data, "train"), _codes(encode, data, split)
    components = min(codes.shape[1], train.shape[1])
    from sklearn.decomposition import PCA  # takes a second to import

    details: dict[str, Any] = {"n_points": len(wanted), "seed": subject.seed, "code_size": codes.shape[1]}
    with one_for_blas(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a classifier that has not converged is still one
        pca = PCA(components, svd_solver="covariance_eigh").fit(train)
        kinds = {"codes": (codes, test_codes), "pixels": (train, test)}
        kinds["pca"] = (pca.transform(train), pca.transform(test))
        found: dict[str, Errors] = {}
        for size, name in _sizes(len(labels), n_labels):
            rows = _draws(labels, size, draws if size < len(labels) else 1, subject.seed)
            for kind, (x, y) in kinds.items():
                for classifier, errors in _errors(x, labels, y, wanted, rows, neighbours).items():
                    key = f"{classifier}_{kind}_{name}"
                    found[key] = errors
                    details |= {key: errors.mean} | ({} if errors.spread is None else {f"{key}_spread": errors.spread})
    sizes = [name for _, name in _sizes(len(labels), n_labels)]
    own = str(n_labels) if str(n_labels) in sizes else "all"
    score = found[f"linear_codes_{own}"]
    others = ", ".join(f"{found[f'linear_codes_{name}']} % with {name}" for name in sizes if name != own)
    beside = {f"{neighbours} nearest": "nearest_codes", "pixels": "linear_pixels", "PCA": "linear_pca"}
    yardsticks = ", ".join(f"{name} {found[f'{key}_{own}']} %" for name, key in beside.items())
    summary = f"{score} % errors with {own} labels ({others}; {yardsticks})"
    stderr = None if score.spread is None else score.spread / draws**0.5
    return Score(score.mean, stderr, summary, split=split, details=details)


def _sizes(n: int, n_labels: int) -> list[tuple[int, str]]:
    """Return the numbers of labels, each below n once, and their names."""
    few = sorted({size for size in (FEW, n_labels) if size < n})
    return [*((size, str(size)) for size in few), (n, "all")]


def _codes(encode: Callable[[Tensor], Tensor], data: DataSet, split: str) -> Array:
    n = len(getattr(data, split))
    chunks = (data.images(split, slice(start, start + CHUNK)) for start in range(0, n, CHUNK))
    return np.concatenate([_flat(encode(images)) for images in chunks])


def _flat(values: Tensor) -> Array:
    flat: Array = values.flatten(1).float().cpu().numpy()
    return flat


def _draws(labels: Array, size: int, draws: int, seed: int) -> list[Array]:
    """Return the rows of random sets of labelled images, in which each class has at least one image if it can."""
    classes, rows = np.unique(labels), []
    for number in range(draws):
        generator = np.random.default_rng(rng.address(seed, "probe", number))
        order = generator.permutation(len(labels))
        firsts = [order[np.flatnonzero(labels[order] == each)[0]] for each in classes][:size]
        rest = order[~np.isin(order, firsts)][: size - len(firsts)]
        rows.append(np.concatenate([np.array(firsts, dtype=order.dtype), rest]))
    return rows


def _errors(x: Array, labels: Array, y: Array, wanted: Array, draws: list[Array], neighbours: int) -> dict[str, Errors]:
    """Return the errors of both classifiers, trained on each of the draws of rows of x, on all of y."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    errors: dict[str, list[float]] = {"linear": [], "nearest": []}
    for rows in draws:
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
        nearest = KNeighborsClassifier(min(neighbours, len(rows)), algorithm="brute")
        for name, classifier in (("linear", linear), ("nearest", nearest)):
            answers = classifier.fit(x[rows], labels[rows]).predict(y)
            errors[name].append(float((answers != wanted).mean()))
    return {
        name: Errors(float(np.mean(each)), float(np.std(each, ddof=1)) if len(each) > 1 else None)
        for name, each in errors.items()
    }
