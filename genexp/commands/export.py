"""`genexp export`: the weights of a run in a folder to share, with a model card and what they follow from."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import genexp
from genexp import rng
from genexp.commands import card
from genexp.config.schema import ExportConfig
from genexp.errors import GenexpError, UsageError
from genexp.figures import pictures
from genexp.runs import directory as run
from genexp.runs import results
from genexp.storage import weights
from genexp.storage.files import aside, atomic, atomic_folder, read_json, refuse_if_moved, write_json
from genexp.training.logs import save_picture
from genexp.training.reopen import Trained, reopen

CARD, PICTURE = "README.md", "samples.png"
FILES = {run.WEIGHTS, "config.yaml", "data.json", results.FILE, "provenance.json", CARD, PICTURE}


def main(config: ExportConfig) -> dict[str, Any]:
    """Make the folder, whole or not at all; print where it is.

    An older export at the same place is replaced, and moved aside if it holds more than an export does. Raises
    UsageError when anything else is there.
    """
    path = Path(config.run).expanduser()
    if run.is_export(path):
        raise UsageError(f"{path} is an export already; to have it elsewhere, copy the folder")
    name = "export" if config.checkpoint == "last" else f"export-{config.checkpoint}"
    out = Path(config.out).expanduser() if config.out is not None else path / name
    _refuse_to_replace(out)
    trained = reopen(config)
    if trained.sampling:
        raise UsageError(f"{next(iter(trained.sampling))} cannot be set here: an export has the run's own settings")
    print(f"{trained}, {config.checkpoint} checkpoint", flush=True)
    old = aside(out)
    try:
        with atomic_folder(out) as folder:
            _fill(folder, trained, config.seed)
            if config.out is None:
                refuse_if_moved(path, trained.place)
        if old.exists() and _holds_no_more(old, out):
            shutil.rmtree(old)
    except OSError as error:
        refuse_if_moved(path, trained.place)
        raise GenexpError(f"{out} cannot be written: {error.strerror}\nSet out=FOLDER to another place") from error
    if old.exists():
        print(f"moved the old export to {old}, for what was added to it")
    size = (out / run.WEIGHTS).stat().st_size / 2**20
    print(f"weights: {out / run.WEIGHTS} ({card.parameters(trained):,} parameters, {size:.2f} MiB)")
    print(f"card: {out / CARD}")
    print(f"export: {out}")
    print(f"run: {path}", flush=True)
    return {"scores": {}, "run": str(path)}


def _refuse_to_replace(out: Path) -> None:
    if out.is_dir() and (run.is_export(out) or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(f"out={out} is there already, and is no export\nSet out=FOLDER to another place")


def _holds_no_more(old: Path, new: Path) -> bool:
    """Whether the old export holds no samples, figures or scores that the new one does not."""
    more = {entry.name for entry in old.iterdir() if not entry.name.startswith(".")} - FILES
    return not more and results.evaluations(old).keys() <= results.evaluations(new).keys()


def _fill(folder: Path, trained: Trained, seed: int) -> None:
    about = {
        "format": "pt",  # what other readers of safetensors look for
        "genexp": genexp.__version__,
        "model": trained.config.model["name"],
        "dataset": trained.config.dataset["name"],
        "step": str(trained.step),
        "epoch": str(trained.epoch),
        "seconds": str(trained.seconds),
    }
    weights.write(folder / run.WEIGHTS, trained.model.state_dict(), about)
    with atomic(folder / "config.yaml") as stream:
        stream.write(OmegaConf.to_yaml(trained.config.model_dump()).encode())
    scores = _scores(trained)
    write_json(folder / results.FILE, scores)
    for name in ("data.json", "provenance.json"):
        write_json(folder / name, read_json(trained.path / name))
    generator = rng.generator(trained.data.train.device, seed, "samples")
    save_picture(pictures.of_samples(trained.model, trained.data, generator), folder / PICTURE)
    with atomic(folder / CARD) as stream:
        stream.write(card.text(trained, scores, PICTURE, seed).encode())


def _scores(trained: Trained) -> dict[str, Any]:
    """What results.json holds of this step: the end of training, if that is it, and the evaluations."""
    kept = read_json(trained.path / results.FILE)
    summary = kept if kept.get("steps") == trained.step else {}
    evaluations = results.evaluations(trained.path)
    here = {key: one for key, one in evaluations.items() if one["step"] == trained.step}
    return summary | {"evaluations": here}
