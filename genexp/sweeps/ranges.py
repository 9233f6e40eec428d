"""The ranges in which a search seeks settings."""

import json
import math
from typing import TYPE_CHECKING, Any, TypeGuard

from genexp.errors import UsageError

if TYPE_CHECKING:
    import optuna

RANGE = {"low", "high", "log", "step"}
Range = dict[str, Any]  # {"low", "high", "log", "step"} or {"choices"}


def flat_ranges(tree: dict[str, Any], prefix: str = "") -> dict[str, Range]:
    """Return {"optimizer.lr": {"low": .001, "high": 1.0, "log": True}, ...}. Raises UsageError for a wrong range."""
    ranges: dict[str, Range] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            raise UsageError(f"search.ranges.{name}={value}: write {{low: .., high: ..}} or {{choices: [..]}}")
        if value.keys() & (RANGE | {"choices"}) and not any(isinstance(part, dict) for part in value.values()):
            ranges[name] = _checked(name, value)
        else:
            ranges |= flat_ranges(value, f"{name}.")
    return ranges


def _checked(name: str, given: Range) -> Range:
    """Return a range with all its parts. Raises UsageError if it is empty or no range."""
    wrong = UsageError(
        f"search.ranges.{name}={given}: write {{low: .., high: ..}}, with log: true or step: .. if you like, or "
        "{choices: [..]}; low is less than high, and above 0 with log"
    )
    if "choices" in given:
        if set(given) != {"choices"} or not isinstance(given["choices"], list) or not given["choices"]:
            raise wrong
        return given
    low, high, step, log = given.get("low"), given.get("high"), given.get("step"), given.get("log", False)
    if not set(given) <= RANGE or not (_is_number(low) and _is_number(high) and (step is None or _is_number(step))):
        raise wrong
    if low >= high or (log and (low <= 0 or step is not None)) or (step is not None and step <= 0):
        raise wrong
    return {"low": low, "high": high, "log": log, "step": step}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def suggest(trial: "optuna.Trial", name: str, given: Range) -> Any:
    """Return the value that a trial takes from a range."""
    if "choices" in given:  # as text: Optuna's storage keeps no lists
        texts = [json.dumps(choice) for choice in given["choices"]]
        return json.loads(trial.suggest_categorical(name, texts))
    low, high, log, step = (given[key] for key in ("low", "high", "log", "step"))
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, low, high, log=log, step=step)
