"""The curves of a run, drawn from its metrics.jsonl with matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf, isfinite, lcm
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Any

from genexp.config.components import lower_is_better
from genexp.errors import UsageError
from genexp.figures.canvas import style
from genexp.rundirs.directory import Run
from genexp.score import sort_key
from genexp.storage.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """The title and the y axis of a group of curves."""

    title: str
    unit: str = ""  # the y axis's label
    log: bool = False  # a logarithmic axis, if the largest value is more than SPAN times the smallest
    limits: tuple[float | None, float | None] = (None, None)


SPAN = 10
PANELS: dict[str, Panel] = {  # in this order; other groups come behind, each titled with its own name
    "loss": Panel("losses", "nats"),
    "reconstruction": Panel("reconstruction error", "nats"),
    "kl": Panel("divergence of the posterior from the prior", "nats"),
    "penalty": Panel("penalty"),
    "beta": Panel("weight of the divergence", limits=(0, None)),
    "active_dims": Panel("dimensions of the code in use", "dimensions", limits=(0, None)),
    "free_energy": Panel("mean free energy of images", "nats"),
    "pseudo_likelihood": Panel("pseudo-likelihood of validation images", "nats"),
    "last_step": Panel("loss of the last step of the walk", "nats"),
    "D": Panel("discriminator's output", "probability of being data", limits=(0, 1)),
    "error_rate": Panel("discriminator's errors", "share of images", limits=(0, None)),
    "cycle": Panel("cycle term", "mean difference", limits=(0, None)),
    "identity": Panel("identity term", "mean difference", limits=(0, None)),
    "adversarial": Panel("generators' adversarial term", limits=(0, None)),
    "grad_norm": Panel("gradients", "ℓ₂ norm", log=True),
    "lr": Panel("learning rate", "step size", log=True, limits=(0, None)),
    "momentum": Panel("momentum", "coefficient", limits=(0, 1)),
    "images_per_second": Panel("speed", "training images per second", limits=(0, None)),
    "valid": Panel("scores on validation images"),
    "score/parzen": Panel("Parzen-window log-likelihood", "nats"),
    "score/elbo": Panel("lower bound of the log-likelihood", "nats"),
    "score/iwae": Panel("importance-weighted bound", "nats"),
    "score/kl": Panel("divergence from the true density", "nats", limits=(0, None)),
    "score/js": Panel("Jensen–Shannon divergence", "nats", limits=(0, None)),
    "score/translation_error": Panel("error of translations", "share of white", limits=(0, None)),
    "score/translation_accuracy": Panel("accuracy of translations", "share", limits=(0, 1)),
    "score/modes": Panel("modes captured", "modes", limits=(0, None)),
    "score/high_quality": Panel("samples of high quality", "share of samples", limits=(0, 1)),
}
Series = dict[str, list[tuple[float, float]]]  # a curve's name -> its points (step, value)
POSITION = ("step", "epoch", "time", "stage")  # keys of a line that are not curves
SETTINGS = ("lr", "momentum", "beta")  # that many runs never change
STYLES = ("-", "--", ":", "-.")  # curves that coincide stay visible
FEW = 10  # a curve of this many points or fewer has a marker at each


@dataclass(frozen=True)
class Marks:
    """Steps of a run that are marked in each panel."""

    sessions: tuple[int, ...] = ()  # where a later session of training began
    best: int | None = None  # of the best checkpoint
    best_by: str = ""  # the score that chose it


def marks_of(run: Run, lines: Sequence[Mapping[str, Any]]) -> Marks:
    """Return what is marked in the curves of a run, from its provenance and the `lines` of its metrics.jsonl."""
    sessions = tuple(int(session["from_step"]) for session in run.sessions()[1:])
    metrics, wanted = run.config.metrics, run.config.checkpoint.keep_best
    names = [name for name in metrics if any(f"valid/{name}" in line for line in lines) and wanted in (None, name)]
    if not names or not run.best_file.exists():
        return Marks(sessions)
    lower, key = lower_is_better(metrics[names[0]]), f"valid/{names[0]}"
    best = min(lines, key=lambda line: sort_key(line[key], lower) if key in line else inf)
    return Marks(sessions, best["step"], names[0])


def curves(
    lines: Sequence[Mapping[str, float]],
    title: str,
    splits: Mapping[str, str] | None = None,
    marks: Marks = Marks(),
) -> "Figure":
    """Draw the lines of a run's metrics.jsonl over epochs, a panel for each group of values.

    `splits` maps a score's name to the split of its images. Until an epoch is complete, the x axis is in steps. Left
    out are values that are not finite, and means over less than half of the usual number of steps, which are noisier
    than the others. Settings that never change are told in words below the panels, where `marks` are explained, too.
    Raises UsageError if there is no value.
    """
    from matplotlib.figure import Figure

    lines = [line for line in lines if _is_logged(line)]
    panels = series_of(lines)
    if not panels:
        raise UsageError("kind=curves: nothing logged yet: the run has just begun, or failed at once")
    epoch_lengths = [line["step"] / line["epoch"] for line in lines if line["epoch"] > 0]  # exact at an epoch's end
    unit = "epoch" if epoch_lengths else "step"
    steps_per_unit = min(epoch_lengths, default=1)

    constant = {group: series for group, series in panels.items() if _is_constant(group, series)}
    if len(constant) < len(panels):
        panels = {group: series for group, series in panels.items() if group not in constant}
    columns = min(3, len(panels))
    rows = ceil(len(panels) / columns)
    in_last = len(panels) - columns * (rows - 1)
    figure = Figure(figsize=(4.4 * columns, 0.6 + 2.9 * rows), dpi=120, layout="constrained")
    figure.suptitle(title)
    figure.supxlabel(_notes(constant, marks), fontsize="small", color="0.4")
    cells = figure.add_gridspec(rows, lcm(columns, in_last))
    end = 1.02 * max(line["step"] for line in lines) / steps_per_unit  # with room for the last marker
    for index, (group, series) in enumerate(panels.items()):
        row, column = divmod(index, columns)
        width = cells.ncols // (in_last if row == rows - 1 else columns)  # the last row leaves no cell empty
        axes = figure.add_subplot(cells[row, column * width : (column + 1) * width], xlabel=unit, xlim=(0, end))
        for step in marks.sessions:
            axes.axvline(step / steps_per_unit, color="0.7", linewidth=1.2, zorder=1)
        if marks.best is not None:
            axes.axvline(marks.best / steps_per_unit, color="tab:green", linewidth=1.2, linestyle="--", zorder=1)
        _draw_panel(axes, group, series, steps_per_unit, (splits or {}).get(group.removeprefix("score/")))
        for name, step in _stages(lines).items():
            axes.axvline(step / steps_per_unit, color="0.6", linewidth=0.8, linestyle=":")
            axes.text(
                step / steps_per_unit,
                1,
                f" {name}",
                transform=axes.get_xaxis_transform(),
                fontsize="x-small",
                rotation=90,
                verticalalignment="top",
                color="0.4",
            )
    return figure


def _is_constant(group: str, series: Series) -> bool:
    """Return True if no curve of a setting or a speed ever changes; losses and scores always have a panel."""
    return group in SETTINGS and all(len(points) > 1 and len({y for _, y in points}) == 1 for points in series.values())


def _notes(constant: Mapping[str, Series], marks: Marks) -> str:
    """Return what is said below the panels."""
    values: list[str] = []
    for group, series in constant.items():
        of_players = "" if list(series) == [group] else f"{group} of "
        values += [f"{of_players}{name} {points[0][1]:g}" for name, points in series.items()]
    notes = [f"constant: {', '.join(values)}"] if values else []
    if marks.sessions:
        notes.append("grey line: a later session began")
    if marks.best is not None:
        notes.append(f"green line: the best checkpoint, by {marks.best_by} on validation images")
    return "\n".join(notes)


def thinned(lines: Sequence[Mapping[str, Any]], most: int = 1000) -> list[Mapping[str, Any]]:
    """Return about `most` lines, evenly spaced, and all that hold a score: a page shows no more points than that."""
    every = max(1, len(lines) // most)
    last = len(lines) - 1
    return [
        line
        for number, line in enumerate(lines)
        if number % every == 0 or number == last or any(name.startswith("score/") for name in line)
    ]


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as .svg or .png, by the path's suffix; the same figure gives the same bytes."""
    from matplotlib import rc_context

    undated = {"Date": None} if path.suffix == ".svg" else {}
    with rc_context({"svg.hashsalt": "genexp"}), atomic(path) as stream:
        figure.savefig(stream, format=path.suffix.removeprefix("."), metadata=undated)


def _is_logged(line: Mapping[str, Any]) -> bool:
    """Return True if a line has the form that training writes; a damaged file may hold others."""
    numbers = [value for name, value in line.items() if name != "stage"]
    return all(isinstance(value, int | float) for value in numbers) and {"step", "epoch"} <= line.keys()


def _stages(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the step at which each stage begins, by the stage's name; nothing for a run of one stage."""
    begins: dict[str, int] = {}
    for before, line in pairwise([{"step": 0}, *lines]):
        if isinstance(line.get("stage"), str):
            begins.setdefault(line["stage"], before["step"])
    return begins


def series_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Return the finite values by group, in the order of PANELS; of a line soon after another one, only the scores.

    Each score is a group of its own, because scores differ in their units. `loss/generator` is the curve "generator" of
    the group "loss", and `D(x)` is a curve of the group "D". Any other name is both group and curve.
    """
    lines = [line for line in lines if _is_logged(line)]
    panels: dict[str, Series] = {}
    steps = [0, *(line["step"] for line in lines)]
    widths = [after - before for before, after in pairwise(steps)]
    usual_width = median_high(widths or [0])
    for width, line in zip(widths, lines, strict=True):
        for name, value in line.items():
            group, slash, curve = name.partition("/")
            is_short_mean = 2 * width < usual_width and group != "score"
            if name in POSITION or not isfinite(value) or is_short_mean:
                continue
            if group == "score":
                score, _, weights = curve.partition("/")  # score/parzen/raw is beside score/parzen
                group, curve = f"score/{score}", weights or f"score/{score}"
            elif not slash:
                group, curve = name.partition("(")[0], name
            panels.setdefault(group, {}).setdefault(curve, []).append((line["step"], value))
    return {group: panels[group] for group in [*PANELS, *panels] if group in panels}


def _draw_panel(axes: "Axes", group: str, series: Series, steps_per_unit: float, split: str | None) -> None:
    panel = PANELS.get(group, Panel(group.removeprefix("score/")))
    values = [value for points in series.values() for _, value in points]
    for index, (name, points) in enumerate(series.items()):
        x, y = [step / steps_per_unit for step, _ in points], [value for _, value in points]
        marker = "o" if group.startswith("score/") or len(points) <= FEW else ""
        line_style = STYLES[index % len(STYLES)]
        label = "averaged" if name == group and group.startswith("score/") else name  # beside the raw weights' curve
        axes.plot(x, y, line_style, label=label, linewidth=1.2, marker=marker, markersize=3, clip_on=False)
    axes.set_ylabel(panel.unit)
    axes.set_title(f"{panel.title}, {split} images" if split else panel.title, fontsize="medium")
    if panel.log and min(values) > 0 and max(values) > SPAN * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(*panel.limits)
    if list(series) != [group]:
        axes.legend(frameon=False, fontsize="small")
    style(axes)
