"""Bad commands and damaged files: each is named in plain words, ends with the right code, and costs nothing.

A row is a command line, what its folder held before, the exit code (2: the command or configuration is wrong; 1: the
run failed), and pieces that the message has to hold: the culprit, and a remedy where there is one. SMALL in a command
stands for the settings of a model that trains in a second, and `run` is such a run, of two epochs.
"""

import io
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL
from PIL import Image
from scipy.io import savemat

from genexp import cli
from genexp.storage import checkpoint

Damage = Callable[[Path], object]
FOREIGN_NAME = re.compile(r"\b\w*(Error|Exception)\b:|GENEXP_DEBUG|Error executing job")
# Compiled modules, locks, Hydra's record of a sweep, folders and caches of data sets.
CRUMBS = ("__pycache__*", "*.lock", "*.sweep*", "data*")
AGAIN = ("run/status.json", "run/config.yaml")  # a run that failed once more says so


# --- what is done to a folder before the command ---------------------------------------------------------------------


def put(name: str, content: str | bytes = "") -> Damage:
    """A file with this content."""

    def damage(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def both(*damages: Damage) -> Damage:
    return lambda place: [damage(place) for damage in damages]


def files(folder: str, names: list[str], content: str | bytes) -> Damage:
    return both(*(put(f"{folder}/{name}", content) for name in names))


def directory(name: str) -> Damage:
    """A folder where a file should be."""

    def damage(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        (place / name).mkdir(parents=True)

    return damage


def config(change: Callable[[dict], object]) -> Damage:
    """The run's config.yaml, changed."""

    def damage(place: Path) -> None:
        file = place / "run" / "config.yaml"
        content = yaml.safe_load(file.read_text())
        change(content)
        file.write_text(yaml.safe_dump(content))

    return damage


def names_model(target: str) -> Damage:
    return config(lambda content: content["model"].update(_target_=target))


def checkpoints(change: Callable[[bytes], bytes]) -> Damage:
    """The bytes of every checkpoint, changed."""

    def damage(place: Path) -> None:
        for file in (place / "run" / "checkpoints").iterdir():
            file.write_bytes(change(file.read_bytes()))

    return damage


def states(change: Callable[[dict], object]) -> Damage:
    """The state in every checkpoint, changed; the files themselves are whole."""

    def damage(place: Path) -> None:
        for file in (place / "run" / "checkpoints").iterdir():
            state = torch.load(file, weights_only=True)
            change(state)
            checkpoint.write(file, state)

    return damage


def flipped(content: bytes) -> bytes:
    """One bit of the weights, which lie in the middle of the file."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 0x10
    return bytes(changed)


class Touches:
    """Unpickled, it makes the file `executed`."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def pickled_in_an_archive(_: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Touches(), "step": 22, "seconds": 1.0}, buffer)
    return buffer.getvalue()


def pictures(n: int, folder: str = "pics") -> Damage:
    """Images of different widths."""

    def damage(place: Path) -> None:
        (place / folder).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            Image.new("RGB", (20 + number, 20), (number * 9, 0, 0)).save(place / folder / f"{number}.png")

    return damage


def cut_short(name: str, size: int) -> Damage:
    return lambda place: (place / name).write_bytes((place / name).read_bytes()[:size])


def tfd(name: str, without: str = "", **changed: np.ndarray) -> Damage:
    """A small file like the one that TFD's authors give."""
    content = {
        "images": np.zeros((20, 48, 48), np.uint8),
        "labs_ex": np.ones(20),
        "folds": np.tile(np.arange(20)[:, None] % 4, (1, 5)),
    } | changed
    content.pop(without, None)
    stream = io.BytesIO()
    savemat(stream, content)
    return put(name, stream.getvalue())


MINE = """import torch
from torch import nn
from genexp.models import Model, Outcome, Update


class Mine(Model):
    sample_kind = "draw"

    def __init__(self, data, noise, *, spread: float = 1.0):
        super().__init__()
        self.shape = data.shape
        self.image = nn.Linear(1, data.size, bias=False)

    def players(self):
        return {"image": self.image}

    def updates(self):
        error = lambda images: (images.flatten(1) - self.image.weight[:, 0]).square().sum(1).mean()
        return [Update(("image",), lambda images: Outcome({"image": error(images)}, {}))]

    def sample(self, n, generator, data):
        return self.image.weight[:, 0].expand(n, -1).reshape(n, *self.shape).clamp(0, 1)
"""


def mine(module: str, old: str = "", new: str = "", behind: str | bytes = b"", settings: str | bytes = "") -> Damage:
    """A model of the user's own with `old` replaced by `new`; each in a module of its own, as they stay imported."""
    assert old in MINE
    code = MINE.replace(old, new).encode() + (behind if isinstance(behind, bytes) else behind.encode())
    written = put("conf/model/mine.yaml", settings or f"name: mine\n_target_: {module}.Mine\n")
    return both(put(f"{module}.py", code), written)


OWN = "train --config-dir conf model=mine dataset=digits metrics.parzen.n_samples=50 epochs=1 device=cpu"
ON = "train SMALL run_dir=run epochs=3"
AFTER = "evaluate run=run metrics.parzen.n_samples=100"
FID = "evaluate run=run ~metrics.parzen metric@metrics.fid=fid metrics.fid.features=inception"
PICTURES = "train dataset=folder dataset.path=pics dataset.size=8 batch_size=5 data_dir=data"
IDX = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
CIFAR = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
LETTER = both(put("full/letter.txt", "mine"), put("file"))
FAILED = ("outputs*",)  # of a run that fails on its way, its directory stays and says why


def row(name: str, command: str | list[str], code: int, *said: str, before: Damage | None = None, leaves=()):
    words = shlex.split(command) if isinstance(command, str) else command
    words = [each for word in words for each in ([*SMALL, "device=cpu"] if word == "SMALL" else [word])]
    return pytest.param(words, code, said, before, leaves, id=name)


COMMANDS = [
    row("another command", "trian", 2, "'trian'", "did you mean 'train'?"),
    row("a command in capitals", "TRAIN", 2, "'TRAIN'", "did you mean 'train'?"),
    row("an empty command", [""], 2, "train, evaluate, sample"),
    row("a table for a command", "table=2", 2, "did you mean 'genexp table table=2'?"),
    row("a run for a command", "evaluate=outputs/x", 2, "did you mean 'genexp evaluate outputs/x'?"),
    row("a sweep as a command", "sweep model=vae", 2, "`genexp train -m seed=0,1` is a sweep"),
    row("a search as a command", "search", 2, "genexp train search=optuna"),
    row("a table alone", "table 2", 2, "did you mean 'table=2'?"),
    row("a model in capitals", "train model=VAE", 2, "did you mean 'vae'?"),
    row("a GPU by another name", "train device=gpu", 2, "did you mean 'cuda'?"),
    row(
        "a folder as a data set",
        "train dataset=photos",
        2,
        "dataset=folder dataset.path=photos",
        before=directory("photos"),
    ),
    row(
        "a path as a data set",
        "train dataset=./photos",
        2,
        "is dataset=folder dataset.path=./photos",
        before=directory("photos"),
    ),
    row("a number for a list", "train model=dbn model.hidden=200", 2, "should be a list, as in model.hidden=[200]"),
    row("a setting for a command", "model=gan", 2, "genexp train model=gan"),
    row("a flag for a command", "--multirun train", 2, "'--multirun' stands where the command should"),
    row("a flag for a setting", "train --epochs=3", 2, "there is no flag '--epochs'", "did you mean 'epochs=3'?"),
    row("a flag misspelled", "train --mutlirun seed=0,1", 2, "'--mutlirun'", "did you mean '--multirun'?"),
    row("two dashes", "train -- epochs=3", 2, "there is no flag '--'"),
    row("a flag without its value", "train --cfg", 2, "--cfg", "expected one argument"),
    row("a flag with a wrong value", "train --cfg nonsense", 2, "--cfg", "'nonsense'", "'job'"),
    row("resolve without cfg", "train --resolve", 2, "--resolve", "--cfg"),
    row("two modes at once", "train --run --multirun seed=0,1", 2, "--run", "--multirun"),
    row(
        "a flag of Hydra's that genexp does not have",
        "train --experimental-rerun x",
        2,
        "no flag '--experimental-rerun'",
    ),
    row("completion for no shell", "-sc install=nosuchshell", 2, "nosuchshell"),
    row("more threads than torch can start", "rerun run=run device.threads=5000", 2, "device.threads=5000", "4096"),
    row("another flag of Hydra's", "train --config-name nothing", 2, "no flag '--config-name'"),
]

GRAMMAR = [
    row("a word", "train train", 2, "'train' cannot be read as a setting", "name=value"),
    row("a colon", "train model:gan", 2, "'model:gan' cannot be read as a setting", "name=value"),
    row("an empty value", "train seed=", 2, "seed=", "should be an integer"),
    row("an empty choice", "train model=", 2, "model=", "stacked_gan, vae"),
    row("no name", "train =3", 2, "=3", "name=value"),
    row("two equals signs", "train seed=1=2", 2, "'seed=1=2' cannot be read", "name=value"),
    row("a space before", ["train", "seed =3"], 2, "'seed =3' cannot be read", "name=value"),
    row("a bracket open", "train model.generator_hidden=[1", 2, "'model.generator_hidden=[1' cannot be read"),
    row("a brace open", "train model={", 2, "'model={' cannot be read"),
    row("a bracket too many", ["train", "epochs=1)"], 2, "'epochs=1)' cannot be read"),
    row("a quote open", ["train", 'name="mine'], 2, "'name=\"mine' cannot be read"),
    row("an interpolation open", ["train", "name=${"], 2, "'name=${' cannot be read"),
    row("a function that is none", ["train", "epochs=nosuch(3)"], 2, "'epochs=nosuch(3)' cannot be read"),
    row("letters beyond ASCII in a name", "train 名前=3", 2, "'名前=3' cannot be read as a setting"),
    row("letters beyond ASCII in a value", "train model.prior=均一", 2, "'model.prior=均一' cannot be read", "quotes"),
    row("a line feed", ["train", "seed=1\n2"], 2, "cannot be read as a setting"),
    row("a NUL", ["train", "run_dir=a\0b"], 2, "cannot be read as a setting"),
    row("a very long name", ["train", "x" * 5000 + "=3"], 2, "xxxx", "there is no setting"),
    row("a very long number", ["train", "seed=" + "9" * 5000], 2, "seed=999"),
    row("a number beyond 64 bits", "train seed=9223372036854775808", 2, "seed=9223372036854775808: should be less"),
    row("quotes around a number", ["train", "epochs='3'"], 2, "epochs=3: should be an integer"),
    row("several values without -m", "train epochs=1,2", 2, "epochs=1,2", "add -m"),
    row(
        "a range beside a value", "train -m seed=range(0,60),-1", 2, "seed=range(0,60),-1: a range, choice or", "0,1,2"
    ),
    row("two ranges", "train -m seed=range(0,3),range(5,7)", 2, "seed=range(0,3),range(5,7): a range, choice or alike"),
    row("a choice in a choice", "train -m seed=choice(1,choice(2,3))", 2, "choice or alike stands alone"),
    row("sorted values and another", "train seed=sort(3,1),2", 2, "choice or alike stands alone"),
    row("a range without -m", "train seed=range(0,3)", 2, "seed=range(0,3): several values are a sweep: add -m"),
    row("an interval of a sweep", "train -m seed=interval(0,1)", 2, "an interval names no single values", "range(0,1,"),
    row("a list as a sweep", "train -m seed=[0,1]", 2, "should be an integer", "without brackets", "seed=0,1 -m"),
    row("a parenthesis open", "train -m seed=range(0,3", 2, "a parenthesis, bracket or quote is not closed"),
    row("two commas", "train -m seed=0,,1", 2, "a value is missing before or behind a comma"),
    row("a comma at the end", "train -m seed=0,", 2, "a value is missing before or behind a comma"),
    row("a range of nothing", "train -m seed=range()", 2, "a value is missing between the parentheses"),
    row("a range of letters", "train -m seed=range(a)", 2, "its function does not take such values"),
    row("an unknown function of values", "train -m seed=foo(1)", 2, "the functions are range(0,3), choice(1,2)"),
    row("a choice of values without -m", ["train", "epochs=choice(1,2)"], 2, "epochs=choice(1,2)", "-m"),
    row("an unknown key", ["train", "name='${nope}'"], 2, "nope", "name"),
    row("an unknown key unquoted", ["train", "name=${nope}"], 2, "nope", "name"),
    row("an unknown resolver", ["train", "name=${nope:1}"], 2, "nope", "name"),
    row("an unset variable", ["train", "data_dir=${oc.env:NOPE}"], 2, "NOPE", "data_dir"),
    row("a circle", ["train", "model.latent_dim=${model.latent_dim}"], 2, "model.latent_dim", "ecursive"),
]

SETTINGS = [
    row("added", "train +model.widht=3", 2, "there is no setting 'model.widht'"),
    row("taken away", "train ~seed", 2, "seed is missing", "seed=VALUE"),
    row("taken away, and never there", "train ~nothing", 2, "there is no setting 'nothing'"),
    row("a group taken away", "train ~model", 2, "model is missing"),
    row("another choice taken away", "train ~model=vae", 2, "model=vae"),
    row("a choice that is a path", "train model=../train", 2, "model=../train", "stacked_gan, vae"),
    row("a choice that is an absolute path", "train model=/etc/passwd", 2, "model=/etc/passwd", "stacked_gan, vae"),
    row("a choice in a folder", "train model=models/gan", 2, "model=models/gan", "stacked_gan, vae"),
    row("a choice that is null", "train model=null", 2, "model", "stacked_gan, vae"),
    row("a choice that is a number", "train device=3", 2, "device", "auto, cpu, cuda, mps"),
    row("two choices at once", "train model=[gan,vae]", 2, "model=[gan,vae]", "-m"),
    row("two choices added", "train +dataset=digits", 2, "dataset"),
    row("an optimizer of nobody", "train SMALL +optimizer@optimizers.nobody=adam", 2, "'nobody'", "generator"),
    row("hexadecimal", "train epochs=0x10", 2, "epochs=0x10: should be an integer"),
    row("a truth value for a number", "train epochs=true", 2, "epochs=True: should be an integer"),
    row("a number for a group", "train log=3", 2, "log=3"),
    row("a list for a folder", "train outputs_dir=[a]", 2, "outputs_dir=['a']", "string"),
    row("nothing for the metrics", "train metrics=null", 2, "metrics=None", "metrics={}"),
    row("a negative seed", "train seed=-1", 2, "seed=-1: should be greater than or equal to 0"),
    row("an infinite rate", "train optimizer.lr=inf", 2, "optimizer.lr=inf"),
    row("a list with a wrong member", "train metrics.parzen.sigma_grid=[0.1,-1]", 2, "metrics.parzen.sigma_grid.1=-1"),
    row("a name with a slash", "train name=a/b", 2, "name=a/b", "letters, digits"),
    row("a name too long", ["train", "SMALL", "name=" + "x" * 300], 2, "name=xxx"),
    row("a component's name that leads elsewhere", "train SMALL dataset.name=../../x", 2, "dataset.name=../../x"),
    row("a component's name with a slash", "train SMALL optimizer.name=a/b", 2, "optimizer.name=a/b"),
]

CONTRADICTIONS = [
    row("a batch larger than the data", "train SMALL batch_size=2000", 2, "batch_size=2000", "1,197 training images"),
    row("a ramp backwards", "train SMALL optimizer.momentum_ramp=[5,1]", 2, "momentum_ramp", "before it begins"),
    row("a bound of no posterior", "train SMALL +metric@metrics.elbo=elbo", 2, "metrics.elbo", "model=vae"),
    row("folds of one", "train SMALL metric@metrics.parzen=parzen_folds", 2, "metrics.parzen", "no folds"),
    row("a subset larger than the data", f"{AFTER} metric@metrics.kid=kid", 2, "metrics.kid", "subset_size=1000"),
    row("windows larger than the images", f"{AFTER} metric@metrics.ms_ssim=ms_ssim", 2, "metrics.ms_ssim", "11×11"),
    row("weights that are missing", f"{FID} metrics.fid.weights=nowhere.pth", 2, "weights=nowhere.pth", "No such file"),
    row("weights that are none", f"{FID} metrics.fid.weights=file", 2, "weights=file", "original file",
        before=put("file")),
    row("a model too large", "train SMALL model.latent_dim=1000000000000", 1, "not enough memory"),
    row("samples too many", "sample run=run n=1000000000000", 2, "samples take", "GiB of memory"),
    row("scored samples too many", "train SMALL metrics.parzen.n_samples=1000000000000", 2, "metrics.parzen",
        "samples take", "GiB of memory"),
    row("chains too many", "train model=rbm dataset=digits model.persistent_chains=1000000000000", 1,
        "not enough memory"),
    row("negative temperatures", "train model=rbm +metric@metrics.ais=ais metrics.ais.temperatures=-5", 2,
        "metrics.ais.temperatures=-5"),
    row("a partition function of none", "train SMALL +metric@metrics.ais=ais", 2, "metrics.ais", "model=rbm"),
    row("a stage without epochs", "train model=dbn model.pretrain_epochs=0", 2, "model.pretrain_epochs=0"),
    row("binary points", "train model=vae dataset=two_moons dataset.binarize=fresh", 2, "dataset.binarize"),
    row("binary colours", "train model=vae dataset=cifar10 dataset.binarize=fresh", 2, "dataset.binarize"),
    row("points in binary units", "train model=rbm dataset=two_moons", 2, "model.visible=gaussian"),
]  # fmt: skip

PLACES = [
    row("a run directory that is a file", "train SMALL run_dir=file", 1, "file is a file", "run_dir=FOLDER",
        before=LETTER),
    row("outputs below a file", "train SMALL outputs_dir=file", 1, "cannot be written", "outputs_dir=FOLDER",
        before=LETTER),
    row("outputs where nothing can be", "train SMALL outputs_dir=/proc/x", 1, "/proc/x", "cannot be written",
        "outputs_dir=FOLDER"),
    row("a run directory of another kind", "train SMALL run_dir=full", 2, "full is not a run's directory",
        "run_dir=FOLDER", before=LETTER),
    row("fresh where another kind is", "train SMALL run_dir=full fresh=true", 2, "full is not a run's directory",
        before=LETTER),
    row("another experiment", "train SMALL run_dir=run seed=9", 2, "run holds another experiment", "seed",
        "run_dir=FOLDER", "fresh=true"),
    row("outputs nowhere", "train SMALL outputs_dir=", 2, "outputs_dir="),
    row("a run directory nowhere", "train SMALL run_dir=", 2, "run_dir="),
    row("a run directory too long", ["train", "SMALL", "run_dir=" + "x" * 300], 1, "xxx", "run_dir=FOLDER"),
]  # fmt: skip

DEVICES = [
    row(f"no {kind}", f"train SMALL device={kind}", 2, f"device={kind}", "device=auto or device=")
    for kind, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
    if not there
]

DATA = [
    row("MNIST missing", "train dataset=mnist data_dir=data", 1, "MNIST: train-images-idx3-ubyte is missing",
        "data_dir=FOLDER"),
    row("MNIST where nothing can be", "train dataset=mnist data_dir=/proc/x", 1, "MNIST is not in /proc/x",
        "data_dir=FOLDER"),
    row("MNIST in a file", "train dataset=mnist data_dir=file", 1, "MNIST is not in file", "data_dir=FOLDER",
        before=LETTER),
    row("MNIST of another checksum", "train dataset=mnist data_dir=data", 1,
        "MNIST/raw/train-images-idx3-ubyte is damaged", "MD5", "Delete it", before=files("data/MNIST/raw", IDX, "x")),
    row("MNIST packed and cut short", "train dataset=mnist data_dir=data", 1, "train-images-idx3-ubyte is missing",
        "data/MNIST/raw", before=files("data/MNIST/raw", [f"{name}.gz" for name in IDX], b"\x1f\x8b\x08\0")),
    row("Fashion-MNIST cut short", "train dataset=fashion_mnist data_dir=data", 1, "train-images-idx3-ubyte is damaged",
        "47,040,016", "Delete it", before=files("data/FashionMNIST/raw", IDX, "x")),
    row("CIFAR-10 missing", "train dataset=cifar10 data_dir=data", 1, "CIFAR-10: data_batch_1 is missing",
        "data_dir=FOLDER"),
    row("CIFAR-10 with code in it", "train dataset=cifar10 data_dir=data", 1, "data_batch_1 is damaged", "Delete it",
        before=files("data/cifar-10-batches-py", CIFAR, pickle.dumps(Touches()))),
    row("TFD no MATLAB file", "train dataset=tfd dataset.path=t.mat", 1, "t.mat is damaged", "dataset.path=FILE",
        before=put("t.mat", "hello")),
    row("TFD cut short", "train dataset=tfd dataset.path=t.mat", 1, "t.mat is damaged", "dataset.path=FILE",
        before=both(tfd("t.mat"), cut_short("t.mat", 2000))),
    row("TFD without labels", "train dataset=tfd dataset.path=t.mat", 1, "t.mat is damaged", "'labs_ex'",
        before=tfd("t.mat", without="labs_ex")),
    row("TFD of another size", "train dataset=tfd dataset.path=t.mat", 1, "20×32×32 and should be 20×48×48",
        before=tfd("t.mat", images=np.zeros((20, 32, 32), np.uint8))),
    row("TFD, fold six", "train dataset=tfd dataset.fold=6", 2, "dataset.fold=6: should be 1, 2, 3, 4 or 5"),
    row("a folder that is a file", PICTURES, 2, "pics is not a folder", "Set it to the folder", before=put("pics")),
    row("a folder of letters", PICTURES, 1, "pics holds no image", "dataset.path", before=put("pics/a.txt")),
    row("an image that is none", PICTURES, 1, "1 of 31 images", "z.png", "dataset.skip_broken=true",
        before=both(pictures(30), put("pics/z.png", "no"))),
    row("an image cut short", PICTURES, 1, "1 of 30 images", "3.png", "dataset.skip_broken=true",
        before=both(pictures(30), cut_short("pics/3.png", 60))),
    row("images smaller than the cut", f"{PICTURES} dataset.crop=25", 1, "0.png (20×20, smaller than dataset.crop=25)",
        "dataset.skip_broken=true", before=pictures(10)),
    row("no image left", f"{PICTURES} dataset.skip_broken=true", 1, "too few images", "0 train",
        before=files("pics", ["a.png", "b.png"], "x")),
    row("too few images", PICTURES, 1, "pics has too few images", "larger shares", before=pictures(2)),
    row("an empty split", PICTURES, 1, "20 train, 3 valid, 0 test", "train, valid, test",
        before=both(pictures(20, "pics/train"), pictures(3, "pics/valid"), put("pics/test/a.txt"))),
    row("shares above one", f"{PICTURES} dataset.valid_share=0.6 dataset.test_share=0.6", 2, "dataset.valid_share=0.6",
        "sum below 1", before=pictures(3)),
]  # fmt: skip

SWEEPS = [
    row("an option that is none", "train SMALL -m model=gan,gam", 2, "did you mean 'gan'?"),
    row("a setting that no choice has", "train -m dataset=digits model=vae,ae model.chains=9", 2, "'model.chains'"),
    row("wrong values", "train SMALL -m epochs=0,-1", 2, "epochs=0: should be greater than or equal to 1"),
    row("a bracket open in a sweep", ["train", "-m", "epochs=range(1"], 2, "'epochs=range(1'", "name=value"),
    row("no job at all", ["train", "SMALL", "-m", "seed=range(0,0)"], 2, "seed=range(0,0)"),
    row("one file for all", "sample run=run out=x.npz -m seed=0,1", 2, "out=", "out=a,b"),
]

RUNS = [
    row("no run", "evaluate", 2, "which run?", "genexp evaluate run=PATH"),
    row("a path to nothing without run=", "evaluate nowhere", 2, "nowhere"),
    row("nothing as a run", "evaluate run=", 2, "run=", "`genexp runs` lists them"),
    row("a run that is not there", "sample run=nowhere", 2, "run=nowhere", "`genexp runs` lists them"),
    row("a run that is a file", "figure run=run/config.yaml", 2, "run=run/config.yaml: there is no run's directory"),
    row("a pattern without a match", ["evaluate", "run='nowhere/*'"], 2, "run=nowhere/*", "`genexp runs` lists them"),
    row("a folder above runs", "evaluate run=above", 2, "run=above", "run='above/*'",
        before=lambda place: shutil.copytree(place / "run", place / "above" / "it")),
    row("two runs", "evaluate run=run run=run", 2, "give one run="),
    row("no best checkpoint", "evaluate run=run checkpoint=best", 2, "run keeps no best checkpoint",
        "checkpoint=last"),
    row("a checkpoint that is none", "evaluate run=run checkpoint=first", 2, "checkpoint=first", "'last' or 'best'"),
    row("another model", "evaluate run=run model.latent_dim=9", 2, "model.latent_dim=9", "trained with 8"),
    row("another choice of model", "sample run=run model=vae", 2, "genexp sample takes no model"),
    row("half the precision", f"{AFTER} device.precision=bfloat16", 2, "device.precision is for training"),
    row("samples in a letter", "sample run=run n=9 out=x.txt", 2, "out=x.txt", "FILE.npz"),
    row("samples below a file", "sample run=run n=9 out=file/x.npz", 1, "file/x.npz cannot be written", "out=FILE.npz",
        before=LETTER),
    row("samples in a folder", "sample run=run n=9 out=d.npz", 1, "d.npz cannot be written: Is a directory",
        "out=FILE.npz", before=directory("d.npz")),
    row("samples nowhere", "sample run=run n=9 out=", 2, "out="),
    row("a figure that is none", "figure run=run kind=sample", 2, "kind=sample", "did you mean 'samples'?"),
    row("reconstructions of a GAN", "figure run=run kind=reconstructions", 2, "reconstructs no images", "kind=samples"),
    row("a figure in another format", "figure run=run out=x.jpg", 2, "out=x.jpg", "FILE.png"),
    row("a figure in a folder", "figure run=run out=d.png", 1, "d.png cannot be written: Is a directory", "out=FILE",
        before=directory("d.png")),
    row("a figure below a file", "figure run=run out=file/x.png", 1, "file/x.png cannot be written", before=LETTER),
    row("a list of no folder", "runs outputs_dir=nowhere", 2, "there is no folder nowhere", "outputs_dir=FOLDER"),
    row("a list nowhere", "runs outputs_dir=", 2, "outputs_dir="),
    row("a list in no order", "runs sort=size", 2, "sort=size", "'age'"),
    row("a column that is none", "runs outputs_dir=. filter=colour:red", 2, "filter=colour:red", "status, progress"),
    row("a list by model", "runs model=gan", 2, "genexp runs takes no model"),
    row("a table that is none", "table table=3", 2, "table=3", "The tables are: 1"),
    row("a table in no format", "table format=html", 2, "format=html", "'markdown'"),
    row("a table below a file", "table table=2 out=file/x.md", 1, "out=file/x.md cannot be written", before=LETTER),
    row("a table of experiments below a file", "reproduce table=1 out=file/x.md", 1, "out=file/x.md cannot be written",
        "Set out=FILE to another place", before=LETTER),
    row("a table in another format", "table table=2 out=t.docx", 2, "out=t.docx", ".md, .tex, .csv, .json or .txt"),
    row("a plus before what is there", "train +seed=3", 2, "+seed=3", "leave it out"),
    row("a plus before a choice", "train +experiment=quickstart", 2, "+experiment=quickstart", "leave it out"),
    row("a setting of another choice", "train dataset=digits noise.std=1", 2, "'noise.std'", "noise=gaussian"),
    row("a setting of one model of a sweep", "train -m model=ae,vae model.beta=1,2", 2, "'model.beta'", "model=vae"),
    row("a setting of a search without one", "train search.trials=2", 2, "'search.trials'", "search=optuna"),
    row("a range that is none", "train search=optuna search.ranges.seed=2", 2, "search.ranges.seed=2", "{low: .., "),
    row("a range without a search", "train search.ranges.seed={low:1,high:2}", 2, "search=optuna brings"),
    row("a setting of a search that is none", "train search=optuna search.trails=2", 2, "mean 'search.trials'?"),
    row("a setting of what is taken away", "train ~metrics.parzen metrics.parzen.n_valid=9", 2,
        "~metrics.parzen takes it away"),
    row("a score under a name of one's own that is none", "train metric@metrics.fid2=fdi", 2, "did you mean 'fid'?"),
    row("an optimizer of a player of no name", "train model=gan optimizer@optimizers.genrator=adam", 2,
        "did you mean 'generator'?", "it offers generator, discriminator"),
    row("a setting of a player that has the common optimizer", "train model=dbn optimizers.layer_2.lr=0.1", 2,
        "layer_2 has the common optimizer", "optimizer@optimizers.layer_2=sgd"),
    row("a wrong setting of a player", "train model=dbn optimizers.layer_1.l=1", 2,
        "did you mean 'optimizers.layer_1.lr'?"),
    row("an experiment without its folder", "train experiment=gan_mnist", 2, "'goodfellow2014/gan_mnist'"),
    row("a folder of experiments", "train experiment=mixtures", 2, "mixtures/gan_grid, mixtures/gan_ring"),
    row("a setting with dashes", "train --model=vae", 2, "did you mean 'model=vae'"),
    row("a choice alone", "train vae", 2, "did you mean 'model=vae'"),
    row("a table in a folder", "table table=2 out=d.md", 1, "out=d.md cannot be written", before=directory("d.md")),
    row("a table nowhere", "table table=2 out=", 2, "out="),
    row("a paper that is wrong", "table table=2 paper.tables=3", 2, "goodfellow2014.yaml is wrong", "tables"),
    row("a text reproduced", "reproduce table=2", 2, "table=2 holds no numbers", "genexp table table=2"),
    row("no budget", "reproduce budget=huge", 2, "budget=huge", "'quick' or 'full'"),
    row("reproduced without data", "reproduce table=1 budget=quick data_dir=/proc/x", 1, "not everything could be run",
        "data_dir=FOLDER"),
]  # fmt: skip

DAMAGED = [
    *(
        row(f"{what}: {command.split()[0]}", command, 2, "config.yaml", "damaged", before=damage)
        for what, damage in {
            "config.yaml empty": put("run/config.yaml"),
            "config.yaml binary": put("run/config.yaml", b"\xff\xfe\0\1"),
            "config.yaml a list": put("run/config.yaml", "[1, 2]"),
            "config.yaml cut short": cut_short("run/config.yaml", 100),
            "config.yaml without its noise": config(lambda content: content.pop("noise")),
            "config.yaml with a key more": config(lambda content: content.update(more=3)),
            "config.yaml with code": put("run/config.yaml", "!!python/object/apply:os.system ['touch executed']"),
        }.items()
        for command in (ON, AFTER)
    ),
    row("config.yaml with a wrong value", AFTER, 2, "model.latent_dim=x",
        before=config(lambda content: content["model"].update(latent_dim="x"))),
    row("config.yaml without a model", AFTER, 2, "model", before=config(lambda content: content.update(model={}))),
    row("config.yaml gone", AFTER, 2, "run=run: there is no run's directory",
        before=lambda place: (place / "run" / "config.yaml").unlink()),
    *(
        row(f"checkpoints {what}: {command.split()[0]}", command, 1, "no checkpoint in run/checkpoints", "fresh=true",
            before=damage, leaves=AGAIN)
        for what, damage in {
            "cut short": checkpoints(lambda content: content[:1000]),
            "with a flipped bit": checkpoints(flipped),
            "empty": checkpoints(lambda content: b""),
            "that are pickled code": checkpoints(lambda content: pickle.dumps(Touches())),
            "with pickled code in the archive": checkpoints(pickled_in_an_archive),
        }.items()
        for command in (ON, AFTER)
    ),
    *(
        row(f"checkpoints {what}: {command.split()[0]}", command, 1, "run/checkpoints", "step-000000022.pt",
            before=damage, leaves=AGAIN)
        for what, damage in {
            "of another model": states(lambda state: state.update(model={"weight": torch.zeros(3)})),
            "of other shapes": states(
                lambda state: state.update(model={key: torch.zeros(3) for key in state["model"]})
            ),
            "without weights": states(lambda state: state.pop("model")),
        }.items()
        for command in (ON, AFTER)
    ),
    row("a folder's place taken: train", ON, 1, "run/checkpoints", "cannot be written",
        before=lambda place: (shutil.rmtree(place / "run" / "checkpoints"), put("run/checkpoints")(place)),
        leaves=("run/*",)),
    row("no checkpoints: evaluate", AFTER, 2, "run has no checkpoint yet",
        before=lambda place: shutil.rmtree(place / "run" / "checkpoints")),
    row("other images: train", ON, 2, "these are not the images that run was trained on", "fresh=true",
        before=put("run/data.json", '{"digest": "0"}')),
    row("other images: evaluate", AFTER, 2, "not the images that run was trained on", "data_dir",
        before=put("run/data.json", '{"digest": "0"}')),
    row("nothing logged: figure", "figure run=run kind=curves", 2, "nothing logged",
        before=lambda place: (place / "run" / "metrics.jsonl").unlink()),
]  # fmt: skip

STRANGERS = [
    row("a run that names os.system", AFTER, 2, "os.system", "trust=[os]", before=names_model("os.system")),
    row("a run that names os.system, trusted", f"{AFTER} trust=[os]", 2, "os.system",
        before=names_model("os.system")),
    row("a run that names a module that is not there", AFTER, 2, "nowhere.Model", "trust=[nowhere]",
        before=names_model("nowhere.Model")),
    row("a run that names a module that is not there, trusted", f"{AFTER} trust=[nowhere]", 2,
        "there is no package 'nowhere'", before=names_model("nowhere.Model")),
    row("a run that names what is no component", AFTER, 2, "genexp.storage.files.write_json, which would be executed",
        before=names_model("genexp.storage.files.write_json")),
    row("a run that names what is no component, trusted", f"{AFTER} trust=[genexp]", 2,
        "genexp.storage.files.write_json",
        before=names_model("genexp.storage.files.write_json")),
    row("a run that names what a component imports", AFTER, 2, "genexp.models.gan.UsageError",
        before=names_model("genexp.models.gan.UsageError")),
    row("a metric that is os.system", "evaluate run=run metrics.parzen._target_=os.system", 2, "trust=[os]"),
    row("a target that is no text", "train model._target_=3", 2, "model._target_"),
    row("an empty target", "train model._target_=", 2, "model._target_="),
    row("noise that is a data set", "train SMALL noise._target_=genexp.data.digits.digits", 2, "noise._target_"),
    row("data that are noise", "train SMALL dataset._target_=genexp.noise.none ~dataset.binarize", 2,
        "dataset._target_"),
    row("noise that is a text", "train SMALL noise={name:x,_target_:os.getcwd}", 2, "noise._target_=os.getcwd"),
    row("an optimizer that is none", "train SMALL optimizer={name:x,_target_:os.getcwd}", 2, "optimizer"),
    row("a metric that is none", "train SMALL metrics.parzen={name:x,_target_:os.getcwd}", 2, "metrics.parzen"),
    row("a model that is a function", "train SMALL model={name:x,_target_:builtins.eval}", 2, "model", "eval"),
]  # fmt: skip

OWN_CODE = [
    row("no folder of configurations", "train --config-dir nowhere", 2, "nowhere' not found"),
    row("a file of configurations", "train --config-dir file", 2, "file' not found", before=put("file")),
    row("a choice misspelled beside one's own", "train --config-dir conf model=minne", 2, "did you mean 'mine'?",
        before=mine("own_name")),
    row("YAML cut short", OWN, 2, "model/mine", "line 2",
        before=mine("own_yaml", settings="name: [mine\n")),
    row("YAML in another encoding", OWN, 2, "model/mine", before=mine("own_latin", settings=b"name: \xff\n")),
    row("YAML that is a list", OWN, 2, "model", before=mine("own_list", settings="- 1\n")),
    row("YAML that is empty", OWN, 2, "model", before=mine("own_empty", settings="\n")),
    row("YAML with code", OWN, 2, "model/mine",
        before=mine("own_tag", settings="!!python/object/apply:os.system ['touch executed']\n")),
    row("YAML without a target", OWN, 2, "model._target_ is missing", before=mine("own_none", settings="name: mine\n")),
    row("YAML without a name", OWN, 2, "model", "name",
        before=mine("own_nameless", settings="_target_: own_nameless.Mine\n")),
    row("YAML with a setting too many", OWN, 2, "'model.width'", "it has spread",
        before=mine("own_width", settings="name: mine\n_target_: own_width.Mine\nwidth: 3\n")),
    row("YAML of a missing module", OWN, 2, "there is no package 'own_missing'",
        before=mine("own_other", settings="name: mine\n_target_: own_missing.Mine\n")),
    row("YAML of a missing class", OWN, 2, "did you mean 'Mine'?",
        before=mine("own_class", settings="name: mine\n_target_: own_class.Mien\n")),
    row("YAML of missing defaults", OWN, 2, "model/nosuch",
        before=mine("own_defaults", settings="defaults:\n  - nosuch\nname: mine\n")),
    row("YAML with an unknown key", OWN, 2, "nope", "model.spread",
        before=mine("own_key", settings="name: mine\n_target_: own_key.Mine\nspread: ${nope}\n")),
    row("a syntax error", OWN, 2, "own_syntax.py", "line", before=mine("own_syntax", behind="def f(:\n")),
    row("a NUL in the code", OWN, 2, "own_nul.py", before=mine("own_nul", behind=b"\0")),
    row("code in another encoding", OWN, 2, "own_code.py", before=mine("own_code", behind=b"NAME = '\xff'\n")),
    row("a module that raises", OWN, 2, "own_raises.Mine", "out of cheese",
        before=mine("own_raises", behind="raise RuntimeError('out of cheese')\n")),
    row("a module that needs another", OWN, 2, "own_needs.Mine", "'nosuchpackage'",
        before=mine("own_needs", behind="import nosuchpackage\n")),
    row("a constructor that raises", OWN, 2, "own_init.Mine", "out of cheese", "own_init.py, line",
        before=mine("own_init", "self.shape = data.shape", "raise ValueError('out of cheese')")),
    row("a constructor of other arguments", OWN, 2, "own_arguments.Mine",
        before=mine("own_arguments", "data, noise, *,", "data, *,")),
    row("a setting without a default", OWN, 2, "model.spread is missing", "model.spread=VALUE",
        before=mine("own_spread", "spread: float = 1.0", "spread: float")),
    row("a method that lacks", OWN, 2, "own_sample.Mine", "sample",
        before=mine("own_sample", "def sample", "def simple")),
    row("a class of another kind", OWN, 2, "own_kind.Mine", "genexp.models.Model",
        before=mine("own_kind", "(Model)", "(nn.Module)")),
    row("a class that is none", OWN, 2, "own_three.Mine",
        before=mine("own_three", "class Mine", "Mine = 3\nclass Other")),
    row("no kind of samples", OWN, 2, "own_draw.Mine", "sample_kind should be 'draw' or 'mean'",
        before=mine("own_draw", "sample_kind =", "other =")),
    row("no players", OWN, 2, "own_players.Mine", "players() is empty",
        before=mine("own_players", '{"image": self.image}', "{}")),
    row("an update of nobody", OWN, 2, "own_nobody.Mine", "'imgae'", "did you mean 'image'?",
        before=mine("own_nobody", 'Update(("image",)', 'Update(("imgae",)')),
    row("samples that are not finite", OWN, 1, "samples are not all finite",
        before=mine("own_nan", ".clamp(0, 1)", " * float('nan')"), leaves=FAILED),
]  # fmt: skip

ENDINGS = [
    row("divergence", "train SMALL optimizer=sgd optimizer.lr=1e30", 1, "diverged at step", "smaller optimizer.lr",
        leaves=FAILED),
]  # fmt: skip

TABLE = [
    *(COMMANDS + GRAMMAR + SETTINGS + CONTRADICTIONS + PLACES + DEVICES + DATA),
    *(SWEEPS + RUNS + DAMAGED + STRANGERS + OWN_CODE + ENDINGS),
]


# --- the rows are run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs, to be copied."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        patch.chdir(place)
        patch.setattr(sys, "argv", ["genexp", "train", *SMALL, "device=cpu", "epochs=2", "run_dir=run"])
        assert cli.main() == 0
    return place / "run"


@pytest.fixture(autouse=True)
def by_itself(monkeypatch):
    """Whatever this machine has: no network, no data sets of the user's, and imports from one row's folder only."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("GENEXP_DATA_DIR", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def contents(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))
    }


@pytest.mark.parametrize(("words", "code", "said", "before", "leaves"), TABLE)
@pytest.mark.slow
def test_bad_input_is_named_and_costs_nothing(genexp, trained, tmp_path, words, code, said, before, leaves):
    if before is not None or any("run" in word for word in words):
        shutil.copytree(trained, tmp_path / "run")
    if before is not None:
        before(tmp_path)
    there = contents(tmp_path)
    answer = genexp(*words)
    shown = f"\n{answer.out}\n{answer.err}"
    assert answer.code == code, shown
    assert [piece for piece in said if piece not in answer.err] == [], shown
    assert "Traceback" not in answer.out + answer.err, shown
    assert not FOREIGN_NAME.search(answer.err), shown
    now = contents(tmp_path)
    assert not (tmp_path / "executed").exists()
    assert [name for name in now if name.endswith(".partial")] == []
    changed = [name for name in there if name not in now or now[name] != there[name]]
    assert [name for name in changed if not any(fnmatch(name, kept) for kept in leaves)] == []
    new = [name for name in now if name not in there and name != "outputs"]
    assert [name for name in new if not any(fnmatch(name, kept) for kept in (*CRUMBS, *leaves))] == []


def test_the_table_has_no_row_twice():
    names = [row.id for row in TABLE]
    assert len(set(names)) == len(names) >= 70


# --- files of a run that nothing depends on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        put("run/status.json", b"\xff\0{"),
        put("run/status.json", "[]"),
        put("run/status.json", '{"status": 3, "epoch": "x", "epochs": "y", "error": 5, "updated": []}'),
        put("run/results.json", b"\xff\0{"),
        put("run/results.json", "[" * 100_000),
        put("run/results.json", '{"epochs": "x", "scores": 3, "evaluations": [1]}'),
        put("run/results.json", '{"epochs": 2, "scores": {"parzen": {"mean": 1.0}}, "evaluations": {"a": 3}}'),
        put("run/metrics.jsonl", b"\xff\xfe\0garbage\n{"),
        put("run/metrics.jsonl", '{"step": "x", "epoch": "y", "score/parzen": "z"}\n{"loss/generator": [1]}\n3\n'),
        put("run/data.json", "{{{"),
        put("run/config.yaml", b"\xff\0"),
        config(lambda content: content.update(model={})),
    ],
    ids=[
        "status.json binary", "status.json a list", "status.json of other types", "results.json binary",
        "results.json nested without end", "results.json of other types", "results.json half there",
        "metrics.jsonl binary", "metrics.jsonl of other types", "data.json garbage", "config.yaml binary",
        "config.yaml without a model",
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_damaged_run_keeps_no_list_or_table_from_being_shown(genexp, trained, tmp_path, damage):
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "whole")
    damage(tmp_path)
    there = contents(tmp_path)
    for words in (
        ["runs", "outputs_dir=."],
        ["runs", "outputs_dir=.", "sort=progress"],
        ["runs", "outputs_dir=.", "sort=score"],
        ["table", "outputs_dir=.", "table=scores", "data_dir=/proc/x"],
    ):
        answer = genexp(*words)
        assert answer.code == 0, answer
        assert not FOREIGN_NAME.search(answer.err)
        if words[0] == "runs":
            assert "whole" in answer.out
    assert {name: content for name, content in contents(tmp_path).items() if name in there} == there


@pytest.mark.parametrize(
    "damage",
    [
        put("run/status.json", b"\xff\0{"),
        put("run/results.json", b"\xff\0{"),
        put("run/results.json", "[" * 100_000),
        put("run/results.json", '{"epochs": "x", "scores": 3, "evaluations": [1]}'),
        put("run/results.json", '{"epochs": 2, "scores": {"parzen": {"mean": 1.0}}}'),
        put("run/results.json", '{"epochs": 2}'),
        put("run/metrics.jsonl", b"\xff\xfe\0garbage\n{"),
    ],
    ids=[
        "status.json binary", "results.json binary", "results.json nested without end", "results.json of other types",
        "results.json half there", "results.json without scores", "metrics.jsonl binary",
    ],
)  # fmt: skip
def test_what_the_weights_give_again_is_made_again(genexp, trained, tmp_path, damage):
    """The same commands train no further, score anew, and lose nothing that could still be read."""
    shutil.copytree(trained, tmp_path / "run")
    damage(tmp_path)
    weights = {name: content for name, content in contents(tmp_path).items() if name.endswith(".pt")}
    for words in (["evaluate", "run=run"], ["train", *SMALL, "device=cpu", "epochs=2", "run_dir=run"]):
        answer = genexp(*words)
        assert answer.code == 0, answer
        assert "parzen: -" in answer.out
        assert not FOREIGN_NAME.search(answer.err)
    assert {name: content for name, content in contents(tmp_path).items() if name.endswith(".pt")} == weights


@pytest.mark.slow
def test_curves_of_damaged_lines_are_those_that_are_left(genexp, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()
    damaged = [lines[0], b"\xff\xfe\0garbage", b'{"step": "x", "epoch": "y", "score/parzen": "z"}', *lines[1:], b'{"st']
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"\n".join(damaged))
    answer = genexp("figure", "run=run", "kind=curves", "out=curves.png")
    assert answer.code == 0, answer
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.slow
def test_as_many_threads_as_can_be_and_one_more_end_without_a_crash(tmp_path):
    """By itself, since a process that starts threads without end dies of a signal."""
    for threads in (100_000, 10**8):
        command = [
            sys.executable,
            "-m",
            "genexp",
            "train",
            *SMALL,
            "epochs=1",
            "device=cpu",
            f"device.threads={threads}",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        assert f"device.threads={threads}" in done.stderr
    assert list(tmp_path.iterdir()) == []
