"""`genexp train search=optuna`: Optuna asks for settings within ranges, and is told how each trial goes and ends.

Each trial is a run like any other, in its own directory and process. The study is a SQLite file, so a search that was
stopped goes on; trials that it was in the middle of are resumed from their checkpoints.
"""

import hashlib
import json
import math
import random
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from genexp.config import schema as config
from genexp.config.compose import as_typed, compose, in_plain_words, own_folders
from genexp.config.schema import Search, TrainConfig
from genexp.errors import GenexpError, UsageError
from genexp.runs import directory as run
from genexp.runs.results import LOWER_IS_BETTER, on_valid
from genexp.storage.files import read_json, read_json_lines
from genexp.sweeps.board import FAILED, FINISHED, PRUNED, RUNNING, STOPPED, WAITING, Row, close, display
from genexp.sweeps.jobs import Job, Slots
from genexp.sweeps.sweep import LOOK, begun, end, fail_if_any, held, say_stopped

if TYPE_CHECKING:
    import optuna

RANGE = {"low", "high", "log", "step"}
Range = dict[str, Any]  # {"low", "high", "log", "step"} or {"choices"}


def main(train: TrainConfig, overrides: list[str]) -> None:
    """Run trials until there are `search.trials`, at most `sweep.jobs` at once; print and keep them, best first.

    `overrides` are the words that made `train`. Raises UsageError for a wrong range, GenexpError when no trial
    came to its end.
    """
    try:
        import optuna
    except ImportError as error:
        raise UsageError('search=optuna needs Optuna: pip install "genexp[optuna]"') from error
    search = train.search
    assert search is not None
    ranges = flat_ranges(search.ranges)
    _check(train, search, ranges)
    ours = ("search", "+search", "sweep.", "hydra", *(f"{name}=" for name in ranges))
    fixed = [word for word in overrides if not word.startswith(ours)]
    if not any(word.lstrip("+").startswith("log.scores_every_epochs=") for word in fixed):  # search=optuna brings it
        fixed.append(f"log.scores_every_epochs={json.dumps(train.log.scores_every_epochs)}")
    example = _job(fixed, {name: _edge(found) for name, found in ranges.items()})  # a wrong name is told at once
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with held(train.outputs_dir, "searches", _name(train, search, ranges)) as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = _study(search, folder, train.metrics[search.metric]["name"] in LOWER_IS_BETTER)
        trials = _Trials(study, search, ranges, fixed)
        try:
            _run(trials, train, folder, example)
        except KeyboardInterrupt as interrupt:
            again = train.again()
            raise KeyboardInterrupt(f"interrupted; trials that ran were saved, {again} goes on") from interrupt
        finally:
            say_stopped(trials.rows)
            close(trials.rows, folder, search.metric, set(as_typed(fixed)), train.metrics)
            print(f"study: sqlite:///{folder / 'study.db'}", flush=True)
    failed = sum(row.state == FAILED for row in trials.rows)
    if failed:  # that is an answer, too, and told to Optuna
        print(f"of {len(trials.rows)} trials {failed} failed; the table says why", flush=True)
    fail_if_any([row for row in trials.rows if row.state != FAILED], train.again())
    if not any(row.state == FINISHED for row in trials.rows):
        raise GenexpError("no trial came to its end; the table says why")


class _Trials:
    """The trials of a study, and the rows that show them."""

    def __init__(self, study: "optuna.Study", search: Search, ranges: dict[str, Range], fixed: list[str]) -> None:
        self.study, self.search, self.ranges, self.fixed = study, search, ranges, fixed
        self.rows: list[Row] = []
        self.open: list[optuna.Trial] = []  # of an earlier session that was stopped
        self.of: dict[Row, optuna.Trial] = {}
        for frozen in study.get_trials(deepcopy=False):
            if not frozen.state.is_finished():
                self.open.append(_reopened(study, frozen))
            elif "run" in frozen.user_attrs:
                row = Row(tuple(frozen.user_attrs["overrides"]), Path(frozen.user_attrs["run"]))
                row.state = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "FAIL": FAILED}[frozen.state.name]
                row.cause = frozen.user_attrs.get("cause", "")
                row.results = read_json(row.directory / "results.json") if row.state == FINISHED else {}
                self.rows.append(row)

    def next(self) -> Row | None:
        """The next trial to run; None when there are enough."""
        if self.open:
            trial = self.open.pop(0)
        elif len(self.study.get_trials(deepcopy=False)) < self.search.trials:
            trial = self.study.ask()
        else:
            return None
        chosen = {name: _suggest(trial, name, found) for name, found in self.ranges.items()}
        try:
            job = _job(self.fixed, chosen)
            run.finished(job.config)
        except UsageError as error:  # settings that do not go together
            row = Row(tuple(f"{name}={value}" for name, value in chosen.items()), Path(), state=FAILED)
            row.cause = str(error).splitlines()[0]
            self.rows.append(row)
            self.of[row] = trial
            self.tell(row)
            return row
        row = begun(job)  # finished already, if an earlier trial had the same settings
        trial.set_user_attr("run", str(row.directory))
        trial.set_user_attr("overrides", list(row.overrides))
        self.rows.append(row)
        self.of[row] = trial
        self.tell(row)
        return row

    def falls_behind(self, row: Row) -> bool:
        """Tell Optuna how the validation curve goes on; whether it would stop this one here."""
        trial = self.of[row]
        told = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        curve = f"valid/{self.search.metric}"
        for line in read_json_lines(row.directory / "metrics.jsonl"):
            if curve in line and line["epoch"] not in told and math.isfinite(line[curve]):
                trial.report(line[curve], line["epoch"])
        return self.search.prune and trial.should_prune()

    def tell(self, row: Row) -> None:
        """Tell Optuna how a trial ended, if it did; one that was stopped goes on with the next session."""
        import optuna

        trial = self.of[row]
        score = row.scores.get(self.search.metric)
        value = None if score is None else on_valid(score)
        if row.state == FINISHED and (value is None or not math.isfinite(value)):
            row.state, row.cause = FAILED, f"its {self.search.metric} on validation images is no number"
        if row.state == FINISHED:
            self.study.tell(trial, value)
        elif row.state == PRUNED:
            trial.set_user_attr("cause", row.cause)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif row.state == FAILED:
            trial.set_user_attr("cause", row.cause)
            trial.set_user_attr("run", str(row.directory))
            trial.set_user_attr("overrides", list(row.overrides))
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _run(trials: _Trials, train: TrainConfig, folder: Path, example: Job) -> None:
    old = len(trials.rows)
    if old or trials.open:
        going_on = f", {len(trials.open)} are gone on with" if trials.open else ""
        print(f"{old} trials have ended already{going_on}", flush=True)
    again: list[Row] = []  # to be tried once more, or when another process has left their run
    with (
        display(trials.rows, set(as_typed(trials.fixed)), trials.search.trials) as show,
        Slots(min(train.sweep.jobs, trials.search.trials), [example]) as slots,
    ):
        asking, stopping = True, False
        while slots.running or asking or again:
            while slots.free and (asking or again):
                busy = {job.directory for job in slots.running}
                row = _next(again, busy)
                if row is None and asking:
                    row = trials.next()
                    asking = row is not None
                    if row is not None and row.directory in busy:  # the same settings once more
                        again.append(row)
                if row is None or row in again:
                    break
                if row.state == WAITING and row.job is not None:
                    slots.start(row.job, folder / "logs" / f"{row.directory.name}.txt")
                    row.start()
                show(row)
            for ended, ending in slots.wait(LOOK):
                row = next(row for row in trials.rows if row.job is ended)
                pruned = row.state == PRUNED
                end(row, ending, 0 if stopping else train.sweep.retries)
                if pruned and row.state == STOPPED:
                    row.state = PRUNED
                    _mark_pruned(row)
                elif row.state == WAITING:
                    again.append(row)
                trials.tell(row)
                show(row)
                if row.state == FAILED and train.sweep.fail_fast and not stopping:
                    stopping = True
                    slots.stop(slots.running)
            if stopping:
                asking = False
                say_stopped(again)
                again = []
            for row in trials.rows:
                if row.state == RUNNING and trials.falls_behind(row) and row.job is not None:
                    row.state = PRUNED
                    slots.stop([row.job])
            show(None)


def _next(again: list[Row], busy: set[Path]) -> Row | None:
    """One of the rows to be begun again whose run nobody is at, taken out of them."""
    for row in again:
        if row.directory not in busy and not (row.elsewhere and run.is_held(row.directory)):
            again.remove(row)
            return row
    return None


def _mark_pruned(row: Row) -> None:
    """Let the run's status say that it was not merely interrupted."""
    status = read_json(row.directory / "status.json")
    row.cause = f"at epoch {status.get('epoch')} of {status.get('epochs')}"
    run.amend_status(row.directory, "interrupted", status="pruned")


def _check(train: TrainConfig, search: Search, ranges: dict[str, Range]) -> None:
    from hydra.core.hydra_config import HydraConfig

    if not ranges:
        raise UsageError(
            "search.ranges is empty: say which settings are sought, and where, as in "
            "'+search.ranges.optimizer.lr={low: 1e-3, high: 1, log: true}' or in an experiment's YAML"
        )
    if search.metric not in train.metrics:
        raise UsageError(f"search.metric={search.metric}: the runs are scored by {', '.join(train.metrics)}")
    metric = train.metrics[search.metric]
    ours = metric["_target_"].startswith("genexp.")  # what others return is seen when they do
    if ours and metric["name"] not in ("parzen", "parzen_folds") and metric.get("split") != "valid":
        there = f"set metrics.{search.metric}.split=valid" if "split" in metric else "seek by another"
        raise UsageError(
            f"search.metric={search.metric}: it is not taken on validation images, and those of the test are not to "
            f"choose by; {there}"
        )
    if search.prune and train.log.scores_every_epochs is None:
        raise UsageError(
            "search.prune=true stops runs by their validation curve, which log.scores_every_epochs=N draws; set that, "
            "or search.prune=false"
        )
    if train.sweep.rank_by not in (None, search.metric):
        raise UsageError(
            f"sweep.rank_by={train.sweep.rank_by}: a search ranks by what it seeks, search.metric={search.metric}; set "
            "that, and leave out sweep.rank_by"
        )
    launcher = HydraConfig.get().runtime.choices.get("hydra/launcher") if HydraConfig.initialized() else "genexp"
    if launcher not in ("genexp", "basic"):
        raise UsageError(f"hydra/launcher={launcher} is for sweeps with -m; a search runs its trials on this machine")
    if train.fresh:
        raise UsageError(
            "fresh=true is of runs, and a search goes on with its trials; to begin it anew, move its folder in "
            f"{train.outputs_dir}/searches away"
        )
    if train.run_dir is not None:
        raise UsageError("run_dir= names one directory for all trials of a search; leave it out")


def flat_ranges(tree: dict[str, Any], prefix: str = "") -> dict[str, Range]:
    """{'optimizer.lr': {'low': .001, 'high': 1.0, 'log': True}, ...}. Raises UsageError for what is no range."""
    ranges: dict[str, Range] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            raise UsageError(f"search.ranges.{name}={value}: write {{low: .., high: ..}} or {{choices: [..]}}")
        if value.keys() & (RANGE | {"choices"}) and not any(isinstance(one, dict) for one in value.values()):
            ranges[name] = _checked(name, value)
        else:
            ranges |= flat_ranges(value, f"{name}.")
    return ranges


def _checked(name: str, found: Range) -> Range:
    """The range with its numbers as such. Raises UsageError if there is nothing in it."""
    wrong = UsageError(
        f"search.ranges.{name}={found}: write {{low: .., high: ..}}, with log: true or step: .. if you like, or "
        "{choices: [..]}; low is less than high, and above 0 with log"
    )
    if "choices" in found:
        if set(found) != {"choices"} or not isinstance(found["choices"], list) or not found["choices"]:
            raise wrong
        return found
    low, high, step = found.get("low"), found.get("high"), found.get("step")
    if not set(found) <= RANGE or not (_is_number(low) and _is_number(high) and (step is None or _is_number(step))):
        raise wrong
    log = found.get("log", False)
    if low >= high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise wrong
    return {"low": low, "high": high, "log": log, "step": step}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _suggest(trial: "optuna.Trial", name: str, found: Range) -> Any:
    if "choices" in found:  # as text: Optuna's storage keeps no lists
        texts = [json.dumps(choice) for choice in found["choices"]]
        return json.loads(trial.suggest_categorical(name, texts))
    low, high, log, step = (found[key] for key in ("low", "high", "log", "step"))
    if all(isinstance(number, int) for number in (low, high, *([] if step is None else [step]))):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, low, high, log=log, step=step)


def _edge(found: Range) -> Any:
    return found["choices"][0] if "choices" in found else found["low"]


def _job(fixed: list[str], chosen: dict[str, Any]) -> Job:
    """The run of these settings. Raises UsageError if there are no such settings, or their values are wrong."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    folders = own_folders()
    words = [*fixed, *(f"{name}={_text(value)}" for name, value in chosen.items())]
    try:
        composed = compose("train", words)
    except (HydraException, OmegaConfBaseException) as error:
        raise in_plain_words(error, "train", words) from error
    composed["search"] = None
    folder = folders[0].removeprefix("file://") if folders else None
    return Job(config.load("train", composed), tuple(as_typed(words)), folder)


def _text(value: Any) -> str:
    """A value as Hydra reads it on the command line."""
    return str(value) if isinstance(value, str) else json.dumps(value)


def _name(train: TrainConfig, search: Search, ranges: dict[str, Range]) -> str:
    """What a search's folder is called: by model, data set, and a digest of all that makes its trials comparable."""
    what = [train.identity(), train.epochs, train.metrics[search.metric], ranges]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    return f"{train.dataset['name']}-{train.name}-{digest}"


def _study(search: Search, folder: Path, lower: bool) -> "optuna.Study":
    import optuna

    url = f"sqlite:///{folder / 'study.db'}"
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=search.warmup_epochs)
    try:
        study = optuna.create_study(
            study_name=folder.name,
            storage=url,
            pruner=pruner if search.prune else optuna.pruners.NopPruner(),
            direction="minimize" if lower else "maximize",
            load_if_exists=True,
        )
    except Exception as error:  # of SQLAlchemy, which is known here only through Optuna
        raise GenexpError(f"{folder / 'study.db'} cannot be opened: {str(error).splitlines()[0]}") from error
    # A session's own seed: with that of the first it would draw again what was tried already.
    seed = random.Random(f"{search.seed} {len(study.trials)}").getrandbits(32)
    study.sampler = samplers[search.sampler](seed=seed)
    return study


def _reopened(study: "optuna.Study", frozen: "optuna.trial.FrozenTrial") -> "optuna.Trial":
    """A trial that was being run when the search was stopped; it keeps the settings that were chosen for it."""
    import optuna

    return optuna.Trial(study, frozen._trial_id)
