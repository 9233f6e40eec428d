"""The configuration that a run directory keeps, and how two configurations differ."""

import re
from pathlib import Path
from typing import Any

import yaml

from genexp.config.check import with_checked_components
from genexp.config.components import GROUPS
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError

TIMESTAMP = "tag:yaml.org,2002:timestamp"
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
    return config_of(read_yaml(file), file)


def read_yaml(file: Path) -> Any:
    """Return the plain content of a YAML file; None if it is missing or damaged."""
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def config_of(content: Any, file: Path) -> TrainConfig:
    """Return the configuration that a run's config.yaml holds as plain content. Raises UsageError if it is damaged."""
    try:
        config = TrainConfig.model_validate(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is missing, damaged or from another version of genexp") from error
    for group in GROUPS:
        if "name" not in getattr(config, group):
            raise UsageError(f"{file} is damaged: its {group} has no name")
    return config


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
