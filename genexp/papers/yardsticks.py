"""Yardsticks of a Parzen score: images that no generative model made, scored in the same way.

The centroids of k-means score above the training images themselves, as Theis et al. 2016 show.
"""

import time
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from genexp import rng
from genexp.alive import doing
from genexp.config.components import Component
from genexp.data import DataSet
from genexp.metrics import GivenSamples, Subject
from genexp.score import Score
from genexp.threads import one_for_blas
from genexp.training import build

SEED = 0
ITERATIONS = 6  # of Lloyd's algorithm, from random training images; more change the score by a nat or two
IMAGES_PER_CENTROID = 5  # at least, on average


def score_yardsticks(data: DataSet, metric: Component) -> dict[str, Score]:
    """Return each yardstick's score by `metric`, a Parzen score; `seconds` in its details is the time that it took."""
    n = metric["n_samples"]
    yardsticks = {
        "training_images": (training_images, "draw"),
        "centroids": (centroids, "mean"),
        "mean_image": (mean_image, "mean"),
        "pixel_gaussian": (pixel_gaussian, "draw"),
    }
    scores = {}
    for name, (make, kind) in yardsticks.items():
        started = time.perf_counter()
        with doing(f"making the yardstick {name}"):
            images = make(data, n)
        adjusted = metric | {"n_samples": len(images)}
        score = build.score(name, adjusted, Subject(GivenSamples(images, kind), data, SEED))
        seconds = round(time.perf_counter() - started, 1)
        scores[name] = replace(score, details=score.details | {"seconds": seconds})
    return scores


def training_images(data: DataSet, n: int) -> Tensor:
    """Return n random training images without repetition; all of them if there are fewer."""
    order = torch.randperm(len(data.train), generator=rng.generator(torch.device("cpu"), SEED, "yardstick images"))
    return data.images("train", order[:n].to(data.device))


def centroids(data: DataSet, n: int) -> Tensor:
    """Return n centroids of k-means on all training images; fewer if there are too few images."""
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    k = min(n, len(data.train) // IMAGES_PER_CENTROID)
    images = data.images("train").flatten(1).cpu().numpy()
    with one_for_blas(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(k, init="random", n_init=1, max_iter=ITERATIONS, tol=0, random_state=SEED).fit(images)
    return torch.as_tensor(kmeans.cluster_centers_, device=data.device).view(-1, *data.train.shape[1:])


def mean_image(data: DataSet, n: int) -> Tensor:
    """Return the mean training image once: n copies of it would have the same density."""
    return data.spec().pixel_mean[None].to(data.device)


def pixel_gaussian(data: DataSet, n: int) -> Tensor:
    """Return n draws of the Gaussian with the mean and covariance of the training images, clipped to [0, 1]."""
    device = data.device
    images = data.images("train").flatten(1).double()
    mean = images.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(images.T))
    root = vectors * values.clamp(min=0).sqrt()  # some pixels never change, so there is no Cholesky factor
    generator = rng.generator(device, SEED, "yardstick gaussian")
    noise = torch.randn(n, len(mean), generator=generator, dtype=torch.float64, device=device)
    samples: Tensor = (mean + noise @ root.T).clamp(0, 1).float()
    return samples.view(n, *data.train.shape[1:])
