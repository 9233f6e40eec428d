"""Configurations of command lines that are asked for again and again, as are the recipes of a table.

Hydra takes a tenth of a second to compose one. So what it composed is kept in the cache folder, and taken from there
as long as no file of a configuration has changed.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genexp.config import compose
from genexp.config.check import checked
from genexp.config.command_line import CommandLine
from genexp.config.schema import CONFIGS
from genexp.numbers import strict
from genexp.storage.files import cache_folder, read_json, write_json


def configuration(line: CommandLine) -> Any:
    """Return the configuration of a command line that opens no run, as `compose.configuration` does."""
    if line.folder is not None:  # it may hold anything, and much of it
        return compose.configuration(line)
    file = cache_folder("recipes") / "composed.json"
    name, state = json.dumps([line.command, *line.overrides]), _state(CONFIGS)
    entry = read_json(file).get(name)
    if not isinstance(entry, dict) or entry.get("state") != state:
        entry = {"state": state, "composed": _composed(line)}
        with suppress(OSError, TypeError):  # of a place or content that cannot be written: it is composed again
            if json.loads(json.dumps(strict(entry))) == entry:
                write_json(file, read_json(file) | {name: entry})
    return checked(line.command, OmegaConf.create(entry["composed"]))


def _composed(line: CommandLine) -> dict[str, Any]:
    """Return what Hydra composes of a command line, with interpolations as they are written."""
    with compose.plain_mistakes(line):
        content: Any = OmegaConf.to_container(compose.compose(line), resolve=False)
    return {key: value for key, value in content.items() if key != "hydra"}


def _state(folder: Path) -> str:
    """Return a digest that changes with a file in the folder, its place, time or size, and with Hydra's version."""
    stats = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(folder.rglob("*.yaml"))]
    return hashlib.sha256(json.dumps([compose.VERSION, *stats]).encode()).hexdigest()
