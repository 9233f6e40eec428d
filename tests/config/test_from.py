"""`from=RUN`: a new run with the settings of another, and what is given on top."""

import pytest
from conftest import SMALL, assert_same_state, last_checkpoint
from omegaconf import OmegaConf

KEPT = [
    "model",
    "dataset",
    "optimizer",
    "optimizers",
    "noise",
    "metrics",
    "seed",
    "epochs",
    "batch_size",
    "log",
    "name",
]


@pytest.fixture
def source(genexp):
    """A run with a choice of its own in every group."""
    small = [word for word in SMALL if "parzen" not in word]
    words = [*small, "epochs=1", "seed=3", "noise=gaussian", "noise.std=0.2", "optimizer.lr=0.03", "name=mine"]
    words += ["optimizer@optimizers.generator=adam", "+metric@metrics.again=parzen", "~metric@metrics.parzen"]
    words += ["metrics.again.n_samples=60", "checkpoint.every_minutes=5", "batch_size=50"]
    answer = genexp("train", *words)
    assert answer.code == 0, answer.err
    return answer.run


def config(run):
    return OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))


@pytest.mark.slow
def test_all_settings_of_the_other_run_are_taken(genexp, source):
    copy = genexp("train", f"from={source}", "outputs_dir=copies")
    assert copy.code == 0, copy.err
    assert copy.run.name == source.name
    assert {key: config(copy.run)[key] for key in KEPT} == {key: config(source)[key] for key in KEPT}
    assert config(copy.run)["checkpoint"] == {"every_minutes": 5.0, "keep_best": None}
    assert_same_state(last_checkpoint(copy.run), last_checkpoint(source))


@pytest.mark.slow
def test_what_is_given_is_set_on_top(genexp, source):
    words = ["seed=4", "optimizer.lr=0.5", "optimizers.generator.lr=0.002", "model.latent_dim=9", "epochs=2"]
    run = genexp("train", f"from={source}", *words).run
    ours, theirs = config(run), config(source)
    assert (ours["seed"], ours["epochs"], ours["model"]["latent_dim"]) == (4, 2, 9)
    assert (ours["optimizer"]["lr"], ours["optimizers"]["generator"]["lr"]) == (0.5, 0.002)
    assert ours["model"] | {"latent_dim": 8} == theirs["model"]
    assert ours["noise"] == theirs["noise"]
    assert run != source


@pytest.mark.slow
def test_another_component_brings_nothing_of_the_old_one(genexp, source):
    other = config(genexp("train", f"from={source}", "optimizer=rmsprop", "optimizer@optimizers.generator=sgd").run)
    assert other["optimizer"]["name"] == "rmsprop"
    assert "momentum_final" not in other["optimizer"]
    assert other["optimizers"]["generator"]["name"] == "sgd"
    assert "beta1" not in other["optimizers"]["generator"]
    answer = genexp("train", f"from={source}", "model=vae", "model.hidden=[16]", "epochs=1", "metrics.iwae.n_samples=5")
    vae = config(answer.run)
    assert (vae["model"]["name"], vae["name"], vae["optimizer"]["name"], vae["noise"]["name"]) == (
        "vae",
        "vae",
        "adam",
        "none",
    )
    assert (vae["seed"], vae["dataset"]["name"], vae["optimizers"]) == (3, "digits", {})
    assert set(vae["metrics"]) == {"parzen", "elbo", "iwae"}


@pytest.mark.slow
def test_a_sweep_from_a_run_keeps_the_command_that_makes_each_job(genexp, source, tmp_path):
    answer = genexp("train", "-m", f"from={source}", "seed=5,6")
    assert answer.code == 0, answer.out + answer.err
    statuses = [file.read_text() for file in tmp_path.glob("outputs/digits/mine-*seed[56]*/status.json")]
    assert all(f"genexp train from={source} seed=" in said for said in statuses)
    assert len(statuses) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["from=nowhere"], "give the directory of one run"),
        (["from=RUN", "experiment=quickstart"], "leave one of them out"),
        (["from=RUN", "model.latnt_dim=3"], "did you mean 'model.latent_dim'?"),
        (["from=RUN", "from=RUN"], "give the directory of one run"),
        (["from=RUN", "epochs=0"], "epochs=0"),
    ],
)
@pytest.mark.slow
def test_mistakes_are_named(genexp, source, tmp_path, words, said):
    before = sorted(tmp_path.glob("outputs/digits/*"))
    answer = genexp("train", *(word.replace("RUN", str(source)) for word in words))
    assert answer.code == 2
    assert said in answer.err
    assert sorted(tmp_path.glob("outputs/digits/*")) == before


def test_code_from_elsewhere_is_not_executed_unless_it_is_trusted(genexp, source, tmp_path):
    (tmp_path / "stranger.py").write_text("raise SystemExit('executed')\n")
    kept = config(source)
    kept["noise"] = {"name": "stranger", "_target_": "stranger.noise"}
    (source / "config.yaml").write_text(OmegaConf.to_yaml(kept))
    answer = genexp("train", f"from={source}", "seed=9")
    assert answer.code == 2
    assert "stranger.noise, which would be executed" in answer.err
    assert "trust=[stranger]" in answer.err
    assert "executed" not in answer.out
