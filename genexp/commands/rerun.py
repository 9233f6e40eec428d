"""`genexp rerun`: train a run again beside it, and say whether the scores come out equal, bit for bit."""

from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from genexp.commands import train
from genexp.config.check import with_checked_components
from genexp.config.command_line import CommandLine
from genexp.config.commands import RerunConfig
from genexp.config.components import Component, data_sets, refuse_strangers
from genexp.config.kept import differences
from genexp.config.schema import TrainConfig, flat
from genexp.errors import GenexpError, UsageError
from genexp.rundirs.directory import Run
from genexp.rundirs.results import Results
from genexp.storage.checkpoint import load_latest
from genexp.storage.files import RERUN
from genexp.tables import Column, Table, print_table
from genexp.training import build
from genexp.training.reopen import ELSEWHERE, refuse_other_data

VALUES = ("mean", "stderr", "valid_mean")  # of a score, as far as it has them
MAY_DIFFER = ("dirty", "command", "time", "machine.host", "machine.system", "machine.cores", "from_step")


def main(config: RerunConfig, line: CommandLine, run: Run) -> None:
    """Train what the run's own configuration says; print a table of the scores, and why they may differ.

    Raises UsageError if there is nothing to repeat or to compare, GenexpError if a score is not equal.
    """
    then = _finished(run)
    refuse_strangers(run.config, config.trust)
    refuse_other_data(config, run)
    again = _configuration(config, run, then)
    data = build.data_set(again.dataset, again.data_dir, again.dataset_b)
    run.refuse_other_images(data.digest(), data_sets(again), ELSEWHERE)
    rerun = Run(again.directory())
    if rerun.finished(again) is not None:  # an earlier rerun, perhaps of other code
        again = again.model_copy(update={"fresh": True})
    train.main(again, line)
    now = _finished(rerun)

    print(f"\nthen: {run.path}\nnow:  {rerun.path}")
    sessions = len(run.sessions())
    if sessions > 1:
        print(f"note: it was trained in {sessions} sessions; going on is bit for bit, so equal is expected")
    unequal = _compare_scores(then, now)
    weights_equal = _compare_weights(run, rerun)
    if unequal or weights_equal is False:
        _print_causes(run, then, now)
    print(f"run: {rerun.path}", flush=True)
    if unequal or not (then.scores or weights_equal):
        raise GenexpError(f"not equal: {', '.join(unequal) or 'the weights'} of {run.path}, run again in {rerun.path}")


def _finished(run: Run) -> Results:
    """Return the results of the run. Raises UsageError if it has none."""
    if run.is_export:
        raise UsageError(f"{run.path} is an export, which is not trained; give the run that it is of")
    results = Results.read(run.results_file)
    if run.status().get("status") != "finished" or results is None:
        raise UsageError(
            f"{run.path} is not finished, so there is nothing to compare with; genexp train goes on with it"
        )
    return results


def _configuration(config: RerunConfig, run: Run, then: Results) -> TrainConfig:
    """Return the run's configuration for a directory beside it, on as many threads of the same kind of device."""
    kept: TrainConfig = with_checked_components(run.config)
    asked = config.device
    if asked.precision not in (None, kept.device.precision):
        raise UsageError(
            f"device.precision={asked.precision}: the run was trained in {kept.device.precision}; another precision is "
            "another experiment"
        )
    device = {
        "kind": asked.kind or str(then.provenance.get("device", kept.device.kind)).split()[0],
        "threads": asked.threads or then.provenance.get("threads", kept.device.threads),
        "capture": kept.device.capture if asked.capture is None else asked.capture,
    }
    path = run.path if run.path.name not in ("", "..") else run.path.resolve()
    changed = {
        "run_dir": str(path.with_name(path.name + RERUN)),
        "dataset": _known_as_before(config.dataset, kept.dataset),
        "dataset_b": None if config.dataset_b is None else _known_as_before(config.dataset_b, kept.dataset_b or {}),
        "data_dir": config.data_dir,
        "device": kept.device.model_copy(update=device),
        "epochs": then.epochs,
        "fresh": config.fresh,
    }
    return kept.model_copy(update=changed)


def _known_as_before(here: Component, kept: Component) -> Component:
    """Return the data set with the name, or else the path, by which the run knows it."""
    moved = "known_as" in here and here["known_as"] is None and here["path"] != kept["path"]
    return here | {"known_as": kept["path"]} if moved else here


def _compare_scores(then: Results, now: Results) -> list[str]:
    """Print every value of every score with all its digits; return the names of the scores that are not equal."""
    rows, unequal = [], []
    for name in {**then.scores, **now.scores}:
        for value in VALUES:
            before, after = (getattr(results.scores.get(name), value, None) for results in (then, now))
            if value == "stderr" or not (before is None and after is None):
                label = name if value == "mean" else f"{name} {value}"
                rows.append((label, str(before), str(after), "yes" if str(before) == str(after) else "no"))
            if str(before) != str(after) and name not in unequal:  # as text, since NaN is not equal to itself
                unequal.append(name)
    titles = ("score", "then", "now", "equal")
    columns = [Column(title, itemgetter(i), left=True, cut="" if i else "end") for i, title in enumerate(titles)]
    print_table(Table(columns, rows))
    return unequal


def _compare_weights(run: Run, rerun: Run) -> bool | None:
    """Print whether the newest weights of the two runs are equal; return that, or None if they cannot be compared."""
    try:
        one, other = (load_latest(each.checkpoints, print) for each in (run, rerun))
    except GenexpError as error:
        print(f"weights: not compared, since {error}")
        return None
    if one is None or other is None or one[1]["step"] != other[1]["step"]:
        print("weights: not compared, since the runs have no checkpoint of the same step")
        return None
    ours, theirs = one[1]["model"], other[1]["model"]
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    print(f"weights after step {one[1]['step']:,}: {'equal, bit for bit' if equal else 'not equal'}")
    return equal


def _print_causes(run: Run, then: Results, now: Results) -> None:
    """Print the differences in provenance, and how to get the code of the first run again."""
    before, after = _facts(then.provenance), _facts(now.provenance)
    if before == after:
        print("Code, versions, processor, device and number of threads were the same, as far as is recorded.")
    else:
        print(f"This differs in where the two come from, and may be why:\n{differences(before, after)}")
    sessions = [_facts(session) for session in run.sessions()]
    keys = {key for facts in sessions for key in facts}
    unlike = sorted(key for key in keys if len({str(facts.get(key)) for facts in sessions}) > 1)
    if unlike:
        print(f"The sessions of {run.path} differ from each other, too, in {', '.join(unlike)}")
    commit, patch = then.provenance.get("commit"), then.provenance.get("patch")
    if commit and (commit, patch) != (now.provenance.get("commit"), now.provenance.get("patch")):
        apply = f"  git apply {Path(run.path, patch)}\n" if patch else ""
        again = f"  genexp rerun {run.path} fresh=true"
        print(f"The first one's code, in the root of its checkout:\n  git checkout {commit}\n{apply}{again}")


def _facts(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a provenance that may change the numbers that come out."""
    return {key: value for key, value in flat(provenance).items() if key not in MAY_DIFFER}
