"""Tables below a table of Parzen scores: how far chains moved, and what averaged weights do to every score."""

from collections.abc import Callable
from dataclasses import dataclass

from genexp.config.components import lower_is_better
from genexp.config.schema import TrainConfig
from genexp.papers.answers import Answer, answer
from genexp.papers.notes import minus
from genexp.runs.find import RunState
from genexp.runs.results import RAW
from genexp.tables import Column, Table, values
from genexp.text import with_error

CHAINS = (
    "Chains: a score of a chain is worth what the chain moved. Moved: the mean distance of samples from the image at "
    "which their chain began, of unrelated training images in brackets. Nearest: the mean distance of samples to the "
    "nearest training image, of test images in brackets. Correlation: of a chain's sample with its next one. No walk: "
    "the Parzen score of the images at which the chains began, passed through the model once. From noise: the Parzen "
    "score of the same chains, begun at uniform noise."
)
WEIGHTS = "Averaged weights: the same runs, sampled from averages of their weights, and from the weights as they are."


@dataclass(frozen=True)
class Named:
    """The runs of a row."""

    name: str
    recipe: TrainConfig
    runs: list[RunState]


def chains_table(rows: list[Named], title: str) -> Table | None:
    """Return how far the chains of the rows' runs moved, by metric=chain; None if no row has such a score."""
    answers = [(row.name, answer(row.recipe, row.recipe.metrics["chain"], row.runs)) for row in rows if _walks(row)]
    lines = [(name, mean) for name, mean in answers if mean is not None]
    if not lines:
        return None

    def column(title: str, name: str, digits: int, beside: str | None = None) -> Column:
        def show(line: tuple[str, Answer]) -> str:
            number = _number(line[1].detail(name), digits)
            return number if beside is None else f"{number} ({_number(line[1].detail(beside), digits)})"

        exported = [name] if beside is None else [name, beside]
        return Column(title, show, lambda line: {each: line[1].detail(each) for each in exported})

    moved = Column(
        "moved",
        lambda line: f"{line[1].mean:.2f} ({_number(line[1].detail('between_images'), 2)})",
        lambda line: {"moved": line[1].mean, "between_images": line[1].detail("between_images")},
    )
    columns = [
        Column("model", lambda line: line[0], values(model=lambda line: line[0])),
        column("chains", "chains", 0),
        column("burn-in", "burn_in", 0),
        column("between samples", "thinning", 0),
        moved,
        column("nearest", "nearest", 2, "nearest_split"),
        column("correlation", "autocorrelation", 3),
        column("no walk", "control", 1),
        column("from noise", "from_noise", 1),
    ]
    return Table(columns, lines, title)


def weights_table(rows: list[Named], title: str) -> Table | None:
    """Return the scores of averaged and of raw weights of the runs that have both; None if there are none."""
    averaged = [row for row in rows if row.recipe.ema is not None and row.runs]
    metrics = {name: metric for row in averaged for name, metric in row.recipe.metrics.items()}
    lines = [(row, sampling) for row in averaged for sampling in ({}, RAW)]
    if not lines:
        return None

    def mean(name: str) -> Callable[[tuple[Named, dict[str, str]]], Answer | None]:
        def of(line: tuple[Named, dict[str, str]]) -> Answer | None:
            row, sampling = line
            metric = row.recipe.metrics.get(name)
            return None if metric is None else answer(row.recipe, metric, row.runs, sampling)

        return of

    def column(name: str) -> Column:
        read = mean(name)
        arrow = "↓" if lower_is_better(metrics[name]) else "↑"

        def show(line: tuple[Named, dict[str, str]]) -> str:
            found = read(line)
            return "" if found is None else minus(with_error(found.mean, found.seed_spread or found.stderr))

        def export(line: tuple[Named, dict[str, str]]) -> dict[str, float]:
            found = read(line)
            return {} if found is None else {name: found.mean}

        return Column(f"{name} {arrow}", show, export)

    def weights(line: tuple[Named, dict[str, str]]) -> str:
        return "raw" if line[1] else f"averaged, decay {line[0].recipe.ema:g}"

    columns = [
        Column("model", lambda line: line[0].name, values(model=lambda line: line[0].name)),
        Column("weights", weights, values(weights=weights), left=True),
        *(column(name) for name in metrics),
    ]
    return Table(columns, lines, title)


def _walks(row: Named) -> bool:
    return "chain" in row.recipe.metrics and bool(row.runs)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else minus(f"{value:,.{digits}f}")
