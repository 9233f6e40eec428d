"""The configuration that a run directory keeps, and how two configurations differ."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genexp.config.check import with_checked_components
from genexp.config.components import GROUPS
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError


def read_config(file: Path) -> TrainConfig:
    """Return the configuration in a run's config.yaml. Raises UsageError if it is missing or damaged."""
    try:
        config = TrainConfig.model_validate(OmegaConf.to_container(OmegaConf.load(file)))
    except (OSError, ValueError, RecursionError, OmegaConfBaseException, YAMLError) as error:
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
