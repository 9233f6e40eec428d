"""The charts of a report, as matplotlib's figures: scores beside their yardsticks, and curves of many runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np

from genexp.figures.canvas import style
from genexp.figures.curves import PANELS, STYLES, Panel, Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2f6fd0", "#d2691e", "#2a9d6f", "#b0468f", "#8a7a1f", "#5b5bd6", "#c23b3b", "#3a8fa8")
PUBLISHED, OURS, YARDSTICK = "#d2691e", "#2f6fd0", "#999999"
POINTS = 200  # of a mean curve


@dataclass(frozen=True)
class Dot:
    """A number of a row, with its standard error if it is known."""

    row: str
    mean: float
    stderr: float | None
    kind: Literal["here", "published", "yardstick"]


def dots(numbers: Sequence[Dot], unit: str) -> "Figure":
    """Draw a row for each name, of what was published and what was measured here; yardsticks are lines through all."""
    from matplotlib.figure import Figure

    numbers = [dot for dot in numbers if isfinite(dot.mean)]
    rows = list(dict.fromkeys(dot.row for dot in numbers if dot.kind != "yardstick"))
    lines = [dot for dot in numbers if dot.kind == "yardstick"]
    figure = Figure(figsize=(9, 1.1 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot(xlabel=unit)
    for dot in lines:
        axes.axvline(dot.mean, color=YARDSTICK, linewidth=0.9, linestyle="--")
        axes.text(dot.mean, 1.01, dot.row, transform=axes.get_xaxis_transform(), rotation=20, fontsize="x-small")
    for kind, marker, colour, shift in (("published", "D", PUBLISHED, 0.15), ("here", "o", OURS, -0.15)):
        chosen = [dot for dot in numbers if dot.kind == kind]
        if not chosen:
            continue
        axes.errorbar(
            [dot.mean for dot in chosen],
            [rows.index(dot.row) + shift for dot in chosen],
            xerr=[dot.stderr if dot.stderr is not None and isfinite(dot.stderr) else 0.0 for dot in chosen],
            fmt=marker,
            color=colour,
            markersize=5,
            capsize=2,
            label=kind,
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    style(axes)
    return figure


@dataclass(frozen=True)
class Experiment:
    """Runs that differ in their seeds alone: the curves of each, by group and name."""

    label: str
    runs: Sequence[Mapping[str, Series]]
    steps_per_epoch: Sequence[float]


def overlaid(experiments: Sequence[Experiment], groups: Sequence[str]) -> "Figure":
    """Draw the curves of experiments over each other: the mean over seeds, in a band from the least to the greatest."""
    from matplotlib.figure import Figure

    columns = min(2, len(groups))
    figure = Figure(figsize=(5.2 * columns, 0.7 + 3 * ceil(len(groups) / columns)), layout="constrained")
    for number, group in enumerate(groups, 1):
        axes = figure.add_subplot(ceil(len(groups) / columns), columns, number, xlabel="epoch")
        panel = PANELS.get(group, Panel(group.removeprefix("score/")))
        names = list(dict.fromkeys(name for each in experiments for run in each.runs for name in run.get(group, ())))
        for index, experiment in enumerate(experiments):
            colour = COLOURS[index % len(COLOURS)]
            for line_style, name in zip(STYLES * len(names), names, strict=False):
                curves = [
                    np.array([(step / per_epoch, value) for step, value in run[group][name]]).T
                    for run, per_epoch in zip(experiment.runs, experiment.steps_per_epoch, strict=True)
                    if name in run.get(group, ())
                ]
                if not curves:
                    continue
                start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
                x = np.linspace(start, end, POINTS) if len(curves) > 1 and end > start else curves[0][0]
                values = np.stack([np.interp(x, *curve) for curve in curves])
                label = " ".join([experiment.label, *([name] if len(names) > 1 else [])])
                marker = "o" if len(x) == 1 else ""
                axes.plot(x, values.mean(0), line_style, marker=marker, color=colour, linewidth=1.2, label=label)
                if len(curves) > 1:
                    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
        axes.set_title(panel.title, fontsize="medium")
        axes.set_ylabel(panel.unit)
        axes.set_ylim(*panel.limits)
        style(axes)
        if number == 1 and (len(experiments) > 1 or len(names) > 1):
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure
