"""What crosses the border to models, data sets and optimizers from outside is held to its contract."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Fixed, config_of, interrupted_at

from genexp import rng
from genexp.data.digits import digits
from genexp.data.remarks import mistake
from genexp.errors import UsageError
from genexp.metrics import GivenSamples, Subject
from genexp.models import draw, in_unit_range
from genexp.training import build

CPU = torch.device("cpu")
WIDE = '''
import torch
from torch import nn
from genexp.models import Model, Outcome, Update


class Wide(Model):
    """Its samples are in [-1, 1], as those of many networks are, or bytes."""

    sample_kind = "draw"

    def __init__(self, data, noise, *, scale: float, offset: float):
        super().__init__()
        self.shape, self.scale, self.offset = data.shape, scale, offset
        self.image = nn.Linear(1, data.size, bias=False)

    def players(self):
        return {"image": self.image}

    def updates(self):
        return [Update(("image",), self.play)]

    def play(self, images):
        return Outcome({"image": (images.flatten(1) - self.image.weight[:, 0]).square().sum(1).mean()}, {})

    def sample(self, n, generator, data):
        draws = torch.rand(n, *self.shape, generator=generator, device=generator.device)
        draws.view(-1)[:2] = torch.tensor([0.0, 1.0])
        return self.scale * draws + self.offset
'''


@pytest.mark.parametrize(("scale", "offset", "shown"), [(2, -1, "from -1 to "), (255, 0, "to 25"), (1.1, 0, "to 1.1")])
def test_samples_outside_the_unit_range_are_refused(genexp, tmp_path, scale, offset, shown):
    (tmp_path / "wide.py").write_text(WIDE)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf/model/wide.yaml").write_text(
        f"name: wide\n_target_: wide.Wide\nscale: {scale}.0\noffset: {offset}.0\n".replace("1.1.0", "1.1")
    )
    answer = genexp("train", "--config-dir", "conf", "model=wide", "dataset=digits", "epochs=1")
    assert answer.code == 2
    assert "Wide.sample makes samples from " in answer.err
    assert shown in answer.err
    assert "values should be in [0, 1]" in answer.err


def test_rounding_is_clipped_and_nan_is_left_for_others_to_find():
    images = torch.tensor([[-1e-6, 0.5, 1 + 1e-6]])
    assert in_unit_range(images, "").tolist() == [[0, 0.5, 1]]
    inside = torch.rand(3, 4)
    assert in_unit_range(inside, "") is inside
    assert in_unit_range(torch.tensor([0.0, torch.nan]), "").isnan().any()
    with pytest.raises(UsageError, match=r"they are from -0.001 to 0"):
        in_unit_range(torch.tensor([-1e-3, 0.0]), "they are")


def test_given_samples_are_held_to_the_same():
    data = digits(None)
    with pytest.raises(UsageError, match=r"the given samples are from -1 to 1"):
        Subject(GivenSamples(2 * data.images("valid") - 1, "draw"), data, 0).samples(10)
    with pytest.raises(UsageError, match=r"Fixed.sample makes samples from -1 to 1"):
        draw(Fixed(2 * data.images("valid") - 1), 10, rng.generator(CPU, 0, ""), data)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda data: replace(data, white=8), r"its train split has values from 0 to 16; they should be in \[0, 8\]"),
        (lambda data: replace(data, valid=data.valid.float() / 8, white=1), r"its train split has values"),
        (lambda data: _as_floats(data, test=data.test.float() / 8 - 1), r"its test split has values from -1 to 1;"),
        (lambda data: _as_floats(data, valid=data.valid / torch.zeros(())), r"its valid split has values from nan"),
    ],
)
def test_images_of_a_data_set_outside_their_range_are_refused(wrong, said):
    data = digits(None)
    assert mistake(data) is None
    assert mistake(_as_floats(data)) is None
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(mistake(wrong(data)))


def _as_floats(data, **changed):
    scaled = {name: getattr(data, name).float() / data.white for name in ("train", "valid", "test")}
    return replace(data, **scaled | changed, white=1)


@pytest.mark.parametrize("key", ["optimizer", "optimizers.generator"])
@pytest.mark.slow
def test_a_learning_rate_below_its_least_value_is_refused(genexp, tmp_path, key):
    words = [f"{key}.lr=1e-5", f"{key}.lr_min=0.1"]
    words += ["optimizer@optimizers.generator=adam"] if key != "optimizer" else []
    answer = genexp("train", *SMALL, *words)
    assert answer.code == 2
    assert f"{key}.lr=1e-05 is less than {key}.lr_min=0.1" in answer.err
    sweep = genexp("train", *SMALL, "optimizer.lr_min=0.1", "-m", "optimizer.lr=0.2,0.1,0.05")
    assert sweep.code == 2
    assert "No job was started" in sweep.err
    assert not list(tmp_path.glob("outputs/*/*"))
    config_of("model=gan", "optimizer.lr=0.1", "optimizer.lr_min=0.1")


@pytest.mark.slow
def test_a_run_that_began_with_such_a_rate_goes_on_as_it_was(genexp, monkeypatch):
    """Version 0.1.0 took lr_min in its place without a word."""
    words = ["train", *SMALL, "epochs=2", "optimizer.lr=0.01", "optimizer.lr_min=0.02"]
    with monkeypatch.context() as patch, interrupted_at(5):
        patch.setattr("genexp.config.check._check_new_run", lambda _config: None)
        assert genexp(*words).code == 130
    (run,) = Path("outputs/digits").iterdir()
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert answer.run == run
    assert "warning: optimizer.lr=0.01 is less than optimizer.lr_min=0.02" in answer.out
    assert genexp(*words).code == 0  # it is finished, and reported
    assert genexp(*words, "-m").code == 0
    again = genexp(*words, "fresh=true")
    assert again.code == 2
    assert "is less than optimizer.lr_min=0.02" in again.err


@pytest.mark.slow
def test_a_run_that_began_with_more_epochs_than_its_rate_has_goes_on_and_no_further(genexp, monkeypatch):
    words = ["train", *SMALL, "epochs=3", "optimizer.lr_epochs=2"]
    with monkeypatch.context() as patch, interrupted_at(5):
        patch.setattr(build, "_check_learning_rates", lambda *_: None)
        assert genexp(*words).code == 130
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    further = genexp(*words, "epochs=4")
    assert further.code == 2
    assert "optimizer.lr_epochs=2: the learning rate is 0 from then on" in further.err


@pytest.mark.slow
def test_stages_and_a_line_of_learning_rates_multiply_and_say_so(genexp):
    words = ["optimizer.lr=0.1", "optimizer.lr_stages=[[2,1.0],[2,0.5]]", "optimizer.lr_epochs=4"]
    config = config_of("model=gan", "dataset=digits", *words)
    optimizer = build.make("optimizer", config.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    rates = [optimizer.settings(0, epoch)["lr"] for epoch in (0, 1, 2, 3)]
    assert rates == pytest.approx([0.1, 0.1 * 0.75, 0.1 * 0.5 * 0.5, 0.1 * 0.5 * 0.25])
    answer = genexp("train", *SMALL, "epochs=1", *words)
    assert answer.code == 0, answer.err
    assert "note: optimizer.lr_stages and optimizer.lr_epochs multiply" in answer.out
    assert "multiply" not in genexp("train", *SMALL, "epochs=1", *words[:2]).out
