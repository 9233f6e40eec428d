"""The model card of an export: Markdown, with the front matter that model hubs read. It states what was recorded."""

import sys
from collections.abc import Sequence
from typing import Any

import yaml

from genexp.config.components import components, settings_of
from genexp.config.schema import flat
from genexp.figures import pictures
from genexp.figures.points import POINTS
from genexp.rundirs.results import Evaluation
from genexp.tables import markdown_row
from genexp.text import count, duration
from genexp.training.plan import Plan, PlannedStage
from genexp.training.reopen import Trained

SAMPLES = {
    "draw": "A sample is a draw from the model.",
    "mean": "A sample is a mean: the expected image, without the noise that the model has around it.",
}


def text(trained: Trained, scores: list[Evaluation], picture: str, seed: int) -> str:
    """Return the card. `scores` are those of the checkpoint, and `picture` shows samples drawn with `seed`."""
    sections = [_head(trained, picture, seed), _use(trained), _training(trained), _settings(trained), _scores(scores)]
    return "\n".join([*sections, _limits(trained, scores)])


def parameters(trained: Trained) -> int:
    """Return the number of parameters of the model."""
    return sum(parameter.numel() for parameter in trained.model.parameters())


def _head(trained: Trained, picture: str, seed: int) -> str:
    config, dataset = trained.config, trained.config.dataset["name"]
    are_images = trained.data.bounds is None
    front: dict[str, Any] = {"library_name": "genexp"}
    if are_images:
        front["pipeline_tag"] = "unconditional-image-generation"
    front |= {"tags": ["genexp", "generative-model", config.model["name"]], "datasets": [dataset]}
    module_text = sys.modules[type(trained.model).__module__].__doc__ or ""
    about_the_model = module_text.strip().split("\n\n")[0]  # names the paper
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---

# {config.name} on {dataset}

{" ".join(about_the_model.split())}

{count(parameters(trained), "parameter")}, after {_trained_for(trained)} (step {trained.step:,}) of training.
{SAMPLES[trained.model.sample_kind]}

![{pictures.TILES if are_images else POINTS:,} samples from seed {seed}]({picture})
"""


def _use(trained: Trained) -> str:
    targets = [str(component["_target_"]) for component in components(trained.config).values()]
    packages = sorted({target.partition(".")[0] for target in targets} - {"genexp"})
    trust = f" trust=[{','.join(packages)}]" if packages else ""
    outside = f"Code outside genexp, in {', '.join(packages)}, belongs to it and is executed.\n\n" if packages else ""
    shape = ", ".join(map(str, trained.data.shape))
    return f"""## Use

{outside}With genexp installed, in this folder:

```
genexp sample run=. n=64{trust}
genexp evaluate run=.{trust}
```

`data_dir=FOLDER` or GENEXP_DATA_DIR names the folder of the data set. Images other than those of the training are
refused. In Python:

```python
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from genexp import rng
from genexp.config.components import refuse_strangers
from genexp.models import draw
from genexp.rundirs.directory import Run
from genexp.training import build

run, device = Run(Path(".")), torch.device("cpu")
config = run.config
refuse_strangers(config, trust={packages!r})  # config.yaml may name any code, which is then executed
data = build.data_set(config.dataset, os.environ.get("GENEXP_DATA_DIR", "data"), config.dataset_b)
model = build.model(config.model, config.noise, data.spec(), config.seed, device)
model.load_state_dict(load_file(run.weights_file))
samples = draw(model, 64, rng.generator(device, config.seed, "samples"), data)  # (64, {shape}), in [0, 1]
```
"""


def _training(trained: Trained) -> str:
    config, data = trained.config, trained.data
    sessions = [session for session in trained.run.sessions() if session["from_step"] < trained.step]
    last_session = sessions[-1] if sessions else {}
    shape = " × ".join(map(str, data.shape))
    optimizers = {"optimizer": config.optimizer}
    optimizers |= {f"optimizer of the {player}": component for player, component in config.optimizers.items()}
    rows: dict[str, Any] = {
        "data set": f"{config.dataset['name']}, {shape}",
        "second data set": config.dataset_b and config.dataset_b["name"],
        "digest of the data": trained.run.digest(),
        "images": ", ".join(f"{len(getattr(data, split)):,} {split}" for split in ("train", "valid", "test")),
        "epochs": _epochs(trained),
        "steps": f"{trained.step:,}",
        "batch size": config.batch_size,
        **{key: f"{component['name']} ({_joined(settings_of(component))})" for key, component in optimizers.items()},
        "weights": config.average,
        "seed": config.seed,
        "time": duration(trained.seconds) + (f", in {len(sessions)} sessions" if len(sessions) > 1 else ""),
        "precision": config.device.precision,
        "device": last_session.get("device"),
        "CPU threads": last_session.get("threads"),
        "versions": _joined(last_session.get("versions", {}), " "),
        "commit": last_session.get("commit"),
        "uncommitted changes": last_session.get("patch") and f"{last_session['patch']}, in the run directory",
        "begun": sessions[0].get("time") if sessions else None,
    }
    known = [(name, value) for name, value in rows.items() if value not in (None, "")]
    return f"## Training\n\n{_table(('', ''), known)}"


def _trained_for(trained: Trained) -> str:
    """Return the epochs in the words of a sentence."""
    return f"epoch {_epochs(trained)}" if len(_stages(trained)) == 1 else f"the epochs {_epochs(trained)}"


def _epochs(trained: Trained) -> str:
    """Return the epochs of each stage that was begun; those of the only one as a number."""
    stages = [stage for stage in _stages(trained) if stage.first_step < trained.step or stage.first_step == 0]
    if len(_stages(trained)) == 1:
        return f"{trained.epoch:.4g}"
    ends = [*(stage.first_step for stage in stages[1:]), trained.step]
    return ", ".join(f"{stage.progress(end):.4g} of {stage.name}" for stage, end in zip(stages, ends, strict=True))


def _stages(trained: Trained) -> list[PlannedStage]:
    return Plan.of(trained.model, trained.config.batch_size, trained.data.images_per_epoch).stages


def _settings(trained: Trained) -> str:
    rows = [(f"`{key}`", value) for key, value in flat(trained.config.identity()).items()]
    return f"## Settings\n\nThese settings and the data determine the run.\n\n{_table(('setting', 'value'), rows)}"


def _scores(scores: list[Evaluation]) -> str:
    if not scores:
        return "## Scores\n\nThis checkpoint has no scores.\n"
    rows = []
    for each in scores:
        settings = _joined(each.settings | each.sampling)
        rows.append((each.metric, each.score.summary, settings, each.score.extractor or "", each.seed))
    note = "± is the standard error of a score of this one run; it leaves out the spread between training runs."
    header = ("score", "value", "settings", "features of", "seed of the samples")
    return f"## Scores\n\n{note}\n\n{_table(header, rows)}"


def _limits(trained: Trained, scores: list[Evaluation]) -> str:
    dataset = trained.config.dataset["name"]
    parts = [
        f"The model was trained on the training images of {dataset} alone, and makes images like them. It is meant for "
        "the study of generative models, and for comparison with others by the same scores. It was not examined for "
        f"other uses. Biases and errors of {dataset} may come back in the samples, and so may single training images: "
        "`genexp figure run=. kind=neighbours` draws samples beside their nearest training images.",
    ]
    if any(evaluation.metric.startswith("parzen") for evaluation in scores):
        parts.append(
            "A Parzen-window estimate of log-likelihood has high variance, and is poor in many dimensions. It favours "
            "smooth samples, and says little about a model's likelihood or about how its samples look (Theis et al. "
            "2016): a score above that of as many training images means that the samples are smoother than data, not "
            "better. Two estimates are comparable if both use as many samples and choose σ in the same way."
        )
    if any(evaluation.score.extractor for evaluation in scores):
        parts.append("Scores of features are comparable within one network only, which the table names.")
    parts.append("No license is stated here; the data set has its own.")
    return "## Intended use and limits\n\n" + "\n\n".join(parts) + "\n"


def _joined(settings: dict[str, Any], sign: str = "=") -> str:
    return ", ".join(f"{key}{sign}{value}" for key, value in settings.items())


def _table(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(markdown_row(line) + "\n" for line in lines)
