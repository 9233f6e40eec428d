"""The two-stage GAN against its definition: what moves in each stage, which nets draw, and how all begins."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import assert_same_state, config_of, interrupted_at, last_checkpoint, read_metrics, without_times
from torch import nn

from genexp import noise
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.models import draw, evaluating
from genexp.models.gan import GAN
from genexp.models.layers import Maxout, sparse_weights
from genexp.models.stacked_gan import StackedGAN
from genexp.training import build
from genexp.training.loop import train

SMALL = [
    *("model=stacked_gan", "dataset=digits", "batch_size=100", "model.latent_dim=6", "model.prior=gaussian"),
    *("model.generator_hidden=[30,20]", "model.generator_units=[relu,sigmoid]", "model.generator_sigmoid_bias=-2"),
    *("model.generator_output_sparse=7", "model.discriminator_hidden=[9,8]", "model.discriminator_pieces=3"),
    *("model.front_hidden=[12]", "model.pretrain_epochs=2", "epochs=2", "optimizer.max_col_norm=1.2"),
    *("metrics.parzen.n_samples=100", "log.every_steps=4", "device.threads=1"),
]
LENGTH = 11  # steps of an epoch of the digits
CPU = torch.device("cpu")


def build_small(*more):
    config = config_of(*SMALL, *more)
    return build.model(config.model, config.noise, digits(None).spec(), 0, CPU)


def linears(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_the_second_generator_takes_the_place_of_z():
    model = build_small()
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    front, first = linears(model.generator), linears(model.first.generator)
    assert [(m.in_features, m.out_features) for m in front] == [(6, 12), (12, 6)]
    assert [(m.in_features, m.out_features) for m in first] == [(6, 30), (30, 20), (20, 64)]
    x = z.double()
    for layer, units in zip(
        [*front, *first], [torch.relu, torch.sigmoid, torch.relu, torch.sigmoid, torch.sigmoid], strict=True
    ):
        x = units(x @ layer.weight.T.double() + layer.bias.double())
    assert torch.allclose(model.generate(z).flatten(1).double(), x, atol=1e-6)


def test_all_begins_as_in_the_published_code():
    model = build_small()
    for generator in (model.generator, model.first.generator):
        for layer, units in pairwise(generator):
            if isinstance(layer, nn.Linear):
                expected = -2.0 if isinstance(units, nn.Sigmoid) else 0.0
                if layer.out_features != 64:
                    assert (layer.bias == expected).all()
                    assert 0.03 < layer.weight.abs().max() <= 0.05
    output = linears(model.first.generator)[-1]
    assert torch.allclose(output.bias.sigmoid(), digits(None).spec().pixel_mean.flatten(), atol=1e-6)
    assert ((output.weight != 0).sum(1) == 7).all()
    for discriminator in (model.first.discriminator, model.discriminator):
        assert [(m.units, m.pieces) for m in discriminator.modules() if isinstance(m, Maxout)] == [(9, 3), (8, 3)]
        assert all(layer.weight.abs().max() <= 0.005 and (layer.bias == 0).all() for layer in linears(discriminator))
    assert not torch.equal(linears(model.first.discriminator)[0].weight, linears(model.discriminator)[0].weight)


def test_sparse_weights_are_normal_and_of_inputs_chosen_evenly():
    torch.manual_seed(0)
    layer = nn.Linear(50, 4000)
    sparse_weights(layer, 10)
    weight = layer.weight.detach()
    chosen = weight != 0
    assert (chosen.sum(1) == 10).all()
    assert (layer.bias == 0).all()
    share = chosen.double().mean(0)
    assert (share - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / 4000)
    drawn = weight[chosen].double()
    assert drawn.mean().item() == pytest.approx(0, abs=5 / math.sqrt(len(drawn)))
    assert drawn.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / len(drawn)))


@pytest.mark.parametrize("updates", [[], ["model.updates=alternating", "model.discriminator_steps=2"]])
@pytest.mark.slow
def test_the_first_stage_is_the_gan_and_the_second_moves_all_layers_of_both_generators(updates):
    updates = [*updates, "model.generator_init=0.5", "model.discriminator_init=0.5", "model.generator_sigmoid_bias=0"]
    config, data = config_of(*SMALL, *updates), digits(None)
    training = build.training(config, data, CPU)
    model = training.model
    stages = model.stages()
    assert [(stage.name, stage.epochs) for stage in stages] == [("first generator", 2), ("both generators", None)]
    moved = [{player for update in stage.updates for player in update.players} for stage in stages]
    assert moved == [{"discriminator_1", "generator_1"}, {"discriminator_2", "generator_2"}]

    snapshot = lambda: {name: value.clone() for name, value in model.state_dict().items()}  # noqa: E731
    before, parts = snapshot(), []
    for _tick in train(config, training, data, 1):
        if training.step == training.plan.last.first_step or training.step == training.plan.last_step(1):
            after = snapshot()
            parts.append({name for name in before if not torch.equal(before[name], after[name])})
            before = after
    first = {name for name in before if name.startswith("first.")}
    second = {name for name in before if name.startswith(("generator.", "discriminator.", "first.generator."))}
    assert parts == [first, second | {"stage"}]

    settings = [word for word in SMALL if "front" not in word and "pretrain" not in word]
    alone = build.training(config_of(*settings, "model=gan", *updates), data, CPU)
    assert {f"first.{name}" for name in alone.model.state_dict()} == first
    for _tick in train(config_of(*settings, "model=gan", *updates), alone, data, 2):
        pass
    again = build.training(config, data, CPU)
    for _tick in train(config, again, data, 1):
        if again.step == again.plan.last.first_step:
            break
    for name, value in alone.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[f"first.{name}"], value), name


def test_the_nets_of_the_stage_that_was_trained_last_draw_and_judge():
    model, data = build_small(), digits(None)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    z, x = torch.randn(4, 6), data.images("train", slice(0, 4))

    def shown():
        samples = draw(model, 4, torch.Generator().manual_seed(0), data)
        with evaluating(model):
            return model.decode(z), model.logits(x), model.filters()["discriminator"], samples

    with evaluating(model):
        of_first = model.first.generator(z), model.first.discriminator(x)
        of_second = model.first.generator(model.generator(z)), model.discriminator(x)
    for stage, nets, (images, logits) in ((1, model.first, of_first), (2, model, of_second)):
        begun = model.stages()[stage - 1]
        if begun.begin is not None:
            begun.begin(data.images("train", slice(0, 8)))
        begun.updates[0].play(data.images("train", slice(0, 8)))
        assert model.stage == stage
        decoded, judged, filters, samples = shown()
        assert torch.equal(decoded, images)
        assert torch.equal(judged, logits)
        assert torch.equal(filters, linears(nets.discriminator)[0].weight)
        assert samples.shape == (4, 1, 8, 8)
        again = build_small()
        again.load_state_dict(model.state_dict())
        assert torch.equal(draw(again, 4, torch.Generator().manual_seed(0), data), samples)


def test_every_row_of_every_layer_stays_within_the_bound():
    config, data = config_of(*SMALL, "optimizer.lr=1", "optimizer.max_col_norm=0.9"), digits(None)
    training = build.training(config, data, CPU)
    reached = set()
    for _tick in train(config, training, data, 2):
        for name, weight in training.model.named_parameters():
            if (training.step == 1 and name.startswith("first.")) or training.step == training.plan.last_step(2):
                norms = weight.detach().double().norm(dim=1) if weight.ndim == 2 else torch.zeros(1)
                assert norms.max() <= 0.9 * (1 + 1e-6), name
                reached |= {name} if norms.max() > 0.9 * (1 - 1e-6) else set()
    assert "first.generator.4.weight" in reached  # its columns begin at a norm of some √7


@pytest.mark.parametrize("step", [3, 2 * LENGTH - 1, 2 * LENGTH, 2 * LENGTH + 1, 3 * LENGTH, 4 * LENGTH - 2])
@pytest.mark.slow
def test_stopped_within_and_between_the_stages_the_end_is_the_same(genexp, step):
    words = ["train", *SMALL, "ema=0.9", "log.scores_every_epochs=1", "log.samples_every_epochs=1"]
    whole = genexp(*words, "outputs_dir=whole")
    with interrupted_at(step):
        assert genexp(*words).code == 130
    resumed = genexp(*words)
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert without_times(read_metrics(resumed.run)) == without_times(read_metrics(whole.run))
    pictures = sorted(file.relative_to(whole.run) for file in whole.run.rglob("*.png"))
    assert "samples/epoch-0002-first_generator.png" in map(str, pictures)
    assert all((whole.run / picture).read_bytes() == (resumed.run / picture).read_bytes() for picture in pictures)


@pytest.mark.slow
def test_a_run_stopped_in_its_first_stage_is_sampled_by_the_first_generator(genexp):
    with interrupted_at(LENGTH):
        answer = genexp("train", *SMALL)
    assert answer.code == 130
    (run,) = Path("outputs/digits").iterdir()
    sampled = genexp("sample", f"run={run}", "n=16")
    assert sampled.code == 0, sampled.err
    state = last_checkpoint(run)["model"]
    assert state["stage"] == 1
    config = config_of(*SMALL)
    first = GAN(digits(None).spec(), noise.none(), **{
        key: value for key, value in config.model.items()
        if key not in ("name", "_target_", "pretrain_epochs", "front_hidden", "front_units")
    })  # fmt: skip
    first.load_state_dict({name.removeprefix("first."): v for name, v in state.items() if name.startswith("first.")})
    stacked = build_small()
    stacked.load_state_dict(state)
    drawn = [draw(model, 9, torch.Generator().manual_seed(3), digits(None)) for model in (first, stacked)]
    assert torch.equal(*drawn)


@pytest.mark.slow
def test_points_pictures_figures_and_exports_are_of_the_trained_nets(genexp):
    """On a line, where the discriminator of each stage is drawn beside the density of the samples."""
    words = [word for word in SMALL if "dataset" not in word and "parzen" not in word and "bias" not in word]
    answer = genexp(
        "train", *words, "dataset=gaussian_1d", "dataset.n=500", "model.generator_output=linear", "ema=0.9",
        "log.samples_every_epochs=1", "epochs=1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    names = sorted(file.name for file in (answer.run / "samples").iterdir())
    assert names == [f"epoch-000{n}-{stage}.png" for n, stage in enumerate(
        ["first_generator", "first_generator", "both_generators"], 1)]  # fmt: skip
    lines = read_metrics(answer.run)
    assert {"D(x)", "D(G(z))", "lr/generator_2", "momentum/discriminator_2"} <= lines[-1].keys()
    assert genexp("figure", f"run={answer.run}", "kind=curves").code == 0
    exported = genexp("export", str(answer.run))
    assert exported.code == 0, exported.err


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="generator_output_sparse=21 is more than the 20 units below"):
        build_small("model.generator_output_sparse=21")
    with pytest.raises(UsageError, match=r"front_units=\['relu', 'tanh'\] names 2 layers.*front_hidden=\[12\] has 1"):
        build_small("model.front_units=[relu,tanh]")
    with pytest.raises(UsageError, match=r"model\.pretrain_epochs=0: should be greater than or equal to 1"):
        config_of(*SMALL, "model.pretrain_epochs=0")


@pytest.mark.slow
def test_the_experiment_is_the_published_recipe():
    """The values of tfd_pretrain/pretrain.yaml and train.yaml in goodfeli/adversarial."""
    config = config_of("experiment=goodfellow2014/gan_tfd")
    model = config.model
    assert model["_target_"] == f"{StackedGAN.__module__}.{StackedGAN.__name__}"
    assert (model["pretrain_epochs"], config.epochs, config.batch_size) == (50, 22, 100)
    assert (model["latent_dim"], model["prior"], model["front_hidden"], model["front_units"]) == (
        100, "gaussian", [8000], ["relu"],
    )  # fmt: skip
    assert (model["generator_hidden"], model["generator_units"]) == ([8000, 8000], ["relu", "sigmoid"])
    assert (model["generator_init"], model["generator_sigmoid_bias"]) == (0.05, -2.0)
    assert (model["generator_output_sparse"], model["generator_bias"]) == (100, "pixel_mean")
    assert (model["discriminator_hidden"], model["discriminator_pieces"]) == ([1200, 1200], 5)
    assert (model["discriminator_init"], model["dropout_input"], model["dropout_hidden"]) == (0.005, 0.2, 0.5)
    assert {name: config.optimizer[name] for name in ("lr", "lr_decay", "lr_min", "momentum", "max_col_norm")} == {
        "lr": 0.05, "lr_decay": 1.000004, "lr_min": 1e-6, "momentum": 0.5, "max_col_norm": 1.9365,
    }  # fmt: skip
    ramp = [config.optimizer[f"momentum_{name}"] for name in ("final", "ramp", "first_epoch")]
    assert ramp == [0.7, [1, 250], 1]
