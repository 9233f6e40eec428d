"""genexp in Python, for notebooks: train, and open runs. `import genexp` itself offers these names.

Images are given as `genexp.arrays` takes them. Mistakes raise `genexp.errors.UsageError`, whose text says what to do.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genexp.config.command_line import parse
from genexp.config.compose import configuration
from genexp.errors import UsageError
from genexp.rundirs.directory import Run
from genexp.rundirs.find import named_runs
from genexp.rundirs.results import Results
from genexp.score import Score
from genexp.storage.files import read_json_lines

if TYPE_CHECKING:
    from torch import Tensor

    from genexp.data import DataSet
    from genexp.models import Model
    from genexp.training.reopen import Trained

    Array = Tensor | np.ndarray[Any, Any]


def train(*words: str, **settings: Any) -> "OpenRun":
    """Train as the command does, `genexp.train("model=vae", "dataset=digits", epochs=2)`, and return the run.

    A run that exists goes on, and a finished one is opened. `settings` are those whose names have no dots. Stop it by
    interrupting: the run is saved, and the same call goes on. Sweeps and searches are for the command line.
    """
    line = parse("train", [*words, *(f"{name}={_spelled(value)}" for name, value in settings.items())])
    if line.multirun or line.display or any(word.startswith("search=") for word in line.overrides):
        raise UsageError("genexp.train trains one run; `genexp train` on the command line does the rest")
    if line.runs:
        from genexp.rundirs.start import start_of

        (source,) = named_runs(line.runs)
        line = replace(line, run=source.path, kept=source.config, start=start_of(source))
    config = configuration(line)
    from genexp.commands import train as command

    command.main(config, line)
    return OpenRun(Run(config.directory()))


def load(path: str | Path, *settings: str) -> "OpenRun":
    """Open a run, or an export of one, by its path or the beginning of its hash.

    `settings` are those of `genexp sample`: "checkpoint=best", "weights=raw", "device=cpu", "data_dir=FOLDER",
    "model.burn_in=1000". Nothing is loaded until it is asked for. Raises UsageError if the path names no run, or
    several.
    """
    runs = named_runs([str(path)])
    if len(runs) != 1:
        raise UsageError(f"{path} names {len(runs)} runs; give the path of one, or list them by genexp.runs()")
    return OpenRun(runs[0], settings)


def runs(outputs_dir: str | Path = "outputs", filter: str = "") -> list[dict[str, Any]]:
    """Return the runs below a folder as `genexp runs` lists them, for `pandas.DataFrame(genexp.runs())`.

    Each has status, epoch, epochs, stage, score (its name), mean, stderr, model, dataset, seed, settings in which it
    differs from others, and run, its path. `filter` leaves those that hold all its words.
    """
    from genexp.commands.runs import COLUMNS, listed

    rows = listed(Path(outputs_dir).expanduser(), filter.split())
    return [{name: value for column in COLUMNS for name, value in column.export(row).items()} for row in rows]


class OpenRun:
    """A run, or an export of one: what it was, how it scored, and what its model does with images and codes.

    Tensors that its methods return are on the CPU, wherever the model is.
    """

    def __init__(self, run: Run, settings: Sequence[str] = ()) -> None:
        self.run, self.settings = run, tuple(settings)

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.run.path

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of the run, as in its config.yaml."""
        return self.run.config.model_dump()

    @property
    def scores(self) -> dict[str, Score]:
        """The scores at the end of training, by name; each has `mean`, `stderr`, `summary` and more."""
        results = Results.read(self.run.results_file)
        return {} if results is None else dict(results.scores)

    @property
    def metrics(self) -> "dict[str, np.ndarray[Any, Any]]":
        """The logged values as arrays of equal length by name, "step" among them; NaN where nothing was logged."""
        lines = list(read_json_lines(self.run.metrics_file))
        names = dict.fromkeys(name for line in lines for name in line if isinstance(line[name], int | float))
        return {name: np.array([line.get(name, np.nan) for line in lines], dtype=float) for name in names}

    @cached_property
    def _trained(self) -> "Trained":
        line = replace(parse("sample", [str(self.path), *self.settings]), run=self.path, kept=self.run.config)
        config = configuration(line)
        from genexp.training.reopen import reopen

        return reopen(self.run, config)

    @property
    def model(self) -> "Model":
        """The model, as its checkpoint has it, on the device of the settings."""
        return self._trained.model

    @cached_property
    def data(self) -> "DataSet":
        """The data that it was trained on, on the CPU."""
        import torch

        return self._trained.data.to(torch.device("cpu"))

    def sample(self, n: int = 64, *, seed: int = 0, label: int | str | None = None) -> "Tensor":
        """Return n samples, (n, C, H, W) in [0, 1]: those of `genexp sample n=N seed=SEED label=LABEL`."""
        from genexp.commands.sample import samples_of
        from genexp.training.reopen import label_of

        number = label_of(None if label is None else str(label), self._trained)
        return samples_of(self._trained, n, seed, number).float().cpu()

    def encode(self, images: "Array", **labels: "Tensor") -> "Tensor":
        """Return the codes, (n, d), of images (n, C, H, W); of a random code its mean."""
        return self._apply("encode", images=self._images(images), **labels)

    def decode(self, codes: "Array", **labels: "Tensor") -> "Tensor":
        """Return the images, (n, C, H, W) in [0, 1], of codes (n, d)."""
        from genexp.training.given import as_tensor

        return self._apply("decode", codes=as_tensor(codes).float(), **labels)

    def reconstruct(self, images: "Array", **labels: "Tensor") -> "Tensor":
        """Return what the model makes of images (n, C, H, W), without noise or draws."""
        return self._apply("reconstruct", images=self._images(images), **labels)

    def log_prob(self, images: "Array", *, k: int = 50, seed: int = 0, **labels: "Tensor") -> "Tensor":
        """Return log p(x) of each image, (n,) float64, in nats.

        Of a model with a posterior, such as the vae, it is the importance-weighted bound with k draws (Burda et al.
        2016). Of a Boltzmann machine it rests on the log Z of the run's `ais` score. Others have none: UsageError.
        """
        from genexp.training.applied import log_prob

        return log_prob(self._trained, self._images(images), k=k, seed=seed, **labels)

    def _apply(self, name: str, **given: "Tensor") -> "Tensor":
        from genexp.training.applied import applied

        return applied(self._trained, name, **given)

    def _images(self, images: "Array") -> "Tensor":
        from genexp.training.given import as_images

        x, shape = as_images(images), self._trained.data.shape
        if x.shape[1:] != shape:
            raise UsageError(f"the images are {tuple(x.shape)}; this run's are (n, {', '.join(map(str, shape))})")
        return x.to(self.model.device)

    def __repr__(self) -> str:
        scores = "; ".join(f"{name} {score}" for name, score in self.scores.items())
        return f"<{self.path}, {self.run.status().get('status', 'exported')}{', ' if scores else ''}{scores}>"

    def _repr_html_(self) -> str:
        """Show what the run is, its scores, and its newest samples."""
        from genexp.report.page import Section, film, fragment
        from genexp.report.run import CAPTIONS, scores_grid

        config, status = self.run.config, str(self.run.status().get("status", "exported"))
        samples = film(self.run.samples, "samples", CAPTIONS["samples"]) if self.run.samples.is_dir() else None
        grids = [scores_grid(self.scores.items())] if self.scores else []
        title = f"{config.name} on {config.dataset['name']}, seed {config.seed}"
        facts = [("run", str(self.path)), ("status", status)]
        return fragment(Section(title, facts, grids, films=[samples] if samples is not None else []))


def _spelled(value: Any) -> str:
    """Return a Python value as the command line spells it."""
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./\[\], -]*", value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(str(value) if isinstance(value, Path) else value)
