"""The `genexp` command: dispatch, completion, several jobs in a row, and errors for people.

Nothing here imports torch, and Hydra is imported only once a command is known: help and mistakes answer at once.
"""

import difflib
import importlib
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import genexp
from genexp import signals
from genexp.errors import GenexpError, UsageError

if TYPE_CHECKING:
    from genexp.config.command_line import CommandLine
    from genexp.runs.directory import Run

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


def main() -> int:
    """Run the command line in sys.argv; return the exit code."""
    sys.path.append(str(Path.cwd()))  # a user's own models may be there
    with signals.handled_by(signal.default_int_handler):
        try:
            return _dispatch(sys.argv[1:])
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            return signals.INTERRUPTED
        except BrokenPipeError:  # `genexp train --cfg job | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            return explain(error)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    command, *rest = words
    if command == "--version" or (command in COMMANDS and "--version" in rest):
        print(f"genexp {genexp.__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        from genexp.completion import complete

        return complete(rest, list(COMMANDS))
    if command not in COMMANDS:
        raise UsageError(_unknown_command(command))
    return _run(command, rest)


def _overview() -> str:
    commands = "\n".join(f"  {name:10}{summary}" for name, summary in COMMANDS.items())
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


def _run(command: str, words: list[str]) -> int:
    """Parse the words behind a command, and do what they say."""
    from genexp.config import compose
    from genexp.config.command_line import parse
    from genexp.config.configuration import configuration, plain_mistakes

    line = parse(command, words)
    runs = _runs(line)
    if line.display:
        with plain_mistakes(line):
            compose.display(_opening(line, runs[0] if runs else None))
        return 0
    if command == "train":
        line = _opening(line, runs[0] if runs else None)
        if line.multirun:
            from genexp.sweeps import sweep

            sweep.main(line)
            return 0
        config = configuration(line)
        if config.search is not None:
            from genexp.sweeps import search

            search.main(config, line)
            return 0
        _module(command).main(config, line)
        return 0
    lines = [(_opening(line, run), run) for run in runs or [None]]
    if line.multirun:
        with plain_mistakes(line):
            lines = [(job, run) for opening, run in lines for job in compose.each_job(opening)]
    if len(lines) == 1 and not line.multirun:
        _main_of(*lines[0])
        return 0
    return _one_after_another(lines)


def _runs(line: "CommandLine") -> "list[Run | None]":
    """Return the runs that a command line names. Raises UsageError if it names none and has to."""
    from genexp.config.schema import REOPENING
    from genexp.runs.find import matching, named_runs

    if line.command == "train":
        sources = [run for pattern in line.runs for run in matching(pattern)]
        if line.runs and len(sources) != 1:
            raise UsageError(f"from={line.runs[0]}: give the directory of one run; `genexp runs` lists them")
        return list(sources)
    if line.command in REOPENING and not line.runs and not line.display:
        raise UsageError(f"which run? genexp {line.command} run=PATH, or PATH alone; `genexp runs` lists them")
    runs = named_runs(line.runs)
    if len(runs) > 1 and any(word.startswith("out=") for word in line.overrides):
        raise UsageError(f"out= names one place, but {' '.join(line.runs)} names {len(runs)} runs; leave it out")
    return list(runs)


def _opening(line: "CommandLine", run: "Run | None") -> "CommandLine":
    """Return the command line with the run that it opens, and the configuration that this keeps."""
    return line if run is None else replace(line, run=run.path, kept=run.config)


def _module(command: str) -> Any:
    """Import the module of a command."""
    with signals.deferred():
        return importlib.import_module(f"genexp.commands.{command}")


def _main_of(line: "CommandLine", run: "Run | None") -> Any:
    """Check the settings of a command and run it."""
    from genexp.config.configuration import configuration

    config = configuration(line)
    arguments = (config, line) if run is None else (config, line, run)
    return _module(line.command).main(*arguments)


class Done(NamedTuple):
    """How one of several jobs ended."""

    line: "CommandLine"
    run: "Run | None"
    scores: dict[str, Any]
    error: Exception | None


def _one_after_another(lines: "list[tuple[CommandLine, Run | None]]") -> int:
    """Run several jobs of a command in this process; print a table of them. Return the exit code."""
    jobs: list[Done] = []
    interrupted = True
    try:
        for line, run in lines:
            words = " ".join(word for word in line.settings if not word.startswith("hydra"))
            print(f"\njob {len(jobs) + 1}: {words or '(defaults)'}", flush=True)
            try:
                scores = _main_of(replace(line, words=()), run)
                jobs.append(Done(line, run, scores if isinstance(scores, dict) else {}, None))
            except Exception as error:
                jobs.append(Done(line, run, {}, error))
                explain(error)
        interrupted = False
    finally:
        if jobs:
            _print_jobs(jobs, interrupted)
    return 1 if any(job.error for job in jobs) else 0


def _print_jobs(jobs: list[Done], interrupted: bool) -> None:
    from genexp.tables import Column, Table, print_table
    from genexp.text import first_line

    common = set.intersection(*(set(job.line.overrides) for job in jobs)) if len(jobs) > 1 else set()
    names = sorted({name for job in jobs for name in job.scores})

    def score_column(name: str) -> Column:
        return Column(name, lambda job: str(job.scores.get(name, "–")), left=True)

    def settings(job: Done) -> str:
        return " ".join(word for word in job.line.overrides if word not in common) or "(defaults)"

    def place(job: Done) -> str:
        return first_line(job.error) if job.error else "" if job.run is None else str(job.run.path)

    columns = [
        Column("job", lambda job: str(jobs.index(job) + 1), left=True),
        Column("settings", settings, left=True),
        Column("status", lambda job: "failed" if job.error else "finished", left=True),
        *(score_column(name) for name in names),
        Column("run or cause", place, left=True),
    ]
    print("interrupted sweep" if interrupted else "sweep")
    print_table(Table(columns, jobs))


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
        line = next(iter(str(error).strip().splitlines()), "")
        message, code = f"{type(error).__name__}: {line}\nGENEXP_DEBUG=1 shows where it happened", 1
    print(f"genexp: {message}", file=sys.stderr, flush=True)
    return code
