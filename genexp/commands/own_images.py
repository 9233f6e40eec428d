"""`genexp encode`, `reconstruct` and `denoise`, and `evaluate images=`: what a run's model makes of your own images."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genexp import rng
from genexp.config.command_line import CommandLine
from genexp.config.commands import DenoiseConfig, EvaluateConfig, OwnImagesConfig
from genexp.errors import UsageError
from genexp.figures.canvas import grid, labelled, save_picture
from genexp.figures.pictures import rows_of_versions
from genexp.metrics.ais import HasPartition
from genexp.metrics.bounds import HasPosterior
from genexp.models import Autoencoder, Reconstructs
from genexp.noise import unchanged
from genexp.rundirs.directory import Run
from genexp.storage.files import atomic, writing
from genexp.training.applied import applied, log_prob
from genexp.training.given import given_images
from genexp.training.reopen import Trained, label_of, reopen

REMEDY = "Set out=FILE to another place"
MADE = {"encode": "codes", "reconstruct": "reconstructions", "denoise": "denoised"}  # what each command makes
SHOWN, COLUMNS = 80, 10  # images in a picture at most, and in its rows
EXTREMES = 10  # of the least and of the most likely images in a picture


def main(config: OwnImagesConfig, line: CommandLine, run: Run) -> None:
    """Write what the model makes of the images into an .npz file, and a picture beside it; print the files.

    Raises UsageError for a model that cannot do it, before the images are read.
    """
    out = _out(config.out, ".npz")
    if config.images is None:
        raise UsageError(f"which images? genexp {line.command} run=PATH images=FOLDER, or an image file, or FILE.npz")
    trained = reopen(run, config)
    print(f"{trained}, {config.checkpoint} checkpoint", flush=True)
    _check(trained, line.command)
    names, images, labels = _given(config, trained)
    arrays: dict[str, Any] = {"names": np.array(names, dtype=np.str_), "step": trained.step}
    made = MADE[line.command]
    if line.command == "encode":
        arrays[made] = applied(trained, "encode", images=images, **labels).numpy()
    else:
        versions = [("images", images)]
        if isinstance(config, DenoiseConfig) and config.corrupt and isinstance(trained.model, Autoencoder):
            generator = rng.generator(torch.device("cpu"), config.seed, "own images")
            versions.append(("corrupted", trained.model.noise(images, generator)))
        versions.append((made, applied(trained, "reconstruct", images=versions[-1][1], **labels)))
        arrays |= {name: version.numpy() for name, version in versions}
    out = out or _beside(run, made, config.images, trained, ".npz")
    with writing(out, REMEDY), atomic(out) as stream:
        np.savez(stream, **arrays)
    print(f"{made}: {out} ({' × '.join(map(str, arrays[made].shape))})")
    if line.command != "encode" and trained.data.bounds is None:
        rows = {name: version[:SHOWN] for name, version in versions}
        _save(out, rows_of_versions(rows, min(COLUMNS, len(images))), trained, f"rows of {', '.join(rows)}")
    print(f"run: {run.path}", flush=True)


def score_each(config: EvaluateConfig, run: Run) -> None:
    """Write a line of CSV for each image, the least likely first, and a picture of the extremes; print the files.

    Each line has the log p(x) that the model gives, or a bound of it, in nats, and the mean squared difference of the
    pixels from those of the reconstruction. Raises UsageError for a model that gives neither.
    """
    out = _out(config.out, ".csv")
    trained = reopen(run, config)
    print(f"{trained}, {config.checkpoint} checkpoint", flush=True)
    has_density = isinstance(trained.model, HasPosterior | HasPartition)
    reconstructs = isinstance(trained.model, Reconstructs)
    if not has_density and not reconstructs:
        raise UsageError(f"{_named(trained)} gives no score of an image: it has no log p(x), and reconstructs none")
    names, images, labels = _given(config, trained)
    scores: dict[str, Tensor] = {}
    if has_density:
        scores["log_prob"] = log_prob(trained, images, seed=config.seed, **labels)
    if reconstructs:
        rebuilt = applied(trained, "reconstruct", images=images, **labels)
        scores["reconstruction_error"] = (images - rebuilt).square().flatten(1).mean(1).double()
    deciding = next(iter(scores))
    badness = -scores[deciding] if deciding == "log_prob" else scores[deciding]
    order = badness.nan_to_num(math.inf).argsort(descending=True, stable=True).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *scores])
    for row in order:
        values = [float(score[row]) for score in scores.values()]
        writer.writerow([names[row], *("" if not math.isfinite(value) else f"{value:.6g}" for value in values)])
    out = out or _beside(run, "scores", config.images, trained, ".csv")
    with writing(out, REMEDY), atomic(out) as stream:
        stream.write(text.getvalue().encode(errors="backslashreplace"))
    for name, score in scores.items():
        print(
            f"{name}: {score.mean().item():.4g} on average, from {score.min().item():.4g} to {score.max().item():.4g}"
        )
    print(f"scores: {out} (by {deciding}, the least likely first)")
    if trained.data.bounds is None:
        chosen = [*order[:EXTREMES], *order[-EXTREMES:]]
        picture = labelled(grid(images[chosen], min(EXTREMES, len(order))), ["least likely", "most likely"])
        _save(out, picture, trained, "the least likely, then the most likely")
    print(f"run: {run.path}", flush=True)


def _check(trained: Trained, command: str) -> None:
    """Raise UsageError for a model that cannot do what the command asks."""
    model = trained.model
    if command == "encode" and not hasattr(model, "encode"):
        raise UsageError(f"{_named(trained)} has no encoder; autoencoders and Boltzmann machines have one")
    if command != "encode" and not isinstance(model, Reconstructs):
        raise UsageError(f"{_named(trained)} reconstructs no images; autoencoders and Boltzmann machines do")
    if command == "denoise" and (not isinstance(model, Autoencoder) or model.noise is unchanged):
        raise UsageError(
            f"{trained.run.path} was not trained to remove noise, as model=dae is, or another with noise=gaussian\n"
            "`genexp reconstruct` gives what it makes of images"
        )


def _named(trained: Trained) -> str:
    return f"model={trained.config.model['name']}"


def _given(config: OwnImagesConfig, trained: Trained) -> tuple[list[str], Tensor, dict[str, Any]]:
    """Return the images' names, the images, and their label where one is given. Raises UsageError if one is missing."""
    assert config.images is not None
    label = label_of(config.label, trained)
    if trained.model.conditional and label is None:
        raise UsageError(f"{trained.run.path} was trained with labels: give label=CLASS, that of these images")
    names, images = given_images("images", config.images, trained.data, config.white, config.invert)
    return names, images, {} if label is None else {"labels": torch.full((len(images),), label)}


def _out(out: str | None, suffix: str) -> Path | None:
    file = Path(out).expanduser() if out is not None else None
    if file is not None and file.suffix != suffix:
        raise UsageError(f"out={out}: this is written as FILE{suffix}")
    return file


def _beside(run: Run, made: str, images: str | None, trained: Trained, suffix: str) -> Path:
    """Return a file in the run's directory, whose name says what it holds."""
    assert images is not None
    run.refuse_if_moved()
    parts = [made, Path(images).expanduser().absolute().stem, f"step{trained.step}", *trained.changes()]
    return run.path / f"{'-'.join(parts)}{suffix}"


def _save(out: Path, picture: Any, trained: Trained, what: str) -> None:
    """Write a picture beside a file."""
    file, title = out.with_suffix(".png"), f"{trained}: {what}"
    with writing(file, REMEDY):
        save_picture(picture, file, title)
    print(f"picture: {file} ({what})")
