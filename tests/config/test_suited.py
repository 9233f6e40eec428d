"""Metrics that a model, its settings or its files cannot have: refused by the sources, before torch is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, config_of

from genexp.config import suited
from genexp.config.components import check_component
from genexp.config.schema import CONFIGS
from genexp.data import digits
from genexp.errors import UsageError
from genexp.metrics.ais import HasPartition
from genexp.metrics.bounds import HasPosterior
from genexp.models import Translator
from genexp.models.samplers import ChainSampler
from genexp.training import build

OF_MODELS = {"ais": HasPartition, "elbo": HasPosterior, "iwae": HasPosterior, "chain": ChainSampler}
OF_MODELS |= {"translation_error": Translator, "translation_accuracy": Translator}
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
INCEPTION = ("metric@metrics.fid=fid", "metrics.fid.features=inception")
OWN = """
from genexp.models.vae import VAE
from torch import nn

class Posterior:
    def lower_bound(self, images, generator): ...

class Inherits(VAE): ...
class Mixed(Posterior, nn.Module):
    def __init__(self):
        self.log_weights = None
class Lacks(Posterior, nn.Module): ...
class Unknown(Posterior, nn.Transformer): ...
class Answers(Posterior, nn.Module):
    def __getattr__(self, name): ...
def factory(data, noise): ...
"""


def metric_of(name):
    return yaml.safe_load((CONFIGS / "metric" / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", MODELS)
def test_what_the_sources_say_of_a_model_is_what_it_is(model):
    second = ["dataset@dataset_b=other_half"] if model == "cyclegan" else []
    component = config_of(f"model={model}", "dataset=digits", *second).model
    for name, kind in OF_MODELS.items():
        refused = False
        try:
            suited.refuse_unsuited({name: metric_of(name)}, component)
        except UsageError as error:
            refused = str(error).startswith(f"metrics.{name}: ")
        built = build.target(component).func
        methods = [each for each in vars(kind) if not each.startswith("_")]
        is_one = issubclass(built, kind) if kind is ChainSampler else all(hasattr(built, each) for each in methods)
        assert refused != is_one, name


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        ("Inherits", False),
        ("Mixed", False),
        ("Lacks", True),
        ("Unknown", False),
        ("Answers", False),
        ("factory", False),
    ],
)
def test_a_model_from_outside_is_refused_only_if_its_source_says_so(tmp_path, monkeypatch, name, is_refused):
    (tmp_path / "outside_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"name": "mine", "_target_": f"outside_models.{name}"}
    if not is_refused:
        suited.refuse_unsuited({"elbo": metric_of("elbo")}, model)
        return
    with pytest.raises(UsageError, match="bounds need a model with a posterior"):
        suited.refuse_unsuited({"elbo": metric_of("elbo")}, model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metric@metrics.ais=ais"], "metrics.ais: it needs a model with a partition function"),
        (["metric@metrics.b=iwae"], "metrics.b: bounds need a model with a posterior"),
        (["metric@metrics.chain=chain"], "metrics.chain: it describes Markov chains"),
        ([*INCEPTION], "metrics.fid: features=inception needs weights=FILE"),
        ([*INCEPTION, "metrics.fid.weights=/nonexist"], "metrics.fid: weights=/nonexist cannot be read: No such file"),
        (["metric@metrics.fid=fid", "metrics.fid.weights=a.pth"], "metrics.fid: weights=a.pth is for features=incep"),
        (["metric@metrics.fid=fid", "metrics.fid.n_samples=1"], "metrics.fid.n_samples=1: should be greater than or"),
        (["metric@metrics.kid=kid", "metrics.kid.n_samples=99"], "subset_size=1000: should be at most 99, because of"),
        (["metric@metrics.p=precision", "metrics.p.n_samples=3"], "metrics.p: k=3: should be at most 2, because of n_"),
        (["metric@metrics.p=coverage", "metrics.p.n_samples=1"], "metrics.p: k=5 needs more than n_samples=1"),
        (["metric@metrics.is=inception_score", "metrics.is.n_samples=19"], "splits=10: should be at most 9, because"),
        (["metric@metrics.ms_ssim=ms_ssim", "metrics.ms_ssim.n_samples=1"], "metrics.ms_ssim.n_samples=1: should be"),
    ],
)
@pytest.mark.slow
def test_it_is_refused_before_torch_is_loaded(tmp_path, words, message):
    command = "import sys; from genexp import cli; code = cli.main(); sys.exit(50 if 'torch' in sys.modules else code)"
    settings = ["train", "model=gan", "dataset=digits", "epochs=1", *words]
    answer = subprocess.run([sys.executable, "-c", command, *settings], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2, answer.stderr
    assert message in answer.stderr
    assert not list(tmp_path.iterdir())


def test_evaluate_refuses_it_too(genexp):
    run = genexp("train", "model=gan", *SMALL, "epochs=1").run
    answer = genexp("evaluate", f"run={run}", *INCEPTION, "metrics.fid.weights=/nonexist")
    assert answer.code == 2
    assert "weights=/nonexist cannot be read" in answer.err
    assert "parzen" not in answer.out


def test_a_damaged_file_of_weights_is_known_before_training(genexp, tmp_path):
    Path("weights.pth").write_text("none")
    answer = genexp("train", "model=gan", *SMALL, "epochs=1", *INCEPTION, "metrics.fid.weights=weights.pth")
    assert answer.code == 2
    assert "metrics.fid: weights=weights.pth is damaged" in answer.err
    assert not Path("outputs").exists()


def test_a_run_that_is_finished_is_reported_without_the_file_that_its_metric_names(genexp, monkeypatch):
    """The file is needed when the run is scored, and no longer."""
    monkeypatch.setattr("genexp.metrics.features.inception", lambda *_: pytest.fail("it is read again"))
    words = ("train", "model=gan", *SMALL, "epochs=1")
    run = genexp(*words).run
    config = yaml.safe_load((run / "config.yaml").read_text())
    file = {"features": "inception", "weights": "gone.pth"}
    config["metrics"]["fid"] = check_component("metrics.fid", metric_of("fid")) | file
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    answer = genexp(*words, *INCEPTION, "metrics.fid.weights=gone.pth")
    assert answer.code == 0, answer.err
    assert "already finished" in answer.out


def test_every_refusal_of_a_metric_is_called():
    """A metric with two decorators refuses what either of them refuses."""
    data = digits.digits(None)
    model = torch.nn.Linear(1, 1)
    metric = check_component("metrics.t", metric_of("translation_accuracy"))
    with pytest.raises(UsageError, match="translations need a model of two data sets"):
        build.check_metrics({"t": metric}, model, data)
    model.translate = lambda images, to: images
    with pytest.raises(UsageError, match="translations need two data sets"):
        build.check_metrics({"t": metric}, model, data)
