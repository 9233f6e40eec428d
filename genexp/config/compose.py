"""From a command line to a checked configuration, composed by Hydra.

Only this module, `mistakes` and `sweeps.elsewhere` know Hydra.
"""

import copy
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from genexp.config.check import checked
from genexp.config.command_line import CommandLine
from genexp.config.commands import REOPENING, RUN_SETTINGS, SCHEMAS
from genexp.config.components import GROUPS, refuse_strangers
from genexp.config.kept import completed
from genexp.config.mistakes import defaults_of, in_plain_words
from genexp.config.overrides import with_missing_plus, with_own_settings, without_void_deletions
from genexp.config.schema import CONFIGS, TrainConfig
from genexp.errors import GenexpError, UsageError

SECOND = "dataset@dataset_b"  # the choice of the second data set
SOURCE = "run"  # the option that stands for from=PATH where Hydra composes

# Hydra 1.3 warns when this is left out, Hydra 1.4 when it is given.
VERSION = hydra.__version__
OLD = VERSION.startswith("1.3.")
VERSION_BASE: dict[str, Any] = {"version_base": None} if OLD else {}
REPLACE: dict[str, Any] = {} if OLD else {"replace": True}  # Hydra 1.3 always does, and does not know the word


def configuration(line: CommandLine) -> Any:
    """Return the configuration of a command line, of its command's class in `schema.SCHEMAS`. Raises UsageError."""
    with plain_mistakes(line):
        composed = compose(line)
    return checked(line.command, composed)


@contextmanager
def plain_mistakes(line: CommandLine) -> Iterator[None]:
    """Turn the errors of Hydra within it into GenexpErrors that name the mistake in the command line."""
    try:
        yield
    except (GenexpError, BrokenPipeError, MemoryError):
        raise
    except Exception as error:  # of Hydra, OmegaConf and their parsers
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # a choice is sought as a file
            raise UsageError(f"there is no setting of this name: {Path(error.filename).name[:60]}...") from error
        raise in_plain_words(error, line, compose) from error


def compose(line: CommandLine) -> DictConfig:
    """Return the configuration of a command line, as Hydra composes it, not yet checked."""
    with initialized(line) as overrides:
        return _composed(line, overrides)[0]


def spelled(line: CommandLine) -> list[str]:
    """Return the settings of a command line as Hydra by itself takes them, see `config.overrides`."""
    with plain_mistakes(line), initialized(line) as overrides:
        words = _composed(line, overrides)[1]
    return [word for word in words if not word.startswith(("hydra.searchpath=", f"from={SOURCE}"))]


def _composed(line: CommandLine, overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """Return what Hydra composes, and the overrides as it takes them: with a + before those that need one."""
    search_path = [word for word in overrides if word.startswith("hydra.searchpath=")]
    while True:
        try:
            tree = hydra.compose(line.command, overrides)
        except HydraException as error:
            added = with_missing_plus(overrides, error, line, lambda words: _composed(line, list(words))[0])
            if added is None:
                raise
            overrides = added
        else:
            whole = with_own_settings(
                overrides, tree, line, lambda word: hydra.compose(line.command, [*search_path, word])
            )
            if whole == overrides:
                return tree, overrides
            overrides = whole


@contextmanager
def initialized(line: CommandLine) -> Iterator[list[str]]:
    """Prepare Hydra for a command line; yield the overrides that it composes."""
    Plugins.instance()  # puts the options of the launchers into the store
    store = ConfigStore.instance()
    repo, store.repo = store.repo, copy.deepcopy(store.repo)  # a run's settings are no choices of other command lines
    try:
        overrides = _offered(line)
        if line.folder is not None:
            folder = Path(line.folder).absolute()
            if not folder.is_dir():
                raise UsageError(f"--config-dir {line.folder}: the folder '{folder}' not found")
            overrides.append(f"hydra.searchpath={[f'file://{folder}']}")
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(CONFIGS.resolve()), **VERSION_BASE):
            yield overrides
    finally:
        store.repo = repo


def each_job(line: CommandLine) -> list[CommandLine]:
    """Return a command line for each combination of the values that are swept, as in seed=0,1."""
    with plain_mistakes(line), initialized(line):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        (combinations,) = BasicSweeper.split_arguments(parser.parse_overrides(list(line.overrides)), None)
    given = {f"{word}=null": word for word in line.overrides if word.startswith("~")}  # as Hydra 1.4 writes deletions
    of_jobs = (tuple(given.get(word, word) for word in words) for words in combinations)
    return [replace(line, overrides=words, multirun=False, words=()) for words in of_jobs]


def display(line: CommandLine) -> None:
    """Print what a flag of Hydra's asks for: help, a configuration, completions."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors then, and does not print them
    parser = get_args_parser()
    flags = [*line.display, *(["--multirun"] if line.multirun else [])]
    flags += ["--config-dir", line.folder] if line.folder is not None else []
    if "-sc" not in line.display and line.overrides:
        line = replace(line, overrides=tuple(spelled(line)))
    with plain_mistakes(line), initialized(line):
        GlobalHydra.instance().clear()  # Hydra's own program begins without one
        args = parser.parse_args([*flags, *_offered(line)])
        output = io.StringIO()  # it would report each line that a reader does not wait for
        with redirect_stdout(output), suppress(SystemExit):
            _run_hydra(
                args=args,
                args_parser=parser,
                task_function=lambda _: None,
                config_path=str(CONFIGS),
                config_name=line.command,
            )
    print(output.getvalue(), end="", flush=True)


def _offered(line: CommandLine) -> list[str]:
    """Offer Hydra the settings of the command line's run; return the overrides to be composed."""
    for word in line.overrides:
        if word.lstrip("+").startswith("dataset_b="):
            raise UsageError(f"{word}: the second data set is chosen by {SECOND}={word.partition('=')[2]}")
    kept = None if line.kept is None else completed(line.kept)
    if line.command in REOPENING:
        _offer_run(line, kept)
    elif kept is not None:
        _offer_source(line, kept)
        return [f"from={SOURCE}", *without_void_deletions(line.overrides, line.folder)]
    return without_void_deletions(line.overrides, line.folder)


def _offer_run(line: CommandLine, run: TrainConfig | None) -> None:
    """Offer a run's settings, to be set and completed like others, as `- trained_run` of a command's defaults."""
    settings: dict[str, Any] = {}
    if run is not None:
        fields = SCHEMAS[line.command].model_fields
        kept = run.model_dump(include={name for name in (*RUN_SETTINGS, "metrics") if name in fields})
        settings = {**kept, "run": str(line.run).replace("${", "\\${")}  # a folder's name is no interpolation
        settings["data_dir"] = os.environ.get("GENEXP_DATA_DIR", settings["data_dir"])
    ConfigStore.instance().store(name="trained_run", node=OmegaConf.create(settings), **REPLACE)


def _offer_source(line: CommandLine, kept: TrainConfig) -> None:
    """Make all that a kept run was trained with one option, `from=run`, upon which the overrides are set.

    A component that the overrides choose is left out, and so is what a chosen model brings. Raises UsageError if the
    run names code that is neither genexp's nor trusted.
    """
    refuse_strangers(kept, list(line.trust))
    keys = [word.lstrip("+~").partition("=")[0] for word in line.overrides]
    chosen = {key if key == SECOND else key.partition("@")[0] for key in keys}
    if "experiment" in chosen:
        raise UsageError("experiment= brings settings of its own, as from= does: leave one of them out")
    brought = ("optimizer", "noise") if "model" in chosen else ()
    taken = [group for group in GROUPS if group not in (*chosen, *brought)]
    defaults = [_option(group, getattr(kept, group), "override /") for group in taken]
    if SECOND not in chosen and "model" not in chosen:
        defaults.append(_option(SECOND, kept.dataset_b, "override /"))
    settings: dict[str, Any] = {
        "seed": kept.seed,
        "log": kept.log.model_dump(),
        "checkpoint": kept.checkpoint.model_dump(),
    }
    if "model" in chosen:
        settings["checkpoint"].pop("keep_best")  # it names a score of the other model
    start = line.start
    if "model" not in chosen and kept.start is not None and "weights" not in chosen:  # the run's own start
        start, settings["weights"] = kept.start, True
    if start is not None:
        settings["start"] = start.model_dump() | {"run": start.run.replace("${", "\\${")}
    settings["device"] = {"precision": kept.device.precision}
    settings["data_dir"] = os.environ.get("GENEXP_DATA_DIR", kept.data_dir)
    if "model" not in chosen:
        settings |= {"name": kept.name, "epochs": kept.epochs, "batch_size": kept.batch_size}
        settings |= {"ema": kept.ema, "ema_power": kept.ema_power}
        model = kept.model["name"]
        offered = [key.rpartition(".")[2] for key in defaults_of(f"model/{model}") if "@optimizers." in key]
        for player in dict.fromkeys([*offered, *kept.optimizers]):
            defaults.append(_option(f"optimizer@optimizers.{player}", kept.optimizers.get(player), "/"))
        listed = [key.rpartition(".")[2] for key in defaults_of("train") if key.startswith("metric@metrics.")]
        for name in dict.fromkeys([*listed, *kept.metrics]):  # the run's metrics and no others
            prefix = "override /" if name in listed else "/"
            defaults.append(_option(f"metric@metrics.{name}", kept.metrics.get(name), prefix))
    defaults.sort(key=lambda entry: next(iter(entry)).startswith("override"))  # Hydra wants these last
    node = OmegaConf.create({"defaults": defaults, **settings})
    ConfigStore.instance().store(group="from", name=SOURCE, node=node, package="_global_", **REPLACE)


def _option(key: str, component: Any, prefix: str) -> dict[str, str | None]:
    """Offer a component as an option of its group; return the entry of a defaults list that chooses it.

    `key` is as in "model" or "metric@metrics.fid". An entry without a component chooses nothing.
    """
    if component is None:
        return {f"{prefix}{key}": None}
    name = f"of_the_run_{key.rpartition('@')[2].rpartition('.')[2]}"
    ConfigStore.instance().store(group=key.partition("@")[0], name=name, node=OmegaConf.create(component), **REPLACE)
    return {f"{prefix}{key}": name}
