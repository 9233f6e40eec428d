"""What a minibatch holds and who is given which part of it; two data sets, each shuffled by itself."""

import pytest
import torch

from genexp.data import DataSet
from genexp.models import Asking, Model, Outcome, Update
from genexp.training.loop import Minibatches
from genexp.training.plan import Plan

BATCH = {"images": torch.zeros(2), "labels": torch.ones(2), "images_b": torch.full((2,), 2.0), "codes": torch.ones(2)}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: [x], ["images"]),
        (lambda images, labels: [images, labels], ["images", "labels"]),
        (lambda anything, labels=None: [anything, labels], ["images", "labels"]),
        (lambda labels: [labels], ["labels"]),
        (lambda codes: [codes], ["codes"]),
        (lambda images, images_b: [images, images_b], ["images", "images_b"]),
        (lambda x, /: [x], ["images"]),
        (lambda x, factor=3: [x], ["images"]),
        (lambda *images: list(images), ["images"]),
        (lambda: [], []),
    ],
)
def test_a_function_is_given_the_tensors_that_its_parameters_name(function, expected):
    given = Asking(function)(BATCH)
    assert len(given) == len(expected)
    assert all(tensor is BATCH[name] for tensor, name in zip(given, expected, strict=True))


def test_a_parameter_with_a_default_keeps_it_where_there_is_no_such_tensor():
    assert Asking(lambda images, labels=None: labels)({"images": torch.zeros(1)}) is None
    asking = Asking(lambda images, labels, speed, k=1: None)
    assert (asking.names, asking.needed) == (["images", "labels"], ["images", "labels", "speed"])


MODEL = '''
from torch import nn
from genexp.models import Model, Outcome, Update


class Mine(Model):
    """The mean image of each class; `play` is one of several."""

    sample_kind = "mean"

    def __init__(self, data, noise, *, asks: str):
        super().__init__()
        self.shape, self.asks, self.seen = data.shape, asks, []
        self.table = nn.Linear(max(1, len(data.classes)), data.size, bias=False)

    def players(self):
        return {"table": self.table}

    def updates(self):
        return [Update(("table",), getattr(self, self.asks))]

    def with_images(self, x):
        return Outcome({"table": (x.flatten(1) - self.table.weight[:, 0]).square().sum(1).mean()}, {})

    def with_labels(self, images, labels):
        assert labels.shape == (len(images),) and labels.min() >= 0
        return Outcome({"table": (images.flatten(1) - self.table.weight.T[labels]).square().sum(1).mean()}, {})

    def with_nothing(self):
        return Outcome({"table": self.table.weight.square().sum()}, {})

    def with_codes(self, codes):
        return self.with_images(codes)

    def with_more(self, images, weather):
        return self.with_images(images)

    def with_second(self, images, images_b):
        return self.with_images(images_b)

    def sample(self, n, generator, data):
        return self.table.weight[:, 0].expand(n, -1).reshape(n, *self.shape).clamp(0, 1)
'''
WORDS = ["train", "--config-dir", "conf", "model=mine", "epochs=1", "batch_size=10"]


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "asking.py").write_text(MODEL)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("name: mine\n_target_: asking.Mine\nasks: with_images\n")


@pytest.mark.parametrize("asks", ["with_images", "with_labels", "with_nothing"])
def test_a_model_from_outside_is_given_what_it_asks_for(genexp, mine, asks):
    answer = genexp(*WORDS, "dataset=digits", f"model.asks={asks}")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("asks", "dataset", "said"),
    [
        ("with_labels", "swiss_roll", "model=mine learns from labels, and this data set has none for training images"),
        ("with_codes", "digits", "model=mine: play asks for codes, and its stage '' makes none"),
        ("with_more", "digits", "an update's play asks for 'weather'; a minibatch may hold images, labels"),
        ("with_second", "digits", "is trained on two data sets: choose the second one by dataset@dataset_b=NAME"),
    ],
)
def test_what_no_minibatch_holds_is_refused_before_training(genexp, mine, tmp_path, asks, dataset, said):
    answer = genexp(*WORDS, f"dataset={dataset}", f"model.asks={asks}")
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_model_of_one_data_set_refuses_a_second_one(genexp, mine):
    answer = genexp(*WORDS, "dataset=digits", "dataset@dataset_b=digits")
    assert (answer.code, "model=mine is trained on one data set: leave out dataset_b" in answer.err) == (2, True)
    assert genexp(*WORDS, "dataset=digits", "dataset@dataset_b=digits", "model.asks=with_second").code == 0


class Two(Model):
    sample_kind = "draw"

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)

    def players(self):
        return {"weight": self.weight}

    def updates(self):
        return [Update(("weight",), lambda images, labels_b, images_b: Outcome({}, {}))]

    def sample(self, n, generator, data):
        raise NotImplementedError


def numbered(n, second=None):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    return DataSet(images, images, images, {"train": torch.arange(n) % 3}, white=1, second=second)


@pytest.mark.parametrize(("n_a", "n_b"), [(30, 12), (12, 30), (30, 30), (33, 7)])
def test_each_data_set_is_shuffled_by_itself_and_an_epoch_is_one_pass_over_the_larger(n_a, n_b):
    data, model = numbered(n_a, numbered(n_b)), Two()
    plan = Plan.of(model, 3, max(n_a, n_b))
    assert plan.last.steps_per_epoch == max(n_a, n_b) // 3
    minibatches = Minibatches(data, plan.last, 3, 0, model)
    epochs = []
    for epoch in range(2):
        a, b = [], []
        for step in range(plan.last.steps_per_epoch):
            given = minibatches.given(epoch * plan.last.steps_per_epoch + step)
            batch = minibatches.batch(plan.last.moves[0][0], given, 0)
            assert torch.equal(batch["labels_b"], batch["images_b"].flatten().long() % 3)
            a += batch["images"].flatten().tolist()
            b += batch["images_b"].flatten().tolist()
        for order, n in ((a, n_a), (b, n_b)):
            passes = [order[start : start + n] for start in range(0, len(order), n)]
            assert all(len(set(each)) == len(each) for each in passes)  # each image once in a pass
            assert sorted(passes[0]) == list(range(n)) or n > len(order)
        assert a != b
        epochs.append((a, b))
    assert epochs[0][0] != epochs[1][0]
    assert epochs[0][1] != epochs[1][1]
