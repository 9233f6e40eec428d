"""The `genexp` command: subcommands, completion, sweeps, and errors for people.

Nothing here imports torch, and Hydra is imported only once a subcommand is known: help and mistakes answer at once.
"""

import difflib
import glob
import importlib
import math
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp
from genexp.errors import GenexpError, UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "train": "train a model, score it, and keep the run",
    "evaluate": "score a run again, under other settings",
    "sample": "draw samples of a run into a file",
    "figure": "draw a figure of a run: samples beside their neighbours, interpolations, curves ...",
    "runs": "list the runs",
    "table": "print a table of a paper, with the runs beside the published numbers",
    "reproduce": "run what a table still lacks, then print it",
}

HYDRA_FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"),
    *("--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
}

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
    """SIGTERM, as schedulers send it, is what Ctrl-C is."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
            raise UsageError(f"there is no flag '{flag}'{hint}")

    from genexp import config, provenance

    provenance.command_line = shlex.join(["genexp", command, *arguments])
    # Hydra wants the overrides together; people write flags where they like.
    settings = [word for word in arguments if word[0:1] != "-" and ("=" in word or word.startswith("~"))]
    arguments = [word for word in arguments if word not in settings] + settings

    jobs: list[Job] = []
    several = bool({"-m", "--multirun"} & set(arguments))
    if several and any(word.startswith("out=") and "," not in word for word in settings):
        raise UsageError("out= names one file for all jobs of a sweep; leave it out, or give each its own: out=a,b")
    if several:
        from genexp.composition import in_each_job

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
            with _uninterrupted():
                module = importlib.import_module(f"genexp.{command}")
            results = module.main(checked)
            jobs.append(Job(overrides, results, None))
        except Exception as error:
            jobs.append(Job(overrides, None, error))
            if several:
                explain(error)

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


def _for_each_run(command: str, arguments: list[str]) -> list[tuple[list[str], Path | None]]:
    """The arguments once for each run that `run=` names, a path or a glob, with that run."""
    words = [word for word in arguments if word.startswith("run=")]
    if len(words) > 1:
        raise UsageError(f"{' '.join(words)}: give one run=, which may be a glob")
    if not words:
        if any(word.startswith("-") and word not in ("-m", "--multirun") for word in arguments):  # --help, --cfg job
            return [(arguments, None)]
        path = next((word for word in arguments if Path(word).exists()), "PATH")
        raise UsageError(f"which run? genexp {command} run={path}; `genexp runs` lists them")
    pattern = words[0].removeprefix("run=").strip("'\"")
    rest = [word for word in arguments if word not in words]
    found = _runs(pattern)
    if not found:
        below = (_runs(f"{pattern}/*/*") and f"run='{pattern}/*/*'") or (_runs(f"{pattern}/*") and f"run='{pattern}/*'")
        hint = f"; {below} takes those in it" if below else "; `genexp runs` lists them"
        raise UsageError(f"run={pattern}: there is no run's directory{hint}")
    if len(found) > 1 and any(word.startswith("out=") for word in rest):
        raise UsageError(f"out= names one file, but run={pattern} names {len(found)} runs; leave it out")
    return [(rest, Path(path)) for path in found]


def _runs(pattern: str) -> list[str]:
    """The run directories that a path or a glob names."""
    pattern = str(Path(pattern).expanduser())
    if Path(pattern, "config.yaml").is_file():  # whatever brackets its name has
        return [pattern]
    found = glob.glob(pattern)  # noqa: PTH207 (a Path's own takes no absolute patterns)
    return sorted(path for path in found if Path(path, "config.yaml").is_file() and ".old-" not in Path(path).name)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of an import: torch's own handling of it leaves half-loaded modules behind."""
    asked = []
    before = {
        number: signal.signal(number, lambda *_: asked.append(True)) for number in (signal.SIGINT, signal.SIGTERM)
    }
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

    from genexp.composition import VERSION_BASE, in_plain_words, offer_run
    from genexp.config import CONFIGS, REOPENING

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us, who say it in fewer words
    sys.argv = [sys.argv[0], *arguments]
    if command in REOPENING:
        offer_run(command, run)
    try:
        hydra.main(config_path=str(CONFIGS), config_name=command, **VERSION_BASE)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise in_plain_words(error, command, arguments) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GenexpError(f"{error.filename or 'the outputs folder'} cannot be written: {error.strerror}") from error


def _job_overrides() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


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
        from genexp.composition import options_of

        choices = [f"experiment={option}" for option in options_of("experiment")]
        print("\n".join(choice for choice in choices if choice.startswith(word)))
        return 0
    if word.startswith("run="):
        print("\n".join(f"run={path}" for path in _runs(f"{word.removeprefix('run=') or 'outputs/*/'}*")))
        return 0
    tail = line.split(behind[0], 1)[1]
    os.environ["COMP_LINE"] = words[0] + tail
    runs = [path for word in words if word.startswith("run=") for path in _runs(word.removeprefix("run=").strip("'\""))]
    _hydra(behind[0], ["-sc", *arguments], lambda _: None, Path(runs[0]) if runs else None)
    return 0


def _print_sweep(jobs: list[Job], interrupted: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="interrupted sweep" if interrupted else "sweep", title_justify="left")
    common = set.intersection(*(set(done.overrides) for done in jobs)) if len(jobs) > 1 else set()
    names = sorted({name for done in jobs if done.results for name in done.results["scores"]})
    for column in ("job", "settings", "status", *names, "run or cause"):
        table.add_column(column, no_wrap=True)
    for number, done in enumerate(jobs, 1):
        scores = done.results["scores"] if done.results else {}
        shown = [_short(scores[name]) if name in scores else "–" for name in names]
        cause = str(done.error).splitlines()[0] if done.error and str(done.error) else repr(done.error)
        where = cause if done.error else done.results.get("run", "") if done.results else ""
        status = "failed" if done.error else "finished"
        words = [word for word in done.overrides if word not in common and not word.startswith("run=")]
        settings = " ".join(words) or "(defaults)"
        table.add_row(str(number), settings, status, *shown, where)
    Console(width=Console(width=10**6).measure(table).maximum).print(table)  # a path that is cut is of no use


def _short(score: dict[str, Any]) -> str:
    """The mean and its standard error, with two digits of the latter."""
    mean, stderr = score["mean"], score["stderr"]
    if not stderr:  # a count has none, and of equal values it is 0
        return f"{mean:g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def explain(error: Exception) -> int:
    """Print an error for the person at the terminal; return its exit code."""
    if os.environ.get("GENEXP_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, GenexpError):
        message, code = str(error), error.exit_code
    else:
        said = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {said[0] if said else ''}\nGENEXP_DEBUG=1 shows where it happened"
        code = 1
    print(f"genexp: {message}", file=sys.stderr, flush=True)
    return code
