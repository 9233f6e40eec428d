"""`genexp train search=optuna`: Optuna asks for settings within ranges, and is told how each trial goes and ends.

Each trial is a run like any other, in its own directory and process. The study is a SQLite file, so a search that was
stopped goes on, and its unfinished trials are resumed from their checkpoints.
"""

import hashlib
import json
import math
import random
import shlex
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genexp.config.check import why_not_to_choose
from genexp.config.command_line import CommandLine
from genexp.config.components import components, lower_is_better
from genexp.config.compose import configuration
from genexp.config.schema import Search, TrainConfig
from genexp.errors import GenexpError, UsageError
from genexp.rundirs.directory import Run
from genexp.rundirs.results import Results
from genexp.storage.files import read_json_lines
from genexp.sweeps.board import close
from genexp.sweeps.elsewhere import is_elsewhere
from genexp.sweeps.jobs import FAILED, FINISHED, PRUNED, RUNNING, WAITING, Job, set_stopped
from genexp.sweeps.ranges import Range, suggest, typed_ranges
from genexp.sweeps.schedule import Queue, fail_if_any, held, work_off
from genexp.sweeps.slots import Slots
from genexp.text import count, first_line

if TYPE_CHECKING:
    import optuna


def main(config: TrainConfig, line: CommandLine) -> None:
    """Run trials until there are `search.trials`, at most `sweep.jobs` at once; print and keep them, best first.

    Raises UsageError for a wrong range, GenexpError if no trial finished.
    """
    try:
        import optuna
    except ImportError as error:
        raise UsageError('search=optuna needs Optuna: pip install "genexp[optuna]"') from error
    search = config.search
    assert search is not None
    ranges = typed_ranges(config, search.ranges)
    _check(config, search, ranges, line)
    fixed = _without_search(config, line, ranges)
    values = {name: given["choices"][0] if "choices" in given else given["low"] for name, given in ranges.items()}
    example = _job(fixed, values)  # a wrong name is told at once
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searches = Path(config.outputs_dir).expanduser() / "searches"
    earlier, here = (searches / _name(config, search, ranges, as_typed) for as_typed in (True, False))
    folder = earlier if earlier.exists() else here
    with held(folder, str(line)):
        trials = Trials(_study(search, folder, lower_is_better(config.metrics[search.metric])), search, ranges, fixed)
        if trials.jobs or trials.unfinished:
            ended, begun = len(trials.jobs), len(trials.unfinished)
            going_on = f", {begun} {'is' if begun == 1 else 'are'} gone on with" if begun else ""
            print(f"{count(ended, 'trial')} {'has' if ended == 1 else 'have'} ended already{going_on}", flush=True)
        try:
            work_off(trials, config.sweep, folder, set(fixed.settings), [example])
        except KeyboardInterrupt as interrupt:
            again = config.again()
            raise KeyboardInterrupt(f"interrupted; trials that ran were saved, {again} goes on") from interrupt
        finally:
            set_stopped(trials.jobs)
            close(trials.jobs, folder, search.metric, set(fixed.settings))
            print(f"study: sqlite:///{folder / 'study.db'}", flush=True)
            _print_best(trials.jobs, search.metric, config, line.folder)
        if config.report:
            from genexp.commands import report  # which takes a tenth of a second to import

            report.at_the_end([job.run for job in trials.jobs if job.run.status()], folder / report.NAME, str(line))
    if failed := sum(job.state == FAILED for job in trials.jobs):  # that is an answer, too, and Optuna is told
        print(f"of {count(len(trials.jobs), 'trial')} {failed} failed; the table says why", flush=True)
    fail_if_any([job for job in trials.jobs if job.state != FAILED], config.again())
    if not any(job.state == FINISHED for job in trials.jobs):
        raise GenexpError("no trial came to its end; the table says why")


def _print_best(jobs: list[Job], metric: str, config: TrainConfig, folder: str | None) -> None:
    """Print the command that trains what the best trial is; alone it reports it, settings behind it change it."""
    finished = [job for job in jobs if job.state == FINISHED and metric in job.scores]
    if not finished:
        return
    best = min(finished, key=lambda job: job.scores[metric].sort_key())
    with suppress(UsageError):  # of a run that was moved or damaged meanwhile
        targets = [str(each["_target_"]) for each in components(best.run.config).values()]
        strangers = sorted({target.partition(".")[0] for target in targets} - {"genexp"})
        words = ["genexp", "train", *(["--config-dir", folder] if folder is not None else []), f"from={best.run.path}"]
        words += [f"trust=[{','.join(strangers)}]"] if strangers else []
        words += [f"outputs_dir={config.outputs_dir}"] if config.outputs_dir != "outputs" else []
        print(f"the best one, with epochs=N to train it on or seed=N for another:\n  {shlex.join(words)}", flush=True)


class Trials(Queue):
    """The trials of a study, which asks for the next one."""

    def __init__(self, study: "optuna.Study", search: Search, ranges: dict[str, Range], fixed: CommandLine) -> None:
        import optuna

        super().__init__([], search.trials)
        self.study, self.search, self.ranges, self.fixed = study, search, ranges, fixed
        self.unfinished: list[optuna.Trial] = []  # of an earlier session that was stopped
        self.trial_of: dict[Job, optuna.Trial] = {}
        for frozen in study.get_trials(deepcopy=False):
            if not frozen.state.is_finished():
                self.unfinished.append(optuna.Trial(study, frozen._trial_id))  # with the settings chosen for it
            elif "run" in frozen.user_attrs:
                job = Job(tuple(frozen.user_attrs["overrides"]), Run(Path(frozen.user_attrs["run"])))
                job.state = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "FAIL": FAILED}[frozen.state.name]
                job.cause = frozen.user_attrs.get("cause", "")
                job.results = Results.read(job.run.results_file) if job.state == FINISHED else None
                self.jobs.append(job)

    @property
    def is_open(self) -> bool:
        return super().is_open or bool(self.unfinished) or self._may_ask()

    def _may_ask(self) -> bool:
        return len(self.study.get_trials(deepcopy=False)) < self.search.trials

    def next(self, running: list[Job]) -> Job | None:
        """Return the next trial to start, or one that needs no start; None if all wait for runs that others hold."""
        waiting = super().next(running)
        if waiting is not None or not (self.unfinished or self._may_ask()):
            return waiting
        trial = self.unfinished.pop(0) if self.unfinished else self.study.ask()
        chosen = {name: suggest(trial, name, given) for name, given in self.ranges.items()}
        try:
            job = _job(self.fixed, chosen)  # finished already, if an earlier trial had the same settings
        except UsageError as error:  # settings that do not go together
            settings = tuple(f"{name}={value}" for name, value in chosen.items())
            job = Job(settings, Run(Path()), state=FAILED, cause=first_line(error))
        trial.set_user_attr("run", str(job.run.path))
        trial.set_user_attr("overrides", list(job.settings))
        self.jobs.append(job)
        self.trial_of[job] = trial
        self.ended(job)
        return job if job.state != WAITING else super().next(running)  # it waits if a running trial has its settings

    def look(self, slots: Slots) -> list[Job]:
        for job in slots.running:
            if job.state == RUNNING and not job.pruned and self._falls_behind(job):
                job.pruned = True
                slots.stop([job])
        return super().look(slots)

    def _falls_behind(self, job: Job) -> bool:
        """Tell Optuna how the validation curve goes on; return True if the trial is to be stopped here."""
        trial = self.trial_of[job]
        told = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        curve = f"valid/{self.search.metric}"
        for line in read_json_lines(job.run.metrics_file):
            if curve in line and line["epoch"] not in told and math.isfinite(line[curve]):
                trial.report(line[curve], line["epoch"])
        return self.search.prune and trial.should_prune()

    def ended(self, job: Job) -> None:
        """Tell Optuna how a trial ended, if it did; one that was stopped goes on in the next session."""
        import optuna

        trial = self.trial_of[job]
        score = job.scores.get(self.search.metric)
        value = None if score is None else score.on_valid
        if job.state == FINISHED and (value is None or not math.isfinite(value)):
            job.state, job.cause = FAILED, f"its {self.search.metric} on validation images is no number"
        if job.state == FINISHED:
            self.study.tell(trial, value)
        elif job.state == PRUNED:
            status = job.run.status()
            job.cause = f"at epoch {status.get('epoch')} of {status.get('epochs')}"
            job.run.amend_status("interrupted", status="pruned")
            trial.set_user_attr("cause", job.cause)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif job.state == FAILED:
            trial.set_user_attr("cause", job.cause)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _check(config: TrainConfig, search: Search, ranges: dict[str, Range], line: CommandLine) -> None:
    """Raise UsageError for a search that could not be made."""
    if not ranges:
        example = "'search.ranges.optimizer.lr={low: 1e-3, high: 1, log: true}'"
        raise UsageError(f"search.ranges is empty: give ranges, as in {example} or in an experiment's YAML")
    if search.metric not in config.metrics:
        raise UsageError(f"search.metric={search.metric}: the runs are scored by {', '.join(config.metrics)}")
    reason = why_not_to_choose(search.metric, config.metrics[search.metric])
    if reason is not None:
        raise UsageError(f"search.metric={reason}")
    if search.prune and config.log.scores_every_epochs is None:
        raise UsageError("search.prune needs a validation curve: set log.scores_every_epochs=N, or search.prune=false")
    if config.sweep.rank_by not in (None, search.metric):
        raise UsageError(f"leave out sweep.rank_by: a search ranks by what it seeks, search.metric={search.metric}")
    if is_elsewhere(line):
        raise UsageError("hydra/launcher is for sweeps with -m; a search runs its trials on this machine")
    if config.fresh:
        begin = f"to begin it anew, move its folder in {config.outputs_dir}/searches away"
        raise UsageError(f"fresh=true is of runs, and a search goes on with its trials; {begin}")
    if config.run_dir is not None:
        raise UsageError("run_dir= names one directory for all trials of a search; leave it out")


def _without_search(config: TrainConfig, line: CommandLine, ranges: dict[str, Range]) -> CommandLine:
    """Return the command line that all trials share, without the search's own settings."""
    own = ("search", "+search", "sweep.", "hydra", *(f"{name}=" for name in ranges))
    overrides = [word for word in line.overrides if not word.startswith(own)]
    if not any(word.lstrip("+").startswith("log.scores_every_epochs=") for word in overrides):  # search=optuna has one
        overrides.append(f"log.scores_every_epochs={json.dumps(config.log.scores_every_epochs)}")
    return replace(line, overrides=tuple(overrides), words=())


def _job(fixed: CommandLine, chosen: dict[str, Any]) -> Job:
    """Return the job of these settings. Raises UsageError if there are no such settings, or their values are wrong."""
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in chosen.items()}
    line = replace(fixed, overrides=(*fixed.overrides, *(f"{name}={text}" for name, text in values.items())))
    config = configuration(line)
    return Job.of(line, config.model_copy(update={"search": None}))


def _name(config: TrainConfig, search: Search, ranges: dict[str, Range], as_typed: bool) -> str:
    """Return the name of a search's folder: model, data set, and a digest of all that makes its trials comparable."""
    content = [config.identity(as_typed), config.epochs, config.metrics[search.metric], ranges]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.dataset['name']}-{config.name}-{digest}"


def _study(search: Search, folder: Path, minimize: bool) -> "optuna.Study":
    import optuna

    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = optuna.pruners.MedianPruner(search.startup_trials, search.warmup_epochs)
            study = optuna.create_study(
                study_name=folder.name,
                storage=f"sqlite:///{folder / 'study.db'}",
                pruner=pruner if search.prune else optuna.pruners.NopPruner(),
                direction="minimize" if minimize else "maximize",
                load_if_exists=True,
            )
    except Exception as error:  # of SQLAlchemy, which is known here only through Optuna
        raise GenexpError(f"{folder / 'study.db'} cannot be opened: {first_line(error)}") from error
    # A session's own seed: with that of the first it would draw again what was tried already.
    seed = random.Random(f"{search.seed} {len(study.trials)}").getrandbits(32)
    study.sampler = samplers[search.sampler](seed=seed)
    return study
