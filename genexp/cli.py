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
        return _complete(rest)
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
    """Parse the words behind a command, and do what they say; return the exit code."""
    from genexp.config.command_line import parse
    from genexp.config.compose import display, each_job, plain_mistakes

    line = parse(command, words)
    runs = _runs(line) or [None]
    if line.display:
        with plain_mistakes(line):
            display(_opening(line, runs[0]))
    elif line.multirun and command == "train":
        from genexp.sweeps import sweep

        sweep.main(_opening(line, runs[0]))
    elif line.multirun or len(runs) > 1:
        with plain_mistakes(line):
            lines = each_job(line) if line.multirun else [line]
        return _one_after_another([(job, run) for run in runs for job in lines])
    else:
        _main_of(line, runs[0])
    return 0


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


def _main_of(line: "CommandLine", run: "Run | None") -> Any:
    """Check the settings of a command and run it; return what its `main` returns."""
    from genexp.config.compose import configuration

    line = _opening(line, run)
    config = configuration(line)
    if getattr(config, "search", None) is not None:
        from genexp.sweeps import search

        return search.main(config, line)
    with signals.deferred():  # an import cut short leaves half a module
        module = importlib.import_module(f"genexp.commands.{line.command}")
    if run is None or line.command == "train":
        return module.main(config, line)
    return module.main(config, line, run)


def _complete(words: list[str]) -> int:
    """Print the completions of the command line in COMP_LINE, or what `-sc install=bash` prints."""
    from genexp.config.command_line import CommandLine, parse
    from genexp.config.compose import display, plain_mistakes
    from genexp.config.mistakes import options_of
    from genexp.runs.find import matching

    query = CommandLine("train", tuple(words), display=("-sc",))
    if not words or not words[0].startswith("query="):
        with plain_mistakes(query):
            display(query)
        return 0
    text = os.environ.get("COMP_LINE", "")
    typed = text.split()[1:]
    word = "" if text.endswith(" ") or not typed else typed.pop()  # the one to be completed
    if not typed:
        print(" ".join(command for command in COMMANDS if command.startswith(word)))
        return 0
    command, *before = typed
    if command not in COMMANDS:
        return 0
    if word.startswith("experiment="):  # Hydra does not look into the folders of a group
        choices = [f"experiment={option}" for option in options_of("experiment")]
        print("\n".join(choice for choice in choices if choice.startswith(word)))
        return 0
    if word.startswith(("run=", "from=")):
        key, _, start = word.partition("=")
        print("\n".join(f"{key}={run.path}" for run in matching(f"{start or 'outputs/*/'}*")))
        return 0
    line = parse(command, before)
    for pattern in line.runs:  # a run, which Hydra would not read
        text = text.replace(f" {pattern}", "", 1)
    os.environ["COMP_LINE"] = "genexp" + text.split(command, 1)[1]
    runs = [run for pattern in line.runs for run in matching(pattern)]
    query = replace(query, command=command, folder=line.folder)
    if runs:
        query = replace(query, run=runs[0].path, kept=runs[0].config)
    with plain_mistakes(query):
        display(query)
    return 0


class Done(NamedTuple):
    """One of several jobs that ended: its scores, or its error."""

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
            settings = [*line.overrides, *([f"run={run.path}"] if run is not None else [])]
            print(f"\njob {len(jobs) + 1}: {' '.join(settings) or '(defaults)'}", flush=True)
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
