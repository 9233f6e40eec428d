"""`genexp figure`: a figure of a run's samples or codes, or of its curves."""

from pathlib import Path
from typing import Any

from genexp import rng
from genexp.config.command_line import CommandLine
from genexp.config.commands import FigureConfig
from genexp.errors import UsageError
from genexp.figures import kinds
from genexp.figures.canvas import Picture, save_picture
from genexp.figures.curves import curves, marks_of, save_figure
from genexp.report.runs import curves_of
from genexp.rundirs.directory import Run
from genexp.rundirs.find import state_of
from genexp.rundirs.names import common_folder
from genexp.storage.files import read_json_lines, writing
from genexp.training.reopen import Trained, label_of, reopen

CURVE_SUFFIXES = (".svg", ".png")
OF_A_CLASS = ("samples", "neighbours", "interpolation", "manifold")  # kinds that draw or decode under a label
REMEDY = "Set out=FILE to another place"


def main(config: FigureConfig, _line: CommandLine, run: Run) -> None:
    """Draw the figure `kind` into `out`, or into figures/ in the run directory; print where it is."""
    out = _out(config)
    if config.kind == "curves":
        _write_curves(run, [out] if out is not None else [run.figures / f"curves{suffix}" for suffix in CURVE_SUFFIXES])
    else:
        _write_picture(config, run, out)
    print(f"run: {run.path}", flush=True)


def _out(config: FigureConfig) -> Path | None:
    """Return the file that the figure is asked to be written to. Raises UsageError if it could not be."""
    out = Path(config.out).expanduser() if config.out is not None else None
    suffixes = CURVE_SUFFIXES if config.kind == "curves" else (".png",)
    if out is not None and out.suffix not in suffixes:
        formats = " or ".join(f"FILE{suffix}" for suffix in suffixes)
        raise UsageError(f"out={out}: kind={config.kind} is written as {formats}")
    if config.kind == "curves" and config.label is not None:
        raise UsageError(f"label={config.label}: kind=curves shows no images; leave it out")
    return out


def lay_over(config: FigureConfig, runs: list[Run]) -> None:
    """Draw the curves of several runs over each other: those that differ in their seeds alone as a line in a band."""
    out = _out(config)
    figure, notes = curves_of([state_of(run) for run in runs])
    if figure is None:
        raise UsageError("kind=curves: nothing is logged yet")
    folder = common_folder([run.path for run in runs])
    for file in [out] if out is not None else [folder / f"curves{suffix}" for suffix in CURVE_SUFFIXES]:
        with writing(file, REMEDY):
            save_figure(figure, file)
        print(f"figure: {file}")
    print("\n".join(notes), flush=True)


def _write_curves(run: Run, files: list[Path]) -> None:
    """Draw the curves of a run without loading its model."""
    if run.is_export:
        raise UsageError(f"kind=curves: {run.path} is an export, which has no curves; draw those of the run")
    config = run.config
    splits = {name: str(metric["split"]) for name, metric in config.metrics.items() if "split" in metric}
    title = f"{config.name} on {config.dataset['name']}, seed {config.seed}"
    lines = read_json_lines(run.metrics_file)
    figure = curves(lines, title, splits, marks_of(run, lines))
    for file in files:
        with writing(file, REMEDY):
            save_figure(figure, file)
        print(f"figure: {file}")


def _write_picture(config: FigureConfig, run: Run, out: Path | None) -> None:
    """Draw any other kind from the run's model and data."""
    trained = reopen(run, config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    label = label_of(config.label, trained)
    picture = _picture(config, trained, label)
    kind = kinds.code_space(trained.model, trained.data, config.method) if config.kind == "manifold" else config.kind
    shape = f"{config.rows}x{config.columns}"
    of_class = [] if label is None else [f"label{label}"]
    settings = [kind, shape, f"step{trained.step}", f"seed{config.seed}", *of_class, *trained.changes()]
    file = out or run.figures / f"{'-'.join(settings)}.png"
    with writing(file, REMEDY):
        if out is None:
            run.refuse_if_moved()
        save_picture(picture, file, trained.caption(kind))
    print(f"figure: {file}")


def _picture(config: FigureConfig, trained: Trained, label: int | None) -> Picture:
    generator = rng.generator(trained.data.device, config.seed, "figure")
    draw_kind = getattr(kinds, config.kind)  # each kind has a function of its name
    settings: dict[str, Any] = {"method": config.method} if config.kind == "manifold" else {}
    if label is not None:
        if config.kind not in OF_A_CLASS:
            raise UsageError(f"label={config.label}: kind={config.kind} shows images of all classes; leave it out")
        settings["label"] = label
    picture: Picture = draw_kind(trained.model, trained.data, generator, config.rows, config.columns, **settings)
    return picture
