"""`genexp figure`: a figure of a run, of its samples, its codes, or the course of its training."""

from pathlib import Path
from typing import Any

from genexp import rng
from genexp.config.schema import FigureConfig
from genexp.errors import GenexpError, UsageError
from genexp.figures import kinds as figures
from genexp.figures.pictures import Picture
from genexp.runs.directory import is_export, read_config
from genexp.storage.files import read_json_lines, refuse_if_moved
from genexp.training.logs import save_picture
from genexp.training.reopen import Trained, reopen

WIDTH = 800  # pixels that a grid should have; small images are enlarged by a whole factor

SUFFIXES = {"curves": (".svg", ".png")}  # of what can be drawn at any size


def main(config: FigureConfig) -> dict[str, Any]:
    """Draw what `kind` says into `out`, or below figures/ in the run's directory; print where it is."""
    path = Path(config.run).expanduser()
    suffixes = SUFFIXES.get(config.kind, (".png",))
    out = Path(config.out).expanduser() if config.out is not None else None
    if out is not None and out.suffix not in suffixes:
        raise UsageError(f"out={out}: kind={config.kind} is written as {' or '.join(f'FILE{one}' for one in suffixes)}")
    try:
        if config.kind == "curves":
            if is_export(path):
                raise UsageError(f"kind=curves: {path} is an export, which keeps no curves; draw those of the run")
            files = [out] if out is not None else [path / "figures" / f"curves{suffix}" for suffix in suffixes]
            kept = read_config(path)
            splits = {name: str(metric["split"]) for name, metric in kept.metrics.items() if "split" in metric}
            title = f"{kept.name} on {kept.dataset['name']}, seed {kept.seed}"
            figure = figures.curves(read_json_lines(path / "metrics.jsonl"), title, splits)
            for file in files:
                figures.save_figure(figure, file)
        else:
            trained = reopen(config)
            print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
            files = [out or path / "figures" / _name(config, trained)]
            picture = _picture(config, trained)
            if out is None:
                refuse_if_moved(path, trained.place)
            save_picture(picture, files[0])
    except OSError as error:
        where = out or path / "figures"
        raise GenexpError(f"{where} cannot be written: {error.strerror}\nSet out=FILE to another place") from error
    for file in files:
        print(f"figure: {file}")
    print(f"run: {path}", flush=True)
    return {"scores": {}, "run": str(path)}


def _name(config: FigureConfig, trained: Trained) -> str:
    """A file's name that other settings do not have."""
    parts = [config.kind, *([config.method] if config.kind == "manifold" else []), f"{config.rows}x{config.columns}"]
    return "-".join([*parts, f"step{trained.step}", f"seed{config.seed}", *trained.changes()]) + ".png"


def _picture(config: FigureConfig, trained: Trained) -> Picture:
    generator = rng.generator(trained.data.train.device, config.seed, "figure")
    subject = (trained.model, trained.data, generator, config.rows, config.columns)
    match config.kind:
        case "samples":
            picture = figures.samples(*subject)
        case "neighbours":
            picture = figures.neighbours(*subject)
        case "interpolation":
            picture = figures.interpolation(*subject)
        case "reconstructions":
            picture = figures.reconstructions(*subject)
        case _:
            picture = figures.manifold(*subject, config.method)
    enlarged = max(1, WIDTH // picture.shape[1])
    return picture.repeat(enlarged, 0).repeat(enlarged, 1)
