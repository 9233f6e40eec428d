"""The command line of genexp, parsed once into one value that is passed along."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genexp.config.commands import NAMING_RUNS, SCHEMAS
from genexp.config.schema import CONFIGS, Start, TrainConfig
from genexp.errors import UsageError
from genexp.text import nearest

MULTIRUN = ("-m", "--multirun")
CONFIG_DIR = ("-cd", "--config-dir")
OF_CFG = ("--resolve", "--package", "-p")  # flags that change what --cfg prints
# With these, Hydra prints something and nothing runs.
DISPLAY = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", *OF_CFG)
VALUED = ("--cfg", "-c", "--package", "-p", "--info", "-i", *CONFIG_DIR)  # their value may be the next word
FLAGS = (*MULTIRUN, *CONFIG_DIR, *DISPLAY)
PATHS = ("outputs_dir", "data_dir", "run_dir", "out", "images", "samples", "dataset.path", "dataset_b.path")
UNQUOTED = re.compile(r"[\w./\\+$%*@?|:, -]*", re.ASCII)  # what Hydra reads without quotes; a comma separates values


@dataclass(frozen=True)
class CommandLine:
    """A command with its settings, in the order in which they were given."""

    command: str
    overrides: tuple[str, ...] = ()  # settings for Hydra, without run= and from=
    folder: str | None = None  # of --config-dir, the user's own configurations
    multirun: bool = False
    display: tuple[str, ...] = ()  # flags of DISPLAY with their values
    runs: tuple[str, ...] = ()  # paths and globs of run= or from=, as typed
    words: tuple[str, ...] = ()  # all of the command line, as typed
    run: Path | None = None  # the run that the command opens; of `train`, the run whose settings it takes (from=)
    kept: TrainConfig | None = None  # the configuration that this run keeps
    start: Start | None = None  # its weights, if it has a checkpoint
    trust: tuple[str, ...] = ()  # packages outside genexp that the run of from= may name

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings as one would type them, with run= or from=."""
        if self.run is None:
            return self.overrides
        trust = [f"trust=[{','.join(self.trust)}]"] if self.trust else []
        return (f"{'from' if self.command == 'train' else 'run'}={self.run}", *trust, *self.overrides)

    def __str__(self) -> str:
        """The command line as one would type it."""
        folder = ("--config-dir", self.folder) if self.folder else ()
        return shlex.join(["genexp", self.command, *(self.words or (*folder, *self.settings))])


def parse(command: str, words: Sequence[str]) -> CommandLine:
    """Sort the words behind a command into flags, settings and runs.

    Raises UsageError for an unknown flag, and for settings that Hydra would misread.
    """
    flags: list[tuple[str, str | None]] = []
    overrides: list[str] = []
    bare: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            if name not in FLAGS:
                raise UsageError(_unknown_flag(command, word, next(rest, "")))
            flags.append((name, value if equals else next(rest, None) if name in VALUED else None))
        elif equals or word.startswith("~"):
            overrides.append(_with_quoted_path(word))
        else:
            bare.append(word)
    for word in overrides:
        name, _, value = word.partition("=")
        if not name:
            raise UsageError(f"'{word}' has no name: write name=value")
        if value.startswith("[") and (CONFIGS / name).is_dir():  # Hydra would lay one over the other
            raise UsageError(f"{word}: one at a time; -m {name}={value.strip('[]')} runs one after the other")
    multirun = any(name in MULTIRUN for name, _ in flags)
    if multirun and any(word.startswith("out=") and "," not in word for word in overrides):
        raise UsageError("out= names one file for all jobs of a sweep; leave it out, or give each its own: out=a,b")
    key = {"train": "from="} | dict.fromkeys(NAMING_RUNS, "run=")
    run_words = [word for word in overrides if command in key and word.startswith(key[command])]
    runs = [word.partition("=")[2] for word in run_words]
    if command in NAMING_RUNS:
        if len(run_words) > 1 or (run_words and bare):
            raise UsageError(f"{' '.join(run_words + bare)}: give one run=, which may be a glob")
        runs, bare = runs + bare, []
    if command == "runs" and bare:
        if any(word.startswith("filter=") for word in overrides):
            raise UsageError(f"{' '.join(bare)}: give the words of the filter alone or in filter=, not both")
        overrides, bare = [*overrides, f"filter={_quoted(' '.join(bare))}"], []
    trusting = [word for word in overrides if run_words and command == "train" and word.startswith("trust=")]
    return CommandLine(
        command,
        tuple(bare + [word for word in overrides if word not in (*run_words, *trusting)]),
        folder=next((value for name, value in reversed(flags) if name in CONFIG_DIR), None),
        multirun=multirun,
        display=tuple(part for name, value in flags if name in DISPLAY for part in (name, value) if part is not None),
        runs=tuple(run.strip("'\"") for run in runs),
        words=tuple(words),
        trust=tuple(name for word in trusting for name in re.split(r"[\[\], ]+", word.removeprefix("trust=")) if name),
    )


def _with_quoted_path(word: str) -> str:
    """Return a setting whose value is a path, as a folder may be called, in the quotes that Hydra would ask for."""
    name, _, path = word.partition("=")
    as_it_is = UNQUOTED.fullmatch(path) or path.startswith(("'", '"', "[")) or "${" in path or "\0" in path
    if name.lstrip("+") not in PATHS or as_it_is:
        return word
    return f"{name}={_quoted(path)}"


def _quoted(text: str) -> str:
    """Return the text as Hydra reads it from quotes: as it is."""
    text = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + match[2].replace('"', '\\"'), text)
    return f'"{text.replace("${", chr(92) + "${")}"'


def _unknown_flag(command: str, word: str, following: str) -> str:
    """Say that there is no such flag; that a setting is meant, if there is one of this name or nearly so."""
    flag, equals, value = word.partition("=")
    name, settings = flag.lstrip("-").replace("-", "_"), list(SCHEMAS[command].model_fields)
    is_setting = equals or name in settings or "." in name
    hint = "" if is_setting else nearest(flag, (*FLAGS, "--version"))
    if is_setting or (not hint and nearest(name, settings)):
        meant = name if is_setting else nearest(name, settings).split("'")[1]
        value = value if equals else following
        hint = f", did you mean '{meant}={'VALUE' if not value or value.startswith('-') else value}'?"
    return f"there is no flag '{flag}'{hint or '; settings are given as name=value, without dashes'}"
