"""Composing a configuration by Hydra, and Hydra's mistakes in the words of the person at the terminal."""

import os
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from genexp.config.schema import CONFIGS, GROUPS, RUN_SETTINGS, SCHEMAS, nearest, refuse_strangers
from genexp.errors import UsageError
from genexp.runs.directory import read_config

LAUNCHERS = {  # the configurations of other packages, with the package, and the extra that brings it
    "hydra/launcher/submitit_local": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/ray": ("hydra-ray-launcher", "ray"),
}
SOURCE = "run"  # what from=PATH is called where Hydra composes
_source: list[Path] = []  # the path, while it is called so

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
        except (OSError, ValueError, RecursionError, OmegaConfBaseException, YAMLError) as error:
            raise UsageError(f"{path} is no run's directory: {file.name} is missing or damaged there") from error
        taken = [name for name in (*RUN_SETTINGS, "metrics") if name in SCHEMAS[command].model_fields]
        if not isinstance(kept, dict) or any(name not in kept for name in taken):
            raise UsageError(f"{file} is damaged, or from another version of genexp")
        settings = {name: kept[name] for name in taken}
        settings["run"] = str(path).replace("${", "\\${")  # no interpolation: a folder may be called anything
        settings["data_dir"] = os.environ.get("GENEXP_DATA_DIR", settings["data_dir"])
    ConfigStore.instance().store(name="trained_run", node=OmegaConf.create(settings), **REPLACE)


def offer_source(path: Path, words: list[str], trust: list[str]) -> None:
    """Make all that a kept run was trained with one choice, `from=run`, upon which `words` are set.

    A component that the words choose themselves is left out, and with a model what it brings. Raises UsageError when
    `path` keeps no run, or one of code that is neither of genexp nor trusted.
    """
    kept = read_config(path)
    refuse_strangers(kept, trust)
    chosen = {re.split("[=@]", word.lstrip("+~"))[0] for word in words}
    if "experiment" in chosen:
        raise UsageError("experiment= brings settings of its own, as from= does: leave one of them out")
    brought = ("optimizer", "noise") if "model" in chosen else ()
    store = ConfigStore.instance().store
    defaults: list[Any] = []
    overriding: list[Any] = []

    def choose(key: str, component: Any, replaces: bool) -> None:
        name = f"of_the_run_{key.rpartition('.')[2]}"
        store(group=key.partition("@")[0], name=name, node=OmegaConf.create(component), **REPLACE)
        (overriding if replaces else defaults).append({f"{'override ' * replaces}/{key}": name})

    for group in GROUPS:
        if group not in chosen and group not in brought:
            choose(group, getattr(kept, group), replaces=True)
    settings = {"seed": kept.seed, "log": kept.log.model_dump(), "checkpoint": kept.checkpoint.model_dump()}
    settings["device"] = {"precision": kept.device.precision}
    settings["data_dir"] = os.environ.get("GENEXP_DATA_DIR", kept.data_dir)
    if "model" not in chosen:
        settings |= {"name": kept.name, "epochs": kept.epochs, "batch_size": kept.batch_size}
        file = CONFIGS / "model" / f"{kept.model['name']}.yaml"
        offered: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
        players = [
            str(key).rpartition(".")[2]
            for entry in offered.get("defaults", [])
            for key in entry
            if "@optimizers." in str(key)
        ]
        for player in dict.fromkeys([*players, *kept.optimizers]):
            key = f"optimizer@optimizers.{player}"
            if player in kept.optimizers:
                choose(key, kept.optimizers[player], replaces=False)
            else:
                defaults.append({f"/{key}": None})
        listed = [name.rpartition(".")[2] for name in _entries("train") if name.startswith("metric@metrics.")]
        for name in dict.fromkeys([*listed, *kept.metrics]):
            key = f"metric@metrics.{name}"
            if name in kept.metrics:
                choose(key, kept.metrics[name], replaces=name in listed)
            else:
                overriding.append({f"override /{key}": None})
    node = OmegaConf.create({"defaults": [*defaults, *overriding], **settings})
    _source[:] = [path]
    store(group="from", name=SOURCE, node=node, package="_global_", **REPLACE)


def as_typed(words: Iterable[str]) -> list[str]:
    """Overrides as the user gave them."""
    return [f"from={_source[0]}" if word == f"from={SOURCE}" and _source else word for word in words]


def in_each_job(overrides: list[str]) -> list[str]:
    """The overrides of a sweep over choices, with `model.chains=9` beside `model=dae,cae` as a sweep of one value.

    Hydra applies what is not swept to a configuration without any of the swept choices, where it may not exist.
    """
    parser = OverridesParser.create()
    try:
        parsed = {word: parser.parse_override(word) for word in overrides}
    except HydraException:
        return overrides  # Hydra will meet it again, and is answered by `explain`
    if not any(found.is_sweep_override() and "." not in found.key_or_group for found in parsed.values()):
        return overrides
    return [
        f"{word.partition('=')[0]}=choice({word.partition('=')[2]})"
        if "." in found.key_or_group
        and not word.startswith("hydra")
        and not found.is_sweep_override()
        and not found.is_delete()
        and found.value() is not None
        else word
        for word, found in parsed.items()
    ]


def in_plain_words(error: Exception, command: str, arguments: list[str]) -> UsageError:
    """A UsageError that names the mistake and the remedy."""
    groups = _groups(command)
    words = [word.lstrip("+").partition("=")[::2] for word in arguments]
    if isinstance(error, MissingConfigException) or "Config group override must be" in str(error):
        for group, option in words:  # ../gan, /etc/passwd, null, 3
            if group in groups and ("/" in option or "Config group" in str(error)) and group != "experiment":
                options = options_of(group)
                if option not in options:
                    return UsageError(
                        f"{group}={option}: there is no such {group}\nThe choices are: {', '.join(options)}"
                    )
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file) in LAUNCHERS:
        package, extra = LAUNCHERS[str(error.missing_cfg_file)]
        return UsageError(
            f'this launcher needs {package}, which is not installed here\npip install "genexp[{extra}]" installs it'
        )
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group.split("/")[0] == "experiment":
            option, group = str(error.missing_cfg_file).removeprefix("experiment/"), "experiment"
        options = options_of(group) if group == "experiment" else sorted(map(str, error.options))
        within = [name for name in options if name.startswith(f"{option}/")]
        hint = f"; in that folder there are {', '.join(within)}" if within else _nearest_option(option, options)
        return UsageError(f"{group}={option}: there is no such {group}{hint}\nThe choices are: {', '.join(options)}")
    if isinstance(error, OverrideParseException):
        said = _first_line(error)
        if "Exception:" in said:  # a class of the parser's, and the word once more
            said = "it holds a character that is allowed in quotes only"
        owner = next((group for group in groups if error.override in options_of(group)), None)
        if owner is not None:
            return UsageError(f"'{error.override}' is no setting, did you mean '{owner}={error.override}'?")
        return UsageError(
            f"'{error.override}' cannot be read as a setting: {said}\n"
            "Write name=value; quotes around a value have to pass the shell: \"name='value'\""
        )
    text = str(error)
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return UsageError(f"{mark.name}, line {mark.line + 1}: {error.problem or error.context}")
    if isinstance(error, UnicodeDecodeError):
        wrong = [str(file) for file in _own_files(arguments) if not _is_text(file)]
        return UsageError(f"{', '.join(wrong) or 'a configuration'} is not text in UTF-8")
    added = [word for word in arguments if word.startswith("+")]
    if added and ("An item is already at" in text or "To override a value use" in text):
        return UsageError(f"{' '.join(added)}: a + adds what is not there, and this is: leave it out")
    if "integer string conversion" in text:
        word = max(arguments, key=len)
        return UsageError(f"{word[:40]}...: a number of so many digits cannot be read")
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
        if part == "hydra":
            choices = " ".join(word for word in arguments if word.startswith("hydra/"))
            return UsageError(f"there is no setting '{key}'; see `genexp {command} {choices} --cfg hydra`")
        if part == "search" and command == "train":
            there = any(group == "search" for group, _ in words)
            write = f"+{key}=.. adds a range" if there else "search=optuna brings those of a search"
            return UsageError(f"there is no setting '{key}': {write}")
        keys = _keys(command, arguments)
        siblings = [name for name in keys if name.rpartition(".")[0] == key.rpartition(".")[0]]
        there_are = f"; there are {', '.join(siblings)}" if siblings else f"; see `genexp {command} --cfg job`"
        owners = [f"{part}={option}" for option in options_of(part) if name and name in _settings_of(part, option)]
        remedy = (
            f" here; it is one of {' and of '.join(owners)}{there_are}" if owners else nearest(key, keys) or there_are
        )
        return UsageError(f"there is no setting '{key}'{remedy}")
    if "Ambiguous value" in text:
        return UsageError(f"{_first_line(error)}\nSeveral values are a sweep: add -m; a list is written [a,b]")
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
    return UsageError(f"{_first_line(error)}{cause}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _own_files(arguments: list[str]) -> list[Path]:
    """The YAML files in the folder that is given as --config-dir."""
    flags = ("--config-dir", "-cd")
    folders = [word.partition("=")[2] for word in arguments if word.startswith("--config-dir=")]
    folders += [behind for word, behind in pairwise(arguments) if word in flags]
    return sorted(file for folder in folders for file in Path(folder).rglob("*.yaml"))


def _is_text(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except ValueError:
        return False
    return True


def options_of(group: str) -> list[str]:
    """The options of a group that has folders in it, which Hydra does not list."""
    folder = CONFIGS / group
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))


def _settings_of(group: str, option: str) -> set[str]:
    """The settings that an option of a group has, as far as its own file says."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{option}.yaml"))
    if not isinstance(content, dict):
        return set()
    own = content.get(group, content)  # a model's settings are under its group's name, beside what it brings
    return set(map(str, own)) - {"name", "_target_", "defaults"} if isinstance(own, dict) else set()


def _nearest_option(option: str, options: list[str]) -> str:
    """Like `nearest`, also for what lies in a folder and was given without that."""
    by_leaf = {name.rpartition("/")[2]: name for name in options}
    hint = nearest(option, by_leaf)
    return re.sub(r"'(.*)'", lambda found: f"'{by_leaf[found[1]]}'", hint) if hint else nearest(option, options)


def _keys(command: str, arguments: list[str]) -> list[str]:
    """Every setting and group of the configuration, composed from those arguments that choose an option."""
    groups = _groups(command)
    choices = [word.partition(",")[0] for word in arguments if word.partition("=")[0] in groups]  # the first of several
    try:
        return [*groups, *_leaves(compose(command, choices))]
    except HydraException:
        return groups


def _groups(command: str) -> list[str]:
    """The groups of which a command lets one choose an option."""
    return [name for name in _entries(command) if name.isidentifier()]


def _entries(command: str) -> list[str]:
    """The keys of a command's defaults list."""
    entries = [entry for entry in OmegaConf.load(CONFIGS / f"{command}.yaml").defaults if isinstance(entry, DictConfig)]
    return [str(name) for entry in entries for name in entry]


def _leaves(config: DictConfig) -> list[str]:
    """The dotted key of every setting."""
    tree: dict[Any, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        return [leaf for key, value in node.items() for leaf in walk(value, f"{path}.{key}" if path else str(key))]

    return walk(tree, "")
