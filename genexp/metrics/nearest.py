"""The training images nearest to samples, which show if a model has memorized its training set."""

import torch
from torch import Tensor

from genexp.data import DataSet

BLOCK = 2**22  # pixel values of a split that are converted at a time: 16 MiB of float32
CANDIDATES = 8  # images nearest in float32, which are compared again in float64


def nearest(images: Tensor, data: DataSet, split: str = "train") -> tuple[Tensor, Tensor]:
    """Return the row of the nearest image of the split, (n,) int64, and its distance, (n,) float32, for each image.

    images: (n, C, H, W) in [0, 1], on the data's device; so are both results. The distance is ‖x − μ‖ over all values.
    If several images are equally near, one of them is returned.

    All images of the split are compared by ‖μ‖² − 2xᵀμ, the squared distance less ‖x‖², in float32, after the mean of
    `images` is subtracted from both. Rounding may change the order, so float64 decides between the CANDIDATES nearest.
    """
    x = images.flatten(1)
    mean = x.mean(0)
    x = x - mean
    closest = torch.empty(len(x), 0, device=x.device)
    rows = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    step = max(1, BLOCK // x.shape[1])
    for first in range(0, len(getattr(data, split)), step):
        block = data.images(split, slice(first, first + step)).flatten(1) - mean
        d2 = torch.addmm(block.square().sum(1), x, block.T, alpha=-2)
        closest_in_block, places = d2.topk(min(CANDIDATES, len(block)), largest=False)
        closest = torch.cat([closest, closest_in_block], 1)
        rows = torch.cat([rows, places + first], 1)
        closest, places = closest.topk(min(CANDIDATES, closest.shape[1]), largest=False)
        rows = rows.gather(1, places)

    candidates = data.images(split, rows).flatten(2).cpu().double()  # on the CPU, since mps has no float64
    distances, places = (candidates - images.flatten(1).cpu().double()[:, None]).norm(dim=2).min(1)
    return rows.gather(1, places[:, None].to(rows.device))[:, 0], distances.float().to(images.device)
