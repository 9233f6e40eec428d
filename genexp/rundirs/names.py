"""Names of runs and of their pictures: the shortest that `run=` takes, the folder that several have in common."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

OUTPUTS = "outputs"  # the folder of all runs, unless outputs_dir says another
HASH = re.compile(r"-([0-9a-f]{8})$")  # at the end of the names that `TrainConfig.directory` gives


def hash_of(run_dir: Path) -> str | None:
    """Return the hash at the end of the name of a run's directory; None if the directory was named by hand."""
    match = HASH.search(run_dir.name)
    return match and match[1]


def common_folder(runs: list[Path]) -> Path:
    """Return the folder that all runs are in; a trial that could not be a run has no path."""
    try:
        return Path(os.path.commonpath([run.parent for run in runs if run != Path()]))
    except ValueError:  # no run at all, or some given by whole paths and some not
        return Path()


def short_name(run_dir: Path) -> str:
    """Return the shortest name that `run=` takes: HASH below the usual folder, FOLDER/HASH elsewhere, or the path."""
    name = hash_of(run_dir)
    if name is None:
        return str(run_dir)
    return name if run_dir.parts[0] == OUTPUTS else str(run_dir.with_name(name))


def short_names(run_dirs: list[Path]) -> dict[Path, str]:
    """Return the short name of each run; the path of one that has its hash in common with another, as copies have."""
    hashes = Counter(map(hash_of, run_dirs))
    return {path: short_name(path) if hashes[hash_of(path)] == 1 else str(path) for path in run_dirs}


class OfEpoch(NamedTuple):
    """A picture that was drawn while a run was trained."""

    epoch: int
    stage: str  # its name, as the file has it; "" for a run of one stage
    file: Path


def pictures_by_epoch(folder: Path) -> list[OfEpoch]:
    """Return the pictures in a folder of a run, the newest last."""
    found = [(re.match(r"epoch-(\d+)(?:-(.+))?\.png$", file.name), file) for file in folder.glob("*.png")]
    return sorted(OfEpoch(int(match[1]), match[2] or "", file) for match, file in found if match is not None)
