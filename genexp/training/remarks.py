"""Remarks about a run's result that its scores alone do not make plain: a generator that gives one image, a still D."""

import math

import torch

from genexp import rng
from genexp.errors import GenexpError
from genexp.metrics import Subject
from genexp.models import LatentVariableModel
from genexp.rundirs.directory import Run
from genexp.storage.files import read_json_lines
from genexp.text import first_line

COMPARED = 100  # samples, and training images, whose distances from each other are compared
ALIKE = 0.1  # of the distance between training images: nearer than that, samples are nearly the same
STILL = 0.01  # from ½: a discriminator that goes no farther tells nothing


def remarks(subject: Subject, run: Run) -> list[str]:
    """Return what is conspicuous about a trained model, each with the figure that it rests on; most runs have none."""
    found = (_of_alike_samples(subject), _of_a_still_discriminator(run))
    return [remark for remark in found if remark is not None]


def _of_alike_samples(subject: Subject) -> str | None:
    data = subject.data
    generator = rng.generator(torch.device("cpu"), subject.seed, "compared images")
    rows = torch.randperm(len(data.train), generator=generator)[:COMPARED].to(data.device)
    between_images = _distance(data.images("train", rows))
    try:
        between_samples = _distance(subject.some_samples(COMPARED))
    except GenexpError as error:
        return first_line(error)
    if not between_samples < ALIKE * between_images:  # a single training image has no distance, NaN
        return None
    what = "image" if data.bounds is None else "point"
    same = f"nearly the same {what}"
    alike = f"the generator gives {same} for every code"
    if not isinstance(subject.model, LatentVariableModel):
        alike = f"all samples are {same}"
    return (
        f"{alike}: two samples are {between_samples:.3g} apart in the mean, two training {what}s {between_images:.3g}"
    )


def _distance(images: torch.Tensor) -> float:
    """Return the mean distance between two of (n, ...) images; NaN for a single one."""
    return torch.pdist(images.flatten(1).cpu()).mean().item()


def _of_a_still_discriminator(run: Run) -> str | None:
    """Return a remark if the discriminator's outputs, "D(x)" and the like in the run's log, never left ½."""
    seen: dict[str, list[float]] = {}
    for line in read_json_lines(run.metrics_file):
        for name, value in line.items():
            if name.startswith("D(") and isinstance(value, float):
                seen.setdefault(name, []).append(value)
    if not seen or any(not math.isclose(value, 0.5, abs_tol=STILL) for values in seen.values() for value in values):
        return None
    shown = ", ".join(f"{name} from {min(values):.4f} to {max(values):.4f}" for name, values in seen.items())
    return f"the discriminator stayed at ½ ({shown}): it told no difference, so the generator had nothing to learn from"
