"""By which score the best checkpoint is kept, and scores on the split that may choose."""

import json

import pytest
import torch
from conftest import SMALL, read_metrics

VAE = [
    *("train", "model=vae", "dataset=digits", "epochs=3", "model.hidden=[16]", "model.latent_dim=2"),
    *("metrics.parzen.n_samples=100", "metrics.iwae.n_samples=2", "log.scores_every_epochs=1"),
]


@pytest.mark.parametrize("name", ["parzen", "elbo", "iwae"])
def test_the_best_checkpoint_is_kept_by_the_score_that_is_named(genexp, name):
    words = [] if name == "parzen" else [f"metrics.{name}.split=valid"]
    answer = genexp(*VAE, *words, f"checkpoint.keep_best={name}")
    assert answer.code == 0, answer.err
    best = torch.load(answer.run / "checkpoints/best.pt", weights_only=True)
    values = {line["step"]: line[f"valid/{name}"] for line in read_metrics(answer.run) if f"valid/{name}" in line}
    assert best["valid_of"] == name
    assert best["valid_mean"] == max(values.values())
    assert values[best["step"]] == best["valid_mean"]


@pytest.mark.slow
def test_another_score_than_before_chooses_anew(genexp):
    first = genexp(*VAE, "metrics.elbo.split=valid")
    other = genexp(*VAE, "metrics.elbo.split=valid", "checkpoint.keep_best=elbo", "epochs=4")
    assert other.run == first.run
    assert torch.load(other.run / "checkpoints/best.pt", weights_only=True)["valid_of"] == "elbo"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["checkpoint.keep_best=elbo"], "checkpoint.keep_best=elbo is not taken on validation images, so set"),
        (["checkpoint.keep_best=fid"], "checkpoint.keep_best=fid: the run is scored by parzen, elbo, iwae"),
        (["checkpoint.keep_best=parzen", "log.scores_every_epochs=null"], "set log.scores_every_epochs=N"),
    ],
)
def test_a_score_that_cannot_choose_is_refused(genexp, tmp_path, words, said):
    answer = genexp(*VAE, *words)
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_inception_score_and_modes_may_choose(genexp):
    words = ["train", "model=gan", *SMALL, "epochs=2", "log.scores_every_epochs=1"]
    score = ["metric@metrics.inception_score=inception_score", "metrics.inception_score.n_samples=100"]
    score += ["metrics.inception_score.split=valid", "checkpoint.keep_best=inception_score"]
    answer = genexp(*words, *score)
    assert answer.code == 0, answer.err
    kept = json.loads((answer.run / "results.json").read_text())["scores"]["inception_score"]
    assert (kept["split"], kept["floor_split"], kept["floor_n"]) == ("valid", "valid", 100)
    assert torch.load(answer.run / "checkpoints/best.pt", weights_only=True)["valid_of"] == "inception_score"
    small = ["model.generator_hidden=[16]", "model.discriminator_hidden=[8]", "model.latent_dim=4", "dataset.n=500"]
    words = ["train", "model=gan", "dataset=ring", *small, "epochs=2", "log.scores_every_epochs=1"]
    answer = genexp(*words, "metrics.high_quality.split=valid", "checkpoint.keep_best=high_quality")
    assert answer.code == 0, answer.err
    assert "valid/high_quality" in read_metrics(answer.run)[-1]
