"""Fréchet (inception) distance between Gaussians that are fitted to the features of samples and of real images."""

from dataclasses import replace
from typing import Unpack

from torch import Tensor

from genexp.metrics import Subject, lower_is_better
from genexp.metrics.features import CovarianceSettings, FeatureSets, of_features, smallest_size, too_few
from genexp.score import Score
from genexp.threads import one_for_blas


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return ‖μ₁ − μ₂‖² + Tr(C₁ + C₂ − 2(C₁C₂)^½) of two sets of features, (n, d) and (m, d); in float64.

    The covariances are the unbiased ones, as in the authors' code. The distance is biased upwards, and more so for
    smaller sets. Source: Heusel et al. 2017, equation 6.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # seconds to import

    with one_for_blas():
        statistics = [fid_features_to_statistics(vectors.cpu().double()) for vectors in (x, y)]
        return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


@lower_is_better
@of_features(too_few(2, "one image has no covariance"))
def fid(subject: Subject, **settings: Unpack[CovarianceSettings]) -> Score:
    """Return the distance of the samples from a split; lower is better.

    It is FID as published only with features=inception. `floor` is the distance of training images from the split.
    `warning` is set if there are too few images to fit a Gaussian to the features.
    """
    sets = FeatureSets(subject, settings)
    points = sets.points.vectors
    distance = frechet_distance(sets.samples.vectors, points)
    score = sets.score(distance, None, frechet_distance(sets.floor.vectors, points))
    n, dim = smallest_size(subject.data, settings), points.shape[1]
    if n > dim:
        return score
    return replace(
        score,
        warning=f"{n:,} images are too few for a Gaussian of {dim:,} features: its covariance is singular, "
        "and the distance much too large",
    )
