"""`genexp table`: a table of a paper, with this project's runs beside the published numbers."""

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genexp.config.schema import Component, TableConfig
from genexp.errors import GenexpError, UsageError
from genexp.papers import answers
from genexp.papers import published as papers
from genexp.papers.answers import Answer
from genexp.papers.published import Cell, ParzenTable, Published, Row, ScoresTable, TextTable
from genexp.runs.find import Found, find
from genexp.runs.results import LOWER_IS_BETTER
from genexp.storage.files import atomic, cache_folder, read_json, would_write, write_json
from genexp.tables import Document, Sheet, render

THEIS = (
    "Theis, van den Oord and Bethge (2016) showed that such estimates say little about likelihood or look: centroids "
    "of k-means score above images of the data themselves. A score above that of the training images means smoother "
    "samples, not better ones."
)
FORMATS = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}  # of out=FILE, unless format says
HEADER = ["model", "published", "here ± test", "± seeds", "Δ/SE", "samples", "σ", "epochs", "min"]
MARKS = {
    "*": "as recalled, not verified at the source",
    "°": "quoted by another source than its own",
    "†": "fewer epochs than the recipe",
    "‡": "scored with another number of samples, or other settings, than the rest of the column",
    "ᵐ": "samples are means of distributions, not draws from them; of published numbers it is marked where it is known",
}
YARDSTICKS = {
    "training_images": "training images",
    "centroids": "k-means centroids",
    "mean_image": "mean image",
    "pixel_gaussian": "Gaussian of pixels",
}
COLUMNS = (
    "± test: standard error over test images (across folds where there are folds); ± seeds: standard deviation over "
    "training runs. Δ/SE: here less published, in combined standard errors: the published one, ours over test images, "
    "and ours over seeds (± seeds / √n) where there are several; that of a single run is not known, and not in it."
)
ABBREVIATED = {"inception_score": "IS", "fid": "FID", "kid": "KID", "ms_ssim": "MS-SSIM"}


def main(config: TableConfig) -> None:
    """Print the table, or write it to `out`."""
    refuse_out(config)
    made = document(config)
    named = FORMATS.get(Path(config.out).suffix) if config.out is not None else None
    text = render(made, named if named and config.format == "terminal" else config.format)
    if config.out is None:
        print(text, end="")
        return
    with _writing(config.out), atomic(Path(config.out).expanduser()) as stream:
        stream.write(text.encode())
    print(f"table: {config.out}")


def refuse_out(config: TableConfig) -> None:
    """Raise GenexpError if the table could not be written, before the work that it takes."""
    if config.out is not None:
        if config.format == "terminal" and Path(config.out).suffix not in (*FORMATS, ".txt", ""):
            raise UsageError(
                f"out={config.out}: a table is written as {', '.join(FORMATS)} or .txt, or as format=.. says"
            )
        with _writing(config.out):
            would_write(Path(config.out).expanduser())


@contextmanager
def _writing(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GenexpError(
            f"out={out} cannot be written: {error.strerror}\nSet out=FILE to another place, or leave it out"
        ) from error


def document(config: TableConfig) -> Document:
    """The table that is asked for, joined with the runs below `outputs_dir`."""
    paper = papers.read(config.paper)
    table = paper.table(config.table)
    folder = Path(config.outputs_dir).expanduser()
    runs = find(folder)
    match table:
        case TextTable():
            return _text(paper.title, table)
        case ParzenTable():
            made = _parzen(config, paper.title, table, runs)
        case ScoresTable():
            made = _scores(config, paper.title, table, runs)
    recipes = [answers.experiment(words) for _, words, _ in papers.experiments(table, "full")]
    others = [found for found in runs if not any(answers.of_experiment(wanted, [found]) for wanted in recipes)]
    made.notes.append(f"What is not run, `genexp reproduce table={config.table}` runs.")
    if not folder.is_dir():
        made.notes.append(f"There is no folder {folder}: set outputs_dir=FOLDER to where the runs are.")
    elif others:
        count = f"{len(others)} other runs follow" if len(others) > 1 else "1 other run follows"
        made.notes.append(f"In {folder}, {count} none of this table's recipes; `genexp runs` lists them.")
    return made


@dataclass
class Footnotes:
    """What the cells of a table refer to."""

    marks: set[str] = field(default_factory=set)
    sources: dict[str, int] = field(default_factory=dict)

    def mark(self, marks: str) -> str:
        """The marks, each to be explained below the table."""
        self.marks |= set(marks)
        return marks

    def number(self, source: str) -> str:
        """The number that stands for a source: [1]."""
        return f"[{self.sources.setdefault(source, len(self.sources) + 1)}]"

    def lines(self) -> list[str]:
        marks = [f"{mark} {meaning}." for mark, meaning in MARKS.items() if mark in self.marks]
        return [*marks, *(f"[{number}] {source}" for source, number in self.sources.items())]


def _parzen(config: TableConfig, title: str, table: ParzenTable, runs: list[Found]) -> Document:
    footnotes, notes, sheets = Footnotes(), [], []
    for key, column in table.columns.items():
        metric = answers.experiment(column.train).metrics["parzen"]
        sheet = Sheet(f"{table.title}: {column.title}", HEADER, [], [])
        digests = set()
        for row in table.rows:
            if key not in row.cells:
                continue
            answer, state = _answer(row.cells[key], row, metric, runs)
            _add(sheet, row.name, row.cells[key], answer, state, metric, footnotes)
            if answer is not None:
                digests.add(answer.digest)
                notes += [f"{row.name} on {column.title}: {state}."] if state else []
        notes.append(f"Published ± on {column.title}: {column.spread}.")
        if len(digests) > 1:
            notes.append(f"The runs on {column.title} were not all trained on the same images: they do not compare.")
        if column.on_request and not digests:
            notes.append(f"{column.title} is given on request; nothing was run on it here, and it has no yardsticks.")
        else:
            try:
                scores = _yardsticks(config, column.train, metric, digests.pop() if len(digests) == 1 else None)
            except GenexpError as error:
                reason = str(error).splitlines()[0]
                notes.append(f"The yardsticks on {column.title} could not be computed: {reason}")
                scores = {}
            for name, score in scores.items():
                published = table.yardsticks.get(name, {}).get(key)
                _add(sheet, f"yardstick: {YARDSTICKS[name]}", published, Answer.alone(score), "", metric, footnotes)
        sheets.append(sheet)
    return Document(title, sheets, [*notes, COLUMNS, *footnotes.lines(), THEIS])


def _answer(cell: Cell, row: Row, metric: Component, runs: list[Found]) -> tuple[Answer | None, str]:
    """What this project's runs say to a cell, and a word on it."""
    if cell.train is None:
        return None, row.missing or "no recipe yet"
    wanted = answers.experiment(cell.train)
    there = answers.of_experiment(wanted, runs)
    answer = answers.answer(wanted, metric, there)
    if answer is None:
        return None, f"{there[0].status} {there[0].epoch}/{there[0].epochs}" if there else "not run"
    others = "1 other run" if answer.left_out == 1 else f"{answer.left_out} other runs"
    return answer, f"{others} of fewer epochs, other data or other settings left out" if answer.left_out else ""


def _add(
    sheet: Sheet,
    name: str,
    published: Published | None,
    answer: Answer | None,
    state: str,
    metric: Component,
    footnotes: Footnotes,
) -> None:
    """One row of a Parzen table, for people and for programs."""
    theirs = "" if published is None else _published(published, footnotes)
    record: dict[str, Any] = {"model": name}
    if published is not None:
        record |= {
            "published": published.value,
            "published_spread": published.spread,
            "published_sample_kind": published.sample_kind,
            "status": published.status,
            "source": published.source,
        }
    if answer is None:
        sheet.rows.append([name, theirs, state, *[""] * (len(HEADER) - 3)])
        sheet.records.append(record | {"note": state})
        return
    score = answer.score
    difference = None
    if published is not None and published.spread is not None:
        combined = math.hypot(answer.standard_error(), published.spread)
        difference = (answer.mean - published.value) / combined if combined else None
    trained = answer.recipe_epochs is not None
    texts = [
        _here(answer, metric, footnotes),
        "" if answer.seed_spread is None else f"{answer.seed_spread:.1f} (n = {answer.runs})",
        "" if difference is None else f"{difference:+.1f}",
        f"{score['n_samples']:,}",
        ", ".join(f"{sigma:.3g}" for sigma in answer.sigmas),
        f"{answer.epoch:.4g}/{answer.recipe_epochs}" if trained else "",
        f"{answer.minutes:.1f}" if trained else "",
    ]
    sheet.rows.append([name, theirs, *(text.replace("-", "−") for text in texts)])
    sheet.records.append(
        record
        | {
            "here": answer.mean,
            "stderr": answer.stderr,
            "seed_spread": answer.seed_spread,
            "difference_in_standard_errors": difference,
            "runs": answer.runs,
            "n_samples": score["n_samples"],
            "sample_kind": score["sample_kind"],
            "sigma": answer.sigmas,
            "epochs": answer.epoch if trained else None,
            "recipe_epochs": answer.recipe_epochs,
            "minutes": round(answer.minutes, 2) if trained else None,
            "note": state,
        }
    )


def _published(published: Published, footnotes: Footnotes) -> str:
    marks = {"recalled": "*", "quoted": "°"}.get(published.status, "")
    marks += "ᵐ" if published.sample_kind == "mean" else ""
    spread = "" if published.spread is None else f" ± {published.spread:g}"
    value = f"{published.value:g}{spread}".replace("-", "−")
    return f"{value}{footnotes.mark(marks)} {footnotes.number(published.source)}"


def _here(answer: Answer, metric: Component, footnotes: Footnotes) -> str:
    marks = "†" if answer.epoch < (answer.recipe_epochs or 0) else ""
    marks += "" if answer.exact and answer.score["n_samples"] == metric["n_samples"] else "‡"
    marks += "ᵐ" if answer.score["sample_kind"] == "mean" else ""
    stderr = "" if answer.stderr is None else f" ± {answer.stderr:.1f}"
    return f"{answer.mean:.1f}{stderr}{footnotes.mark(marks)}"


def _yardsticks(
    config: TableConfig, words: list[str], metric: Component, digest: str | None
) -> dict[str, dict[str, Any]]:
    """What every Parzen score is to be held against, computed once for a data set and kept in a cache.

    With a `digest`, on images of that digest: what was kept of others is computed anew. Raises GenexpError when the
    data set is not there, or its images have another digest.
    """
    dataset = answers.experiment(words).dataset
    key = hashlib.sha256(json.dumps([dataset, metric], sort_keys=True).encode()).hexdigest()[:8]
    file = cache_folder("yardsticks") / f"{dataset['name']}-{metric['name']}-{key}.json"
    kept = read_json(file)
    if not kept or digest not in (None, kept["digest"]):
        with redirect_stdout(sys.stderr):  # a table may be going to a file
            kept = _compute_yardsticks(config, dataset, metric, digest, file)
    scores: dict[str, dict[str, Any]] = kept["scores"]
    return scores


def _compute_yardsticks(
    config: TableConfig, dataset: Component, metric: Component, digest: str | None, file: Path
) -> dict[str, Any]:
    from genexp.device import select
    from genexp.papers.yardsticks import score_yardsticks
    from genexp.training import build  # loads torch

    data = build.data_set(dataset, config.data_dir).to(select(config.device.kind, config.device.threads))
    if digest not in (None, data.digest()):
        raise GenexpError(f"the runs were trained on other images than those of dataset={dataset['name']} now")
    print(f"computing yardsticks on {dataset['name']}, once, which may take minutes; kept in {file}", flush=True)
    kept = {"digest": data.digest(), "scores": score_yardsticks(data, metric)}
    try:
        write_json(file, kept)
    except OSError as error:
        print(f"warning: {file} cannot be written: {error.strerror}", flush=True)
    return kept


def _text(title: str, table: TextTable) -> Document:
    rows = [[row.name, *row.cells] for row in table.rows]
    rows.append(["Models here", *(", ".join(names) or "none yet" for names in table.models)])
    header = ["", *table.columns]
    records = [dict(zip(["aspect", *table.columns], row, strict=True)) for row in rows]
    return Document(title, [Sheet(table.title, header, rows, records, prose=True)], [f"Source: {table.source}."])


def _scores(config: TableConfig, title: str, table: ScoresTable, runs: list[Found]) -> Document:
    """Every score of every run: a column for each score and, where one is used, each extractor of features."""
    words = [f"metric@metrics.{name}={name}" for name in table.metrics]
    metrics = answers.experiment([*table.dataset, *words]).metrics
    found: dict[str, dict[str, Answer]] = {}
    states: dict[str, str] = {}
    for row in table.rows:
        wanted = answers.experiment(row.train)
        there = answers.of_experiment(wanted, runs)
        answered = {name: answers.answer(wanted, metrics[name], there) for name in table.metrics}
        found[row.name] = {name: answer for name, answer in answered.items() if answer is not None}
        states[row.name] = "" if found[row.name] else "not scored" if there else "not run"
    footnotes, notes = Footnotes(), list[str]()
    used = {
        (name, answer.score.get("extractor", "")) for taken in found.values() for name, answer in taken.items()
    } or {(table.metrics[0], "")}
    columns = sorted(used, key=lambda column: (table.metrics.index(column[0]), column[1]))
    names = [_column(name, extractor) for name, extractor in columns]
    sheet = Sheet(table.title, ["model", *names, "epochs"], [], [])
    for name, taken in found.items():
        here = [_of(taken, *column) for column in columns]
        epochs = ", ".join(sorted({f"{answer.epoch:.4g}/{answer.recipe_epochs}" for answer in taken.values()}))
        texts = [_value(answer, footnotes) if answer else "–" for answer in here]
        marks = "†" if any(answer.epoch < (answer.recipe_epochs or 0) for answer in taken.values()) else ""
        marks += "ᵐ" if any(answer.score.get("sample_kind") == "mean" for answer in taken.values()) else ""
        sheet.rows.append(
            [name + footnotes.mark(marks), *(texts if taken else [states[name], *[""] * (len(columns) - 1)]), epochs]
        )
        record: dict[str, Any] = {"model": name, "epochs": epochs, "note": states[name]}
        for column, answer in zip(names, here, strict=True):
            if answer is not None:
                record |= {column: answer.mean, f"{column}: stderr": answer.stderr, f"{column}: runs": answer.runs}
                record |= {f"{column}: {what}": answer.score.get(what) for what in ("n_samples", "sample_kind")}
        sheet.records.append(record)
        if any(answer.left_out for answer in taken.values()):
            notes.append(f"{name}: other runs of fewer epochs, other data or other settings are left out.")
    floors = [_floor(name, extractor, found) for name, extractor in columns]
    if ("parzen", "") in columns:
        try:
            digests = {answer.digest for taken in found.values() for answer in taken.values()}
            digest = digests.pop() if len(digests) == 1 else None
            images = _yardsticks(config, table.dataset, metrics["parzen"], digest)["training_images"]
            floors[columns.index(("parzen", ""))] = images["mean"]
        except GenexpError as error:
            notes.append(f"The floor of parzen could not be computed: {str(error).splitlines()[0]}")
    shown = ["" if floor is None else _number(floor) for floor in floors]
    sheet.rows.append(["floor: training images", *shown, ""])
    sheet.records.append({"model": "floor: training images", **dict(zip(names, floors, strict=True))})
    notes += [
        "Mean over runs ± standard deviation over seeds where there are several, else ± standard error where there is "
        "one. ↓: lower is better; ↑: higher is better, but see the note on Parzen scores.",
        *footnotes.lines(),
        "Features are those of the extractor in the column's head, a classifier that was trained once for its data "
        "set; the digits are its weights' hash. Scores under different extractors do not compare.",
        "The floor is what as many training images score in the place of samples.",
        THEIS,
    ]
    return Document(title, [sheet], notes)


def _column(name: str, extractor: str) -> str:
    arrow = "↓" if name in LOWER_IS_BETTER else "↑"
    return f"{ABBREVIATED.get(name, name)} {arrow}{f' ({extractor})' if extractor else ''}"


def _of(taken: dict[str, Answer], name: str, extractor: str) -> Answer | None:
    answer = taken.get(name)
    return answer if answer is not None and answer.score.get("extractor", "") == extractor else None


def _value(answer: Answer, footnotes: Footnotes) -> str:
    mark = footnotes.mark("" if answer.exact else "‡")
    spread = answer.stderr if answer.seed_spread is None else answer.seed_spread
    if not spread:
        return _number(answer.mean) + mark
    decimals = max(0, -math.floor(math.log10(spread)) + (spread >= 1))
    return f"{answer.mean:.{decimals}f} ± {spread:.{decimals}f}".replace("-", "−") + mark


def _number(value: float) -> str:
    return f"{value:.{2 if abs(value) < 1e-3 else 4}g}".replace("-", "−")


def _floor(name: str, extractor: str, found: dict[str, dict[str, Answer]]) -> float | None:
    """What training images score, as the first run that has it says."""
    for taken in found.values():
        answer = _of(taken, name, extractor)
        if answer is not None and answer.score.get("floor") is not None:
            return float(answer.score["floor"])
    return None
