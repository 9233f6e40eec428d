"""Methods of a trained model, applied to images and codes; log p(x) of each image."""

from typing import Any

import torch
from torch import Tensor

from genexp import rng
from genexp.errors import UsageError
from genexp.metrics.ais import HasPartition
from genexp.metrics.bounds import ROWS, HasPosterior, importance_weighted
from genexp.models import Asking, evaluating
from genexp.models.samplers import CHUNK
from genexp.training.reopen import Trained


def applied(trained: Trained, name: str, **given: Tensor) -> Tensor:
    """Return what the model's method `name` gives for the tensors, (n, …) each, on the CPU.

    Raises UsageError if the model has no such method, if the method needs labels, or for a label of no class.
    """
    _check_labels(trained, given)
    method = getattr(trained.model, name, None)
    if method is None:
        raise UsageError(f"model={trained.config.model['name']} has no method to {name}")
    asking, n = Asking(method, next(iter(given))), len(next(iter(given.values())))
    parts = []
    with evaluating(trained.model):
        for start in range(0, max(n, 1), CHUNK):
            part = {key: tensor[start : start + CHUNK].to(trained.model.device) for key, tensor in given.items()}
            answer: Tensor = asking(part)
            parts.append(answer.float().cpu())
    return torch.cat(parts)


def log_prob(trained: Trained, images: Tensor, *, k: int = 50, seed: int = 0, **labels: Any) -> Tensor:
    """Return log p(x) of each image, (n,) float64, in nats.

    Of a model with a posterior, such as the vae, it is the importance-weighted bound with k draws (Burda et al. 2016).
    Of a Boltzmann machine it rests on the log Z of the run's `ais` score. Others have none: UsageError.
    """
    _check_labels(trained, labels)
    model = trained.model
    if not isinstance(model, HasPosterior | HasPartition):
        raise UsageError(f"model={trained.config.model['name']} gives no log p(x), not even a bound of it")
    log_z = 0.0 if isinstance(model, HasPosterior) else _log_z(trained)
    batch = {name: tensor.to(model.device) for name, tensor in {"images": images, **labels}.items()}
    rows, found = max(1, ROWS // k), []
    with evaluating(model):
        for start in range(0, len(images), rows):
            generator = rng.generator(model.device, seed, "iwae", start)
            part = {name: tensor[start : start + rows] for name, tensor in batch.items()}
            if isinstance(model, HasPosterior):
                found.append(importance_weighted(model, part, k, generator))
            else:
                found.append(model.log_unnormalized(part["images"], generator).double() - log_z)
    return torch.cat(found).cpu()


def _check_labels(trained: Trained, given: dict[str, Any]) -> None:
    n, labels = len(trained.data.class_names()), given.get("labels")
    if labels is not None and not bool(((labels >= -1) & (labels < n)).all()):
        raise UsageError(f"labels are the numbers of classes, from 0 to {n - 1}, or -1 for none")


def _log_z(trained: Trained) -> float:
    """Return log Z of the newest `ais` score of the run at this checkpoint."""
    for kept in reversed(trained.run.evaluations().values()):
        if kept.metric == "ais" and kept.step == trained.step:
            return float(kept.score.details["log_z"])
    remedy = f"genexp evaluate run={trained.run.path} metric@metrics.ais=ais"
    raise UsageError(f"log p(x) needs log Z, and no ais score of this checkpoint is there: {remedy}")
