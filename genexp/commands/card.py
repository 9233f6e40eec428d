"""The model card of an exported run: Markdown, with front matter as model hubs read it. It says what was recorded."""

import sys
from collections.abc import Iterable
from typing import Any

import yaml

from genexp.config.schema import components, settings_of
from genexp.figures import pictures
from genexp.runs.directory import WEIGHTS, flat
from genexp.storage.files import read_json
from genexp.text import duration
from genexp.training.reopen import Trained

SAMPLES = {
    "draw": "A sample is a draw from the model.",
    "mean": "A sample is a mean: the expected image, without the noise that the model has around it.",
}


def text(trained: Trained, scores: dict[str, Any], picture: str, seed: int) -> str:
    """The whole card; `scores` is what results.json holds of this checkpoint, `seed` that of the picture."""
    sections = [_front(trained), _what(trained, picture, seed), _use(trained), _training(trained), _settings(trained)]
    return "\n".join([*sections, _scores(scores), _limits(trained, scores)])


def parameters(trained: Trained) -> int:
    return sum(one.numel() for one in trained.model.parameters())


def _front(trained: Trained) -> str:
    model, dataset = trained.config.model["name"], trained.config.dataset["name"]
    front: dict[str, Any] = {"library_name": "genexp"}
    if trained.data.mixture is None:
        front["pipeline_tag"] = "unconditional-image-generation"
    front |= {"tags": ["genexp", "generative-model", model], "datasets": [dataset]}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"


def _what(trained: Trained, picture: str, seed: int) -> str:
    config, data = trained.config, trained.data
    documented = sys.modules[type(trained.model).__module__].__doc__ or ""  # with the paper, where it names one
    shown = pictures.TILES if data.mixture is None else pictures.POINTS
    return f"""# {config.name} on {config.dataset["name"]}

{" ".join(documented.strip().split(chr(10) * 2)[0].split())}

{parameters(trained):,} parameters, as they were after epoch {trained.epoch:.4g} (step {trained.step:,}) of training.
{SAMPLES[trained.model.sample_kind]}

![{shown:,} samples from seed {seed}]({picture})
"""


def _use(trained: Trained) -> str:
    targets = [str(one["_target_"]) for one in components(trained.config).values()]
    packages = sorted({target.partition(".")[0] for target in targets} - {"genexp"})
    trust = f" trust=[{','.join(packages)}]" if packages else ""
    outside = f" Code outside genexp belongs to it, in {', '.join(packages)}, and is executed." if packages else ""
    shape = ", ".join(map(str, trained.data.train.shape[1:]))
    return f"""## Use

With genexp installed, in this folder:{outside}

```
genexp sample run=. n=64{trust}
genexp evaluate run=.{trust}
```

`data_dir=FOLDER`, or GENEXP_DATA_DIR, says where the data set is; that its images are those of the training is checked.
In Python:

```python
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from genexp.training import build
from genexp import rng
from genexp.config.schema import refuse_strangers
from genexp.models import draw
from genexp.runs.directory import read_config

folder, device = Path("."), torch.device("cpu")
config = read_config(folder)
refuse_strangers(config, trust={packages!r})  # code that is not to be trusted would be executed
data = build.data_set(config.dataset, os.environ.get("GENEXP_DATA_DIR", "data"))
model = build.model(config.model, config.noise, data.spec(), config.seed, device)
model.load_state_dict(load_file(folder / "{WEIGHTS}"))
samples = draw(model, 64, rng.generator(device, config.seed, "samples"), data)  # (64, {shape}), in [0, 1]
```
"""


def _training(trained: Trained) -> str:
    config, data = trained.config, trained.data
    sessions = read_json(trained.path / "provenance.json").get("sessions", [])
    begun = [one for one in sessions if one["from_step"] < trained.step]
    made_by = begun[-1] if begun else {}
    channels, height, width = data.train.shape[1:]
    digest = read_json(trained.path / "data.json").get("digest")
    optimizers = {"": config.optimizer} | {f" of the {player}": one for player, one in config.optimizers.items()}
    rows: dict[str, Any] = {
        "data set": f"{config.dataset['name']}, {channels} × {height} × {width}",
        "digest of the data": digest,
        "images": ", ".join(f"{len(getattr(data, split)):,} {split}" for split in ("train", "valid", "test")),
        "epochs": f"{trained.epoch:.4g}",
        "steps": f"{trained.step:,}",
        "batch size": config.batch_size,
        **{f"optimizer{whose}": f"{one['name']} ({_said(settings_of(one))})" for whose, one in optimizers.items()},
        "seed": config.seed,
        "time": duration(trained.seconds) + (f", in {len(begun)} sessions" if len(begun) > 1 else ""),
        "precision": config.device.precision,
        "device": made_by.get("device"),
        "CPU threads": made_by.get("threads"),
        "versions": _said(made_by.get("versions", {}), " "),
        "commit": made_by.get("commit"),
        "uncommitted changes": made_by.get("patch") and f"{made_by['patch']}, kept with the run",
        "begun": begun[0].get("time") if begun else None,
    }
    known = ((name, str(value)) for name, value in rows.items() if value not in (None, ""))
    return f"## Training\n\n{_table(('', ''), known)}"


def _settings(trained: Trained) -> str:
    rows = ((f"`{key}`", str(value)) for key, value in flat(trained.config.identity()).items())
    return f"## Settings\n\nAll that the run follows from, besides its data.\n\n{_table(('setting', 'value'), rows)}"


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        (
            entry["metric"],
            entry["score"]["summary"],
            _said(entry["settings"] | entry["sampling"]),
            str(entry["score"].get("extractor") or ""),
            str(entry["seed"]),
        )
        for entry in scores["evaluations"].values()
    ]
    if not rows:
        return "## Scores\n\nNone was taken of this checkpoint.\n"
    said = "± is the standard error over what is scored, not over training runs, of which this is one."
    header = ("score", "value", "settings", "features of", "seed of the samples")
    return f"## Scores\n\n{said}\n\n{_table(header, rows)}"


def _limits(trained: Trained, scores: dict[str, Any]) -> str:
    entries = scores["evaluations"].values()
    dataset = trained.config.dataset["name"]
    parts = [
        f"It was trained on the training images of {dataset} alone, and makes images like them and nothing else. It is "
        "for the study of generative models, and for comparison with others under the same scores; for other uses it "
        f"was not examined. What is one-sided or wrong in {dataset} may come back in the samples, and so may single "
        "training images: `genexp figure run=. kind=neighbours` draws samples beside those nearest to them.",
    ]
    if any(entry["metric"].startswith("parzen") for entry in entries):
        parts.append(
            "A Parzen-window estimate of log-likelihood has high variance, and does badly in many dimensions. It "
            "favours smooth samples, and says little about a model's likelihood or about how its samples look (Theis "
            "et al. 2016): a score above that of as many training images means samples smoother than data, not better "
            "ones. Two of them compare if samples are as many and σ is chosen in the same way."
        )
    if any(entry["score"].get("extractor") for entry in entries):
        parts.append("Scores of features compare within the one network that the features are of, which is named.")
    parts.append("No license is stated here; the data set has its own.")
    return "## Intended use and limits\n\n" + "\n\n".join(parts) + "\n"


def _said(settings: dict[str, Any], sign: str = "=") -> str:
    return ", ".join(f"{key}{sign}{value}" for key, value in settings.items())


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)
