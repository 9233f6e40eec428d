"""`genexp export`: its files, opening it like a run, damaged files, code from outside and full disks."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, last_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file

from examples import DIGITS, FAST, MODELS
from genexp.commands import card, export
from genexp.errors import GenexpError
from genexp.models import Stage
from genexp.rundirs import find as runs
from genexp.storage import weights
from genexp.storage.files import PARTIAL
from genexp.training.plan import PlannedStage

FILES = {"README.md", "config.yaml", "data.json", "model.safetensors", "provenance.json", "results.json", "samples.png"}


@pytest.fixture
def trained(finished):
    return finished(*SMALL, "epochs=2", "log.scores_every_epochs=1").run


@pytest.fixture
def exported(genexp, trained):
    answer = genexp("export", str(trained))
    assert answer.code == 0, answer.err
    assert answer.run == trained
    return trained / "export"


def names(folder):
    return {entry.name for entry in folder.iterdir()}


def samples(genexp, path, *overrides):
    answer = genexp("sample", str(path), "n=20", "out=s.npz", *overrides)
    assert answer.code == 0, answer.err
    return torch.from_numpy(np.load("s.npz")["samples"])


def squares(folder):
    """Write 16×16 images, for a model that needs larger ones than the digits; return the overrides that use them."""
    from PIL import Image

    folder.mkdir()
    noise = np.random.default_rng(0)
    for n in range(60):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    return ["dataset=folder", f"dataset.path={folder}", "dataset.size=32", "batch_size=20", "model.generator_maps=2"]


@pytest.mark.parametrize("model", [*MODELS, "ae model.tied=true", "cae model.tied=false model.hidden=[20]"])
@pytest.mark.slow
def test_every_model_comes_back_from_its_export(genexp, tmp_path, model):
    name, *settings = model.split()
    overrides = ["dataset=digits", *FAST, *DIGITS[name]] if name in DIGITS else ["metrics.parzen.n_samples=10"]
    if name == "conv_gan":
        overrides += [*squares(tmp_path / "photos"), "model.generator_hidden=20", "model.latent_dim=8"]
    trained = genexp("train", f"model={name}", "epochs=1", *overrides, *settings)
    assert trained.code == 0, trained.err
    answer = genexp("export", str(trained.run), "out=there")
    assert answer.code == 0, answer.err
    assert names(tmp_path / "there") == FILES

    state = last_checkpoint(trained.run)
    exported = load_file(tmp_path / "there" / "model.safetensors")
    assert exported.keys() == state["model"].keys()
    assert all(torch.equal(exported[key], value) for key, value in state["model"].items())
    assert torch.equal(samples(genexp, "there"), samples(genexp, trained.run))
    again = genexp("evaluate", "there")
    scores = json.loads((trained.run / "results.json").read_text())["scores"]
    assert again.out.count("scored before") == len(scores) > 0, again.out + again.err
    assert genexp("figure", "there", "rows=2", "columns=3").code == 0


def test_tensors_that_share_memory_or_are_not_contiguous_are_written(tmp_path):
    weight = torch.arange(6.0).view(2, 3)
    state = {"one": weight, "tied": weight, "transposed": weight.T, "row": weight[1], "count": torch.tensor(3)}
    state |= {"none": torch.zeros(0, 4), "half": weight.bfloat16()}
    weights.write(tmp_path / "w.safetensors", state, {"step": "3"})
    tensors, metadata = weights.read(tmp_path / "w.safetensors")
    assert metadata == {"step": "3"}
    assert tensors.keys() == state.keys()
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in state.items()
    )


def test_what_the_folder_says(trained, exported):
    assert names(exported) == FILES
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata.pop("sha256")
    assert metadata.pop("genexp")
    assert metadata.pop("seconds") == str(last_checkpoint(trained)["seconds"])
    assert metadata == {"format": "pt", "model": "gan", "dataset": "digits", "step": "22", "epoch": "2.0"}
    for name in ("config.yaml", "data.json", "provenance.json"):
        assert (exported / name).read_text() == (trained / name).read_text()
    assert json.loads((exported / "results.json").read_text()) == json.loads((trained / "results.json").read_text())
    assert (exported.stat().st_mode & 0o777) == 0o755


def test_the_card_says_what_was_recorded(exported):
    text = (exported / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "genexp",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["genexp", "generative-model", "gan"],
        "datasets": ["digits"],
    }
    results = json.loads((exported / "results.json").read_text())
    provenance = results["provenance"]
    for text in (
        "# gan on digits\n",
        "Generative adversarial nets (Goodfellow et al. 2014)",
        "| images | 1,197 train, 300 valid, 300 test |",
        "| `model.latent_dim` | 8 |",
        "| epochs | 2 |",
        "| steps | 22 |",
        f"| device | {provenance['device']} |",
        f"torch {provenance['versions']['torch']}",
        results["scores"]["parzen"]["summary"],
        "says little about a model's likelihood",
        "No license is stated here",
    ):
        assert text in body
    nulls = (
        "model.generator_output_sparse",
        *(f"optimizer.{x}" for x in ("momentum_final", "lr_epochs", "lr_stages", "max_col_norm")),
    )
    for setting in nulls:
        body = body.replace(f"{setting.partition('.')[2]}=None", "").replace(f"`{setting}` | None", "")
    assert "None" not in body


@pytest.mark.slow
def test_the_commands_and_the_snippet_of_the_card_run(genexp, exported, monkeypatch, tmp_path):
    text = (exported / "README.md").read_text()
    moved = tmp_path / "shared with others"
    exported.rename(moved)
    monkeypatch.chdir(moved)
    commands = re.search(r"\n```\n(.*?)```", text, re.DOTALL)[1].splitlines()
    assert [command.split()[1] for command in commands] == ["sample", "evaluate"]
    for command in commands:
        answer = genexp(*command.split()[1:], "device=cpu")  # as the snippet
        assert answer.code == 0, answer.err
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    program = f"{snippet}\nimport numpy\nnumpy.save('drawn.npy', samples.numpy())\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=moved)
    drawn, archived = np.load(moved / "drawn.npy"), np.load(moved / "samples-step22-n64-seed0.npz")["samples"]
    assert np.array_equal(drawn, archived)


@pytest.mark.slow
def test_the_best_checkpoint_with_the_scores_of_its_step(genexp, trained):
    path = trained / "checkpoints" / "best.pt"
    first = min((trained / "checkpoints").glob("step-*.pt"))
    path.write_bytes(first.read_bytes())
    answer = genexp("export", str(trained), "checkpoint=best")
    assert answer.code == 0, answer.err
    folder = trained / "export-best"
    assert json.loads((folder / "results.json").read_text()) == {"evaluations": {}}
    assert "This checkpoint has no scores" in (folder / "README.md").read_text()
    state = torch.load(path, weights_only=True)
    assert torch.equal(samples(genexp, folder), samples(genexp, trained, "checkpoint=best"))
    assert f"step {state['step']}" in genexp("evaluate", str(folder)).out
    assert "an export, which holds one checkpoint" in genexp("sample", str(folder), "checkpoint=best").err


@pytest.mark.parametrize("place", [0, 9, 60, 400, -2000, -1])
def test_a_changed_bit_is_noticed(genexp, exported, place):
    file = exported / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    answer = genexp("sample", str(exported), "n=4")
    assert answer.code == 1
    assert f"{file} is damaged or cannot be read" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("length", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_noticed(genexp, exported, length):
    file = exported / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    answer = genexp("evaluate", str(exported))
    assert answer.code == 1
    assert f"{file} is damaged or cannot be read" in answer.err


def test_a_file_that_another_program_wrote_is_not_taken(tmp_path):
    from safetensors.torch import save_file

    save_file({"one": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(GenexpError, match=r"w\.safetensors is damaged"):
        weights.read(tmp_path / "w.safetensors")


@pytest.mark.slow
def test_an_export_is_no_run(genexp, trained, exported):
    (run,) = runs.find(trained.parent)
    assert run.run.path == trained
    assert str(exported) not in genexp("runs").out
    for arguments, message in (
        (["export", str(exported)], "is an export already"),
        (["rerun", str(exported)], "is an export, which is not trained"),
        (["train", *SMALL, f"run_dir={exported}"], "is an export of a run, and is not trained"),
        (["train", *SMALL, f"run_dir={exported}", "fresh=true"], "is an export of a run, and is not trained"),
    ):
        answer = genexp(*arguments)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    assert names(exported) == FILES
    assert genexp("train", *SMALL, "epochs=3").code == 0  # the run goes on, with an export in it


@pytest.mark.slow
def test_an_older_export_is_replaced_and_what_was_added_to_it_kept(genexp, trained, exported):
    assert genexp("export", str(trained)).code == 0
    assert not exported.with_name("export.old-1").exists()
    drawn = samples(genexp, exported)
    genexp("sample", str(exported), "n=9")
    answer = genexp("export", str(trained))
    assert f"moved the old export to {exported}.old-1" in answer.out
    assert names(exported) == FILES
    genexp("evaluate", str(exported), "metrics.parzen.n_samples=50")
    assert f"moved the old export to {exported}.old-2" in genexp("export", str(trained)).out
    assert torch.equal(samples(genexp, exported), drawn)
    assert not [name for name in names(trained) if name.endswith(PARTIAL)]


def test_other_things_are_not_replaced(genexp, trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for out in ("mine", "file", str(trained)):
        answer = genexp("export", str(trained), f"out={out}")
        assert (answer.code, "is there already, and is no export" in answer.err) == (2, True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    assert genexp("export", str(trained), "out=empty").code == 0
    assert names(tmp_path / "empty") == FILES


def test_settings_of_the_sampler_are_not_changed(genexp, trained):
    assert "was trained with 8" in genexp("export", str(trained), "model.latent_dim=9").err
    answer = genexp("export", str(trained), "model.prior=gaussian")
    assert answer.code == 2


@pytest.mark.parametrize("part", [(card, "text"), (export.weights, "write")])
def test_a_full_disk_leaves_no_half_of_an_export(genexp, trained, exported, monkeypatch, part):
    before = {file.name: file.read_bytes() for file in exported.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*part, full)
    for out, there in ((exported, True), (trained / "another", False)):
        answer = genexp("export", str(trained), f"out={out}")
        assert answer.code == 1
        assert f"{out} cannot be written: No space left on device" in answer.err
        assert out.exists() == there
    assert {file.name: file.read_bytes() for file in exported.iterdir()} == before
    assert not [name for name in names(trained) if name.endswith(PARTIAL)]


def test_what_a_killed_export_leaves_is_swept_up(genexp, trained):
    (trained / f".export.abc{PARTIAL}").mkdir()
    (trained / f".export.abc{PARTIAL}" / "config.yaml").write_text("x")
    os.utime(trained / f".export.abc{PARTIAL}", (0, 0))  # a newer one may still be written
    assert genexp("train", *SMALL, "epochs=3").code == 0
    assert not [name for name in names(trained) if name.endswith(PARTIAL)]


@pytest.mark.slow
def test_code_from_outside_is_not_run_unless_trusted(genexp, trained, exported, tmp_path):
    (tmp_path / "exported_stranger.py").write_text("print('executed')\nfrom genexp.models.gan import GAN\n")
    for folder in (trained, exported):
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace("genexp.models.gan.GAN", "exported_stranger.GAN"))
        for command in ("sample", "evaluate", "figure", "export"):
            answer = genexp(command, str(folder), *(["n=4"] if command == "sample" else []))
            assert answer.code == 2
            assert "executed" not in answer.out
    assert "exported_stranger.GAN, which would be executed" in genexp("sample", str(exported)).err
    answer = genexp("sample", str(exported), "n=4", "trust=[exported_stranger]")
    assert (answer.code, "executed" in answer.out) == (0, True), answer.err
    assert genexp("export", str(trained), "trust=[exported_stranger]", "out=theirs").code == 0
    text = (tmp_path / "theirs" / "README.md").read_text()
    assert "genexp sample run=. n=64 trust=[exported_stranger]" in text
    assert "refuse_strangers(config, trust=['exported_stranger'])" in text
    assert "Code outside genexp, in exported_stranger, belongs to it" in text


def test_settings_are_completed_behind_a_bare_word(genexp, trained, monkeypatch):
    for run in (f"run={trained}", str(trained)):
        monkeypatch.setenv("COMP_LINE", f"genexp sample {run} model.lat")
        assert genexp("-sc", "query=bash").out.split() == ["model.latent_dim="]


@pytest.mark.slow
def test_the_run_may_be_a_bare_word(genexp, trained, tmp_path):
    run = str(trained)
    (tmp_path / "conf").mkdir()
    for arguments in ([run, "n=4"], ["n=4", run], ["n=4", "--config-dir", "conf", run]):
        answer = genexp("sample", "out=s.png", *arguments)
        assert (answer.code, answer.run) == (0, trained), answer.err
    assert genexp("sample", f"{trained.parent}/*", "n=4").code == 0
    assert "give one run=" in genexp("sample", str(trained), f"run={trained}").err
    assert "run=nowhere: there is no run's directory" in genexp("sample", "nowhere").err
    assert "which run? genexp sample run=PATH, or PATH alone" in genexp("sample", "n=4").err
    several = genexp("evaluate", str(trained), str(trained), "metrics.parzen.n_samples=30")  # as a shell expands a glob
    assert several.out.count("(30 samples") == 2


@pytest.mark.slow
def test_the_card_gives_the_epochs_of_all_stages(genexp):
    settings = ["model=stacked_dae", "dataset=digits", *FAST, *DIGITS["stacked_dae"], "model.pretrain_epochs=2"]
    run = genexp("train", *settings, "epochs=3", "log.scores_every_epochs=1", "checkpoint.keep_best=parzen").run
    assert genexp("export", str(run)).code == 0
    text = (run / "export" / "README.md").read_text(encoding="utf-8")
    epochs = "2 of layer 1, 2 of layer 2, 3 of fine-tuning"
    assert f"| epochs | {epochs} |" in text
    assert f"after the epochs {epochs} (step 77) of training" in text.replace("\n", " ")


@pytest.mark.parametrize(
    ("step", "epochs"),
    [(0, "0 of layer_1"), (5, "0.5 of layer_1"), (20, "2 of layer_1"), (25, "2 of layer_1, 0.5 of layer_2")],
)
def test_the_card_of_an_earlier_checkpoint_gives_the_epochs_until_then(monkeypatch, step, epochs):
    first = PlannedStage(Stage("layer_1", [], epochs=2), [], 10, steps_per_epoch=10, first_step=0, first_epoch=0)
    second = PlannedStage(Stage("layer_2", []), [], 10, steps_per_epoch=10, first_step=20, first_epoch=2)
    monkeypatch.setattr(card, "_stages", lambda _trained: [first, second])
    assert card._epochs(SimpleNamespace(step=step)) == epochs
