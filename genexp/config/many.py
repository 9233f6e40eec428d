"""The configurations of many command lines, as of a sweep: what they share is composed and checked once.

Hydra takes a tenth of a second to compose a configuration, nearly all of it for the choices of groups. So the lines
of equal choices share what Hydra composed, and each one's values are set in it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genexp.config.check import checked_content
from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.compose import compose, configuration
from genexp.config.overrides import is_choice, key_of
from genexp.config.schema import flat
from genexp.errors import GenexpError

WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")  # as of seeds, which need no parser
ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")  # an interpolation that is the same for all lines
FAILURES = (HydraException, OmegaConfBaseException, GenexpError, KeyError, TypeError, ValueError)


class Shared(NamedTuple):
    """A composition by Hydra of the choices that lines have in common."""

    tree: DictConfig
    content: dict[str, Any]  # of the tree, in plain values; interpolations as they are written
    interpolated: list[str]  # the names of the values that are, or hold, interpolations


def configurations(lines: Iterable[CommandLine]) -> Iterator[Any]:
    """Yield the configuration of each command line, equal to that of `compose.configuration`. Raises UsageError."""
    composed: dict[tuple[Any, ...], Shared] = {}  # by equal choices
    known: dict[str, Component] = {}  # components that were checked
    parser = OverridesParser.create()
    values: dict[str, Any] = {}  # by the word that sets it
    for line in lines:
        fixed, plain = _sorted(line)
        try:
            key = (line.command, line.folder, line.run, *fixed)
            if key not in composed:
                composed[key] = _composed(replace(line, overrides=tuple(fixed)))
            for word in plain:
                if word not in values:
                    text = word.partition("=")[2]
                    is_number = WHOLE_NUMBER.fullmatch(text)
                    values[word] = int(text) if is_number else parser.parse_overrides([word])[0].value()
            content = _with_values(composed[key], [(key_of(word), values[word]) for word in plain])
            config = checked_content(line.command, content, known)
        except FAILURES:
            config = configuration(line)  # which says what is wrong, if there is something
        yield config


def _sorted(line: CommandLine) -> tuple[list[str], list[str]]:
    """Return the settings that have to be composed, and those behind them that set the value of what is there."""
    choices = [word for word in line.overrides if is_choice(word, line.folder) or "@" in key_of(word)]
    others = [word for word in line.overrides if word not in choices]
    last = max((number for number, word in enumerate(others, 1) if word.startswith(("+", "~", "hydra"))), default=0)
    return [*choices, *others[:last]], others[last:]


def _composed(line: CommandLine) -> Shared:
    tree = compose(line)
    tree = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    OmegaConf.set_struct(tree, True)
    content: Any = OmegaConf.to_container(tree, resolve=False)
    interpolated = [name for name, value in flat(content).items() if "${" in str(value)]
    for name in [name for name in interpolated if ENVIRONMENT.fullmatch(str(_at(content, name)))]:
        content = _replaced(content, name.split("."), _at(tree, name))
        interpolated.remove(name)
    return Shared(tree, content, interpolated)


def _with_values(shared: Shared, values: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the resolved content with the values set; the tree is left as it was.

    Only what is set and what is interpolated is asked of the tree: to resolve all of it takes most of the time.
    Raises KeyError or TypeError for a value that is not there.
    """
    tree, content, interpolated = shared
    before = {name: _at(content, name) for name, _ in values}
    try:
        for name, value in values:
            OmegaConf.update(tree, name, value, merge=True)
        for name in (*before, *interpolated):
            value = _at(tree, name)
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
            content = _replaced(content, name.split("."), value)
        return content
    finally:
        for name, value in before.items():
            OmegaConf.update(tree, name, value, merge=False)


def _at(content: Any, name: str) -> Any:
    for key in name.split("."):
        content = content[key]
    return content


def _replaced(content: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """Return the content with another value under the keys; what is not on the way to it is shared, not copied."""
    key, *rest = keys
    return content | {key: _replaced(content[key], rest, value) if rest else value}
