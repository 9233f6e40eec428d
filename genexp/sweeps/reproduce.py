"""`genexp reproduce`: a sweep over the experiments that a table of a paper still lacks; then it prints the table."""

import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from genexp.commands import report, table
from genexp.config.command_line import CommandLine
from genexp.config.commands import ReproduceConfig
from genexp.config.compose import configuration
from genexp.errors import GenexpError, UsageError
from genexp.papers import published
from genexp.papers.answers import stands_in
from genexp.papers.published import Experiment, ScoresTable, TextTable, experiments
from genexp.papers.scores_table import metrics_of
from genexp.sweeps.elsewhere import is_elsewhere
from genexp.sweeps.estimate import Estimate, estimate, together, try_out
from genexp.sweeps.jobs import FAILED, RUNNING, STOPPED, WAITING, Job
from genexp.sweeps.schedule import held
from genexp.sweeps.sweep import carry_out
from genexp.tables import Column, Table, print_table
from genexp.text import count, duration

PASSED_ON = ("outputs_dir=", "data_dir=", "device=", "device.kind=", "device.threads=")  # settings, to the jobs


@dataclass(eq=False)
class Planned:
    """A job of a table: an experiment with one seed, and what it still has to do."""

    job: Job
    experiment: Experiment
    estimate: Estimate | None = None
    problem: str = ""  # why it cannot be run, and what to do
    skipped: bool = False  # its data set is given on request, and is missing


def main(config: ReproduceConfig, line: CommandLine) -> None:
    """Show what is to be done, train and score what is not there yet, and print the table.

    A job that fails does not keep the others from running. Raises GenexpError at the end if one did, but not for a
    missing data set that is given on request only. Raises UsageError, before anything runs, for a wrong setting.
    """
    paper = published.read(config.paper, line)
    chosen = paper.table(config.table)
    if isinstance(chosen, TextTable):
        prints = replace(line, command="table", words=())
        raise UsageError(f"table={config.table} holds no numbers to reproduce; `{prints}` prints it")
    table.refuse_out(config)
    started = time.perf_counter()
    planned = _plan(config, line, chosen)
    _look_ahead(planned, min(config.sweep.jobs, len(planned)), is_elsewhere(line))
    planned.sort(key=lambda each: -_seconds(each))  # so that the last jobs are short ones
    names = {each.name for each in experiments(chosen, config.budget)}
    left_out = [each.name for each in experiments(chosen, "full") if each.name not in names]
    _show(planned, left_out, config, is_elsewhere(line))
    planned = [each for each in planned if not each.skipped]
    if not config.dry_run:
        problems = [bool(each.problem) for each in planned]
        if not all(problems) and not (config.sweep.fail_fast and any(problems)):
            jobs = [each.job for each in planned]
            name = re.sub(r"\W+", "_", f"{paper.name}-{config.table}-{config.budget}")
            folder = Path(config.outputs_dir).expanduser() / "sweeps" / name
            with held(folder, str(line)):
                carry_out(jobs, replace(line, command="train"), config.sweep, folder, set(), "the same command")
        print(f"\n{config.budget} budget, {duration(time.perf_counter() - started)}\n", flush=True)
        table.main(config, line)
        if config.report:
            report.table_at_the_end(config, line)
    _refuse_unfinished(planned, config.dry_run)


def _plan(config: ReproduceConfig, line: CommandLine, chosen: published.Table) -> list[Planned]:
    """Return a job for each experiment that the table wants and each seed. Raises UsageError if one is wrong."""
    further = metrics_of(chosen, line.folder) if isinstance(chosen, ScoresTable) else {}
    own = [word for word in line.overrides if word.lstrip("+").startswith(PASSED_ON)]
    planned: dict[Path, Planned] = {}
    for experiment in experiments(chosen, config.budget):
        for seed in range(config.seeds):
            name = f"{experiment.name}, seed {seed}"
            job_line = CommandLine("train", (*experiment.train, f"seed={seed}", *own), line.folder)
            try:
                job = Job.of(job_line, configuration(job_line), name, further)
            except UsageError as error:
                raise UsageError(f"{name} ({job_line}): {error}\nNo job was started") from error
            other = planned.get(job.run.path)  # two rows may be one run
            if other is None or _epochs(other.job) < _epochs(job):
                planned[job.run.path] = Planned(job, experiment)
    return [each for each in planned.values() if not _has_stand_in(each.job, planned.values())]


def _has_stand_in(job: Job, planned: Iterable[Planned]) -> bool:
    """Return True if the raw weights of another planned run, which averages them, will have the job's scores."""
    plain = job.config
    return (
        job.state == WAITING
        and plain is not None
        and not job.further
        and any(
            stands_in(other, plain)
            and (other.seed, other.epochs) == (plain.seed, plain.epochs)
            and plain.metrics.items() <= other.metrics.items()
            for each in planned
            if (other := each.job.config) is not None
        )
    )


def _epochs(job: Job) -> int:
    return job.config.epochs if job.config is not None else 0


def _look_ahead(planned: list[Planned], n: int, elsewhere: bool) -> None:
    """Estimate each job. A job whose settings are wrong fails at once; one whose data set is missing may be skipped.

    Settings that are wrong on this machine may be right `elsewhere`, as those of a GPU are.
    """
    kinds: dict[tuple[str, ...], list[Planned]] = {}
    for each in planned:
        kinds.setdefault(tuple(each.experiment.train), []).append(each)
    if any(each.job.state == WAITING for each in planned):
        print("trying some steps of each experiment that is not finished, to see how long it takes", flush=True)
    waiting = [next((each.job for each in kind if each.job.state == WAITING), None) for kind in kinds.values()]
    endings = try_out([job for job in waiting if job is not None], n)
    for kind, job in zip(kinds.values(), waiting, strict=True):
        ending = endings[job] if job is not None else None
        for each in kind:
            each.estimate = estimate(each.job, [other.job for other in kind], ending)
            if each.job.state != WAITING or ending is None or ending.error is None:
                continue
            if ending.without_data or (ending.hopeless and not elsewhere):
                each.problem = ending.error
                each.job.state, each.job.cause = FAILED, ending.error.partition("\n")[0]
                each.skipped = ending.without_data and each.experiment.on_request


def _seconds(planned: Planned) -> float:
    """Return the seconds that a job will take; infinity if that is not known, and nothing if it will not run."""
    if planned.estimate is None or planned.job.state != WAITING:
        return 0.0
    seconds = planned.estimate.seconds + (planned.estimate.scoring or 0.0)
    return math.inf if math.isnan(seconds) else seconds


def _show(planned: list[Planned], left_out: list[str], config: ReproduceConfig, elsewhere: bool) -> None:
    """Print a line for each job with what it has to do, why some are not run, and how long all will take."""

    def epochs(each: Planned) -> str:
        return f"{each.estimate.done}/{each.estimate.epochs}" if each.estimate is not None else ""

    def minutes(each: Planned) -> str:
        if each.job.state != WAITING:
            return "skipped" if each.skipped else each.job.state
        seconds = _seconds(each)
        return f"{seconds / 60:.1f}" if math.isfinite(seconds) else "not known"

    print(f"{count(len(planned), 'job')}; runs in {config.outputs_dir}")
    for name in left_out:
        print(f"left out: {name}, which has no short form; budget=full runs it")
    columns = [
        Column("job", lambda each: each.experiment.name, left=True, cut="end"),
        Column("seed", lambda each: str(each.job.config.seed)),
        Column("epochs", epochs),
        Column("minutes", minutes),
    ]
    print_table(Table(columns, planned))
    problems = {each.problem: "skipped" if each.skipped else "failed" for each in planned if each.problem}
    for problem, state in problems.items():
        print(f"{state}: {problem}")
    print(_total([each for each in planned if each.job.state == WAITING], config.sweep.jobs, elsewhere), flush=True)


def _total(waiting: list[Planned], n: int, elsewhere: bool) -> str:
    """Return in words how long the jobs that wait will take, and what is not counted."""
    if not waiting:
        return "nothing is left to be run"
    known = [seconds for each in waiting if math.isfinite(seconds := _seconds(each))]
    if not known:
        return f"{count(len(waiting), 'job')}, of unknown length"
    hours = together(known, n if not elsewhere else 1) / 3600
    shown = f"{hours:.1f} hours" if hours >= 1 else count(max(1, round(60 * hours)), "minute")
    how = "one after another, as fast as here" if elsewhere else f"{n} at once" if n > 1 else "one after another"
    left_out = [f"{count(len(waiting) - len(known), 'job')} of unknown length"] if len(known) < len(waiting) else []
    if any(each.estimate is None or each.estimate.scoring is None for each in waiting):
        left_out.append("scoring, where no earlier run tells how long it takes")
    if any(each.job.config is not None and each.job.config.log.scores_every_epochs for each in waiting):
        left_out.append("scores on the way")
    if any(each.job.further for each in waiting):
        left_out.append("the further scores of this table")
    counted = f"; not counted: {', '.join(left_out)}" if left_out else ""
    return f"about {shown} for {count(len(waiting), 'job')}, {how}{counted}"


def _refuse_unfinished(planned: list[Planned], dry: bool) -> None:
    """Raise GenexpError, with each cause, if a job failed or did not come to its end."""
    ended = (FAILED,) if dry else (FAILED, STOPPED, RUNNING, WAITING)
    causes: dict[str, list[str]] = {}
    for each in planned:
        if each.job.state in ended:
            causes.setdefault(each.problem or each.job.cause or "not begun", []).append(each.job.name)
    if causes:
        lines = [f"{'; '.join(names)}: {cause}" for cause, names in causes.items()]
        again = "the same command runs only what is not finished"
        raise GenexpError("\n".join([f"not everything could be run; {again}", *lines]))
