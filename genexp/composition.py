"""Composing a configuration by Hydra, and Hydra's mistakes in the words of the person at the terminal."""

import os
import re
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genexp.config import CONFIGS, RUN_SETTINGS, SCHEMAS, nearest
from genexp.errors import UsageError

# Hydra 1.3 warns when this is left out, Hydra 1.4 when it is given.
OLD = hydra.__version__.startswith("1.3.")
VERSION_BASE: dict[str, Any] = {"version_base": None} if OLD else {}
REPLACE: dict[str, Any] = {} if OLD else {"replace": True}  # Hydra 1.3 always does, and does not know the word


def compose(command: str, overrides: list[str]) -> DictConfig:
    """The configuration of a command line, as Hydra composes it, not yet checked.

    Within a job, the folder of its --config-dir is searched, too.
    """
    searched = [f"hydra.searchpath={list(own_folders())}"] if own_folders() else []
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS.resolve()), **VERSION_BASE):
        return hydra.compose(command, [*overrides, *searched])


def own_folders() -> tuple[str, ...]:
    """The folders of the user's own configurations, given to the running job as --config-dir."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return tuple(f"file://{source.path}" for source in sources if source.provider == "command-line")


def offer_run(command: str, path: Path | None) -> None:
    """Make the settings of a run what `- trained_run` stands for in the defaults of a command that opens one.

    So they can be set and completed like any others. Raises UsageError when `path` is no run's directory.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        file = path / "config.yaml"
        try:
            kept = OmegaConf.to_container(OmegaConf.load(file))
        except (OSError, OmegaConfBaseException, YAMLError) as error:
            raise UsageError(f"{path} is no run's directory: {file.name} is missing or damaged there") from error
        taken = [name for name in (*RUN_SETTINGS, "metrics") if name in SCHEMAS[command].model_fields]
        if not isinstance(kept, dict) or any(name not in kept for name in taken):
            raise UsageError(f"{file} is damaged, or from another version of genexp")
        settings = {name: kept[name] for name in taken}
        settings["run"] = str(path).replace("${", "\\${")  # no interpolation: a folder may be called anything
        settings["data_dir"] = os.environ.get("GENEXP_DATA_DIR", settings["data_dir"])
    ConfigStore.instance().store(name="trained_run", node=OmegaConf.create(settings), **REPLACE)


def in_each_job(overrides: list[str]) -> list[str]:
    """The overrides of a sweep over choices, with `model.chains=9` beside `model=dae,cae` as a sweep of one value.

    Hydra applies what is not swept to a configuration without any of the swept choices, where it may not exist.
    """
    parser = OverridesParser.create()
    try:
        parsed = {word: parser.parse_override(word) for word in overrides}
    except OverrideParseException:
        return overrides  # Hydra will meet it again, and is answered by `explain`
    if not any(found.is_sweep_override() and "." not in found.key_or_group for found in parsed.values()):
        return overrides
    return [
        f"{word.partition('=')[0]}=choice({word.partition('=')[2]})"
        if "." in found.key_or_group and not found.is_sweep_override() and not found.is_delete()
        else word
        for word, found in parsed.items()
    ]


def in_plain_words(error: Exception, command: str, arguments: list[str]) -> UsageError:
    """A UsageError that names the mistake and the remedy."""
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group.split("/")[0] == "experiment":
            option, group = str(error.missing_cfg_file).removeprefix("experiment/"), "experiment"
        options = options_of(group) if group == "experiment" else sorted(map(str, error.options))
        hint = nearest(option, options)
        return UsageError(f"{group}={option}: there is no such {group}{hint}\nThe choices are: {', '.join(options)}")
    if isinstance(error, OverrideParseException):
        return UsageError(f"'{error.override}' cannot be read as a setting: {_first_line(error)}\nWrite name=value")
    text = str(error)
    unknown = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^'=]+)", text)
    if unknown:
        if "@optimizers." in unknown.group(1):
            player = unknown.group(1).strip().rpartition(".")[2]
            return UsageError(
                f"this model offers no optimizers.{player}; if it has a player '{player}' all the same, "
                f"+optimizer@optimizers.{player}=... gives it an optimizer of its own"
            )
        key = unknown.group(1).split("@")[0].lstrip("+~")
        part, _, name = key.partition(".")
        if part == "metric" or (part == "metrics" and name in options_of("metric")):
            name = name if name in options_of("metric") else "fid"
            return UsageError(f"there is no setting '{key}': a score is added by metric@metrics.{name}={name}")
        if (CONFIGS / key).is_dir() and key not in _groups(command):
            return UsageError(f"genexp {command} takes no {key}; see `genexp {command} --help`")
        keys = _keys(command, arguments)
        siblings = [name for name in keys if name.rpartition(".")[0] == key.rpartition(".")[0]]
        there_are = f"; there are {', '.join(siblings)}" if siblings else f"; see `genexp {command} --cfg job`"
        remedy = nearest(key, keys) or there_are
        return UsageError(f"there is no setting '{key}'{remedy}")
    if "Ambiguous value" in text:
        return UsageError(f"{_first_line(error)}\nSeveral values are a sweep: add -m; a list is written [a,b]")
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
    kind = "" if isinstance(error, HydraException | ConfigCompositionException) else f"{type(error).__name__}: "
    return UsageError(f"{kind}{_first_line(error)}{cause}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def options_of(group: str) -> list[str]:
    """The options of a group that has folders in it, which Hydra does not list."""
    folder = CONFIGS / group
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))


def _keys(command: str, arguments: list[str]) -> list[str]:
    """Every setting and group of the configuration, composed from those arguments that choose an option."""
    groups = _groups(command)
    choices = [word for word in arguments if word.partition("=")[0] in groups and "," not in word]
    try:
        return [*groups, *_leaves(compose(command, choices))]
    except HydraException:
        return groups


def _groups(command: str) -> list[str]:
    """The groups of which a command lets one choose an option."""
    entries = [entry for entry in OmegaConf.load(CONFIGS / f"{command}.yaml").defaults if isinstance(entry, DictConfig)]
    names = [str(name) for entry in entries for name in entry]
    return [name for name in names if name.isidentifier()]


def _leaves(config: DictConfig) -> list[str]:
    """The dotted key of every setting."""
    tree: dict[Any, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        return [leaf for key, value in node.items() for leaf in walk(value, f"{path}.{key}" if path else str(key))]

    return walk(tree, "")
