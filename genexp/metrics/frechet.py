"""Fréchet (inception) distance: between Gaussians fitted to the features of samples and of real images."""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from genexp.metrics import Subject, lower_is_better
from genexp.metrics.features import FeatureSettings, compared, fewest, of_features
from genexp.score import Score


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """‖μ₁ − μ₂‖² + Tr(C₁ + C₂ − 2(C₁C₂)^½) of two sets of features, (n, d) and (m, d); in float64.

    The covariances are the unbiased ones, as in the authors' code. The distance is biased upwards, the more the fewer
    there are of either. Source: Heusel et al. 2017, equation 6.
    """
    from threadpoolctl import threadpool_limits
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # seconds to import

    with threadpool_limits(torch.get_num_threads()):  # NumPy would take all cores, whatever device.threads says
        fitted = [fid_features_to_statistics(vectors.cpu().double()) for vectors in (one, other)]
        distance: float = fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"]
    return distance


@lower_is_better
@of_features()
def fid(subject: Subject, **settings: Unpack[FeatureSettings]) -> Score:
    """The distance of the model's samples from a split; lower is better.

    It is FID proper with Inception's features alone. `floor` is the distance of training images from the split.
    `warning` is there when there are too few images to fit a Gaussian to the features.
    """
    seen = compared(subject, settings)
    points = seen.points.vectors
    distance = frechet_distance(seen.samples.vectors, points)
    score = seen.score(distance, None, frechet_distance(seen.floor.vectors, points))
    least, size = fewest(subject.data, settings), points.shape[1]
    if least <= size:
        return replace(
            score,
            warning=f"{least:,} images are too few for a Gaussian of {size:,} features: its covariance is singular, "
            "and the distance much too large",
        )
    return score
