"""Every shipped configuration, the schema, and the run's identity."""

import importlib
import inspect
import shlex
import typing
from dataclasses import replace

import pytest
from conftest import config_of
from omegaconf import OmegaConf

from examples import EXPERIMENTS
from genexp import ranges
from genexp.config.check import checked
from genexp.config.command_line import parse
from genexp.config.components import declared_settings
from genexp.config.compose import compose, configuration
from genexp.config.schema import CONFIGS
from genexp.errors import UsageError
from genexp.text import nearest

GROUPS = ("model", "dataset", "optimizer", "noise", "device")
CHOICES = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONFIGS / group).glob("*.yaml"))]
CHOICES.remove("dataset=other_half")  # the second data set of model=cyclegan, and no first one


@pytest.mark.parametrize("choice", CHOICES + [f"experiment={name}" for name in EXPERIMENTS])
@pytest.mark.slow
def test_every_choice_composes_and_passes_its_schema(choice):
    config = config_of(choice)
    assert config.directory().parts[0] == "outputs"


def test_every_yaml_opens_with_what_it_is():
    for file in CONFIGS.rglob("*.yaml"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
        assert lines[0].startswith("# "), file


TARGETS = sorted(
    {
        line.split(": ")[1]
        for file in CONFIGS.rglob("*.yaml")
        for line in file.read_text().splitlines()
        if "_target_" in line and "hydra_plugins" not in line  # those are Hydra's to make
    }
)


@pytest.mark.parametrize("target", TARGETS)
def test_the_schema_read_from_the_source_is_the_signature(target):
    module, _, name = target.rpartition(".")
    called = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(called.__init__ if inspect.isclass(called) else called, include_extras=True)
    keywords = {
        parameter.name: hints[parameter.name]
        for parameter in inspect.signature(called).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for shared in hints.values():
        if typing.get_origin(shared) is typing.Unpack:
            keywords |= typing.get_type_hints(typing.get_args(shared)[0], include_extras=True)
    read = declared_settings("", target)
    assert {name: kind for name, (kind, _) in read.items()} == keywords


@pytest.mark.slow
def test_identity_is_what_the_experiment_is():
    base = config_of().directory()
    same = [
        "epochs=3",
        "device=cpu",
        "device.threads=1",
        "log.every_steps=7",
        "data_dir=/d",
        "metrics.parzen.n_samples=9",
    ]
    for override in same:
        assert config_of(override).directory() == base, override
    other = ["seed=1", "batch_size=20", "model.latent_dim=7", "optimizer.lr=0.2", "optimizer=adam", "noise=gaussian"]
    places = {config_of(override).directory() for override in [*other, "device.precision=bfloat16"]}
    assert len(places | {base}) == len(other) + 2
    assert config_of("model=gan", "optimizer.lr=1e-1").directory() == base


def test_directory_is_readable_or_given():
    place = config_of("dataset=digits", "optimizer=sgd", "seed=5", "noise=gaussian").directory()
    assert str(place).startswith("outputs/digits/gan-sgd-gaussian-seed5-")
    assert str(config_of("run_dir=here").directory()) == "here"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["epochs=0"], "epochs=0: should be greater than or equal to 1"),
        (["epochs=true"], "epochs=True: should be an integer"),
        (["seed=-1"], "seed=-1"),
        (["optimizer.lr=inf"], "optimizer.lr=inf: should be a finite number"),
        (["optimizer.lr=nan"], "optimizer.lr=nan"),
        (["optimizer=adam", "optimizer.beta1=1.0"], "optimizer.beta1=1.0: should be less than 1"),
        (["model.prior=uniformm"], "did you mean 'uniform'?"),
        (["model.generator_hidden=[]"], "model.generator_hidden=[]"),
        (["model.generator_hidden=7"], "model.generator_hidden=7"),
        (["metrics.parzen.sigma_grid=[0.1,-1]"], "metrics.parzen.sigma_grid.1=-1"),
        (["+model.widht=3"], "there is no setting 'model.widht'"),
        (["model._target_=genexp.models.gann.GAN"], "no such module in genexp"),
    ],
)
def test_wrong_values_are_named_with_what_they_should_be(overrides, said):
    with pytest.raises(UsageError) as error:
        config_of(*overrides)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_a_whole_number_will_do_for_a_fraction_and_is_the_same_experiment():
    assert config_of("optimizer.lr=1").directory() == config_of("optimizer.lr=1.0").directory()


def test_nearest_names():
    names = ["epochs", "model.latent_dim", "model.prior", "optimizer.lr"]
    assert "'epochs'" in nearest("epoch", names)
    assert "'model.latent_dim'" in nearest("latent_dim", names)
    assert "'model.prior'" in nearest("modle.prior", names)
    assert nearest("model.zzz", names) == ""


def test_a_target_outside_the_package_is_checked_by_its_own_annotations(tmp_path, monkeypatch):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "strange" / "models.py").write_text("def make(data, noise, *, width: int, kind: Unknown = None): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    replace = "model={name: mine, _target_: strange.models.make, width: %s}"
    base = compose(parse("train", []))
    OmegaConf.set_struct(base, False)
    base.model = OmegaConf.create(replace.removeprefix("model=") % 3)
    assert checked("train", base).model["width"] == 3
    base.model = OmegaConf.create(replace.removeprefix("model=") % "wide")
    with pytest.raises(UsageError, match=r"model\.width=wide: should be an integer"):
        checked("train", base)


def test_ranges_are_all_used():
    used = "".join(file.read_text() for file in CONFIGS.parent.glob("genexp/**/*.py") if file.name != "ranges.py")
    assert [name for name in ranges.NAMES if name not in used] == []


@pytest.mark.parametrize(
    "path",
    ["epoch=9", "hash#1", "输出", "with space (1)", "a&b", "it's", 'q"q', "{a}", "a,b=c", "back\\slash=1", "50%"],
)
def test_a_path_may_be_called_as_folders_are(path):
    """Hydra takes such names in quotes only, and quotes have to pass the shell."""
    line = parse("train", ["model=ae", f"outputs_dir={path}", f"+dataset.path={path}"])
    assert configuration(parse("train", ["model=ae", f"outputs_dir={path}"])).outputs_dir == path
    assert line.words == ("model=ae", f"outputs_dir={path}", f"+dataset.path={path}")  # as typed
    again = parse("train", shlex.split(str(replace(line, words=())))[2:])
    assert again.overrides == line.overrides


def test_a_path_in_quotes_and_several_paths_stay_as_they_are():
    words = ("outputs_dir='a=b'", "outputs_dir=a,b", "outputs_dir=[a]", "name=a=b")
    assert parse("train", words).overrides == words
