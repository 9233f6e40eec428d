"""The examples of ARCHITECTURE.md, taken from the page, and what they promise."""

import re

import pytest
import torch
from conftest import ROOT, SMALL, last_checkpoint
from omegaconf import OmegaConf

from genexp.config.components import lower_is_better
from genexp.rundirs.results import Results

CONF = ["--config-dir", "conf"]


@pytest.fixture
def examples(tmp_path):
    """Every file of the page, in the place that its first line names."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 8
    for name, text in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.usefixtures("examples")
@pytest.mark.slow
def test_a_model(genexp):
    words = ["train", *CONF, "model=constant", "dataset=digits", "metrics.parzen.n_samples=100"]
    answer = genexp(*words, "epochs=2")
    assert answer.code == 0, answer.err
    assert "constant-sgd-seed0" in answer.run.name
    wrong = genexp(*words, "model.spread=-1")
    assert (wrong.code, "model.spread=-1: should be greater than 0" in wrong.err) == (2, True)
    assert "constant" in genexp("train", *CONF, "--help").out
    assert "did you mean 'constant'?" in genexp("train", *CONF, "model=constnat").err


@pytest.mark.usefixtures("examples")
def test_a_data_set_and_an_optimizer(genexp):
    small = [word for word in SMALL if not word.startswith("dataset")]
    answer = genexp("train", *CONF, *small, "dataset=stripes", "dataset.n=300", "optimizer=sign", "epochs=2")
    assert answer.code == 0, answer.err
    assert "gan on stripes (300 train, 200 valid, 200 test images)" in answer.out
    assert "gan-sign-seed0" in answer.run.name
    assert last_checkpoint(answer.run)["step"] == 6


@pytest.mark.usefixtures("examples")
@pytest.mark.slow
def test_a_metric_of_which_less_is_better_is_ranked_sought_and_kept_the_right_way(genexp, tmp_path):
    """Also under a name of the user's own."""
    own = ["+metric@metrics.gap=darkness", "metrics.gap.n_samples=100", "~metrics.parzen"]
    answer = genexp("train", "-m", *CONF, *SMALL, *own, "epochs=1", "seed=0,1,2")
    assert answer.code == 0, answer.err
    assert "ranked by gap, its mean, the lowest first" in answer.out
    rows = [line.split() for line in answer.out.splitlines() if re.match(r" [123] ", line)]
    gaps = [float(row[3]) for row in rows]
    assert gaps == sorted(gaps)
    listed = [line for line in genexp("runs", "sort=score").out.splitlines() if "gap" in line]
    shown = [float(re.search(r"gap (\S+)", line)[1]) for line in listed]
    assert shown == pytest.approx(gaps, rel=5e-3)  # they have so many digits
    (tmp_path / "darkness.py").write_text(  # on validation images, so that it may choose
        (tmp_path / "darkness.py").read_text().replace('"test"', '"valid"')
    )
    words = [*CONF, *SMALL, *own, "epochs=4", "log.scores_every_epochs=1"]
    run = genexp("train", *words).run
    lines = [OmegaConf.create(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = {line["step"]: line["valid/gap"] for line in lines if "valid/gap" in line}
    best = torch.load(run / "checkpoints/best.pt", weights_only=True)
    assert best["step"] == min(curve, key=curve.get)
    search = ["search=optuna", "search.metric=gap", "search.trials=2", "search.prune=false", "sweep.jobs=1"]
    answer = genexp("train", *words, *search, "+search.ranges.optimizer.lr={choices: [0.1, 0.01]}")
    assert answer.code == 0, answer.err
    assert "ranked by gap, its mean on validation images, the lowest first" in answer.out
    import optuna

    (study,) = tmp_path.glob("outputs/searches/*/study.db")
    assert optuna.load_study(study_name=None, storage=f"sqlite:///{study}").direction.name == "MINIMIZE"


@pytest.mark.usefixtures("examples")
def test_which_way_is_better_is_known_of_a_metric_that_a_module_imports_and_refused_if_hidden(genexp, tmp_path):
    (tmp_path / "theirs.py").write_text("from darkness import darkness as theirs\n")
    (tmp_path / "hidden.py").write_text("from darkness import darkness\n\nhidden = darkness\n")
    for name in ("theirs", "hidden"):
        (tmp_path / f"conf/metric/{name}.yaml").write_text(f"name: {name}\n_target_: {name}.{name}\nn_samples: 50\n")
    words = ["train", *CONF, *SMALL, "epochs=1", "~metrics.parzen"]
    run = genexp(*words, "+metric@metrics.theirs=theirs").run
    assert Results.read(run / "results.json").scores["theirs"].lower_is_better
    assert lower_is_better({"_target_": "theirs.theirs"})
    answer = genexp(*words, "+metric@metrics.hidden=hidden", "seed=1")
    assert (answer.code, "metrics.hidden: write @lower_is_better above" in answer.err) == (2, True)


GROWN = "spread: PositiveFloat, mirrored: Annotated[bool, AsBefore(False)]):"


@pytest.mark.slow
def test_a_setting_that_came_later_loses_no_run(genexp, examples):
    words = [*CONF, "model=constant", "dataset=digits", "metrics.parzen.n_samples=100"]
    before = genexp("train", *words, "epochs=2")
    assert before.code == 0, before.err
    code = (examples / "mine.py").read_text()
    code = code.replace("spread: PositiveFloat):", GROWN)
    code = code.replace("        super()", "        assert mirrored in (True, False)\n        super()")
    code = code.replace("import PositiveFloat", "import AsBefore, PositiveFloat")
    (examples / "mine.py").write_text("from typing import Annotated\n\n" + code)
    with (examples / "conf/model/constant.yaml").open("a") as settings:
        settings.write("mirrored: false\n")

    assert genexp("train", *words, "epochs=2").out.startswith("already finished")
    again = genexp("train", *words, "epochs=3")
    assert (again.run, "going on from epoch 2" in again.out) == (before.run, True)
    other = genexp("train", *words, "epochs=1", "model.mirrored=true")
    assert other.code == 0, other.err
    assert other.run != before.run
    (examples / "conf/model/constant.yaml").write_text("name: constant\n_target_: mine.Constant\nspread: 0.3\n")
    config = OmegaConf.load(before.run / "config.yaml")
    del config.model["mirrored"]  # as it was kept before there was the setting
    OmegaConf.save(config, before.run / "config.yaml")
    for command in (["evaluate", "seed=3", "trust=[mine]"], ["rerun", "trust=[mine]"]):
        answer = genexp(command[0], f"run={before.run}", *command[1:])
        assert answer.code == 0, answer.err
    copy = genexp("train", f"from={before.run}", "trust=[mine]", "outputs_dir=copies")
    assert (copy.code, copy.run.name) == (0, before.run.name)


@pytest.mark.slow
def test_a_metric_from_outside_may_have_a_setting_called_features(genexp, tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from genexp.ranges import Count\n\n\n"
        "def width(subject, *, features: Count):\n"
        "    return {'mean': float(features), 'stderr': None, 'summary': 'as wide', 'n': 3}\n"
    )
    (tmp_path / "conf/metric").mkdir(parents=True)
    (tmp_path / "conf/metric/width.yaml").write_text("name: width\n_target_: theirs.width\nfeatures: 7\n")
    run = genexp("train", *SMALL, "epochs=1").run
    words = ["evaluate", *CONF, f"run={run}", "+metric@metrics.width=width", "trust=[theirs]"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert "width: as wide" in answer.out
    assert "width: as wide, scored before" in genexp(*words).out
