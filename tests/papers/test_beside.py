"""The tables below a table of Parzen scores: what chains moved, and what averaged weights score beside raw ones."""

import csv
import io
import json

import pytest

PAPER = """
name: toy
title: A toy
tables:
  "1":
    kind: parzen
    title: Digits
    columns:
      digits: {title: digits, train: [dataset=digits], spread: standard error over test images}
    rows:
      - name: Walk
        cells:
          digits: {value: 5, status: read, source: A book, train: [experiment=walk]}
      - name: Averaged
        cells:
          digits: {value: 5, status: read, source: A book, train: [experiment=averaged]}
      - name: Plain
        cells:
          digits: {value: 5, status: read, source: A book, train: [experiment=averaged, ema=null]}
"""
WALK = """# @package _global_
defaults:
  - override /model: dae
  - override /dataset: digits
epochs: 1
model: {latent_dim: 16, chains: 50, burn_in: 3, thinning: 2}
metrics: {parzen: {n_samples: 200}}
"""
AVERAGED = """# @package _global_
defaults:
  - override /model: ae
  - override /dataset: digits
epochs: 1
ema: 0.9
model: {hidden: [16], latent_dim: 3, code_components: 1}
metrics: {parzen: {n_samples: 200}}
"""


@pytest.fixture
def toy(genexp, tmp_path):
    for name, text in (("paper/toy", PAPER), ("experiment/walk", WALK), ("experiment/averaged", AVERAGED)):
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return lambda command, *words: genexp(command, "--config-dir", str(tmp_path / "conf"), *words)


@pytest.mark.slow
def test_a_row_of_chains_shows_what_they_moved_over_all_seeds(toy):
    assert "Chains" not in toy("table", "paper=toy").out
    runs = [toy("train", "experiment=walk", f"seed={seed}").run for seed in (0, 1)]
    scores = [json.loads((run / "results.json").read_text())["scores"]["chain"] for run in runs]
    table = toy("table", "paper=toy").out
    row = next(line for line in table[table.index("Chains: digits") :].splitlines() if line.startswith(" Walk"))

    def mean(name):
        return sum(score[name] for score in scores) / 2

    assert row.split()[1:4] == ["50", "3", "2"]
    assert f"{mean('mean'):.2f} ({mean('between_images'):.2f})" in row
    assert f"{mean('nearest'):.2f} ({mean('nearest_split'):.2f})" in row
    shown = [f"{mean('autocorrelation'):.3f}", f"{mean('control'):.1f}", f"{mean('from_noise'):.1f}"]
    assert row.split()[-3:] == [number.replace("-", "−") for number in shown]
    assert "a score of a chain is worth what the chain moved" in " ".join(table.split())


@pytest.mark.slow
def test_averaged_weights_stand_beside_raw_ones(toy):
    run = toy("train", "experiment=averaged").run
    results = json.loads((run / "results.json").read_text())
    averaged, raw = results["scores"]["parzen"]["mean"], results["raw_scores"]["parzen"]["mean"]
    assert averaged != raw
    table = toy("table", "paper=toy").out
    lines = [line.split() for line in table[table.index("Averaged weights: digits") :].splitlines()]
    shown = {line[1].rstrip(","): line for line in lines if line[:1] == ["Averaged"] and line[1] != "weights:"}
    assert set(shown) == {"averaged", "raw"}
    assert float(shown["averaged"][-3].replace("−", "-")) == pytest.approx(averaged, abs=0.05)
    assert float(shown["raw"][-3].replace("−", "-")) == pytest.approx(raw, abs=0.05)
    exported = toy("table", "paper=toy", "format=csv").out
    assert [row for row in csv.reader(io.StringIO(exported)) if "raw" in row]


def row(table, name):
    return next(line for line in table.splitlines() if line.startswith(f" {name} "))


@pytest.mark.slow
def test_raw_weights_answer_for_the_recipe_without_an_average_until_it_has_runs_of_its_own(toy):
    runs = [toy("train", "experiment=averaged", f"seed={seed}").run for seed in (0, 1)]
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    raw = [each["raw_scores"]["parzen"]["mean"] for each in results]
    table = toy("table", "paper=toy").out
    assert f"{sum(raw) / 2:.1f}".replace("-", "−") in row(table, "Plain")
    assert "(n = 2)" in row(table, "Plain")
    assert f"{sum(raw) / 2:.1f}".replace("-", "−") not in row(table, "Averaged")

    answer = toy("reproduce", "paper=toy", "seeds=2", "dry_run=true")
    assert "Averaged on digits" in answer.out
    assert "Plain on digits" not in answer.out
    own = toy("train", "experiment=averaged", "ema=null", "seed=1").run
    assert json.loads((own / "results.json").read_text())["scores"]["parzen"]["mean"] == raw[1]  # the same training
    table = toy("table", "paper=toy").out
    assert f"{sum(raw) / 2:.1f}".replace("-", "−") in row(table, "Plain")
    assert "left out" not in table
    assert "follows none" not in table
    assert "follow none" not in table
    another = toy("train", "experiment=averaged", "ema=0.5", "seed=2").run  # an average that no row asks for
    assert another
    assert "(n = 3)" in row(toy("table", "paper=toy").out, "Plain")


@pytest.mark.slow
def test_a_recipe_without_an_average_is_run_where_no_averaged_run_has_its_scores(toy, tmp_path):
    file = tmp_path / "conf/paper/toy.yaml"
    file.write_text(file.read_text().replace("ema=null]", "ema=null, epochs=2]"))
    assert "Plain on digits" in toy("reproduce", "paper=toy", "dry_run=true").out
    file.write_text(file.read_text().replace("epochs=2]", "metrics.parzen.n_samples=99]"))
    assert "Plain on digits" in toy("reproduce", "paper=toy", "dry_run=true").out
