"""The loss on validation images at an epoch's end, beside the loss in training."""

import torch

from genexp import rng
from genexp.data import DataSet
from genexp.models import Batch, Model, Stage
from genexp.models.samplers import CHUNK

SHARE = 20  # one validation image for so many training images: it takes 1 to 3 % of the epoch


def loss_on_validation(model: Model, stage: Stage, data: DataSet, seed: int, step: int) -> dict[str, float]:
    """Return the mean loss of validation images as `loss/valid`; nothing if no update of the stage `validates`.

    These are one image for SHARE training images, at equal distances in the split, the same each time, with the draws
    of (seed, step). It is the loss of the raw weights, in float32 and without dropout. Call it within `evaluating`.
    """
    updates = [update for update in stage.updates if update.validates]
    n = min(len(data.valid), max(1, len(data.train) // SHARE))
    if not updates:
        return {}
    rows = torch.arange(n, device=data.valid.device) * len(data.valid) // n
    rng.reseed(model.device, seed, "validation", step)
    total = torch.zeros((), device=model.device)
    for chunk in torch.split(rows, CHUNK):
        batch: Batch = data.batch("valid", chunk)
        if stage.codes is not None:
            batch["codes"] = stage.codes(batch["images"])
        for update in updates:
            try:
                losses = update.asking(batch).losses
            except RuntimeError:  # of a loss that itself takes gradients, which there are none of here
                return {}
            total += len(chunk) / n * torch.stack(list(losses.values())).sum()
    return {"loss/valid": total.item()}
