"""`genexp export`: the weights of a run in a folder to share, with a model card, settings and scores."""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

import genexp
from genexp import rng
from genexp.commands import card
from genexp.config.command_line import CommandLine
from genexp.config.commands import ExportConfig
from genexp.errors import UsageError
from genexp.figures.canvas import save_picture
from genexp.figures.pictures import of_samples
from genexp.rundirs.directory import Run
from genexp.rundirs.results import RAW, with_each_score_once
from genexp.storage import weights
from genexp.storage.files import aside, atomic_folder, read_json, write_json, writing
from genexp.text import count
from genexp.training.reopen import Trained, reopen

CARD, PICTURE = "README.md", "samples.png"


def main(config: ExportConfig, _line: CommandLine, run: Run) -> None:
    """Write the export folder, whole or not at all; print where it is.

    It replaces an older export. If that one holds files or scores that the new one lacks, it is moved aside. Raises
    UsageError if anything else is in the place.
    """
    if run.is_export:
        raise UsageError(f"{run.path} is an export already; copy the folder to have it elsewhere")
    name = "export" if config.checkpoint == "last" else f"export-{config.checkpoint}"
    out = Path(config.out).expanduser() if config.out is not None else run.path / name
    is_free = out.is_dir() and (Run(out).is_export or not any(out.iterdir()))
    if not is_free and (out.exists() or out.is_symlink()):
        raise UsageError(f"out={out} is there already, and is no export\nSet out=FOLDER to another place")
    trained = reopen(run, config)
    if trained.sampling:
        raise UsageError(f"{next(iter(trained.sampling))} cannot be set here: an export has the run's own settings")
    print(f"{trained}, {config.checkpoint} checkpoint", flush=True)
    _write(out, trained, config.seed, inside_run=config.out is None)
    export = Run(out)
    size = export.weights_file.stat().st_size / 2**20
    print(f"weights: {export.weights_file} ({count(card.parameters(trained), 'parameter')}, {size:.2f} MiB)")
    print(f"card: {out / CARD}")
    print(f"export: {out}")
    print(f"run: {run.path}", flush=True)


def _write(out: Path, trained: Trained, seed: int, inside_run: bool) -> None:
    """Write the folder in the place of an older export."""
    old = aside(out)
    with writing(out, "Set out=FOLDER to another place"):
        try:
            with atomic_folder(out) as folder:
                _fill(folder, trained, seed)
                if inside_run:
                    trained.run.refuse_if_moved()
            if old.exists() and _adds_nothing(Run(old), Run(out)):
                shutil.rmtree(old)
        except OSError:
            trained.run.refuse_if_moved()  # that is then the cause
            raise
    if old.exists():
        print(f"moved the old export to {old}, because of what was added to it")


def _adds_nothing(old: Run, new: Run) -> bool:
    """Return True if the new export has all samples, figures and scores of the old one."""
    files = {file.name for file in new.path.iterdir()}
    added = {file.name for file in old.path.iterdir() if not file.name.startswith(".")} - files
    return not added and old.evaluations().keys() <= new.evaluations().keys()


def _fill(folder: Path, trained: Trained, seed: int) -> None:
    export, run = Run(folder), trained.run
    metadata = {
        "format": "pt",  # other readers of safetensors expect it
        "genexp": genexp.__version__,
        "model": trained.config.model["name"],
        "dataset": trained.config.dataset["name"],
        "step": str(trained.step),
        "epoch": str(trained.epoch),
        "seconds": str(trained.seconds),
    }
    weights.write(export.weights_file, trained.model.state_dict(), metadata)
    export.write_text(export.config_file, OmegaConf.to_yaml(trained.config.model_dump()))
    summary = read_json(run.results_file)
    evaluations = {key: each for key, each in run.evaluations().items() if each.step == trained.step}
    evaluations = {key: each for key, each in evaluations.items() if not RAW.items() <= each.sampling.items()}
    content = summary if summary.get("steps") == trained.step else {}
    content.pop("raw_scores", None)  # of weights that the export does not hold
    content |= {"evaluations": {key: evaluation.to_json() for key, evaluation in evaluations.items()}}
    write_json(export.results_file, with_each_score_once(content))
    write_json(export.data_file, read_json(run.data_file))
    write_json(export.provenance_file, read_json(run.provenance_file))
    generator = rng.generator(trained.data.device, seed, "samples")
    save_picture(of_samples(trained.model, trained.data, generator), folder / PICTURE, trained.caption("samples"))
    export.write_text(folder / CARD, card.text(trained, list(evaluations.values()), PICTURE, seed))
