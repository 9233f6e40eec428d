"""The `genexp` command: dispatch, completion, several jobs in a row, and errors for people.

Nothing here imports torch, and Hydra is imported only once a command is known: help and mistakes answer at once.
"""

import gc
import importlib
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp
from genexp import alive, ranks, signals
from genexp.errors import GenexpError, UsageError, explain
from genexp.text import first_line, nearest, print_any_text

if TYPE_CHECKING:
    from genexp.config.command_line import CommandLine
    from genexp.rundirs.directory import Run

COMMANDS = {
    "train": "train a model, score it, and keep the run",
    "evaluate": "score a run again, under other settings",
    "sample": "draw samples of a run into a file",
    "encode": "the codes of your own images",
    "reconstruct": "what a run's model makes of your own images",
    "denoise": "your own images without their noise, by a model that was trained to remove it",
    "figure": "draw a figure of a run: samples beside their neighbours, interpolations, curves ...",
    "export": "put a run's weights into a folder to share: safetensors, and a model card",
    "rerun": "train a run again, and see whether its scores come out equal",
    "runs": "list the runs",
    "cache": "list what is kept of what can be made again, such as decoded images",
    "table": "print a table of a paper, with the runs beside the published numbers",
    "report": "write a page of HTML about a run, several runs, or a table",
    "reproduce": "run what a table still lacks, then print it",
}
PLACES = {"reproduce": "sweeps.reproduce"} | dict.fromkeys(("encode", "reconstruct", "denoise"), "commands.own_images")
HELP = ("--help", "-h", "help")


def main() -> int:
    """Run the command line in sys.argv; return the exit code."""
    gc.disable()  # until all is imported: there is nothing to collect yet
    print_any_text()
    sys.path.append(str(Path.cwd()))  # a user's own models may be there
    with signals.handled_by(signal.default_int_handler):
        try:
            with alive.watched():
                return _dispatch(sys.argv[1:])
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            return signals.INTERRUPTED
        except BrokenPipeError:  # `genexp train --cfg job | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            return explain(error)
        finally:
            gc.enable()


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP:
        if words[1:] and words[1] not in HELP:
            return _dispatch([words[1], "--help"])
        print(_overview())
        return 0
    command, *rest = words
    if rest and rest[0] == "help" and command in COMMANDS:
        rest[0] = "--help"
    if command == "--version" or (command in COMMANDS and "--version" in rest):
        print(f"genexp {genexp.__version__}")
        return 0
    if command in ("-sc", "--shell-completion"):
        return _complete(rest)
    if command not in COMMANDS:
        hint = _meant(command) or nearest(command, COMMANDS)
        if not hint and ("=" in command or command.startswith("-")):
            raise UsageError(f"'{command}' stands where the command should: genexp train {command}")
        raise UsageError(f"there is no command '{command}'{hint or '; the commands are: ' + ', '.join(COMMANDS)}")
    return _run(command, rest)


def _meant(word: str) -> str:
    """Return what a first word means that is no command, where more than its spelling is wrong: table=2, sweep."""
    name, equals, value = word.partition("=")
    if equals and name in ("table", "reproduce"):
        return f", did you mean 'genexp {name} table={value}'?"
    if equals and name in COMMANDS and name not in ("train", "runs", "cache"):
        return f", did you mean 'genexp {name} {value}'?"
    return {
        "sweep": "; `genexp train -m seed=0,1` is a sweep",
        "search": "; `genexp train search=optuna` is a search, see `genexp train --help`",
        "score": ", did you mean 'evaluate'?",
        "list": ", did you mean 'runs'?",
    }.get(name, "")


def _overview() -> str:
    commands = "\n".join(f"  {name:12}{summary}" for name, summary in COMMANDS.items())
    return f"""genexp {genexp.__version__}: an experiment runner for the classic deep generative models

usage: genexp <command> [setting=value ...]

commands:
{commands}

`genexp <command> --help` lists its choices and settings; `genexp <command> --cfg job` prints a configuration.
Completion in bash: eval "$(genexp -sc install=bash)"

  genexp train model=vae dataset=digits epochs=100"""


def _run(command: str, words: list[str]) -> int:
    """Parse the words behind a command, and do what they say; return the exit code."""
    from genexp.config.command_line import parse
    from genexp.config.compose import display, each_job

    if command == "evaluate" and any(word.startswith("samples=") for word in words):
        command = "evaluate_samples"
    line = parse(command, words)
    _refuse_several(line)
    runs = _runs(line) or [None]
    if line.display:
        display(_opening(line, runs[0]))
    elif line.multirun and command == "train":
        from genexp.sweeps import sweep

        gc.enable()
        sweep.main(_opening(line, runs[0]))
    elif _lays_over(line) and len(runs) > 1:
        from genexp.commands.figure import lay_over
        from genexp.config.compose import configuration

        lay_over(configuration(_opening(line, runs[0])), [run for run in runs if run is not None])
    elif line.multirun or len(runs) > 1:
        lines = each_job(line) if line.multirun else [line]
        return _one_after_another([(job, run) for run in runs for job in lines])
    else:
        _main_of(line, runs[0])
    return 0


def _refuse_several(line: "CommandLine") -> None:
    """Raise UsageError if several processes were started for a command that is not the training of one run."""
    is_search = any(word.startswith("search=") for word in line.overrides)
    if ranks.size() > 1 and not line.display and (line.command != "train" or line.multirun or is_search):
        what = "a search" if is_search else "a sweep" if line.multirun else f"genexp {line.command}"
        raise UsageError(
            f"{what} is for one process, and {ranks.size()} were started (WORLD_SIZE={ranks.size()}); torchrun is for "
            "`genexp train` of one run"
        )


def _runs(line: "CommandLine") -> "list[Run | None]":
    """Return the runs that a command line names. Raises UsageError if it names none and has to."""
    from genexp.config.commands import REOPENING
    from genexp.rundirs.find import matching, named_runs
    from genexp.rundirs.names import OUTPUTS

    if line.command == "report":
        return []  # one page for all of them
    if line.command == "train":
        outputs_dir = next((w.partition("=")[2] for w in line.overrides if w.startswith("outputs_dir=")), OUTPUTS)
        sources = [run for pattern in line.runs for run in matching(pattern, outputs_dir)]
        if line.runs and len(sources) != 1:
            raise UsageError(
                f"from={line.runs[0]}: give the directory of one run, or its hash; `genexp runs` lists them"
            )
        return list(sources)
    if line.command in REOPENING and not line.runs and not line.display:
        raise UsageError(f"which run? genexp {line.command} run=PATH, or PATH alone; `genexp runs` lists them")
    runs = named_runs(line.runs)
    if len(runs) > 1 and any(word.startswith("out=") for word in line.overrides) and not _lays_over(line):
        raise UsageError(f"out= names one place, but {' '.join(line.runs)} names {len(runs)} runs; leave it out")
    return list(runs)


def _lays_over(line: "CommandLine") -> bool:
    """Return True if one figure is of all the runs that a command names."""
    return line.command == "figure" and "kind=curves" in line.overrides and not line.multirun


def _opening(line: "CommandLine", run: "Run | None") -> "CommandLine":
    """Return the command line with the run that it opens, and the configuration that this keeps."""
    if run is None:
        return line
    line = replace(line, run=run.path, kept=run.config)
    if line.command != "train":
        return line
    from genexp.rundirs.start import start_of

    return replace(line, start=start_of(run))


def _main_of(line: "CommandLine", run: "Run | None") -> Any:
    """Check the settings of a command and run it; return what its `main` returns."""
    from genexp.config.compose import configuration

    line = _opening(line, run)
    config = configuration(line)
    if getattr(config, "search", None) is not None:
        from genexp.sweeps import search

        gc.enable()
        return search.main(config, line)
    with alive.doing("loading PyTorch"), signals.deferred():  # an import cut short leaves half a module
        module = importlib.import_module(f"genexp.{PLACES.get(line.command, f'commands.{line.command}')}")
    gc.enable()
    opened = [] if run is None or line.command == "train" else [run]
    return module.main(config, line, *opened)


def _complete(words: list[str]) -> int:
    """Print the completions of the command line in COMP_LINE, or what `-sc install=bash` prints."""
    from genexp.commands.completion import BASH, choices
    from genexp.config.command_line import CommandLine, parse
    from genexp.config.compose import display, spelled
    from genexp.rundirs.find import matching

    query = CommandLine("train", tuple(words), display=("-sc",))
    if words == ["install=bash"]:
        print(BASH)
        return 0
    if not words or not words[0].startswith("query="):
        display(query)
        return 0
    text = os.environ.get("COMP_LINE", "")
    typed = text.split()[1:]
    word = "" if text.endswith(" ") or not typed else typed.pop()  # the one to be completed
    if not typed:
        print("\n".join(command for command in COMMANDS if command.startswith(word)))
    if not typed or typed[0] not in COMMANDS:
        return 0
    with suppress(GenexpError):  # a mistake in what is typed so far is told when the command is given
        line = parse(typed[0], typed[1:])
        run = next((run for pattern in line.runs for run in matching(pattern)), None)
        line = _opening(line, run)
        found = choices(line, word)
        if found:
            print("\n".join(found))
        if not found or not word:
            os.environ["COMP_LINE"] = " ".join(["genexp", *spelled(line), word])
            display(replace(line, overrides=query.overrides, display=query.display, multirun=False))
    return 0


def _one_after_another(lines: "list[tuple[CommandLine, Run | None]]") -> int:
    """Run several jobs of a command in this process; print a table of them. Return the exit code."""
    from genexp.rundirs.names import short_name
    from genexp.tables import Column, Table, print_table

    common = set.intersection(*(set(line.overrides) for line, _ in lines)) if len(lines) > 1 else set()
    rows: list[dict[str, str]] = []  # of the jobs that ended
    names: set[str] = set()  # of their scores
    try:
        for number, (line, run) in enumerate(lines, 1):
            settings = [*line.overrides, *([f"run={run.path}"] if run is not None else [])]
            print(f"\njob {number}: {' '.join(settings) or '(defaults)'}", flush=True)
            own = " ".join(word for word in line.overrides if word not in common) or "(defaults)"
            row = {"job": str(number), "settings": own}
            try:
                scores = _main_of(replace(line, words=()), run)
                row |= {"status": "finished", "run or cause": "" if run is None else str(run.path)}
                row |= {"brief": "" if run is None else short_name(run.path)}
                if isinstance(scores, dict):
                    row |= {name: str(score) for name, score in scores.items()}
                    names |= scores.keys()
            except Exception as error:
                row |= {"status": "failed", "run or cause": first_line(error)}
                row |= {"brief": first_line(error)}
                explain(error)
            rows.append(row)
    finally:
        if rows:
            titles = ("job", "settings", "status", *sorted(names), "run or cause")
            print("interrupted sweep" if len(rows) < len(lines) else "sweep")
            columns = [Column(title, methodcaller("get", title, "–"), left=True) for title in titles]
            columns[1] = replace(columns[1], cut="start")
            columns[-1] = replace(columns[-1], cut="end", brief=itemgetter("brief"))
            print_table(Table(columns, rows))
    return 1 if any(row["status"] == "failed" for row in rows) else 0
