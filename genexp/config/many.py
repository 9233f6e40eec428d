"""The configurations of many command lines, as of a sweep: what they share is composed and checked once.

Hydra takes a tenth of a second to compose a configuration, nearly all of it for the choices of groups. So the lines
of equal choices share what Hydra composed, and each one's values are set in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genexp.config.check import checked
from genexp.config.command_line import CommandLine
from genexp.config.components import Component
from genexp.config.compose import compose, configuration
from genexp.config.overrides import is_choice, key_of
from genexp.errors import GenexpError

Tree = dict[str, Any]


def configurations(lines: Iterable[CommandLine]) -> Iterator[Any]:
    """Yield the configuration of each command line, equal to that of `compose.configuration`. Raises UsageError."""
    composed: dict[tuple[Any, ...], tuple[DictConfig, Tree]] = {}  # of equal choices, with its content as plain values
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
                    (override,) = parser.parse_overrides([word])
                    values[word] = override.value()
            config = _with_values(*composed[key], [(key_of(word), values[word]) for word in plain], line.command, known)
        except (HydraException, OmegaConfBaseException, GenexpError, KeyError, ValueError):
            config = configuration(line)  # which says what is wrong, if there is something
        yield config


def _sorted(line: CommandLine) -> tuple[list[str], list[str]]:
    """Return the settings that have to be composed, and those behind them that set the value of what is there."""
    choices = [word for word in line.overrides if is_choice(word, line.folder) or "@" in key_of(word)]
    others = [word for word in line.overrides if word not in choices]
    last = max((number for number, word in enumerate(others, 1) if word.startswith(("+", "~", "hydra"))), default=0)
    return [*choices, *others[:last]], others[last:]


def _composed(line: CommandLine) -> tuple[DictConfig, Tree]:
    tree = compose(line)
    tree = OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"])
    OmegaConf.set_struct(tree, True)
    content: Any = OmegaConf.to_container(tree, resolve=False)
    return tree, content


def _with_values(
    tree: DictConfig, content: Tree, values: list[tuple[str, Any]], command: str, known: dict[str, Component]
) -> Any:
    """Return the checked configuration of a tree in which values are set; the tree is left as it was.

    `content` are the values that the tree has. Raises KeyError for a value that it has not.
    """
    before = {name: _at(content, name) for name, _ in values}
    try:
        for name, value in values:
            OmegaConf.update(tree, name, value, merge=True)
        return checked(command, tree, known)
    finally:
        for name, value in before.items():
            OmegaConf.update(tree, name, value, merge=False)


def _at(content: Tree, name: str) -> Any:
    for key in name.split("."):
        content = content[key]
    return content
