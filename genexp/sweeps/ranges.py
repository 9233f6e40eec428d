"""The ranges in which a search seeks settings."""

import json
import math
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, Union, get_args, get_origin

from genexp.config.components import components, declared_settings
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError

if TYPE_CHECKING:
    import optuna

RANGE = {"low", "high", "log", "step"}
Range = dict[str, Any]  # {"low", "high", "log", "step"} or {"choices"}


def typed_ranges(config: TrainConfig, tree: dict[str, Any]) -> dict[str, Range]:
    """Return the ranges of a search by the settings' names, their numbers in the type that each setting declares.

    A float setting takes fractions between whole ends, too; a whole one takes whole numbers. Raises UsageError for a
    wrong range, and for fractions of a whole setting.
    """
    return {name: _in_type(name, given, _types(config, name)) for name, given in flat_ranges(tree).items()}


def _in_type(name: str, given: Range, types: set[type]) -> Range:
    numbers = {key: given[key] for key in ("low", "high", "step") if given.get(key) is not None}
    if int in types and float not in types:
        if not all(float(number).is_integer() for number in numbers.values()):
            raise UsageError(f"search.ranges.{name}={given}: {name} takes whole numbers")
        return given | {key: int(number) for key, number in numbers.items()}
    if float in types and all(isinstance(number, int) for number in numbers.values()):
        return given | {key: float(number) for key, number in numbers.items()}
    return given


def _types(config: TrainConfig, name: str) -> set[type]:
    """Return the types that a setting declares, such as {float, NoneType}; none if they are not known."""
    key, _, setting = name.rpartition(".")
    component = components(config).get(key)
    if component is not None:
        declared = declared_settings(key, component["_target_"]) or {}
        return _parts(declared.get(setting, (Any, ...))[0])
    schema: Any = TrainConfig
    for part in key.split(".") if key else []:
        field = getattr(schema, "model_fields", {}).get(part)
        schema = None if field is None else field.annotation
    field = getattr(schema, "model_fields", {}).get(setting)
    return set() if field is None else _parts(field.annotation)


def _parts(kind: Any) -> set[type]:
    """Return the plain types in an annotation such as `Annotated[float, ...] | None`."""
    if get_origin(kind) is Annotated:
        return _parts(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return set().union(*map(_parts, get_args(kind)))
    return {kind} if isinstance(kind, type) else set()


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
    """Return the value that a trial takes from a range; a whole number if all numbers of the range are."""
    if "choices" in given:  # as text: Optuna's storage keeps no lists
        texts = [json.dumps(choice) for choice in given["choices"]]
        return json.loads(trial.suggest_categorical(name, texts))
    low, high, log, step = (given[key] for key in ("low", "high", "log", "step"))
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, low, high, log=log, step=step)
