"""Settings of a wrong type, name or range, in plain words."""

from typing import Any

import pydantic

from genexp.errors import UsageError
from genexp.text import nearest


def usage_error(error: pydantic.ValidationError, prefix: str, names: list[str]) -> UsageError:
    """Return a UsageError with a line for each wrong setting: its value, and what it should be."""
    lines = [_mistake(mistake, prefix, names) for mistake in error.errors()[:3]]
    return UsageError("\n".join(dict.fromkeys(lines)))


def _mistake(mistake: Any, prefix: str, names: list[str]) -> str:
    key = prefix + ".".join(str(part) for part in mistake["loc"] if part != "function-after")
    match mistake["type"]:
        case "extra_forbidden":
            hint = nearest(str(mistake["loc"][-1]), names)
            return f"there is no setting '{key}'{hint or '; it has ' + ', '.join(names)}"
        case "missing":
            return f"{key} is missing: give it, as in {key}=VALUE"
        case "string_pattern_mismatch":
            return f"{key}={mistake['input']}: should be made of letters, digits, '.', '_', '+' and '-'"
    wanted = mistake["msg"].removeprefix("Input ").replace("a valid integer", "an integer")
    hint = ""
    if mistake["type"] == "list_type" and isinstance(mistake["input"], str | int | float):
        wanted, hint = "should be a list", f", as in {key}=[{mistake['input']}]"
    if mistake["type"] == "dict_type":
        wanted, hint = "should be a mapping", f"; for an empty one: {key}={{}}"
    if mistake["type"] == "string_type" and isinstance(mistake["input"], bool | int | float):
        hint = f"; if it is meant as a text, quote it twice: {key}='\"{mistake['input']}\"'"
    if (
        mistake["type"] in ("int_type", "float_type")
        and isinstance(mistake["input"], list)
        and len(mistake["input"]) > 1
    ):
        values = ",".join(map(str, mistake["input"]))
        hint = f"; a sweep's values are written without brackets, and with -m: {key}={values} -m"
    if mistake["type"] == "literal_error" and isinstance(mistake["input"], str):
        hint = nearest(mistake["input"], mistake["ctx"]["expected"].split("'")[1::2])
    return f"{key}={mistake['input']}: {wanted}{hint}"
