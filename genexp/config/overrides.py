"""The settings of a command line as Hydra takes them: with a + where Hydra wants one, without deletions in vain.

What a model or an experiment sets for one choice of a group is not set for another one.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genexp.config.command_line import CommandLine
from genexp.config.components import COLLECTIONS, GROUPS, OPTIONAL, Component, declared_settings, settings_of
from genexp.config.mistakes import players_of
from genexp.config.schema import CONFIGS
from genexp.errors import UsageError

Compose = Callable[[Sequence[str]], DictConfig]


def key_of(word: str) -> str:
    """Return the name in front of the = of a setting, without + and ~."""
    return word.lstrip("+~").partition("=")[0]


def is_choice(word: str, folder: str | None) -> bool:
    """Return True if the setting chooses an option of a group, here or in the user's configurations in `folder`."""
    group = key_of(word).partition("@")[0]
    places = (CONFIGS, *([Path(folder)] if folder is not None else []))
    return word.partition("=")[2][:1] != "{" and any((place / group).is_dir() for place in places)


def without_void_deletions(words: Sequence[str], folder: str | None) -> list[str]:
    """Return the settings without the deletions of what a later one chooses anew.

    Hydra deletes last, so that of `~metrics.kid metric@metrics.kid=kid` nothing would be left.
    """
    places = [key_of(word).rpartition("@")[2] if is_choice(word, folder) else "" for word in words]
    deleted = [key_of(word).rpartition("@")[2] if word.startswith("~") else None for word in words]
    return [word for number, word in enumerate(words) if deleted[number] not in places[number + 1 :]]


def with_missing_plus(words: Sequence[str], error: Exception, line: CommandLine, compose: Compose) -> list[str] | None:
    """Return the settings with a + before the one that Hydra refused for want of it; None if it is another mistake.

    Hydra takes without a + only what a YAML holds already. It is not needed where genexp knows that there is such a
    setting: a score or an optimizer under a name of one's own, a range of a search, a setting with a default that the
    component's YAML leaves out.
    """
    refused = re.search(r"Could not override '([^'=]+)'", str(error))
    for number, word in enumerate(words):
        if refused is not None and word.partition("=")[0] == refused[1] and _may_be_added(number, words, line, compose):
            return [*words[:number], f"+{word}", *words[number + 1 :]]
    return None


def with_own_settings(
    words: Sequence[str], tree: DictConfig, line: CommandLine, alone: Callable[[str], DictConfig]
) -> list[str]:
    """Return the settings with a choice's own values where the model or experiment sets those of another choice.

    A model's `optimizer: {momentum: 0.9}` is for SGD: with optimizer=adam, which has no momentum, all settings of the
    optimizer are Adam's own, or as typed. `tree` is what the words compose, and `alone` composes one word without the
    others. Raises UsageError for a model that is not the experiment's.
    """
    first: list[str] = []
    chosen = [word for word in words if not word.startswith("~") and is_choice(word, line.folder)]
    for word in chosen if line.command == "train" else []:
        group, _, place = key_of(word).partition("@")
        place = place or group
        component = _component(tree, place)
        typed = {key_of(other) for other in words if other != word}
        brought = {name for name in settings_of(component) if f"{place}.{name}" not in typed}
        try:
            declared = declared_settings(place, component["_target_"])
        except (KeyError, UsageError):  # no component, or one with a mistake that is said where it is checked
            continue
        strange = sorted(brought - declared.keys()) if declared is not None else []
        if not strange:
            continue
        experiment = next((other for other in words if key_of(other) == "experiment"), None)
        if place == "model" and experiment is not None:
            raise UsageError(f"{experiment} sets model.{strange[0]}, which {word} has not: leave out one of the two")
        somewhere = "+metric@metrics.own" if group == "metric" else group
        own = _component(alone(f"{somewhere}={word.partition('=')[2]}"), somewhere.rpartition("@")[2])
        if own.keys().isdisjoint(strange):  # else its own YAML is mistaken, which is said where it is checked
            first += [f"~{place}.{name}" for name in strange]
            first += [f"{place}.{name}={_written(own[name])}" for name in settings_of(own) if name in brought]
    return [*first, *words]


def _component(tree: DictConfig, place: str) -> Component:
    """Return the component at a place of a configuration; nothing if there is none."""
    node = OmegaConf.select(tree, place)
    content: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
    return dict(content)


def _written(value: Any) -> str:
    """Return a value as it is written behind the = of a setting."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return json.dumps(value)


def _may_be_added(number: int, words: Sequence[str], line: CommandLine, compose: Compose) -> bool:
    """Return True if there is a setting such as words[number], though no YAML holds it."""
    key = key_of(words[number])
    collection, _, name = key.rpartition("@")[2].partition(".")
    if key.startswith("search.ranges."):
        return any(key_of(word) == "search" for word in words)
    if "@" in key and collection == "metrics":
        return bool(name) and is_choice(words[number], line.folder)
    if not name or collection not in (*GROUPS, *OPTIONAL, *COLLECTIONS):
        return False
    others = [word for word in words if word != words[number]]
    tree = compose(
        [word for word in others if word.startswith(("~", "hydra.searchpath=")) or is_choice(word, line.folder)]
    )
    if "@" in key:
        players = players_of(OmegaConf.select(tree, "model.name"))
        return not players or name in players
    parent, _, name = key.rpartition(".")
    target = OmegaConf.select(tree, f"{parent}._target_", default=None)
    try:
        return name in (declared_settings(parent, str(target)) or {})
    except UsageError:
        return False
