"""What a Parzen score is to be held against: samples that come from no generative model, scored in the same way.

That the centroids of k-means score above the training images themselves is the point of Theis et al. 2016.
"""

import time
import warnings
from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.config.schema import Component
from genexp.data import DataSet
from genexp.metrics import Subject
from genexp.training import build

SEED = 0
ITERATIONS = 6  # of Lloyd's algorithm, from random training images; more move the score by a nat or two
IMAGES_PER_CENTROID = 5  # at least, on average


class Images(Subject):
    """Images that are scored as if a model had drawn them."""

    def __init__(self, images: Tensor, kind: str, data: DataSet) -> None:
        self.images, self.kind, self.data, self.seed = images, kind, data, SEED
        self._made = {}
        self.model = None  # type: ignore[assignment]  # there is none, and scores of samples do not ask for it

    @property
    def sample_kind(self) -> str:
        return self.kind

    def samples(self, n: int) -> Tensor:
        return self.images[:n]


def score_yardsticks(data: DataSet, metric: Component) -> dict[str, dict[str, Any]]:
    """Score each yardstick by `metric`, a Parzen score; `seconds` beside each score is what it took."""
    n = metric["n_samples"]
    made = {
        "training_images": (training_images, "draw"),
        "centroids": (centroids, "mean"),
        "mean_image": (mean_image, "mean"),
        "pixel_gaussian": (pixel_gaussian, "draw"),
    }
    scores = {}
    for name, (make, kind) in made.items():
        started = time.perf_counter()
        images = make(data, n)
        adjusted = metric | {"n_samples": len(images)}
        scores[name] = build.take(name, adjusted, Images(images, kind, data)).to_json()
        scores[name]["seconds"] = round(time.perf_counter() - started, 1)
    return scores


def training_images(data: DataSet, n: int) -> Tensor:
    """n training images without repetition, or all of them."""
    order = torch.randperm(len(data.train), generator=rng.generator(torch.device("cpu"), SEED, "yardstick images"))
    return data.images("train", order[:n].to(data.train.device))


def centroids(data: DataSet, n: int) -> Tensor:
    """The centroids of k-means on all training images, n of them unless the images are too few."""
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    k = min(n, len(data.train) // IMAGES_PER_CENTROID)
    images = data.images("train").flatten(1).cpu().numpy()
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, init="random", n_init=1, max_iter=ITERATIONS, tol=0, random_state=SEED).fit(images)
    return torch.as_tensor(found.cluster_centers_, device=data.train.device).view(-1, *data.train.shape[1:])


def mean_image(data: DataSet, n: int) -> Tensor:
    """The mean training image: one, which is the same density as n times the same."""
    return data.spec().pixel_mean[None].to(data.train.device)


def pixel_gaussian(data: DataSet, n: int) -> Tensor:
    """n draws of the Gaussian with the mean and covariance of the training images' pixels, cut to [0, 1]."""
    device = data.train.device
    images = data.images("train").flatten(1).double()
    mean = images.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(images.T))
    root = vectors * values.clamp(min=0).sqrt()  # some pixels never change, so there is no Cholesky factor
    generator = rng.generator(device, SEED, "yardstick gaussian")
    noise = torch.randn(n, len(mean), generator=generator, dtype=torch.float64, device=device)
    drawn: Tensor = (mean + noise @ root.T).clamp(0, 1).float()
    return drawn.view(n, *data.train.shape[1:])
