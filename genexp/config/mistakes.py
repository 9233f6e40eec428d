"""Hydra's error messages in plain words: the mistake, the nearest right name, the remedy."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError

from genexp.config.command_line import CommandLine
from genexp.config.commands import SCHEMAS
from genexp.config.schema import CONFIGS, flat
from genexp.errors import UsageError
from genexp.text import first_line, nearest

LAUNCHERS = {  # the configurations of other packages, with the package, and the extra that brings it
    "hydra/launcher/submitit_local": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/submitit_slurm": ("hydra-submitit-launcher", "slurm"),
    "hydra/launcher/ray": ("hydra-ray-launcher", "ray"),
}

SEVERAL = ("range", "choice", "interval", "glob", "sort", "shuffle")  # Hydra's functions that give several values
MEANT = {  # what its parser expects, by what it misses
    "expecting {':', BRACKET_OPEN": "a value is missing before or behind a comma",
    "missing a required": "a value is missing between the parentheses",
    "empty choice": "a value is missing between the parentheses",
    "mismatch type argument": "its function does not take such values",
    "no viable alternative": "a parenthesis, bracket or quote is not closed",
    "Unknown function": "the functions are range(0,3), choice(1,2), sort(2,1), glob(*) and alike",
}

Compose = Callable[[CommandLine], DictConfig]


def in_plain_words(error: Exception, line: CommandLine, compose: Compose) -> UsageError:
    """Return a UsageError that names the mistake in the command line and the remedy; `compose` is Hydra's part."""
    text = str(error)
    of_option = "Config group override must be" in text or "Parent traversal" in text  # the latter of Hydra 1.4
    missing = isinstance(error, MissingConfigException) or of_option
    if missing and (message := _no_such_option(error, line)) is not None:
        return UsageError(message)
    mixed = next((word for word in line.overrides if _mixes(word)), None)
    if mixed is not None:
        alone = "a range, choice or alike stands alone behind the ="
        return UsageError(f"{mixed}: {alone}; write all values, as in {mixed.partition('=')[0]}=0,1,2")
    if isinstance(error, OverrideParseException):
        return UsageError(_unreadable(error, line))
    if interval := next((word for word in line.overrides if "=interval(" in word and "weep" in text), None):
        values = f"write values, as in {interval.partition('=')[0]}=0.1,0.2, or a range, as in range(0,1,0.1)"
        return UsageError(f"{interval}: an interval names no single values; {values}")
    if several := re.search(r"Sweep parameters '(.+)' requires --multirun", text):
        return UsageError(f"{several[1]}: several values are a sweep: add -m")
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark) is not None:
        return UsageError(f"{mark.name}, line {mark.line + 1}: {error.problem or error.context}")
    if isinstance(error, UnicodeDecodeError):
        files = sorted(Path(line.folder).rglob("*.yaml")) if line.folder is not None else []
        wrong = [str(file) for file in files if "\ufffd" in file.read_text(encoding="utf-8", errors="replace")]
        return UsageError(f"{', '.join(wrong) or 'a configuration'} is not text in UTF-8")
    added = [word for word in line.overrides if word.startswith("+")]
    if added and ("An item is already at" in text or "To override a value use" in text):
        return UsageError(f"{' '.join(added)}: a + adds what is not there, and this is: leave it out")
    if "integer string conversion" in text:
        return UsageError(f"{max(line.overrides, key=len)[:40]}...: a number of so many digits cannot be read")
    given = {word.partition("=")[0]: word for word in line.overrides}
    overridden = re.search(r"Could not override 'metric@|Invalid Defaults List override '/metric@", text)
    if overridden and {"experiment", "model"} <= given.keys() and not any("metric@" in word for word in given):
        both = f"{given['experiment']} and {given['model']}"
        return UsageError(
            f"{both}: the experiment sets a score that this model does not bring: leave out one of the two"
        )
    if unknown := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^'=]+)", text):
        return UsageError(_no_such_setting(unknown.group(1).strip(), line, compose))
    if twice := re.search(r"(\S+) appears more than once in the final defaults list", text):
        return UsageError(f"{twice[1].rpartition('@')[2]} is brought by two of the choices: leave one of them out")
    nulls = [word.partition("=")[0] for word in line.overrides if "@" in word and word.endswith("=null")]
    if nulls and "Got NoneType" in text:
        return UsageError(f"{nulls[0]}=null: to leave it out, write ~{nulls[0]}")
    more = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
    if ambiguous := re.search(r"Ambiguous value for argument '(.+)'", text):
        return UsageError(f"{ambiguous[1]}: several values are a sweep: add -m; a list is written [a,b]")
    return UsageError(first_line(error) + more)


def _no_such_option(error: Exception, line: CommandLine) -> str | None:
    """Say that a group has no such option; None if the error does not tell which."""
    groups = groups_of(line.command)
    for word in line.overrides:  # ../gan, /etc/passwd, null, 3
        group, _, option = word.lstrip("+").partition("=")
        if group in groups and group != "experiment" and ("/" in option or "Config group" in str(error)):
            options = options_of(group)
            if option not in options:
                where = _as_folder(group, option)
                return f"{group}={option}: there is no such {group}{where}\nThe choices are: {', '.join(options)}"
    if not isinstance(error, MissingConfigException):
        return None
    missing = str(error.missing_cfg_file)
    if missing in LAUNCHERS:
        package, extra = LAUNCHERS[missing]
        return f'this launcher needs {package}, which is not installed here\npip install "genexp[{extra}]" installs it'
    if error.options is None or not error.missing_cfg_file:
        return None
    group, _, option = missing.rpartition("/")
    if group.split("/")[0] == "experiment":
        option, group = missing.removeprefix("experiment/"), "experiment"
    options = options_of(group) if group == "experiment" else sorted(map(str, error.options))
    within = [name for name in options if name.startswith(f"{option}/")]
    by_leaf = {name.rpartition("/")[2]: name for name in options}  # one in a folder may be given without the folder
    hint = nearest(option, by_leaf) or nearest(option, options)
    hint = re.sub(r"'(.*)'", lambda match: f"'{by_leaf.get(match[1], match[1])}'", hint)
    hint = _as_folder(group, option) or hint
    if within:
        hint = f"; in that folder there are {', '.join(within)}"
    return f"{group}={option}: there is no such {group}{hint}\nThe choices are: {', '.join(options)}"


def _as_folder(group: str, option: str) -> str:
    """Say how a folder of images is chosen, if that is what stands in place of a data set."""
    group, _, place = group.partition("@")
    is_one = group == "dataset" and Path(option).expanduser().is_dir()
    path = f"{place or group}.path={option}"
    return f"; a folder of images is dataset{'@' * bool(place)}{place}=folder {path}" if is_one else ""


def _mixes(word: str) -> bool:
    """Return True if a word gives several values by a function, and others beside or within it: range(0,3),7."""
    value = word.partition("=")[2]
    if value.count("(") != value.count(")") or value[:1] in ("'", '"'):
        return False
    parts = re.split(r",(?![^(]*\))", value)  # at commas that are in no parentheses
    calls = re.findall(rf"\b(?:{'|'.join(SEVERAL)})\(", value)
    return len(calls) > 1 or (len(calls) == 1 and len(parts) > 1)


def _unreadable(error: OverrideParseException, line: CommandLine) -> str:
    reason = first_line(error)
    if "=" not in error.override:
        tables = "table" in SCHEMAS[line.command].model_fields and re.fullmatch(r"\w+", error.override)
        hint = f", did you mean 'table={error.override}'?" if tables else ""
        reason = f"it has no ={hint}"
    if "Exception:" in reason:  # a class of the parser's, and the word once more
        reason = "it holds a character that is allowed in quotes only"
    if reason.startswith("Error parsing override"):  # the reason is in the lines behind it, or in its cause
        reason = re.sub(r"^\w+ while evaluating '.*': ", "", first_line(error.__cause__ or error))
    meant = [words for part, words in MEANT.items() if part in f"{reason} {error}"]
    reason = next((words for words in meant if "comma" not in words or "," in error.override), reason)
    owner = next((group for group in groups_of(line.command) if error.override in options_of(group)), None)
    if owner is not None:
        return f"'{error.override}' is no setting, did you mean '{owner}={error.override}'?"
    return (
        f"'{error.override}' cannot be read as a setting: {reason}\n"
        "Write name=value; quotes around a value have to pass the shell: \"name='value'\""
    )


def _no_such_setting(override: str, line: CommandLine, compose: Compose) -> str:
    """Say that there is no such setting, and which one may be meant."""
    command = line.command
    key = override.split("@")[0].lstrip("+~")
    part, _, name = key.partition(".")
    is_set = any(word.partition("=")[0] == override for word in line.overrides)
    for deletion in (word for word in line.overrides if word.startswith("~")):
        if is_set and f"{key}.".startswith(f"{deletion[1:].partition('=')[0].rpartition('@')[2]}."):
            return f"there is no setting '{key}': {deletion} takes it away"
    if part == "optimizers" or "@optimizers." in override:
        return _no_such_player(override, line, compose)
    if part == "metric" or (part == "metrics" and name in options_of("metric")):
        name = name if name in options_of("metric") else "fid"
        return f"there is no setting '{key}': a score is added by metric@metrics.{name}={name}"
    if (CONFIGS / key).is_dir() and key not in groups_of(command):
        return f"genexp {command} takes no {key}; see `genexp {command} --help`"
    if part == "hydra":
        choices = " ".join(word for word in line.overrides if word.startswith("hydra/"))
        return f"there is no setting '{key}'; see `genexp {command} {choices} --cfg hydra`"
    if part == "search" and command == "train" and not any(word.startswith("search=") for word in line.overrides):
        return f"there is no setting '{key}': search=optuna brings those of a search"
    keys = groups_of(command)
    keys += flat(_as_chosen(line, compose, override))
    siblings = [sibling for sibling in keys if sibling.rpartition(".")[0] == key.rpartition(".")[0]]
    there_are = f"; there are {', '.join(siblings)}" if siblings else f"; see `genexp {command} --cfg job`"
    owners = [f"{part}={option}" for option in options_of(part) if name and name in _settings_of(part, option)]
    if owners:
        return f"there is no setting '{key}' here; it is one of {' and of '.join(owners)}{there_are}"
    return f"there is no setting '{key}'{nearest(key, keys) or there_are}"


def _as_chosen(line: CommandLine, compose: Compose, wrong: str) -> dict[str, Any]:
    """Return the configuration of the command line's choices but the wrong one, without its other settings.

    It is empty if the choices are mistaken, too.
    """
    names = {word: word.lstrip("+").partition("=")[0] for word in line.overrides}
    chosen = [
        word for word, name in names.items() if name in groups_of(line.command) or ("@" in name and name != wrong)
    ]
    choosing = [word.partition(",")[0] for word in chosen]  # one of several
    with suppress(HydraException):  # of choices that do not go together
        tree: Any = OmegaConf.to_container(compose(replace(line, overrides=tuple(choosing))), resolve=False)
        return dict(tree)
    return {}


def _no_such_player(override: str, line: CommandLine, compose: Compose) -> str:
    """Say that a player has no such optimizer, or no such setting of it."""
    tree = _as_chosen(line, compose, override)
    place = override.rpartition("@")[2].split(".")
    player, players = place[1] if len(place) > 1 else "", players_of(tree.get("model", {}).get("name", ""))
    if len(place) > 2 and player in {*players} - {*tree.get("optimizers", {})}:
        own = f"optimizer@optimizers.{player}={tree['optimizer']['name']} gives it one of its own"
        return f"there is no setting '{override}': {player} has the common optimizer; {own}"
    if len(place) > 2 and player in (own := tree.get("optimizers", {})):
        names = [f"optimizers.{player}.{name}" for name in own[player]]
        return f"there is no setting '{override}'{nearest(override, names) or '; it has ' + ', '.join(own[player])}"
    offered = f"{nearest(player, players)}; it offers {', '.join(players) or 'none'}"
    return f"this model offers no optimizers.{player}{offered}"


def players_of(model: str) -> list[str]:
    """Return the players of a model as its YAML in this package lists them; none if it is no model of genexp's."""
    return [key.rpartition(".")[2] for key in defaults_of(f"model/{model}") if "@optimizers." in key]


def _settings_of(group: str, option: str) -> set[str]:
    """Return the settings that an option of a group has, as far as its own file says."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{option}.yaml"))
    own = content.get(group, content) if isinstance(content, dict) else None  # a model's are under its group's name
    return set(map(str, own)) - {"name", "_target_", "defaults"} if isinstance(own, dict) else set()


def options_of(group: str) -> list[str]:
    """Return the options of a group, with those in folders, which Hydra does not list."""
    folder = CONFIGS / group
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))


def groups_of(command: str) -> list[str]:
    """Return the groups of which a command lets one choose an option."""
    return [name for name in defaults_of(command) if name.isidentifier()]


def defaults_of(name: str) -> list[str]:
    """Return the keys of the defaults list of a command, or of a choice as in "model/gan"; none if it has no list."""
    file = CONFIGS / f"{name}.yaml"
    content: Any = OmegaConf.load(file) if file.is_file() else {}
    return [str(key) for entry in content.get("defaults", []) if isinstance(entry, DictConfig) for key in entry]
