"""Tables below a table of Parzen scores: how far chains moved, and what averaged weights do to every score."""

from dataclasses import dataclass

from genexp.config.components import lower_is_better
from genexp.config.schema import TrainConfig
from genexp.papers.answers import Answer, answer
from genexp.papers.notes import Footnotes, minus
from genexp.rundirs.find import RunState
from genexp.tables import Column, Table, values
from genexp.text import number, with_error

CHAINS = (
    "Chains: a score of a chain is worth what the chain moved. Moved: the mean distance of samples from the image at "
    "which their chain began, of unrelated training images in brackets. Nearest: the mean distance of samples to the "
    "nearest training image, of test images in brackets. Correlation: of a chain's sample with its next one. No walk: "
    "the Parzen score of the images at which the chains began, passed through the model once; there are as many as "
    "chains, and fewer images score lower. From noise: the Parzen score of the same chains, begun at uniform noise."
)
WEIGHTS = (
    "Averaged weights: the same runs, sampled from averages of their weights, and from the weights as they are. ± is "
    "the standard deviation over seeds where there are several runs, else the standard error where there is one. ↓: "
    "lower is better. An average makes smoother samples, which Parzen favours, and blurred ones as long as training "
    "moves far within its length; FID, precision and recall tell. An average takes no part in training: the raw "
    "weights of these runs also answer for the recipe without an average, for seeds that it has no run of."
)


@dataclass(frozen=True)
class Named:
    """The runs of a row."""

    name: str
    recipe: TrainConfig
    runs: list[RunState]


def chains_table(rows: list[Named], title: str, footnotes: Footnotes) -> Table | None:
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
        lambda line: f"{_number(line[1].mean, 2)} ({_number(line[1].detail('between_images'), 2)})",
        lambda line: {"moved": line[1].mean, "between_images": line[1].detail("between_images")},
    )
    columns = [
        Column(
            "model", lambda line: line[0] + marks(line[1], footnotes), values(model=lambda line: line[0]), cut="end"
        ),
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


def weights_table(rows: list[Named], title: str, footnotes: Footnotes) -> Table | None:
    """Return the scores of averaged and of raw weights of the runs that have averages; None if none is scored."""
    averaged = [row for row in rows if row.recipe.average is not None]
    metrics = {name: metric for row in averaged for name, metric in row.recipe.metrics.items()}
    lines = [_weights_line(row, raw) for row in averaged for raw in (False, True)]
    lines = [line for line in lines if line.answers]
    if not lines:
        return None

    def column(name: str) -> Column:
        arrow = "↓" if lower_is_better(metrics[name]) else "↑"

        def show(line: WeightsLine) -> str:
            mean = line.answers.get(name)
            spread = None if mean is None else mean.stderr if mean.seed_spread is None else mean.seed_spread
            return "" if mean is None else minus(with_error(mean.mean, spread)) + marks(mean, footnotes)

        def export(line: WeightsLine) -> dict[str, float]:
            return {name: line.answers[name].mean} if name in line.answers else {}

        return Column(f"{name} {arrow}", show, export)

    columns = [
        Column("model", lambda line: line.name, values(model=lambda line: line.name), cut="end"),
        Column("weights", lambda line: line.weights, values(weights=lambda line: line.weights), left=True),
        *(column(name) for name in metrics),
    ]
    return Table(columns, lines, title)


@dataclass(frozen=True)
class WeightsLine:
    """The answers of one row's runs by metric, from averaged or from raw weights."""

    name: str
    weights: str
    answers: dict[str, Answer]


def _weights_line(row: Named, raw: bool) -> WeightsLine:
    means = {name: answer(row.recipe, metric, row.runs, raw) for name, metric in row.recipe.metrics.items()}
    weights = "raw" if raw else row.recipe.average or ""
    return WeightsLine(row.name, weights, {name: mean for name, mean in means.items() if mean is not None})


def marks(mean: Answer, footnotes: Footnotes) -> str:
    """Return the marks of an answer of fewer epochs than its recipe, or under other settings than asked."""
    return footnotes.mark(("†" if mean.is_short else "") + ("" if mean.exact else "‡"))


def _walks(row: Named) -> bool:
    return "chain" in row.recipe.metrics and bool(row.runs)


def _number(value: float | None, digits: int) -> str:
    return minus(number(value, f",.{digits}f"))
