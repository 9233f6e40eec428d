"""`from=RUN weights=true`: a run that starts from the weights of another."""

import json

import pytest
import torch
from conftest import config_of, last_checkpoint, read_metrics

VAE = [
    "model=vae",
    "model.hidden=[32]",
    "model.latent_dim=5",
    "metrics.iwae.n_samples=5",
    "metrics.parzen.n_samples=200",
]
VAE += ["metrics.parzen.n_samples=200", "dataset=digits", "log.every_steps=1", "epochs=2"]
STILL = ["optimizer.lr=1e-12", "epochs=1"]  # the weights stay as they are


@pytest.fixture
def source(finished):
    return finished(*VAE).run


def assert_equal_weights(one, other):
    assert all(torch.allclose(one["model"][name], other["model"][name], atol=1e-6) for name in one["model"])


@pytest.mark.slow
def test_training_starts_from_the_weights_of_the_other_run(genexp, source):
    answer = genexp("train", f"from={source}", "weights=true", "seed=7", "batch_size=50", *STILL)
    assert answer.code == 0, answer.err
    assert f"started from the weights of {source.absolute()} after step 22" in answer.out
    assert_equal_weights(last_checkpoint(answer.run), last_checkpoint(source))
    plain = genexp("train", f"from={source}", "seed=7", "batch_size=50", *STILL).run
    assert plain != answer.run
    assert not torch.allclose(*(last_checkpoint(run)["model"]["trunk.1.0.weight"] for run in (plain, source)))


@pytest.mark.slow
def test_averaged_weights_are_taken_where_there_are_any(genexp):
    source = genexp("train", *VAE, "ema=0.9").run
    run = genexp("train", f"from={source}", "weights=true", "ema=null", *STILL).run
    ours, averages = last_checkpoint(run)["model"], last_checkpoint(source)["average"]
    assert all(torch.allclose(ours[name], mean, atol=1e-6) for name, mean in averages.items())


@pytest.mark.slow
def test_two_starts_are_two_runs_and_the_same_start_is_the_same_run(genexp, source):
    words = ["weights=true", "optimizer.lr=0.01", "epochs=1"]
    first = genexp("train", f"from={source}", *words).run
    again = genexp("train", f"from={source.absolute()}", *words)
    assert again.run.absolute() == first.absolute()
    assert "already finished" in again.out
    other = genexp("train", *VAE, "seed=1").run
    assert genexp("train", f"from={other}", "seed=0", *words).run != first
    genexp("train", *VAE, "epochs=3")  # the first source goes on
    assert genexp("train", f"from={source}", *words).run != first


@pytest.mark.slow
def test_a_run_goes_on_without_the_run_that_it_started_from(genexp, source):
    words = ["weights=true", "optimizer.lr=0.01"]
    whole = genexp("train", f"from={source}", *words, "epochs=2", "outputs_dir=whole").run
    run = genexp("train", f"from={source}", *words, "epochs=1").run
    for file in source.glob("checkpoints/*.pt"):
        file.write_bytes(b"")
    answer = genexp("train", f"from={source}", *words, "epochs=2")
    assert answer.code == 0, answer.err
    assert answer.run == run
    assert "going on from epoch 1" in answer.out
    ours, theirs = ([line["loss/autoencoder"] for line in read_metrics(each)] for each in (run, whole))
    assert ours == theirs


@pytest.mark.slow
def test_it_is_evaluated_run_again_and_taken_from_like_any_run(genexp, source):
    run = genexp("train", f"from={source}", "weights=true", "optimizer.lr=0.01", "epochs=1").run
    assert genexp("evaluate", str(run), "metrics.parzen.n_samples=100").code == 0
    rerun = genexp("rerun", str(run))
    assert rerun.code == 0, rerun.out + rerun.err
    assert "weights after step 11: equal, bit for bit" in rerun.out
    assert genexp("train", f"from={run}").run == run  # with the start that it had
    assert genexp("train", f"from={run}", "weights=true").run != run  # from its own weights
    assert genexp("train", f"from={run}", "weights=false").run != run
    assert "start" not in json.dumps(config_of(*VAE).identity())


@pytest.mark.slow
def test_an_export_has_weights_to_start_from(genexp, source):
    assert genexp("export", str(source), "out=shared").code == 0
    answer = genexp("train", "from=shared", "weights=true", "seed=7", *STILL)
    assert answer.code == 0, answer.err
    assert_equal_weights(last_checkpoint(answer.run), last_checkpoint(source))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["from=RUN", "weights=true", "model.latent_dim=6"], "posterior_mean.0.weight: 5×32 there, 6×32 here"),
        (["from=RUN", "weights=true", "model.likelihood=gaussian"], "log_variance: none there, a number here"),
        ([*VAE, "weights=true"], "add from=RUN"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(genexp, source, tmp_path, words, said):
    before = sorted(tmp_path.glob("outputs/digits/*"))
    answer = genexp("train", *(word.replace("RUN", str(source)) for word in words))
    assert answer.code == 2
    assert said in answer.err
    assert sorted(tmp_path.glob("outputs/digits/*")) == before


@pytest.mark.slow
def test_a_sweep_starts_every_job_from_the_weights(genexp, source, tmp_path):
    answer = genexp("train", "-m", f"from={source}", "weights=true", "seed=5,6", *STILL)
    assert answer.code == 0, answer.out + answer.err
    for seed in (5, 6):
        (run,) = tmp_path.glob(f"outputs/digits/vae-*seed{seed}-*")
        assert_equal_weights(last_checkpoint(run), last_checkpoint(source))
