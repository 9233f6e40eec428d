"""The configuration that a run directory keeps, and how two configurations differ."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from genexp.config.check import with_checked_components
from genexp.config.components import GROUPS
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError

TIMESTAMP = "tag:yaml.org,2002:timestamp"
TOP_LEVEL = re.compile(r"\n(?=[A-Za-z_])")  # before each setting of the top level but the first
FLOAT = re.compile(r"^[-+]?[0-9]+(_[0-9]+)*(\.[0-9_]*)?[eE][-+]?[0-9]+$")  # also without a point or a sign: 1e3


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads values as OmegaConf does, which writes these files, but many times as fast."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_config(file: Path) -> TrainConfig:
    """Return the configuration in a run's config.yaml. Raises UsageError if it is missing or damaged."""
    try:
        config = TrainConfig.model_validate(_content(file.read_bytes().decode()))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{file} is missing, damaged or from another version of genexp") from error
    for group in GROUPS:
        if "name" not in getattr(config, group):
            raise UsageError(f"{file} is damaged: its {group} has no name")
    return config


def _content(text: str) -> Any:
    """Return the plain content of a YAML file.

    Nearly all the time of a listing would go into parsing. So the text is parsed by the settings of its top level,
    since most of them are alike in the runs of a sweep; and as a whole where they cannot stand alone.
    """
    try:
        *others, last = TOP_LEVEL.split(text)
        parts = [*(_parsed(f"{part}\n") for part in others), _parsed(last)]
    except yaml.YAMLError:
        parts = [None]
    if all(isinstance(part, dict) for part in parts):
        return {name: value for part in parts for name, value in part.items()}
    return yaml.load(text, Loader)


@lru_cache(maxsize=10_000)
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader)


def completed(config: TrainConfig) -> TrainConfig:
    """Return a kept configuration with the settings that its components got later; as it is if it does not check."""
    try:
        whole: TrainConfig = with_checked_components(config)
    except UsageError:  # its code is not here, or it is damaged: said where it is used
        return config
    return whole


def differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return a table of the settings in which two flat dictionaries differ."""
    rows: list[tuple[str, ...]] = [("setting", "there", "here")]
    for key in {**there, **here}:
        if there.get(key) != here.get(key):
            rows.append((key, *(str(side[key]) if key in side else "–" for side in (there, here))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)
