"""`genexp export`: the weights of a run in a folder to share, with a model card, settings and scores."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import genexp
from genexp import rng
from genexp.commands import card
from genexp.config.schema import ExportConfig
from genexp.errors import UsageError
from genexp.figures.pictures import of_samples, save_picture
from genexp.runs import results
from genexp.runs.directory import WEIGHTS, is_export
from genexp.storage import weights
from genexp.storage.files import aside, atomic, atomic_folder, read_json, refuse_if_moved, write_json, writing
from genexp.training.reopen import Trained, reopen

CARD, PICTURE = "README.md", "samples.png"
FILES = {WEIGHTS, "config.yaml", "data.json", results.FILE, "provenance.json", CARD, PICTURE}


def main(config: ExportConfig) -> dict[str, Any]:
    """Write the export folder, whole or not at all; print where it is.

    It replaces an older export. If that one holds files or scores that the new one lacks, it is moved aside. Raises
    UsageError if anything else is in the place.
    """
    run_dir = Path(config.run).expanduser()
    if is_export(run_dir):
        raise UsageError(f"{run_dir} is an export already; copy the folder to have it elsewhere")
    name = "export" if config.checkpoint == "last" else f"export-{config.checkpoint}"
    out = Path(config.out).expanduser() if config.out is not None else run_dir / name
    _refuse_to_replace(out)
    trained = reopen(config)
    if trained.sampling:
        raise UsageError(f"{next(iter(trained.sampling))} cannot be set here: an export has the run's own settings")
    print(f"{trained}, {config.checkpoint} checkpoint", flush=True)
    _write(out, trained, config.seed, inside_run=config.out is None)
    size = (out / WEIGHTS).stat().st_size / 2**20
    print(f"weights: {out / WEIGHTS} ({card.parameters(trained):,} parameters, {size:.2f} MiB)")
    print(f"card: {out / CARD}")
    print(f"export: {out}")
    print(f"run: {run_dir}", flush=True)
    return {"scores": {}, "run": str(run_dir)}


def _refuse_to_replace(out: Path) -> None:
    if out.is_dir() and (is_export(out) or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(f"out={out} is there already, and is no export\nSet out=FOLDER to another place")


def _write(out: Path, trained: Trained, seed: int, inside_run: bool) -> None:
    """Write the folder in the place of an older export."""
    old = aside(out)
    with writing(out, "Set out=FOLDER to another place"):
        try:
            with atomic_folder(out) as folder:
                _fill(folder, trained, seed)
                if inside_run:
                    refuse_if_moved(trained.path, trained.place)
            if old.exists() and _adds_nothing(old, out):
                shutil.rmtree(old)
        except OSError:
            refuse_if_moved(trained.path, trained.place)  # that is then the cause
            raise
    if old.exists():
        print(f"moved the old export to {old}, because of what was added to it")


def _adds_nothing(old: Path, new: Path) -> bool:
    """Return True if the new export has all samples, figures and scores of the old one."""
    added = {entry.name for entry in old.iterdir() if not entry.name.startswith(".")} - FILES
    return not added and results.evaluations(old).keys() <= results.evaluations(new).keys()


def _fill(folder: Path, trained: Trained, seed: int) -> None:
    metadata = {
        "format": "pt",  # other readers of safetensors expect it
        "genexp": genexp.__version__,
        "model": trained.config.model["name"],
        "dataset": trained.config.dataset["name"],
        "step": str(trained.step),
        "epoch": str(trained.epoch),
        "seconds": str(trained.seconds),
    }
    weights.write(folder / WEIGHTS, trained.model.state_dict(), metadata)
    with atomic(folder / "config.yaml") as stream:
        stream.write(OmegaConf.to_yaml(trained.config.model_dump()).encode())
    results_of_step = _results(trained)
    write_json(folder / results.FILE, results_of_step)
    for name in ("data.json", "provenance.json"):
        write_json(folder / name, read_json(trained.path / name))
    generator = rng.generator(trained.data.train.device, seed, "samples")
    save_picture(of_samples(trained.model, trained.data, generator), folder / PICTURE)
    with atomic(folder / CARD) as stream:
        stream.write(card.text(trained, results_of_step, PICTURE, seed).encode())


def _results(trained: Trained) -> dict[str, Any]:
    """Return the part of results.json that belongs to this step: its evaluations, and the summary of the last step."""
    content = read_json(trained.path / results.FILE)
    summary = content if content.get("steps") == trained.step else {}
    evaluations = results.evaluations(trained.path).items()
    return summary | {"evaluations": {key: entry for key, entry in evaluations if entry["step"] == trained.step}}
