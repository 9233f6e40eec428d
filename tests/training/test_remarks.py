"""What is said at the end of a run whose samples are one image, or whose discriminator never left ½."""

import json
import re
import shlex
from dataclasses import replace

import pytest
import torch
from conftest import SMALL, Fixed

from genexp import cli
from genexp.data.digits import digits
from genexp.data.mixtures import ring
from genexp.metrics import Subject
from genexp.rundirs.directory import Run
from genexp.rundirs.results import Results
from genexp.training.remarks import remarks

FINE = '{"step": 10, "epoch": 1, "D(x)": 0.52, "D(G(z))": 0.45}\n'
STILL = '{"step": 10, "epoch": 1, "D(x)": 0.5001, "D(G(z))": 0.4998}\n'


def of(samples, data, folder, lines=""):
    (folder / "metrics.jsonl").write_text(lines)
    return remarks(Subject(Fixed(samples), data, 0), Run(folder))


def test_samples_that_are_nearly_one_image_are_said_with_the_figures(tmp_path):
    data = digits(None)
    images = data.images("valid")
    assert of(images, data, tmp_path) == []
    one = images[:1].expand(300, -1, -1, -1)
    (remark,) = of(one, data, tmp_path)
    assert re.fullmatch(r"all samples are nearly the same image: two samples are 0 apart .* images 3\.\d+", remark)
    assert of((one + 0.05 * (images - one)), data, tmp_path) != []
    assert of((one + 0.2 * (images - one)), data, tmp_path) == []
    noise = 0.3 * torch.rand(300, 1, 8, 8)
    assert of((one + noise).clamp(0, 1), data, tmp_path) == []
    same = replace(data, train=data.train[:1].expand(50, -1, -1, -1), labels={})
    assert of(one, same, tmp_path) == []  # as alike as the data


def test_points_of_one_mode_are_said(tmp_path):
    data = ring(None, n=2000, radius=1.0, std=0.01)
    assert of(data.images("valid"), data, tmp_path) == []
    (remark,) = of(data.images("valid")[data.labels["valid"] == 3][:200], data, tmp_path)
    assert "nearly the same point" in remark
    assert "two training points 0." in remark


def test_samples_that_are_not_finite_are_said(tmp_path):
    data = digits(None)
    assert "not all finite" in of(torch.full((300, 1, 8, 8), torch.nan), data, tmp_path)[0]


@pytest.mark.parametrize(("lines", "said"), [(STILL, True), (FINE, False), (FINE + STILL, False), ("", False)])
def test_a_discriminator_that_never_left_one_half_is_said(tmp_path, lines, said):
    data = digits(None)
    found = of(data.images("valid"), data, tmp_path, lines)
    expected = "the discriminator stayed at ½ (D(x) from 0.5001 to 0.5001, D(G(z)) from 0.4998 to 0.4998)"
    assert [remark.partition(":")[0] for remark in found] == ([expected] if said else [])


def test_samples_that_a_metric_drew_are_not_drawn_again():
    data, drawn = digits(None), []
    model = Fixed(data.images("valid"))
    subject = Subject(model, data, 0)
    sample = model.sample
    model.sample = lambda n, generator, data: drawn.append(n) or sample(n, generator, data)
    subject.samples(200)
    assert torch.equal(subject.some_samples(100), subject.samples(200)[:100])
    assert drawn == [200]
    assert len(Subject(model, data, 0).some_samples(100)) == 100
    assert drawn == [200, 100]


@pytest.mark.slow
def test_a_run_says_so_at_its_end_and_in_its_results_and_the_sweep_in_its_table(genexp, tmp_path):
    words = ["train", *SMALL, "epochs=2"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    still = "warning: the discriminator stayed at ½ (D(x) from 0."
    assert still in answer.out
    assert "warning: the generator gives nearly the same image for every code: two samples are 0." in answer.out
    assert len(json.loads((answer.run / "results.json").read_text())["remarks"]) == 2
    assert still in genexp(*words).out  # already finished
    sweep = genexp(*words, "-m", "seed=0,1")
    assert sweep.code == 0
    assert len(re.findall(r"seed=[01]: the generator gives nearly the same image", sweep.out)) == 2


@pytest.mark.slow
def test_a_run_that_goes_on_forgets_what_no_longer_holds(genexp, monkeypatch):
    words = ["train", *SMALL]
    run = genexp(*words, "epochs=1").run
    assert Results.read(run / "results.json").remarks
    monkeypatch.setattr("genexp.training.session.remarks", lambda *_: [])
    assert genexp(*words, "epochs=2").code == 0
    assert Results.read(run / "results.json").remarks == []


def test_results_of_earlier_versions_have_no_remarks(genexp):
    run = genexp("train", *SMALL, "epochs=1").run
    content = json.loads((run / "results.json").read_text())
    del content["remarks"]
    (run / "results.json").write_text(json.dumps(content))
    assert Results.read(run / "results.json").remarks == []


@pytest.mark.slow(12)
def test_the_command_that_genexp_suggests_learns(genexp):
    """It ends with digits, soon, and without a remark; the first 25 epochs of the default GAN do not."""
    suggested = shlex.split(cli._overview().splitlines()[-1])
    assert suggested[:2] == ["genexp", "train"]
    answer = genexp(*suggested[1:], "metrics.parzen.n_samples=2000", "~metrics.elbo", "~metrics.iwae")
    assert answer.code == 0, answer.err
    assert "warning" not in answer.out
    results = Results.read(answer.run / "results.json")
    assert results.scores["parzen"].mean > 15  # the mean image alone scores below 0
    assert results.train_seconds < 120  # seconds on an idle machine
