"""Averaged weights against float64 sums, and what runs do with them."""

import json

import numpy as np
import pytest
import torch
from conftest import SMALL, assert_same_state, last_checkpoint, read_metrics
from torch import nn

from genexp.training.average import MOST, WINDOW, Average

GAN = ["train", "model=gan", *SMALL, "epochs=3", "ema=0.9", "log.scores_every_epochs=1"]


def walk(steps, seed=0):
    """A model, and the values that its one parameter takes, (steps, 3) float64."""
    model = nn.Linear(3, 1, bias=False)
    path = torch.randn(steps, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).cumsum(0)
    return model, path


def averaged(model, path, decay=None, power=0):
    average = Average(model, decay, power)
    for step, weights in enumerate(path, 1):
        model.weight.data.copy_(weights)
        average.update(step)
    return average


def test_over_the_first_steps_it_is_the_plain_mean():
    model, path = walk(9)
    average = averaged(model, path, decay=0.9)
    assert torch.allclose(average.means[0].double()[0], path.mean(0), atol=1e-5)


def test_later_it_is_the_exponential_average():
    model, path = walk(300)
    average = averaged(model, path, decay=0.9)
    expected = path[:10].mean(0)
    for weights in path[10:]:
        expected = 0.9 * expected + 0.1 * weights
    assert torch.allclose(average.means[0].double()[0], expected, atol=1e-4)


def test_a_long_average_takes_every_fourth_step_and_is_the_same_to_little():
    decay = 1 - 1 / (MOST * WINDOW)
    model, path = walk(12_000)
    path = path / path.std()
    taken = averaged(model, path, decay).means[0].double()[0]
    expected = torch.zeros(3, dtype=torch.float64)
    for step, weights in enumerate(path, 1):
        expected += max(1 - decay, 1 / step) * (weights - expected)
    assert torch.allclose(taken, expected, atol=2e-3)


@pytest.mark.parametrize(("power", "steps", "tolerance"), [(0, 50, 1e-6), (2, 900, 1e-5), (2, 20_000, 1e-3)])
def test_an_average_by_power_weighs_each_step_by_its_number(power, steps, tolerance):
    model, path = walk(steps)
    path = path / path.std()
    numbers = torch.arange(1, steps + 1, dtype=torch.float64)
    weights = numbers ** (power + 1) - (numbers - 1) ** (power + 1)  # the sum of the first n is n^(power + 1)
    expected = (weights[:, None] * path).sum(0) / weights.sum()
    taken = averaged(model, path, power=power).means[0].double()[0]
    assert torch.allclose(taken, expected, atol=tolerance)
    age = (weights * (steps - numbers)).sum() / weights.sum()
    assert age == pytest.approx(steps / (power + 2), abs=1)


def test_within_the_context_the_model_has_the_averages():
    model, path = walk(20)
    average = averaged(model, path, decay=0.9)
    x = torch.randn(4, 3)
    with average.applied():
        assert torch.allclose(model(x)[:, 0], x @ average.means[0][0])
    assert torch.equal(model.weight.data[0], path[-1].float())
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert torch.equal(model.weight.data[0], path[-1].float())


@pytest.mark.slow
def test_a_run_is_scored_pictured_and_sampled_from_both(genexp, finished):
    answer = finished(*GAN[1:])
    results = json.loads((answer.run / "results.json").read_text())
    both = results["scores"]["parzen"]["mean"], results["raw_scores"]["parzen"]["mean"]
    assert both[0] != both[1]
    assert f"parzen of the raw weights: {both[1]:.1f} ±" in answer.out
    line = read_metrics(answer.run)[-1]
    assert (line["score/parzen"], line["score/parzen/raw"]) == both
    assert "valid/parzen" in line

    raw = genexp("evaluate", f"run={answer.run}", "weights=raw")
    assert "scored before" in raw.out  # at the end of training
    assert f"parzen: {both[1]:.1f} ±" in raw.out
    assert f"parzen: {both[0]:.1f} ±" in genexp("evaluate", f"run={answer.run}").out
    for words, part in ((["sample", "n=20"], "weightsraw"), (["figure", "rows=2", "columns=3"], "weightsraw")):
        pictures = [genexp(*words, f"run={answer.run}", weights) for weights in ("weights=averaged", "weights=raw")]
        assert [picture.code for picture in pictures] == [0, 0], pictures[1].err
        assert (part in pictures[1].out, part in pictures[0].out) == (True, False)
    assert genexp("figure", f"run={answer.run}", "kind=curves").code == 0


@pytest.mark.slow
def test_averaging_changes_nothing_in_training(genexp, finished):
    with_it, without = finished(*GAN[1:]), genexp(*GAN[:-2], "log.scores_every_epochs=1")
    assert with_it.run != without.run
    state = last_checkpoint(with_it.run)
    average = state.pop("average")
    assert_same_state(state, last_checkpoint(without.run))
    assert average.keys() == state["model"].keys()
    assert not any(torch.equal(average[name], state["model"][name]) for name in average if name.endswith("weight"))


@pytest.mark.slow
def test_an_export_holds_the_averages(genexp, finished):
    run = finished(*GAN[1:]).run
    exported = genexp("export", str(run))
    assert exported.code == 0, exported.err
    from safetensors.torch import load_file

    weights = load_file(run / "export/model.safetensors")
    assert_same_state(weights, {name: last_checkpoint(run)["average"][name] for name in weights})
    samples = [genexp("sample", f"run={path}", "n=30", f"out={path}.npz") for path in (run, run / "export")]
    assert [each.code for each in samples] == [0, 0], samples[1].err
    arrays = [np.load(f"{path}.npz")["samples"] for path in (run, run / "export")]
    assert np.array_equal(*arrays)
    refused = genexp("sample", f"run={run / 'export'}", "weights=raw")
    assert (refused.code, "holds the averaged weights alone" in refused.err) == (2, True)
    refused = genexp("export", str(run), "weights=raw")
    assert (refused.code, "there is no setting 'weights'" in refused.err) == (2, True)
    kept = json.loads((run / "export/results.json").read_text())
    assert "raw_scores" not in kept
    assert all("weights" not in each["sampling"] for each in kept["evaluations"].values())


@pytest.mark.slow
def test_a_rerun_and_from_keep_it(genexp, finished):
    run = finished(*GAN[1:]).run
    again = genexp("rerun", str(run))
    assert again.code == 0, again.out + again.err
    assert "yes" in again.out
    new = genexp("train", f"from={run}", "epochs=1", "seed=1")
    assert "\nema: 0.9\n" in (new.run / "config.yaml").read_text()


def test_raw_weights_where_there_are_no_others(genexp):
    run = genexp("train", "model=gan", *SMALL, "epochs=1").run
    answer = genexp("evaluate", f"run={run}", "weights=raw")
    assert (answer.code, "has no averaged weights beside them; leave it out" in answer.err) == (2, True)


@pytest.mark.slow
def test_an_average_by_power_is_another_experiment_and_goes_on_as_if_never_stopped(genexp):
    words = [word for word in GAN if not word.startswith("ema=")]
    whole = genexp(*words, "ema_power=2", "outputs_dir=whole")
    assert genexp(*words, "ema_power=2", "epochs=1").code == 0
    parts = genexp(*words, "ema_power=2")
    assert "going on from" in parts.out
    assert_same_state(last_checkpoint(parts.run), last_checkpoint(whole.run))
    assert len({parts.run, genexp(*words).run, genexp(*GAN).run}) == 3
    assert "averaged, power 2" in genexp("export", str(parts.run)).out + (parts.run / "export/README.md").read_text()
    new = genexp("train", f"from={parts.run}", "epochs=1", "seed=1")
    assert "\nema_power: 2.0\n" in (new.run / "config.yaml").read_text()


@pytest.mark.slow
def test_two_averages_are_refused(genexp):
    answer = genexp(*GAN, "ema_power=1")
    assert (answer.code, "ema=0.9 and ema_power=1 are two averages; set one of them" in answer.err) == (2, True)
    assert genexp(*GAN[:-2], "ema_power=-1").code == 2


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1", "nan", "abc"])
def test_a_decay_outside_the_unit_interval_is_refused(genexp, tmp_path, value):
    answer = genexp("train", "model=gan", "dataset=digits", f"ema={value}")
    assert (answer.code, f"ema={value}" in answer.err) == (2, True), answer.err
    assert not list(tmp_path.iterdir())


def test_averages_that_are_not_finite_are_not_saved():
    from types import SimpleNamespace

    from genexp.errors import DivergedError
    from genexp.training.loop import Training

    model = nn.Linear(2, 1)
    training = Training(model, SimpleNamespace(), {}, Average(model, 0.9), step=7)
    training.check_finite()
    training.average.means[0][0, 0] = float("nan")
    with pytest.raises(DivergedError, match="step 7: the average of weight is not finite"):
        training.check_finite()
