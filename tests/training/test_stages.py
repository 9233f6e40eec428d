"""Training in stages: what is frozen, what a stage is given, and stopping within and between stages."""

import json

import pytest
import torch
from conftest import assert_same_state, interrupted_at, last_checkpoint, read_metrics, without_times

from genexp.data.digits import digits
from genexp.models import Model, Outcome, Stage, Update, evaluating
from genexp.papers import answers
from genexp.rundirs.find import find
from genexp.sweeps import board
from genexp.sweeps.jobs import Job
from genexp.training import minibatches as batches
from genexp.training import session
from genexp.training.plan import Plan

STACKED = [
    *("train", "model=stacked_dae", "dataset=digits", "model.hidden=[24,16,8]", "model.pretrain_epochs=2", "epochs=2"),
    *("model.chains=20", "model.burn_in=2", "model.thinning=1", "metrics.parzen.n_samples=100", "log.every_steps=4"),
]
LENGTH = 11  # steps of an epoch of the digits


class Staged(Model):
    """Two players, one after the other; the second stage takes two minibatches a step."""

    sample_kind = "draw"

    def __init__(self, first_epochs=3):
        super().__init__()
        self.a, self.b, self.first_epochs = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), first_epochs

    def players(self):
        return {"a": self.a, "b": self.b}

    def stages(self):
        play = lambda images: Outcome({}, {})  # noqa: E731
        return [
            Stage("first", [Update(("a",), play)], self.first_epochs),
            Stage("second", [Update(("b",), play, repeats=2)]),
        ]

    def sample(self, n, generator, data):
        raise NotImplementedError


def test_a_plan_places_each_stage_behind_those_before_it():
    plan = Plan.of(Staged(), batch_size=10, n_images=105)
    first, second = plan.stages
    assert (first.steps_per_epoch, first.images_per_step, first.first_step) == (10, 10, 0)
    assert (second.steps_per_epoch, second.images_per_step, second.first_step, second.first_epoch) == (5, 20, 30, 3)
    assert [plan.stage(step).name for step in (0, 29, 30, 500)] == ["first", "first", "second", "second"]
    assert plan.last_step(4) == 30 + 20
    assert [plan.epochs(step) for step in (0, 30, 40)] == [0, 0, 2]
    assert [plan.images(step) for step in (0, 7, 30, 32)] == [0, 70, 300, 340]


@pytest.mark.slow
def test_only_the_players_of_a_stage_move(genexp):
    states = []
    for epochs in ("model.pretrain_epochs=1", "model.pretrain_epochs=2"):
        run = genexp(*STACKED, epochs, "log.samples_every_epochs=100").run
        files = sorted((run / "checkpoints").glob("step-*.pt"))
        states.append([torch.load(file, weights_only=True)["model"] for file in files])
    before, after = states[0]  # both in the last stage
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if not name.startswith("layers.2.")}


def test_codes_of_frozen_layers_are_what_they_encode(monkeypatch):
    model = build_stacked()
    data = digits(None)
    plan = Plan.of(model, 50, len(data.train))
    for memory in (2**31, 0):
        monkeypatch.setattr(batches, "CODES_IN_MEMORY", memory)
        minibatches = batches.Minibatches(data, plan.stages[2], 50, 0, model)
        assert (minibatches.codes is None) == (memory == 0)
        given = minibatches.given(plan.stages[2].first_step + 3)
        batch = minibatches.batch(plan.stages[2].moves[0][0], given, 0)
        with evaluating(model):
            expected = model.encode(data.images("train", given["rows"][0]), layers=2)
        assert torch.allclose(batch["codes"], expected, atol=1e-6)


def build_stacked():
    from conftest import config_of

    from genexp.training import build

    config = config_of(*STACKED[1:])
    return build.model(config.model, config.noise, digits(None).spec(), 0, torch.device("cpu"))


@pytest.mark.parametrize("step", [2, 2 * LENGTH, 2 * LENGTH + 1, 4 * LENGTH - 1, 4 * LENGTH, 5 * LENGTH + 3])
@pytest.mark.slow
def test_stopped_within_and_between_stages_the_end_is_the_same(genexp, finished, step):
    whole = finished(*STACKED[1:], "ema=0.9", "outputs_dir=whole")
    with interrupted_at(step):
        assert genexp(*STACKED, "ema=0.9").code == 130
    resumed = genexp(*STACKED, "ema=0.9")
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert without_times(read_metrics(resumed.run)) == without_times(read_metrics(whole.run))


@pytest.mark.slow
def test_progress_logs_status_and_pictures_name_the_stage(genexp, monkeypatch):
    told = []
    original = session.Run.set_status
    monkeypatch.setattr(session.Run, "set_status", lambda self, *a, **k: (told.append(k), original(self, *a, **k))[1])
    answer = genexp(*STACKED)
    assert "layer 1, epoch 2/2  layer_1 " in answer.out
    assert "layer 3, epoch 2/2  layer_3 " in answer.out
    assert "trained 6 epochs (2 of the last stage) in" in answer.out
    lines = read_metrics(answer.run)
    assert [line["stage"] for line in lines if line["step"] % LENGTH == 0] == [
        *["layer 1"] * 2, *["layer 2"] * 2, *["layer 3"] * 2,
    ]  # fmt: skip
    assert lines[-1]["epoch"] == 6
    assert {details["stage"] for details in told if "stage" in details} == {"layer 1", "layer 2", "layer 3"}
    names = sorted(file.name for file in (answer.run / "samples").iterdir())
    assert names == [
        "epoch-0002-layer_1.png",
        "epoch-0004-layer_2.png",
        "epoch-0005-layer_3.png",
        "epoch-0006-layer_3.png",
    ]
    assert "samples/epoch-0006-layer_3.png" in answer.out
    curves = genexp("figure", f"run={answer.run}", "kind=curves")
    assert curves.code == 0, curves.err
    svg = (answer.run / "figures/curves.svg").read_text()
    assert svg.count("layer 2") >= 1


@pytest.mark.slow
def test_epochs_are_of_all_stages_everywhere(genexp, tmp_path):
    """Of runs that are not finished, of finished ones, and of those whose status counts the last stage's alone."""
    with interrupted_at(LENGTH * 3 + 1):
        assert genexp(*STACKED).code == 130
    assert "layer 2: 3/6" in genexp("runs").out
    run = genexp(*STACKED).run
    status, results = (json.loads((run / name).read_text()) for name in ("status.json", "results.json"))
    assert (status["epoch"], status["epochs"], results["epochs"]) == (6, 6, 2)
    for epochs in (6, 2):  # 2, as genexp 0.1.0 wrote it
        (run / "status.json").write_text(json.dumps(status | {"epoch": epochs, "epochs": epochs}))
        assert " 6/6 " in genexp("runs").out
        assert "2/2" not in genexp("runs").out
        again = genexp(*STACKED)
        assert "already finished, 6 epochs (2 of the last stage); epochs=N goes on" in again.out
        (row,) = json.loads(genexp("runs", "format=json").out)["tables"][0]["rows"]
        assert (row["epoch"], row["epochs"], row["score_epoch"]) == (6, 6, 6)
        (state,) = find(tmp_path / "outputs")
        metric = state.config.metrics["parzen"]
        assert answers.answer(state.config, metric, [state]).epochs() == "6/6"
        assert not answers.answer(state.config, metric, [state]).is_short
        longer = state.config.model_copy(update={"epochs": 5})
        assert answers.answer(longer, metric, [state]).epochs() == "6/9"
        assert answers.answer(longer, metric, [state]).is_short
        job = Job((), state.run, state.config)
        job.finish(state.results)
        assert board.progress(job)[0] == "6/6"
        (table,) = board.ranking([job], None, set()).tables
        assert table.records()[0]["trained_epochs"] == 6
        assert "6" in table.cells()[0]


@pytest.mark.slow
def test_the_last_stage_may_grow_and_the_others_make_the_experiment(genexp):
    first = genexp(*STACKED)
    longer = genexp(*STACKED, "epochs=3")
    assert longer.run == first.run
    assert "going on from layer 3, epoch 2" in longer.out
    other = genexp(*STACKED, "model.pretrain_epochs=3")
    assert other.run != first.run
    results = json.loads((longer.run / "results.json").read_text())
    assert (results["epochs"], results["steps"]) == (3, 7 * LENGTH)


OUTSIDE = """
from torch import nn
from genexp.models import Model, Outcome, Stage, Update


class Outside(Model):
    sample_kind = "draw"

    def __init__(self, data, noise, *, epochs: int | None, last: int | None):
        super().__init__()
        self.shape, self.image = data.shape, nn.Linear(1, data.size, bias=False)
        self.epochs, self.last = epochs, last

    def players(self):
        return {"image": self.image}

    def stages(self):
        play = lambda images: Outcome({"image": (images.flatten(1) - self.image.weight[:, 0]).square().mean()}, {})
        update = Update(("image",), play)
        return [Stage("one", [update], self.epochs), Stage("two", [update], self.last)]

    def sample(self, n, generator, data):
        return self.image.weight[:, 0].expand(n, -1).reshape(n, *self.shape).clamp(0, 1)
"""


@pytest.mark.slow
def test_stages_of_no_epochs_are_refused(genexp, tmp_path):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/outside.yaml").write_text(
        "name: outside\n_target_: outside.Outside\nepochs: 1\nlast: null\n"
    )
    words = [
        "train",
        "--config-dir",
        "conf",
        "model=outside",
        "dataset=digits",
        "epochs=1",
        "metrics.parzen.n_samples=50",
    ]
    assert genexp(*words).code == 0
    for bad, said in (
        ("model.epochs=0", "its stage 'one' has epochs=0"),
        ("model.epochs=null", "its stage 'one' has epochs=None"),
        ("model.last=2", "its last stage 'two' has epochs of its own"),
    ):
        answer = genexp(*words, bad)
        assert (answer.code, said in answer.err) == (2, True), answer.err
    answer = genexp(*STACKED, "model.pretrain_epochs=0")
    assert (answer.code, "model.pretrain_epochs=0: should be greater than or equal to 1" in answer.err) == (2, True)


@pytest.mark.parametrize("stop", [22, 30])
@pytest.mark.slow
def test_a_stage_is_begun_once_before_its_first_step(genexp, monkeypatch, stop):
    """The deep belief network's second layer begins at the means of its input; stopped there, or within the stage."""
    from genexp.models.dbn import DBN

    begun = []
    begin = DBN.begin
    monkeypatch.setattr(DBN, "begin", lambda *arguments: (begun.append(len(arguments[2])), begin(*arguments))[1])
    words = ["train", "model=dbn", "dataset=digits", "model.hidden=[24,16]", "model.pretrain_epochs=2", "epochs=2"]
    words += ["model.chains=20", "model.burn_in=2", "model.thinning=1", "metrics.parzen.n_samples=100"]
    whole = genexp(*words, "outputs_dir=whole")
    assert begun == [1197], "all training images, since there are fewer than 10,000"
    with interrupted_at(stop):
        assert genexp(*words).code == 130
    resumed = genexp(*words)
    assert_same_state(last_checkpoint(resumed.run), last_checkpoint(whole.run))
    assert begun == [1197, 1197], "not again where it was resumed"
