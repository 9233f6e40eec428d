"""The closing table of a sweep or search: the jobs, best first."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genexp.score import Score
from genexp.storage.files import atomic
from genexp.sweeps.board import own_settings, progress, short
from genexp.sweeps.jobs import Job
from genexp.tables import Column, Document, Table, render
from genexp.text import count, duration


@dataclass(frozen=True)
class Ranked:
    """A job with its rank; None if it has no score to be ranked by."""

    rank: int | None
    job: Job

    def more_epochs(self) -> bool:
        """Return True if the run has more epochs than the job asked for."""
        job = self.job
        return job.results is not None and job.config is not None and job.results.epochs > job.config.epochs

    def epochs(self) -> str:
        results = self.job.results
        return progress(self.job)[0] if results is None else f"{results.epochs}{'†' if self.more_epochs() else ''}"


def close(jobs: list[Job], folder: Path, rank_by: str | None, shared: set[str]) -> None:
    """Print the closing table, and keep it in `folder` as CSV and as Markdown."""
    document = ranking(jobs, rank_by, shared)
    print(f"\n{render(document, 'terminal')}", end="", flush=True)
    try:
        for form, name in (("csv", "table.csv"), ("markdown", "table.md")):
            with atomic(folder / name) as stream:
                stream.write(render(document, form).encode())
    except OSError as error:
        print(f"warning: {folder} cannot be written: {error.strerror}; the table is not kept", flush=True)
        return
    print(f"table: {folder / 'table.csv'}, {folder / 'table.md'}; what each job printed: {folder / 'logs'}", flush=True)


def ranking(jobs: list[Job], rank_by: str | None, shared: set[str]) -> Document:
    """Return the jobs, best first: by the named score or the first one, on validation images if it has a mean there."""
    names = list(dict.fromkeys(name for job in jobs for name in job.scores))
    by = rank_by or next(iter(names), "")
    keys = {job: job.scores[by].sort_key() if by in job.scores else math.inf for job in jobs}
    ranked = [
        Ranked(position if math.isfinite(keys[job]) else None, job)
        for position, job in enumerate(sorted(jobs, key=lambda job: keys[job]), 1)
    ]
    deciding = [job.scores[by] for job in jobs if by in job.scores]
    on_valid = any(score.on_valid is not None for score in deciding)
    notes = [f"all: {' '.join(sorted(shared))}"] if shared else []
    if by:
        where = "its mean on validation images" if on_valid else "its mean"
        lowest = ", the lowest first" if any(score.lower_is_better for score in deciding) else ""
        notes.insert(0, f"ranked by {by}, {where}{lowest}")
    if any(row.more_epochs() for row in ranked):
        notes.append("†: more epochs than were asked for; the run had been trained on before, and is scored at its end")
    home = common_folder([job.run.path for job in jobs])
    changed = {word.partition("=")[0] for job in jobs for word in job.settings if word not in shared}
    unique = len({key.rpartition(".")[2] for key in changed}) == len(changed)

    def settings(row: Ranked) -> str:
        own = own_settings(row.job, shared)
        return short(own) if unique else own

    notes += [f"{settings(row)}: {row.job.state}, {row.job.cause}" for row in ranked if row.job.cause]
    columns = [
        Column("rank", lambda row: "–" if row.rank is None else str(row.rank), _rank_record),
        Column("settings", settings, left=True),
        Column("state", lambda row: row.job.state, _state_record, left=True),
    ]
    if on_valid and not all(score.split == "valid" for score in deciding):
        columns.append(Column(f"{by}, valid", lambda row: _valid(row.job.scores.get(by))))
    columns += [_score_column(name, jobs) for name in names]
    columns += [
        Column("epochs", Ranked.epochs, lambda row: {"trained_epochs": getattr(row.job.results, "epochs", None)}),
        Column("time", _time, lambda row: {"train_seconds": getattr(row.job.results, "train_seconds", None)}),
        Column(
            "run", lambda row: _below(row.job.run.path, home), lambda row: {"run": str(row.job.run.path)}, left=True
        ),
    ]
    title = f"{count(len(jobs), 'job')}, runs in {home}"
    return Document(title, [Table(columns, ranked)], notes)


def _rank_record(row: Ranked) -> dict[str, Any]:
    return {"rank": row.rank, **dict(word.split("=", 1) for word in row.job.settings if "=" in word)}


def _state_record(row: Ranked) -> dict[str, Any]:
    return {"state": row.job.state, "cause": row.job.cause}


def _score_column(name: str, jobs: Sequence[Job]) -> Column:
    split = next((job.scores[name].split for job in jobs if name in job.scores), None)

    def export(row: Ranked) -> dict[str, Any]:
        score = row.job.scores.get(name)
        if score is None:
            return {}
        return {name: score.mean, f"{name}_stderr": score.stderr, f"{name}_valid": score.on_valid}

    title = name if split in (None, "test") else f"{name}, {split}"
    return Column(title, lambda row: str(row.job.scores.get(name, "–")), export)


def _valid(score: Score | None) -> str:
    return "–" if score is None or score.on_valid is None else f"{score.on_valid:.4g}"


def _time(row: Ranked) -> str:
    return "" if row.job.results is None else duration(row.job.results.train_seconds)


def common_folder(runs: list[Path]) -> Path:
    """Return the folder that all runs are in; a trial that could not be a run has no path."""
    try:
        return Path(os.path.commonpath([run.parent for run in runs if run != Path()]))
    except ValueError:  # no run at all, or some given by whole paths and some not
        return Path()


def _below(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
