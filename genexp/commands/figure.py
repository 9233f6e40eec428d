"""`genexp figure`: a figure of a run's samples or codes, or of its curves."""

from pathlib import Path
from typing import Any

from genexp import rng
from genexp.config.schema import FigureConfig
from genexp.errors import UsageError
from genexp.figures import kinds
from genexp.figures.curves import curves, save_figure
from genexp.figures.pictures import Picture, save_picture
from genexp.runs.directory import is_export, read_config
from genexp.storage.files import read_json_lines, refuse_if_moved, writing
from genexp.training.reopen import Trained, reopen

WIDTH = 800  # pixels; a narrower picture is enlarged by a whole factor to at most this width
CURVE_SUFFIXES = (".svg", ".png")
REMEDY = "Set out=FILE to another place"


def main(config: FigureConfig) -> dict[str, Any]:
    """Draw the figure `kind` into `out`, or into figures/ in the run directory; print where it is."""
    run_dir = Path(config.run).expanduser()
    out = Path(config.out).expanduser() if config.out is not None else None
    suffixes = CURVE_SUFFIXES if config.kind == "curves" else (".png",)
    if out is not None and out.suffix not in suffixes:
        formats = " or ".join(f"FILE{suffix}" for suffix in suffixes)
        raise UsageError(f"out={out}: kind={config.kind} is written as {formats}")
    files = _write_curves(run_dir, out) if config.kind == "curves" else [_write_picture(config, run_dir, out)]
    for file in files:
        print(f"figure: {file}")
    print(f"run: {run_dir}", flush=True)
    return {"scores": {}, "run": str(run_dir)}


def _write_curves(run_dir: Path, out: Path | None) -> list[Path]:
    """Draw the curves of a run without loading its model; return the files."""
    if is_export(run_dir):
        raise UsageError(f"kind=curves: {run_dir} is an export, which has no curves; draw those of the run")
    files = [out] if out is not None else [run_dir / "figures" / f"curves{suffix}" for suffix in CURVE_SUFFIXES]
    config = read_config(run_dir)
    splits = {name: str(metric["split"]) for name, metric in config.metrics.items() if "split" in metric}
    title = f"{config.name} on {config.dataset['name']}, seed {config.seed}"
    figure = curves(read_json_lines(run_dir / "metrics.jsonl"), title, splits)
    for file in files:
        with writing(file, REMEDY):
            save_figure(figure, file)
    return files


def _write_picture(config: FigureConfig, run_dir: Path, out: Path | None) -> Path:
    """Draw any other kind from the run's model and data; return the file."""
    trained = reopen(config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    picture = _picture(config, trained)
    file = out or run_dir / "figures" / _name(config, trained)
    with writing(file, REMEDY):
        if out is None:
            refuse_if_moved(run_dir, trained.place)
        save_picture(picture, file)
    return file


def _name(config: FigureConfig, trained: Trained) -> str:
    """Return a file name that contains all settings of the figure."""
    kind = f"manifold-{config.method}" if config.kind == "manifold" else config.kind
    settings = [f"{config.rows}x{config.columns}", f"step{trained.step}", f"seed{config.seed}", *trained.changes()]
    return "-".join([kind, *settings]) + ".png"


def _picture(config: FigureConfig, trained: Trained) -> Picture:
    generator = rng.generator(trained.data.train.device, config.seed, "figure")
    draw_kind = getattr(kinds, config.kind)  # each kind has a function of its name
    settings = {"method": config.method} if config.kind == "manifold" else {}
    picture: Picture = draw_kind(trained.model, trained.data, generator, config.rows, config.columns, **settings)
    factor = max(1, WIDTH // picture.shape[1])
    return picture.repeat(factor, 0).repeat(factor, 1)
