"""The weight of a VAE's divergence, which may rise over the first epochs."""

import pytest
from conftest import config_of, read_metrics

VAE = ["model=vae", "dataset=digits", "model.hidden=[32]", "model.latent_dim=5", "metrics.iwae.n_samples=5"]
VAE += ["metrics.parzen.n_samples=200", "log.every_steps=1"]


def test_beta_rises_linearly_from_0_over_the_epochs_that_are_asked_for(genexp):
    lines = read_metrics(genexp("train", *VAE, "epochs=4", "model.beta=2", "model.beta_warmup=2.5").run)
    assert len(lines) == 44
    for done, line in enumerate(lines):
        beta = 2 * min(1, done / 11 / 2.5)
        assert line["beta"] == pytest.approx(beta, abs=1e-6)
        assert line["loss/autoencoder"] == pytest.approx(line["reconstruction"] + beta * line["kl"], rel=1e-5)


@pytest.mark.slow
def test_a_run_that_stops_on_the_way_goes_on_with_the_beta_of_its_step(genexp):
    words = ["train", *VAE, "model.beta_warmup=3"]
    whole = read_metrics(genexp(*words, "epochs=3", "outputs_dir=whole").run)
    genexp(*words, "epochs=1")
    resumed = read_metrics(genexp(*words, "epochs=3").run)
    assert [line["beta"] for line in resumed] == [line["beta"] for line in whole]
    assert [line["loss/autoencoder"] for line in resumed] == [line["loss/autoencoder"] for line in whole]


@pytest.mark.slow
def test_the_validation_loss_has_the_whole_beta_at_every_epoch(genexp):
    """It would otherwise rise with beta, whatever the model learns."""
    words = ["train", *VAE, "epochs=1", "optimizer.lr=1e-12"]
    plain = read_metrics(genexp(*words).run)[-1]
    rising = read_metrics(genexp(*words, "model.beta_warmup=1000").run)[-1]
    assert rising["loss/valid"] == pytest.approx(plain["loss/valid"], rel=1e-5)


def test_without_a_warmup_a_run_is_the_run_that_it_was():
    plain, none, some = (config_of(*VAE, *more) for more in ([], ["model.beta_warmup=0"], ["model.beta_warmup=2"]))
    assert plain.directory() == none.directory() != some.directory()
    assert "beta_warmup" not in plain.identity()["model"]


def test_an_importance_weighted_bound_has_no_beta_to_raise(genexp):
    answer = genexp("train", *VAE, "model.objective=iwae", "model.k=5", "model.beta_warmup=2")
    assert answer.code == 2
    assert "model.beta_warmup=2" in answer.err
