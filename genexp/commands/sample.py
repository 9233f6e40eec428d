"""`genexp sample`: samples of a run in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genexp import rng
from genexp.config.command_line import CommandLine
from genexp.config.commands import SampleConfig
from genexp.errors import UsageError
from genexp.figures.canvas import save_picture
from genexp.figures.pictures import TILES, of_drawn
from genexp.figures.points import POINTS
from genexp.models import draw
from genexp.rundirs.directory import Run
from genexp.storage.files import atomic, writing
from genexp.text import count
from genexp.training.reopen import Trained, label_of, reopen

REMEDY = "Set out=FILE.npz to another place"


def main(config: SampleConfig, _line: CommandLine, run: Run) -> None:
    """Draw n samples into an .npz file with a picture of the first ones beside it, or into a .png file alone.

    The samples depend on the run, its checkpoint, `n`, `label` and `seed` alone. Prints the files.
    """
    out = Path(config.out).expanduser() if config.out is not None else None
    if out is not None and out.suffix not in (".npz", ".png"):
        raise UsageError(f"out={out}: samples are written as FILE.npz (with a picture, FILE.png), or FILE.png alone")
    trained = reopen(run, config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    label = label_of(config.label, trained)
    samples = samples_of(trained, config.n, config.seed, label)
    if out is None:
        run.refuse_if_moved()
        of_class = [] if label is None else [f"label{label}"]
        settings = [f"step{trained.step}", f"n{config.n}", f"seed{config.seed}", *of_class, *trained.changes()]
        out = run.path / f"samples-{'-'.join(settings)}.npz"
    if out.suffix == ".npz":
        sample_kind = trained.model.sample_kind
        array = samples.float().cpu().numpy()  # (n, C, H, W), in [0, 1]
        with writing(out, REMEDY), atomic(out) as stream:
            about: dict[str, Any] = {"step": trained.step, "seed": config.seed, "sample_kind": sample_kind}
            about |= {} if label is None else {"label": label, "class_name": trained.data.class_names()[label]}
            np.savez(stream, samples=array, **about)
        shape = " × ".join(map(str, samples.shape[1:]))
        print(f"samples: {out} ({count(len(samples), sample_kind)}, {shape}, in [0, 1])")
        samples = samples[: TILES if trained.data.bounds is None else POINTS]
    picture_file = out.with_suffix(".png")
    with writing(picture_file, REMEDY):
        save_picture(of_drawn(samples, trained.data, model=trained.model), picture_file, trained.caption("samples"))
    print(f"picture: {picture_file}")
    print(f"run: {run.path}", flush=True)


def samples_of(trained: Trained, n: int, seed: int, label: int | None = None) -> Tensor:
    """Return n samples, (n, C, H, W) in [0, 1], of a class if the model is conditional and `label` is given."""
    generator = rng.generator(trained.data.device, seed, "samples")
    labels = None if label is None else torch.full((n,), label, device=generator.device)
    return draw(trained.model, n, generator, trained.data, labels)
