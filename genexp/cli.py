"""The `genexp` command: subcommands, completion, sweeps, and errors for people.

Nothing here imports torch, and Hydra is imported only once a subcommand is known: help and mistakes answer at once.
"""

import difflib
import errno
import glob
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp
from genexp import signals
from genexp.errors import GenexpError, UsageError
from genexp.storage.files import was_set_aside

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "train": "train a model, score it, and keep the run",
    "evaluate": "score a run again, under other settings",
    "sample": "draw samples of a run into a file",
    "figure": "draw a figure of a run: samples beside their neighbours, interpolations, curves ...",
    "export": "put a run's weights into a folder to share: safetensors, and a model card",
    "rerun": "train a run again, and see whether its scores come out equal",
    "runs": "list the runs",
    "table": "print a table of a paper, with the runs beside the published numbers",
    "reproduce": "run what a table still lacks, then print it",
}

HYDRA_FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"),
    *("--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
}

VALUED_FLAGS = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--experimental-rerun", "--info", "-i"),
}  # whose value may be the next word

INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """How one job ended."""

    overrides: list[str]
    results: dict[str, Any] | None
    error: Exception | None


def main() -> int:
    """Run the command line in sys.argv; return the exit code."""
    sys.path.append(str(Path.cwd()))  # where a user's own models may be
    with _interruptible():
        try:
            return _dispatch(sys.argv[1:])
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # `genexp train --cfg job | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            return explain(error)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, as schedulers send it, and SIGHUP, of a terminal that is closed, are what Ctrl-C is.

    SIGINT is heard where a shell began us deaf to it, too.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in signals.heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    command, *rest = arguments
    if command == "--version":
        print(f"genexp {genexp.__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        return _complete(rest)
    if command not in COMMANDS:
        raise UsageError(_unknown_command(command))
    if "--version" in rest:
        return _dispatch(["--version"])
    return _run(command, rest)


def _overview() -> str:
    commands = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
    return f"""genexp {genexp.__version__}: an experiment runner for the classic deep generative models

usage: genexp <command> [setting=value ...]

commands:
{commands}

`genexp <command> --help` lists its choices and settings; `genexp <command> --cfg job` prints a configuration.
Completion in bash: eval "$(genexp -sc install=bash)"

  genexp train model=gan dataset=digits"""


def _unknown_command(word: str) -> str:
    close = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    if close:
        return f"there is no command '{word}', did you mean '{close[0]}'?"
    if "=" in word or word.startswith("-"):
        return f"'{word}' stands where the command should: genexp train {word}"
    return f"there is no command '{word}'; the commands are: {', '.join(COMMANDS)}"


def _run(command: str, arguments: list[str]) -> int:
    """Give the arguments to Hydra, which calls back once for each job with its composed configuration."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("-") and flag not in HYDRA_FLAGS:
            close = difflib.get_close_matches(flag, HYDRA_FLAGS, n=1)
            hint = f", did you mean '{close[0]}'?" if close else "; settings are given as name=value, without dashes"
            if "=" in argument and flag.lstrip("-").isidentifier():
                hint = f", did you mean '{argument.lstrip('-')}'?"
            raise UsageError(f"there is no flag '{flag}'{hint}")

    from genexp.config import schema as config
    from genexp.runs import provenance

    provenance.command_line = provenance.shown([command, *arguments])
    # Hydra wants the overrides together; people write flags where they like.
    settings = [word for word in arguments if word[0:1] != "-" and ("=" in word or word.startswith("~"))]
    arguments = [word for word in arguments if word not in settings] + settings

    for word in settings:
        name, _, value = word.partition("=")
        if not name:
            raise UsageError(f"'{word}' has no name: write name=value")
        if value.startswith("[") and (config.CONFIGS / name).is_dir():  # Hydra would lay one over the other
            raise UsageError(f"{word}: one at a time; -m {name}={value.strip('[]')} runs one after the other")

    if command == "train":
        settings, arguments = _from_a_run(settings, arguments)
    jobs: list[Job] = []
    several = bool({"-m", "--multirun"} & set(arguments))
    if several and any(word.startswith("out=") and "," not in word for word in settings):
        raise UsageError("out= names one file for all jobs of a sweep; leave it out, or give each its own: out=a,b")
    if several:
        from genexp.config.compose import in_each_job

        arguments = [word for word in arguments if word not in settings] + in_each_job(settings)
    calls: list[tuple[list[str], Path | None]] = [(arguments, None)]
    if command in config.REOPENING:
        calls = _for_each_run(command, arguments)
        several = several or len(calls) > 1

    def job(composed: "DictConfig") -> None:
        overrides = [word for word in _job_overrides() if not word.startswith("hydra")]
        overrides += [f"run={composed.run}"] if command in config.REOPENING else []
        if several:
            print(f"\njob {len(jobs) + 1}: {' '.join(overrides) or '(defaults)'}", flush=True)
        try:
            checked = config.load(command, composed)
            if getattr(checked, "search", None) is not None:
                from genexp.sweeps import search

                search.main(checked, overrides)
                jobs.append(Job(overrides, {}, None))
                return
            with _uninterrupted():
                module = importlib.import_module(f"genexp.commands.{command}")
            results = module.main(checked)
            jobs.append(Job(overrides, results, None))
        except Exception as error:
            jobs.append(Job(overrides, None, error))
            if several:
                explain(error)

    if command == "train" and several:  # genexp's own sweeper sees to all of it
        from genexp.sweeps import sweep

        _hydra(command, arguments, sweep.job)
        return 0
    interrupted = True
    try:
        for words, run in calls:
            try:
                _hydra(command, words, job, run)
            except GenexpError as error:  # a setting that this run does not have
                if len(calls) == 1:
                    raise
                jobs.append(Job(words, None, error))
                explain(error)
        interrupted = False
    finally:
        if several and jobs:
            _print_sweep(jobs, interrupted)
    if not several and jobs and jobs[0].error is not None:
        raise jobs[0].error
    return 1 if any(done.error for done in jobs) else 0


def _from_a_run(settings: list[str], arguments: list[str]) -> tuple[list[str], list[str]]:
    """The settings and all arguments, with `from=PATH` made a choice that Hydra can compose."""
    sources = [word for word in settings if word.startswith("from=")]
    if not sources:
        return settings, arguments
    from genexp.config.compose import SOURCE, offer_source

    paths = _runs(sources[0].removeprefix("from=").strip("'\""))
    if len(sources) > 1 or len(paths) != 1:
        raise UsageError(f"{' '.join(sources)}: give the directory of one run; `genexp runs` lists them")
    trusted = [word for word in settings if word.startswith("trust=")]
    packages = [name.strip() for word in trusted for name in word.removeprefix("trust=").strip("[]").split(",")]
    rest = [word for word in settings if word not in (*sources, *trusted)]
    offer_source(Path(paths[0]), rest, packages)
    return [f"from={SOURCE}", *rest], [word for word in arguments if word not in settings] + [f"from={SOURCE}", *rest]


def _for_each_run(command: str, arguments: list[str]) -> list[tuple[list[str], Path | None]]:
    """The arguments once for each run that `run=`, or a bare word, names, a path or a glob, with that run."""
    words = [word for word in arguments if word.startswith("run=")]
    bare = _bare(arguments)
    if len(words) > 1 or (words and bare):
        raise UsageError(f"{' '.join(words + bare)}: give one run=, which may be a glob")
    if not words and not bare:
        if any(word.startswith("-") and word not in ("-m", "--multirun") for word in arguments):  # --help, --cfg job
            return [(arguments, None)]
        raise UsageError(f"which run? genexp {command} run=PATH, or PATH alone; `genexp runs` lists them")
    patterns = bare or [words[0].removeprefix("run=").strip("'\"")]
    rest = [word for word in arguments if word not in words + bare]
    found = [path for pattern in patterns for path in _runs_there(pattern)]
    if len(patterns) > 1:  # the shell has expanded a glob, and leaves nothing out
        found = [path for path in found if not was_set_aside(Path(path))]
    if len(found) > 1 and any(word.startswith("out=") for word in rest):
        raise UsageError(f"out= names one place, but {' '.join(words + bare)} names {len(found)} runs; leave it out")
    return [(rest, Path(path)) for path in found]


def _bare(arguments: list[str]) -> list[str]:
    """The words that are neither settings nor flags, nor the value of a flag."""
    behind = zip(["", *arguments], arguments, strict=False)
    return [word for flag, word in behind if word[:1] not in "-~" and "=" not in word and flag not in VALUED_FLAGS]


def _runs_there(pattern: str) -> list[str]:
    """`_runs`, or a UsageError where there are none."""
    found = _runs(pattern)
    if not found:
        below = (_runs(f"{pattern}/*/*") and f"run='{pattern}/*/*'") or (_runs(f"{pattern}/*") and f"run='{pattern}/*'")
        hint = f"; {below} takes those in it" if below else "; `genexp runs` lists them"
        raise UsageError(f"run={pattern}: there is no run's directory{hint}")
    return found


def _runs(pattern: str) -> list[str]:
    """The run directories that a path or a glob names."""
    pattern = str(Path(pattern).expanduser())
    if Path(pattern, "config.yaml").is_file():  # whatever brackets its name has
        return [pattern]
    found = glob.glob(pattern)  # noqa: PTH207 (a Path's own takes no absolute patterns)
    return sorted(path for path in found if Path(path, "config.yaml").is_file() and not was_set_aside(Path(path)))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of an import: torch's own handling of it leaves half-loaded modules behind."""
    asked = []
    before = {number: signal.signal(number, lambda *_: asked.append(True)) for number in signals.heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _hydra(command: str, arguments: list[str], task: Any, run: Path | None = None) -> None:
    """Compose the command's configuration, with the settings of `run` if there is one, and call `task` with it."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from genexp.config.compose import VERSION_BASE, in_plain_words, offer_run
    from genexp.config.schema import CONFIGS, REOPENING

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us, who say it in fewer words
    sys.argv = [sys.argv[0], *arguments]
    if command in REOPENING:
        offer_run(command, run)
    try:
        hydra.main(config_path=str(CONFIGS), config_name=command, **VERSION_BASE)(task)()
    except (HydraException, OmegaConfBaseException) as error:  # the first are OSErrors, some of them
        raise in_plain_words(error, command, arguments) from error
    except (GenexpError, BrokenPipeError, MemoryError):
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a choice is sought as a file
            raise UsageError(f"there is no setting of this name: {Path(error.filename).name[:60]}...") from error
        raise GenexpError(f"{error.filename or 'the outputs folder'} cannot be written: {error.strerror}") from error
    except Exception as error:  # jobs keep their own errors: this is of composing, or of Hydra's flags
        raise in_plain_words(error, command, arguments) from error


def _job_overrides() -> list[str]:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # as they were written
    return list(words)


def _complete(arguments: list[str]) -> int:
    """Shell completion: the command's name here, everything behind it by Hydra."""
    if not arguments or not arguments[0].startswith("query="):
        _hydra("train", ["-sc", *arguments], lambda _: None)
        return 0
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    behind = words[1:] if line.endswith(" ") or not words else words[1:-1]
    if not behind:
        typed = "" if line.endswith(" ") else "".join(words[1:])
        print(" ".join(command for command in COMMANDS if command.startswith(typed)))
        return 0
    if behind[0] not in COMMANDS:
        return 0
    word = "" if line.endswith(" ") else words[-1]
    if word.startswith("experiment="):  # Hydra does not look into the folders of a group
        from genexp.config.compose import options_of

        choices = [f"experiment={option}" for option in options_of("experiment")]
        print("\n".join(choice for choice in choices if choice.startswith(word)))
        return 0
    if word.startswith(("run=", "from=")):
        key, _, typed = word.partition("=")
        print("\n".join(f"{key}={path}" for path in _runs(f"{typed or 'outputs/*/'}*")))
        return 0
    tail, bare = line.split(behind[0], 1)[1], _bare(behind[1:])
    for path in bare:  # a run, which Hydra would not read
        tail = tail.replace(f" {path}", "", 1)
    os.environ["COMP_LINE"] = words[0] + tail
    named = [word.removeprefix("run=").strip("'\"") for word in words if word.startswith("run=")] + bare
    runs = [path for pattern in named for path in _runs(pattern)]
    _hydra(behind[0], ["-sc", *arguments], lambda _: None, Path(runs[0]) if runs else None)
    return 0


def _print_sweep(jobs: list[Job], interrupted: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from genexp.runs.results import shown

    table = Table(title="interrupted sweep" if interrupted else "sweep", title_justify="left")
    common = set.intersection(*(set(done.overrides) for done in jobs)) if len(jobs) > 1 else set()
    names = sorted({name for done in jobs if done.results for name in done.results["scores"]})
    for column in ("job", "settings", "status", *names, "run or cause"):
        table.add_column(column, no_wrap=True)
    for number, done in enumerate(jobs, 1):
        scores = done.results["scores"] if done.results else {}
        cells = [shown(scores[name]) if name in scores else "–" for name in names]
        cause = str(done.error).splitlines()[0] if done.error and str(done.error) else repr(done.error)
        where = cause if done.error else done.results.get("run", "") if done.results else ""
        status = "failed" if done.error else "finished"
        words = [word for word in done.overrides if word not in common and not word.startswith("run=")]
        settings = " ".join(words) or "(defaults)"
        table.add_row(str(number), settings, status, *cells, where)
    Console(width=Console(width=10**6).measure(table).maximum).print(table)  # a path that is cut is of no use


def explain(error: Exception) -> int:
    """Print an error for the person at the terminal; return its exit code."""
    if os.environ.get("GENEXP_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, GenexpError):
        message, code = str(error), error.exit_code
    elif isinstance(error, MemoryError) or re.search("can't allocate memory|out of memory", str(error)):
        asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", str(error))
        size = f": {asked.group(2) or f'{int(asked.group(1)) / 2**30:,.1f} GiB'} at once" if asked else ""
        message, code = f"not enough memory{size}\nSet what is large (n, n_samples, batch_size, the model) smaller", 1
    else:
        said = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {said[0] if said else ''}\nGENEXP_DEBUG=1 shows where it happened"
        code = 1
    print(f"genexp: {message}", file=sys.stderr, flush=True)
    return code
