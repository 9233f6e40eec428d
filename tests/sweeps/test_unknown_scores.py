"""A score that is not a number: the run, the sweep, the search and the tables go on, and say why."""

import csv
import json
import math

import pytest
from conftest import SMALL, read_metrics

from genexp.config.components import check_component
from genexp.errors import UsageError
from genexp.papers.answers import answer
from genexp.papers.columns import here_column, line_of
from genexp.papers.notes import Footnotes
from genexp.papers.published import Row
from genexp.rundirs.directory import Run
from genexp.rundirs.find import find
from genexp.rundirs.results import Results, record
from genexp.score import Score
from genexp.storage.files import write_json

FICKLE = '''
from genexp.metrics import Subject
from genexp.score import Score


def fickle(subject: Subject, *, value: str):
    """Gives `value` for the seed 1, and the seed for all others."""
    mean = float(value) if subject.seed == 1 else float(subject.seed)
    return {"mean": mean, "stderr": mean, "valid_mean": mean, "spread": mean, "all": [mean]}
'''
YAML = "name: fickle\n_target_: fickle.fickle\nvalue: 'nan'\n"


@pytest.fixture
def fickle(tmp_path):
    (tmp_path / "fickle.py").write_text(FICKLE)
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf/metric/fickle.yaml").write_text(YAML)
    return ["train", "--config-dir", "conf", *SMALL, "epochs=1", "+metric@metrics.fickle=fickle"]


def no_constants(name):
    raise AssertionError(f"{name} is not JSON")


def strictly(text):
    return json.loads(text, parse_constant=no_constants)


def assert_all_json_is_strict(folder):
    files = [file for end in ("json", "jsonl") for file in folder.rglob(f"*.{end}")]
    assert len(files) > 3
    for file in files:
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            strictly(text)


@pytest.mark.parametrize("value", ["nan", "-inf"])
@pytest.mark.slow
def test_a_sweep_goes_on_and_its_table_says_why_a_score_is_missing(genexp, fickle, tmp_path, value):
    words = [*fickle, f"metrics.fickle.value='{value}'", "log.scores_every_epochs=1"]
    answer = genexp(*words, "-m", "seed=0,1,2", "sweep.rank_by=fickle")
    assert answer.code == 0, answer.out + answer.err
    lines = [line.split() for line in answer.out.splitlines() if "seed=" in line and "finished" in line]
    ranked = [line[:4] for line in lines if line[0] != "job"]
    assert [line[:2] for line in ranked] == [["1", "seed=2"], ["2", "seed=0"], ["–", "seed=1"]]
    assert ranked[-1][3] == "–"
    reason = f"metric fickle gives {value}"
    assert f"seed=1: fickle is not known: {reason}" in answer.out
    assert_all_json_is_strict(tmp_path / "outputs")
    (table,) = tmp_path.glob("outputs/sweeps/*/table.csv")
    rows = {row["seed"]: row for row in csv.DictReader(table.open())}
    assert (rows["1"]["fickle"], rows["1"]["rank"], rows["2"]["fickle"]) == ("", "", "2.0")

    (run,) = tmp_path.glob("outputs/digits/gan-sgd-seed1-*")
    score = strictly((run / "results.json").read_text())["scores"]["fickle"]
    assert (score["mean"], score["reason"], score["spread"], score["all"]) == (None, reason, None, [None])
    assert not any("fickle" in name for line in read_metrics(run) for name in line)
    assert "seed=1" not in genexp("runs").err
    assert genexp("figure", str(run), "kind=curves").code == 0
    assert genexp("export", str(run), "trust=[fickle]").code == 0
    assert f"| – ({reason})" in (run / "export" / "README.md").read_text().replace("−", "-")
    assert_all_json_is_strict(run)


@pytest.mark.slow
def test_a_run_says_that_its_score_is_not_known_and_an_evaluation_too(genexp, fickle):
    answer = genexp(*fickle, "seed=1")
    assert answer.code == 0, answer.err
    assert "warning: fickle is not known: metric fickle gives nan" in answer.out
    assert "fickle: – (metric fickle gives nan)" in answer.out
    assert "fickle: – (metric fickle gives nan)" in genexp(*fickle, "seed=1").out  # already finished
    again = genexp("evaluate", str(answer.run), "trust=[fickle]", "seed=1")
    assert (again.code, "scored before" in again.out) == (0, True)
    both = genexp("evaluate", str(answer.run), str(answer.run), "trust=[fickle]", "seed=1")
    assert both.code == 0
    rerun = genexp("rerun", str(answer.run), "trust=[fickle]")
    assert rerun.code == 0, rerun.out + rerun.err  # NaN then and now is the same


@pytest.mark.slow
def test_a_search_goes_on(genexp, fickle, tmp_path):
    pytest.importorskip("optuna")
    words = [*fickle, "search=optuna", "search.metric=fickle", "search.trials=3", "search.prune=false"]
    answer = genexp(*words, "+search.ranges.seed={choices: [0, 1, 2]}", "search.sampler=random", "search.seed=4")
    assert answer.code == 0, answer.out + answer.err
    assert_all_json_is_strict(tmp_path / "outputs")


def test_the_best_checkpoint_is_never_one_whose_score_is_not_known(genexp, fickle):
    words = [*fickle, "seed=1", "log.scores_every_epochs=1", "checkpoint.keep_best=fickle"]
    answer = genexp(*words)
    assert answer.code == 0, answer.err
    assert not Run(answer.run).best_file.exists()


def test_a_metric_that_fails_does_not_cost_the_scores_behind_it(genexp, fickle, tmp_path):
    broken = FICKLE.replace("fickle", "broken")
    (tmp_path / "broken.py").write_text(broken.replace("    mean = ", "    assert subject.seed != 1\n    mean = "))
    (tmp_path / "conf/metric/broken.yaml").write_text(YAML.replace("fickle", "broken"))
    words = [*fickle[:-1], "seed=1", "~metrics.parzen", "+metric@metrics.broken=broken", "+metric@metrics.also=parzen"]
    answer = genexp(*words, "metrics.also.n_samples=100")
    assert answer.code == 1
    (run,) = tmp_path.glob("outputs/digits/gan-sgd-seed1-*")
    assert [each.metric for each in Run(run).evaluations().values()] == ["parzen"]
    (tmp_path / "broken.py").write_text(broken)
    again = genexp(*words, "metrics.also.n_samples=100")
    assert (again.code, "scoring by broken" in again.out, "scoring by also" in again.out) == (0, True, False)


@pytest.mark.slow
def test_a_mean_over_seeds_leaves_out_the_unknown_and_the_table_shows_a_dash(genexp, fickle, tmp_path):
    for seed in (0, 1, 2):
        assert genexp(*fickle, f"seed={seed}").code == 0
    states = find(tmp_path / "outputs")
    config = states[0].config
    metric = config.metrics["fickle"]
    mean = answer(config, metric, states)
    assert (mean.mean, mean.runs, mean.left_out) == (1.0, 2, 1)
    unknown = answer(config, metric, [state for state in states if state.config.seed == 1])
    assert (math.isnan(unknown.mean), unknown.stderr, unknown.seed_spread) == (True, None, None)
    cell = {"value": 1, "status": "read", "source": "A book", "train": [*fickle[3:], "seed=0"]}
    row = Row.model_validate({"name": "GAN", "cells": {"digits": cell}})
    line = line_of(row, row.cells["digits"], metric, [s for s in states if s.config.seed == 1], str(tmp_path / "conf"))
    assert line.state == "not known, metric fickle gives nan"
    assert here_column(Footnotes(), 1).show(line) == "–"


@pytest.mark.parametrize("mean", [math.nan, math.inf, -math.inf])
def test_a_score_without_a_number_is_null_and_a_reason(tmp_path, mean):
    score = Score.of(Score(mean, 1.0, f"{mean:.1f} nats"), "mine", False)
    assert (str(score), score.stderr, score.sort_key()) == ("–", None, math.inf)
    assert score.summary == f"– (metric mine gives {mean})"
    write_json(tmp_path / "score.json", score.to_json())
    content = strictly((tmp_path / "score.json").read_text())
    assert content["mean"] is None
    assert Score.from_json(content) == Score.from_json(content)
    assert Score.from_json(content).reason == score.reason
    own = Score.of(Score(mean, None, "", reason="no test image has a label"), "mine", False)
    assert own.summary == "– (no test image has a label)"


@pytest.mark.parametrize("stderr", [math.nan, math.inf, -1.0])
def test_an_error_that_is_no_number_is_unknown(stderr):
    assert Score.of({"mean": 1.0, "stderr": stderr}, "mine", False).stderr is None


@pytest.mark.slow
def test_results_with_bare_nan_of_earlier_versions_are_read_and_become_strict(genexp, fickle, tmp_path):
    answer = genexp(*fickle, "seed=1")
    file = answer.run / "results.json"
    file.write_text(file.read_text().replace('"mean": null', '"mean": NaN').replace('"reason"', '"was"'))
    assert math.isnan(Results.read(file).scores["fickle"].mean)
    (found,) = [state for state in find(answer.run.parent) if state.run.path == answer.run]
    assert found.status == "finished"
    assert genexp("runs").code == 0
    record(file, {}, {}, lambda: None)
    strictly(file.read_text())
    assert genexp(*fickle, "seed=1").code == 0


def test_settings_are_no_nan_where_they_are_numbers():
    component = {"name": "adam", "_target_": "genexp.optimizers.sgd", "lr": math.nan}
    with pytest.raises(UsageError):
        check_component("optimizer", component)
