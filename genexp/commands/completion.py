"""The words that may stand next on a command line, for completion in a shell. Nothing here imports torch."""

import glob
import types
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from genexp.config.command_line import CommandLine
from genexp.config.commands import NAMING_RUNS, SCHEMAS
from genexp.config.components import declared_settings
from genexp.config.compose import compose, plain_mistakes
from genexp.config.mistakes import defaults_of, options_of, players_of
from genexp.config.schema import Schema
from genexp.errors import GenexpError
from genexp.rundirs.directory import Run
from genexp.rundirs.find import hashes_below
from genexp.rundirs.names import OUTPUTS

OF_SCORES = ("sweep.rank_by", "checkpoint.keep_best", "search.metric")  # settings that name one of the run's scores

# Readline replaces what stands behind the last of COMP_WORDBREAKS, so that much of each answer is left out.
BASH = """_genexp() {
    local IFS=$'\\n' typed=${COMP_LINE:0:COMP_POINT} word break
    word=${typed##* }
    COMPREPLY=($(compgen -W "$(COMP_LINE=$typed genexp -sc query=bash 2> /dev/null)" -- "$word"))
    for break in = @ :; do
        if [[ $word == *$break* && $COMP_WORDBREAKS == *$break* ]]; then
            typed=${word%"$break"*}$break
            COMPREPLY=("${COMPREPLY[@]#"$typed"}")
            word=${word#"$typed"}
        fi
    done
}
complete -o nospace -o default -F _genexp genexp"""


def choices(line: CommandLine, word: str) -> list[str]:
    """Return the words that `word`, typed behind the command line, may become; none where Hydra knows better."""
    key, equals, start = word.partition("=")
    if not equals:
        return _names(line, word)
    if key == ("from" if line.command == "train" else "run"):
        values: Iterable[str] = run_paths(line, start)
    elif key == "experiment" or "@" in key:  # Hydra does not look into the folders of a group
        values = _options(line, key.lstrip("+").partition("@")[0])
    else:
        values = _values(line, key)
    return [f"{key}={value}" for value in values if value.startswith(start)]


def run_paths(line: CommandLine, start: str) -> list[str]:
    """Return the paths and the hashes of the runs that begin with what was typed.

    Of nothing they are the paths of the runs below outputs_dir.
    """
    outputs_dir = next((word.partition("=")[2] for word in line.overrides if word.startswith("outputs_dir=")), OUTPUTS)
    begin = glob.escape(start) if start else f"{glob.escape(outputs_dir)}/"
    places = sorted({place for deeper in ("*", "*/*", "*/*/*") for place in glob.glob(begin + deeper)})  # noqa: PTH207
    paths = [place for place in places if Run(Path(place)).config_file.is_file() and "/checkpoints" not in place]
    return [*paths, *hashes_below(start, outputs_dir)]


def _names(line: CommandLine, word: str) -> list[str]:
    """Return the choices with an @, and the runs, that a word without = may become."""
    group, at, _ = word.lstrip("+~").partition("@")
    if not at:
        return run_paths(line, word) if line.command in NAMING_RUNS and not line.runs else []
    listed = [key for key in defaults_of(line.command) if key.startswith(f"{group}@")]
    if group == "metric":
        listed += [f"metric@metrics.{name}" for name in _options(line, "metric")]
    if group == "optimizer" and line.command == "train":
        tree = _tree(line)
        players = [] if tree is None else players_of(OmegaConf.select(tree, "model.name"))
        listed += [f"optimizer@optimizers.{player}" for player in players]
    prefix = word[: len(word) - len(word.lstrip("+~"))]
    return [f"{prefix}{key}=" for key in dict.fromkeys(listed) if f"{prefix}{key}".startswith(word)]


def _options(line: CommandLine, group: str) -> list[str]:
    """Return the options of a group, with those of the user's own configurations."""
    own = Path(line.folder or "", group) if line.folder else None
    files = [] if own is None else sorted(own.rglob("*.yaml"))
    return [*options_of(group), *(str(file.relative_to(own).with_suffix("")) for file in files if own is not None)]


def _values(line: CommandLine, key: str) -> list[str]:
    """Return the values of a setting that takes only a few: those of its type, tables of a paper, names of scores."""
    values = _enumerated(_type_in(SCHEMAS[line.command], key.split(".")))
    if values or (tree := _tree(line)) is None:
        return values
    if key == "table" and "paper" in tree:
        return [str(name) for name in OmegaConf.select(tree, "paper.tables")]
    if key in OF_SCORES and "metrics" in tree:
        return [str(name) for name in tree.metrics]
    parent, _, name = key.rpartition(".")
    target = OmegaConf.select(tree, f"{parent}._target_", default=None) if parent else None
    with suppress(GenexpError):
        declared = declared_settings(parent, target) if isinstance(target, str) else None
        return _enumerated((declared or {}).get(name, (None, None))[0])
    return []


def _tree(line: CommandLine) -> DictConfig | None:
    """Return the configuration of what was typed so far; None if there is a mistake in it."""
    with suppress(GenexpError), plain_mistakes(line):
        return compose(line)
    return None


def _type_in(schema: type[Schema], path: list[str]) -> Any:
    """Return the type of a setting in a schema, by the names that lead to it; None if it has no such setting."""
    field = schema.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return None if field is None else field.annotation
    schemas = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
    inner = next((each for each in schemas if issubclass(each, Schema)), None)
    return None if inner is None else _type_in(inner, path[1:])


def _enumerated(kind: Any) -> list[str]:
    """Return the values of a type that has a few, as they are typed; none of other types."""
    if kind is bool:
        return ["true", "false"]
    if kind is types.NoneType:
        return ["null"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) is Annotated:
        return _enumerated(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        members = [_enumerated(member) for member in get_args(kind)]
        return [value for values in members for value in values] if all(members) else []
    return []
