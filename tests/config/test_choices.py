"""Another choice than the one for which a model or an experiment brings settings: it has its own."""

import pytest
from conftest import config_of

from genexp.config.command_line import parse
from genexp.config.compose import spelled
from genexp.config.many import configurations
from genexp.config.mistakes import options_of, players_of
from genexp.errors import UsageError

OWN_ADAM = {"lr": 1e-3, "lr_epochs": None, "weight_decay": 0.0, "beta1": 0.9}


@pytest.mark.parametrize("model", options_of("model"))
@pytest.mark.slow
def test_every_model_takes_every_optimizer_and_noise(model):
    words = [f"model={model}", *(["dataset@dataset_b=other_half"] if model == "cyclegan" else [])]
    choices = [f"optimizer={name}" for name in options_of("optimizer")]
    choices += [f"optimizer@optimizers.{player}=adam" for player in players_of(model)]
    for choice in [*choices, *(f"noise={name}" for name in options_of("noise"))]:
        config_of(*words, choice)


@pytest.mark.parametrize("experiment", options_of("experiment"))
@pytest.mark.slow
def test_every_experiment_takes_other_optimizers_and_data(experiment):
    for choice in ("optimizer=adam", "optimizer=sgd", "optimizer=rmsprop", "dataset=cifar10", "dataset=ring"):
        config_of(f"experiment={experiment}", choice)


@pytest.mark.parametrize(
    ("words", "place", "settings"),
    [
        (["model=dbn", "optimizer@optimizers.layer_1=adam"], "optimizers.layer_1", OWN_ADAM),
        (["model=dbn", "optimizer=adam"], "optimizer", OWN_ADAM),
        (["model=dbn", "optimizer=adam"], "optimizers.layer_1", {"name": "sgd", "momentum_final": 0.9}),
        (["model=rbm", "optimizer=adam", "optimizer.lr=0.5"], "optimizer", OWN_ADAM | {"lr": 0.5}),
        (["optimizer.lr=0.5", "optimizer=adam_gan", "model=rbm"], "optimizer", {"lr": 0.5, "beta1": 0.5}),
        (["model=gsn", "noise=gaussian"], "noise", {"name": "gaussian"}),
        (["experiment=mixtures/gan_ring", "optimizer=sgd"], "optimizer", {"lr": 0.1, "momentum_ramp": [1, 250]}),
        (["experiment=burda2016/vae", "dataset=cifar10"], "dataset", {"normalization": "none"}),
        # A choice that has all that the model sets is set so, as always: these runs keep their names.
        (["model=rbm", "optimizer=rmsprop"], "optimizer", {"lr": 0.05, "momentum": 0.0}),
    ],
)
def test_another_choice_has_its_own_settings(words, place, settings):
    component = config_of(*words).model_dump()
    for part in place.split("."):
        component = component[part]
    assert {name: component[name] for name in settings} == settings


def test_old_names_of_runs_stay():
    assert config_of("model=rbm", "optimizer=rmsprop").directory().name == "rbm-rmsprop-seed0-03f861c7"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=rbm", "optimizer=adam", "optimizer.momentum=0.9"], "there is no setting 'optimizer.momentum'; it has"),
        (
            ["experiment=quickstart", "model=vae"],
            "experiment=quickstart sets model.discriminator_hidden, which model=v",
        ),
        (["experiment=salakhutdinov2008/rbm", "model=vae"], "sets a score that this model does not bring: leave out"),
    ],
)
def test_what_does_not_go_together_is_said_in_the_words_typed(words, message):
    with pytest.raises(UsageError, match=message):
        config_of(*words)


@pytest.mark.slow
def test_sweeps_and_launchers_take_the_same():
    lines = [parse("train", ["model=rbm", "optimizer=adam", f"optimizer.lr={lr}"]) for lr in (0.5, 0.25)]
    for line, config in zip(lines, configurations(lines), strict=True):
        alone = config_of(*line.overrides)
        assert config == alone
        assert config_of(*spelled(line)) == alone
    with pytest.raises(UsageError, match=r"optimizer\.momentum"):
        list(configurations([parse("train", ["model=rbm", "optimizer=adam", "optimizer.momentum=0.5"])]))


@pytest.mark.slow
def test_what_is_shown_is_what_is_trained(genexp):
    answer = genexp("train", "model=dbn", "optimizer=adam", "--cfg", "job", "--package", "optimizer")
    assert answer.code == 0, answer.err
    assert "lr: 0.001" in answer.out
    assert "momentum" not in answer.out
