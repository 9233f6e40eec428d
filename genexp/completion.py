"""Shell completion: commands and runs here, settings and choices by Hydra."""

import os
from dataclasses import replace

from genexp.config.command_line import CommandLine, parse
from genexp.config.compose import display, options_of
from genexp.config.configuration import plain_mistakes
from genexp.runs.find import matching


def complete(words: list[str], commands: list[str]) -> int:
    """Print the completions of the command line in COMP_LINE, or what `-sc install=bash` prints."""
    query = CommandLine("train", tuple(words), display=("-sc",))
    if not words or not words[0].startswith("query="):
        with plain_mistakes(query):
            display(query)
        return 0
    text = os.environ.get("COMP_LINE", "")
    typed = text.split()[1:]
    word = "" if text.endswith(" ") or not typed else typed.pop()  # the one to be completed
    if not typed:
        print(" ".join(command for command in commands if command.startswith(word)))
        return 0
    command, *before = typed
    if command not in commands:
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
