"""`genexp rerun`: train a run again beside it, and say whether the scores come out equal, bit for bit."""

from pathlib import Path
from typing import Any

import torch

from genexp.commands import train
from genexp.config.schema import RerunConfig, TrainConfig, refuse_strangers
from genexp.errors import GenexpError, UsageError
from genexp.runs import directory as run
from genexp.runs import results
from genexp.storage.checkpoint import load_latest
from genexp.storage.files import RERUN, read_json
from genexp.training import build
from genexp.training.reopen import refuse_other_images

VALUES = ("mean", "stderr", "valid_mean")  # of a score, as far as it has them
MAY_DIFFER = ("dirty", "command", "time", "machine.host", "machine.system", "machine.cores", "from_step")


def main(config: RerunConfig) -> dict[str, Any]:
    """Train what the run's own configuration says; print a table of the scores, and why they may differ.

    Returns the results of the second run, and under "run" its directory. Raises UsageError when there is nothing to
    repeat or to compare, GenexpError when a score is not equal.
    """
    path = Path(config.run).expanduser()
    kept = run.read_config(path)
    then = _finished(path)
    refuse_strangers(kept, config.trust)
    again = _again(config, kept, path, then)
    refuse_other_images(path, again.dataset, build.data_set(again.dataset, again.data_dir))
    if run.finished(again) is not None:  # by an earlier rerun, and perhaps by other code
        again = again.model_copy(update={"fresh": True})
    now = train.main(again)

    place = again.directory()
    print(f"\nthen: {path}\nnow:  {place}")
    sessions = read_json(path / "provenance.json").get("sessions", [])
    if len(sessions) > 1:
        print(f"note: it was trained in {len(sessions)} sessions; going on is bit for bit, so equal is expected")
    unequal = _compare_scores(then["scores"], now["scores"])
    alike = _compare_weights(path, place)
    if unequal or alike is False:
        _print_causes(path, then.get("provenance", {}), now["provenance"], sessions)
    print(f"run: {place}", flush=True)
    if unequal or not (then["scores"] or alike):
        raise GenexpError(f"not equal: {', '.join(unequal) or 'the weights'} of {path}, run again in {place}")
    return now


def _finished(path: Path) -> dict[str, Any]:
    """The results of the run. Raises UsageError when it has not come to any."""
    if run.is_export(path):
        raise UsageError(f"{path} is an export, which is not trained; give the run that it is of")
    status, kept = read_json(path / "status.json").get("status"), read_json(path / results.FILE)
    if status != "finished" or not {"scores", "epochs"} <= kept.keys():
        raise UsageError(f"{path} is not finished, so there is nothing to compare with; genexp train goes on with it")
    return kept


def _again(config: RerunConfig, kept: TrainConfig, path: Path, then: dict[str, Any]) -> TrainConfig:
    """The run's configuration, for a directory beside it, on as many threads of the same kind of device."""
    asked = config.device
    if asked.precision not in (None, kept.device.precision):
        raise UsageError(
            f"device.precision={asked.precision}: the run was trained in {kept.device.precision}; another precision is "
            "another experiment"
        )
    made_by = then.get("provenance", {})
    device = {
        "kind": asked.kind or str(made_by.get("device", kept.device.kind)).split()[0],
        "threads": asked.threads or made_by.get("threads", kept.device.threads),
    }
    named = path if path.name not in ("", "..") else path.resolve()
    changed = {
        "run_dir": str(named.with_name(named.name + RERUN)),
        "data_dir": config.data_dir,
        "device": kept.device.model_copy(update=device),
        "epochs": then["epochs"],
        "fresh": config.fresh,
    }
    return kept.model_copy(update=changed)


def _compare_scores(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Print every value of every score with all its digits; return the names of the scores that are not equal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("score", "then", "now", "equal", box=box.SIMPLE, pad_edge=False)
    unequal = []
    for name in {**then, **now}:
        one, other = then.get(name, {}), now.get(name, {})
        for value in (value for value in VALUES if value in one or value in other):
            before, after = one.get(value), other.get(value)
            if before != after and name not in unequal:
                unequal.append(name)
            equal = "yes" if before == after else "no"
            table.add_row(name if value == "mean" else f"{name} {value}", str(before), str(after), equal)
    Console(width=Console(width=10**6).measure(table).maximum).print(table)
    return unequal


def _compare_weights(path: Path, place: Path) -> bool | None:
    """Say whether the newest weights of the two runs are equal; return that, or None where they are not to be had."""
    try:
        one, other = (load_latest(folder / "checkpoints", print) for folder in (path, place))
    except GenexpError as error:
        print(f"weights: not compared, since {error}")
        return None
    if one is None or other is None or one[1]["step"] != other[1]["step"]:
        print("weights: not compared, since the runs have no checkpoint of the same step")
        return None
    step, here, there = one[1]["step"], one[1]["model"], other[1]["model"]
    equal = here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
    print(f"weights after step {step:,}: {'equal, bit for bit' if equal else 'not equal'}")
    return equal


def _print_causes(path: Path, then: dict[str, Any], now: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
    """Print what differs in where the two come from, and how to have the code of the first again."""
    before, after = _facts(then), _facts(now)
    if before == after:
        print("Code, versions, processor, device and number of threads were the same, as far as is recorded.")
    else:
        print(f"This differs in where the two come from, and may be why:\n{run.differences(before, after)}")
    facts = [_facts(session) for session in sessions]
    unlike = sorted({key for one in facts for key in one if any(one[key] != other.get(key) for other in facts)})
    if unlike:
        print(f"The sessions of {path} differ from each other, too, in {', '.join(unlike)}")
    commit, patch = then.get("commit"), then.get("patch")
    if commit and (commit, patch) != (now.get("commit"), now.get("patch")):
        apply = f"  git apply {path / patch}\n" if patch else ""
        again = f"  genexp rerun {path} fresh=true"
        print(f"The first one's code, in the root of its checkout:\n  git checkout {commit}\n{apply}{again}")


def _facts(made_by: dict[str, Any]) -> dict[str, Any]:
    """What of a provenance may change the numbers that come out."""
    return {key: value for key, value in run.flat(made_by).items() if key not in MAY_DIFFER}
