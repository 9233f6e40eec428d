"""`genexp sample`: draw samples of a run into a file."""

from pathlib import Path
from typing import Any

import numpy as np

from genexp import rng
from genexp.config.schema import SampleConfig
from genexp.errors import GenexpError, UsageError
from genexp.figures import pictures
from genexp.models import draw
from genexp.storage.files import atomic, refuse_if_moved
from genexp.training.logs import save_picture
from genexp.training.reopen import reopen


def main(config: SampleConfig) -> dict[str, Any]:
    """Write n samples, float32 in [0, 1], (n, C, H, W), as `samples` in a .npz file, and a grid of the first as .png.

    They follow from the run, its checkpoint, `n` and `seed` alone. Returns where they are.
    """
    out = Path(config.out).expanduser() if config.out is not None else None
    if out is not None and out.suffix not in (".npz", ".png"):
        raise UsageError(f"out={out}: samples are written as FILE.npz (with a grid as FILE.png), or FILE.png alone")
    trained = reopen(config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    name = "-".join([f"samples-step{trained.step}-n{config.n}-seed{config.seed}", *trained.changes()])
    device = trained.data.train.device
    samples = draw(trained.model, config.n, rng.generator(device, config.seed, "samples"), trained.data)
    try:
        if out is None:
            refuse_if_moved(trained.path, trained.place)
            out = trained.path / f"{name}.npz"
        archived = out.suffix == ".npz"
        if archived:
            with atomic(out) as stream:
                np.savez(
                    stream,
                    samples=samples.float().cpu().numpy(),
                    step=trained.step,
                    seed=config.seed,
                    sample_kind=trained.model.sample_kind,
                )
            kind = {"draw": "draws", "mean": "means"}[trained.model.sample_kind]
            print(f"samples: {out} ({config.n:,} {kind}, {' × '.join(map(str, samples.shape[1:]))}, in [0, 1])")
        out = picture = out.with_suffix(".png")
        few = pictures.TILES if trained.data.mixture is None else pictures.POINTS
        shown = samples[:few] if archived else samples
        save_picture(pictures.of_drawn(shown, trained.data), picture)
        print(f"picture: {picture}")
    except OSError as error:
        where = out or trained.path
        raise GenexpError(f"{where} cannot be written: {error.strerror}\nSet out=FILE.npz to another place") from error
    print(f"run: {trained.path}", flush=True)
    return {"scores": {}, "run": str(trained.path)}
