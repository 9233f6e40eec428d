"""The training images that lie nearest to samples: whether a model has learned its data or learned them by heart."""

import torch
from torch import Tensor

from genexp.data import DataSet

BLOCK = 2**22  # values of a split converted at a time: 16 MiB of float32, however large an image is
CANDIDATES = 8  # nearest by a product in float32, of which the nearest is then found exactly


def nearest(images: Tensor, data: DataSet, split: str = "train") -> tuple[Tensor, Tensor]:
    """The row of the nearest image of the split, (n,) int64, and how far it is, (n,) float32, for each image.

    images: (n, C, H, W) in [0, 1], on the data's device, where the rows are, too. The distance is ‖x − μ‖ over all
    values; between images of a split and themselves it is 0. Several equally near images: one of them.

    Squared distances less ‖x‖² are ‖μ‖² − 2xᵀμ of data centred on the mean of `images`. What rounding may do to their
    order is mended by computing the CANDIDATES nearest ones directly, in float64.
    """
    x, size = images.flatten(1), images[0].numel()
    middle = x.mean(0)
    x = x - middle
    total = len(getattr(data, split))
    closest = torch.empty(len(x), 0, device=x.device)
    rows = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    step = max(1, BLOCK // size)
    for first in range(0, total, step):
        block = data.images(split, slice(first, first + step)).flatten(1) - middle
        d2 = torch.addmm(block.square().sum(1), x, block.T, alpha=-2)
        found, places = d2.topk(min(CANDIDATES, len(block)), largest=False)
        closest, rows = torch.cat([closest, found], 1), torch.cat([rows, places + first], 1)
        closest, kept = closest.topk(min(CANDIDATES, closest.shape[1]), largest=False)
        rows = rows.gather(1, kept)

    distances = torch.empty(len(x))
    winners = torch.empty(len(x), dtype=torch.int64)
    for index, (image, candidates) in enumerate(zip(images.cpu().double(), rows, strict=True)):  # float64: not on mps
        exact = (data.images(split, candidates).cpu().double() - image).flatten(1).norm(dim=1)
        distances[index], place = exact.min(0)
        winners[index] = candidates[place]
    return winners.to(images.device), distances.to(images.device)
