"""Tables of papers: the data, what the runs answer, how it is shown, and `genexp reproduce`."""

import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from genexp.config.command_line import parse
from genexp.config.schema import CONFIGS
from genexp.data.digits import digits
from genexp.metrics.parzen import log_likelihood, score_samples
from genexp.papers import answers, yardsticks
from genexp.papers import published as papers
from genexp.papers.published import LikelihoodTable, ParzenTable, ScoresTable
from genexp.rundirs.find import find
from genexp.tables import Column, Document, Table, render

PAPERS = [file.stem for file in (CONFIGS / "paper").glob("*.yaml")]

TOY = """
name: toy
title: A toy
tables:
  "1":
    kind: parzen
    title: Digits
    columns:
      digits: {title: digits, train: [dataset=digits], spread: standard error over test images}
      tfd: {title: TFD, train: [dataset=tfd], spread: standard error across folds, on_request: true, note: never tried.}
    rows:
      - name: Unknown
        missing: no model yet
        cells:
          digits: {value: -3, spread: 1, sample_kind: mean, status: quoted, source: A book}
      - name: GAN
        cells:
          digits: {value: 10, spread: 2, status: recalled, source: A letter, train: [experiment=toy], quick: [epochs=2]}
          tfd: {value: 7, status: read, source: A book, train: [model=gan, dataset=tfd]}
      - name: DAE
        cells:
          digits:
            value: 5
            status: read
            source: A book
            train: [model=dae, dataset=digits, epochs=1, metrics.parzen.n_samples=300]
    yardsticks:
      mean_image:
        digits: {value: 0, status: read, source: A book}
  scores:
    kind: scores
    title: Scores
    dataset: [dataset=digits]
    metrics: [parzen, fid]
    rows:
      - {name: GAN, train: [experiment=toy], quick: [epochs=2]}
      - {name: DAE, train: [model=dae, dataset=digits, epochs=1]}
"""

EXPERIMENT = """# @package _global_
defaults:
  - override /model: gan
  - override /dataset: digits
epochs: 4
batch_size: 100
model:
  generator_hidden: [32]
  discriminator_hidden: [16]
metrics:
  parzen:
    n_samples: 10000
"""


@pytest.fixture
def toy(genexp, tmp_path, monkeypatch):
    """The command line with a small paper of its own."""
    for name, text in (("paper/toy.yaml", TOY), ("experiment/toy.yaml", EXPERIMENT)):
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    monkeypatch.setattr(yardsticks, "ITERATIONS", 2)
    return lambda command, *words: genexp(command, "--config-dir", str(tmp_path / "conf"), "paper=toy", *words)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduced") / "outputs"


@pytest.fixture
def reproduced(toy, tmp_path, made_once):
    """The runs that `reproduce budget=quick` makes of the small paper."""
    if not made_once.exists():
        answer = toy("reproduce", "budget=quick", "data_dir=nothing")
        assert answer.code == 0, answer.err
        shutil.copytree(tmp_path / "outputs", made_once)
    else:
        shutil.copytree(made_once, tmp_path / "outputs")


def paper(name):
    from omegaconf import OmegaConf

    return papers.read(OmegaConf.to_container(OmegaConf.load(CONFIGS / "paper" / f"{name}.yaml")), parse("table", []))


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.slow
def test_every_cell_that_names_an_experiment_can_be_composed(name, genexp):
    for table in paper(name).tables.values():
        for budget in ("quick", "full"):
            for _, words, _ in papers.experiments(table, budget):
                config = answers.experiment(words, None)
                full = answers.experiment([word for word in words if not word.startswith("epochs=")], None)
                assert answers.identity_but_seed(config) == answers.identity_but_seed(full)
                assert config.epochs <= full.epochs
        if isinstance(table, ScoresTable):
            words = [f"metric@metrics.{one}={one}" for one in table.metrics]
            assert set(table.metrics) <= answers.experiment([*table.dataset, *words], None).metrics.keys()


def test_the_published_numbers_are_those_of_the_paper():
    table = paper("goodfellow2014").tables["1"]
    assert isinstance(table, ParzenTable)
    found = {row.name: [(cell.value, cell.spread) for cell in row.cells.values()] for row in table.rows}
    assert found == {
        "DBN": [(138, 2), (1909, 66)],
        "Stacked CAE": [(121, 1.6), (2110, 50)],
        "Deep GSN": [(214, 1.1), (1890, 29)],
        "Adversarial nets": [(225, 2), (2057, 26)],
        "Adversarial nets, averaged weights": [(225, 2)],
    }
    for other in paper("goodfellow2014").tables.values():
        if isinstance(other, ParzenTable):
            assert all(cell.source for row in other.rows for cell in row.cells.values())
            assert all(row.missing or any(cell.train for cell in row.cells.values()) for row in other.rows)


@pytest.mark.slow
def test_a_run_without_a_short_form_is_left_out_of_the_quick_budget(toy, tmp_path):
    file = tmp_path / "conf/paper/toy.yaml"
    file.write_text(
        file.read_text().replace(
            "train: [experiment=toy], quick: [epochs=2]", "train: [experiment=toy], quick: null", 1
        )
    )
    answer = toy("reproduce", "budget=quick", "data_dir=nothing")
    assert answer.code == 0, answer.err
    assert "left out: GAN on digits, which has no short form; budget=full runs it" in answer.out
    assert {each.config.model["name"] for each in find(tmp_path / "outputs")} == {"dae"}


@pytest.mark.slow
def test_faces_are_marked_as_never_run_on_the_real_file(genexp):
    answer = genexp("table", "data_dir=nothing")
    assert answer.code == 0, answer.err
    text = " ".join(answer.out.split())
    assert "Toronto Face Database: these recipes were never run on the real file" in text


def test_every_model_has_its_column_in_table_2():
    table = paper("goodfellow2014").tables["2"]
    placed = [name for names in table.models for name in names]
    assert sorted(placed) == sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
    assert all(len(row.cells) == len(table.columns) == len(table.models) for row in table.rows)


@pytest.mark.slow
def test_reproduce_runs_what_is_lacking_and_prints_the_table(toy, tmp_path):
    answer = toy("reproduce", "budget=quick", "seeds=2", "data_dir=nothing")
    assert answer.code == 0, answer.err
    assert "skipped: TFD" in answer.out
    assert "GAN on digits, seed 1" in answer.out
    assert len(find(tmp_path / "outputs")) == 4
    table = answer.out[answer.out.index("A toy") :]
    scores = [
        json.loads((one.run.path / "results.json").read_text())["scores"]["parzen"]
        for one in find(tmp_path / "outputs")
        if one.config.model["name"] == "gan"
    ]
    mean = sum(score["mean"] for score in scores) / 2
    assert f"{mean:.1f} ± ".replace("-", "−") in table
    (line,) = [line for line in table.splitlines() if line.startswith(" GAN") and "2/4" in line]
    assert "†" in line  # fewer epochs than the recipe
    assert "(n = 2)" in line
    assert "10 ± 2* [" in line
    line, _of_chains = [line for line in table.splitlines() if line.startswith(" DAE")]
    assert "‡ᵐ" in line  # 300 samples, which are means
    assert "300" in line
    assert "−3 ± 1°ᵐ [1]  no model yet" in table
    assert "TFD is given on request; nothing was run on it" in table
    assert "TFD: never tried." in table
    assert "left out: " not in answer.out
    assert "Theis" in table
    assert "[1] A book" in table
    for name in ("training images", "k-means centroids", "mean image", "Gaussian of pixels"):
        assert f"yardstick: {name}" in table

    again = toy("reproduce", "budget=quick", "seeds=2", "data_dir=nothing")
    assert "nothing is left to be run" in again.out
    assert not [line for line in again.out.splitlines() if line.startswith("job ")]
    assert again.out[again.out.index("A toy") :] == table
    assert "computing yardsticks" not in again.err

    more = toy("reproduce", "seeds=1", "data_dir=nothing")  # goes on with what is there
    assert [line for line in more.out.splitlines() if line.startswith(" GAN on digits") and " 2/4 " in line]
    (log,) = tmp_path.glob("outputs/sweeps/toy_1_full/logs/gan-*-seed0-*.txt")
    assert "going on from epoch 2" in log.read_text()
    assert "4/4" in more.out
    assert "GAN on digits: 1 other run" in more.out  # seed 1 has fewer epochs


@pytest.mark.usefixtures("reproduced")
@pytest.mark.slow
def test_the_difference_is_in_combined_standard_errors(toy, tmp_path):
    toy("reproduce", "budget=quick", "seeds=3", "data_dir=nothing")
    found = json.loads(toy("table", "format=json", "data_dir=nothing").out)
    rows = {row["model"]: row for row in found["tables"][0]["rows"]}
    gan = rows["GAN"]
    scores = [
        json.loads((one.run.path / "results.json").read_text())["scores"]["parzen"]
        for one in find(tmp_path / "outputs")
        if one.config.model["name"] == "gan"
    ]
    means = torch.tensor([score["mean"] for score in scores], dtype=torch.float64)
    assert gan["runs"] == 3
    assert gan["here"] == pytest.approx(means.mean().item())
    assert gan["seed_spread"] == pytest.approx(means.std().item())
    assert gan["stderr"] == pytest.approx(sum(score["stderr"] for score in scores) / 3)
    combined = math.sqrt(2**2 + gan["stderr"] ** 2 + gan["seed_spread"] ** 2 / 3)
    assert gan["difference_in_standard_errors"] == pytest.approx((gan["here"] - 10) / combined)
    assert rows["Unknown"]["note"] == "no model yet"
    assert rows["yardstick: mean image"]["published"] == 0


@pytest.mark.usefixtures("reproduced")
@pytest.mark.slow
def test_a_run_under_other_settings_does_not_answer(toy, genexp, tmp_path):
    before = toy("table", "format=csv", "data_dir=nothing").out
    words = ["model=gan", "dataset=digits", "batch_size=100", "model.generator_hidden=[32]", "epochs=1"]
    assert genexp("train", *words, "model.discriminator_hidden=[17]").code == 0
    assert toy("table", "format=csv", "data_dir=nothing").out == before
    (run,) = [
        one.run.path for one in find(tmp_path / "outputs") if one.config.model.get("discriminator_hidden") == [16]
    ]
    assert genexp("evaluate", f"run={run}", "metrics.parzen.n_samples=99").code == 0
    assert toy("table", "format=csv", "data_dir=nothing").out == before  # what was scored as asked comes first


@pytest.mark.usefixtures("reproduced")
@pytest.mark.slow
def test_an_unscored_run_does_not_hide_a_scored_one(toy, tmp_path):
    before = toy("table", "format=csv", "data_dir=nothing").out
    (run,) = [one.run.path for one in find(tmp_path / "outputs") if one.config.model["name"] == "gan"]
    other = run.with_name("another")
    shutil.copytree(run, other)
    (other / "results.json").unlink()
    status = json.loads((other / "status.json").read_text())
    (other / "status.json").write_text(json.dumps(status | {"status": "interrupted", "epoch": 3}))
    after = toy("table", "format=csv", "data_dir=nothing").out
    left_out = "1 other run of fewer epochs, other data or other settings, or without a number, left out"
    assert after.replace(f'"{left_out}"', "") == before


@pytest.mark.usefixtures("reproduced")
@pytest.mark.slow
def test_yardsticks_of_other_images_than_the_runs_are_not_shown(toy, tmp_path):
    for one in find(tmp_path / "outputs"):
        (one.run.path / "data.json").write_text('{"digest": "another"}')
    answer = toy("table", "data_dir=nothing")
    assert answer.code == 0
    assert "yardstick: " not in answer.out
    assert "could not be computed: the runs were trained on other images" in " ".join(answer.out.split())


@pytest.mark.slow
def test_a_sweep_of_tables_is_no_failure_and_other_runs_are_mentioned(toy, genexp, tmp_path):
    genexp("train", "model=gan", "dataset=digits", "epochs=1", "model.generator_hidden=[8]")
    answer = toy("table", "-m", "table=1,scores", "data_dir=nothing")
    assert answer.code == 0, answer.err
    assert "failed" not in answer.out
    assert "1 other run follows none of this table's recipes" in " ".join(answer.out.split())
    assert "There is no folder o2" in toy("table", "outputs_dir=o2", "data_dir=nothing").out
    assert toy("table", "out=t.csv", "data_dir=nothing").code == 0
    assert (tmp_path / "t.csv").read_text().startswith("table,model,")


@pytest.mark.usefixtures("reproduced")
@pytest.mark.slow
def test_all_formats_hold_the_same_numbers(toy, tmp_path):
    shown = {form: toy("table", f"format={form}", "data_dir=nothing").out for form in ("markdown", "latex", "csv")}
    rows = list(csv.DictReader(io.StringIO(shown["csv"])))
    (gan,) = [row for row in rows if row["model"] == "GAN" and row["here"]]
    value = f"{float(gan['here']):.1f}".replace("-", "−")
    assert f"{value} ± {float(gan['stderr']):.1f}†" in shown["markdown"]
    latex = value.replace("−", "$-$")
    assert rf"{latex} $\pm$ {float(gan['stderr']):.1f}$^\dagger$" in shown["latex"]
    assert not re.search("[^\x00-\x7f]", re.sub("[éüöä]", "", shown["latex"]))  # pdflatex takes it as it is
    assert shown["latex"].count(r"\begin{tabular}") == shown["latex"].count(r"\end{tabular}") == 3
    for line in shown["markdown"].splitlines():
        assert not line.startswith("|") or line.count("|") == 10
    assert toy("table", "format=latex", "out=t.tex", "data_dir=nothing").code == 0
    assert (tmp_path / "t.tex").read_text() == shown["latex"]


LIKELIHOODS = """
name: bounds
title: Bounds
tables:
  likelihood:
    kind: likelihood
    title: Log-likelihoods
    rows:
      - name: VAE
        value: -21.5
        status: quoted
        source: A book
        kind: bound
        images: fresh
        metric: iwae
        train: [model=vae, dataset=digits, dataset.binarize=fresh, "model.hidden=[8]", epochs=3]
        quick: [epochs=1]
      - name: fixed VAE
        value: -22
        status: read
        source: A letter
        kind: bound
        metric: elbo
        train: [model=vae, dataset=digits, dataset.binarize=fixed, "model.hidden=[8]", epochs=1, ~metrics.parzen]
      - {name: RBM, value: -20.25, status: recalled, source: A book, kind: estimate, metric: ais, missing: no model yet}
"""


@pytest.fixture
def likelihoods(genexp, tmp_path):
    """The command line with a small paper of log-likelihoods."""
    (tmp_path / "conf/paper").mkdir(parents=True, exist_ok=True)
    (tmp_path / "conf/paper/bounds.yaml").write_text(LIKELIHOODS)
    words = ["--config-dir", str(tmp_path / "conf"), "paper=bounds", "table=likelihood", "data_dir=nothing"]
    return lambda command, *more: genexp(command, *words, *more)


@pytest.mark.slow
def test_likelihoods_of_runs_stand_beside_the_published_ones(likelihoods, tmp_path):
    answer = likelihoods("reproduce", "budget=quick", "seeds=2")
    assert answer.code == 0, answer.err
    scores: dict[str, list[dict]] = {"fresh": [], "fixed": []}
    for state in find(tmp_path / "outputs"):
        content = json.loads((state.run.path / "results.json").read_text())
        scores[state.config.dataset["binarize"]].append(content["scores"])
    vae, fixed, rbm = json.loads(likelihoods("table", "format=json").out)["tables"][0]["rows"]
    means = [score["iwae"]["mean"] for score in scores["fresh"]]
    assert vae["here"] == pytest.approx(sum(means) / 2)
    assert vae["seed_spread"] == pytest.approx(abs(means[0] - means[1]) / math.sqrt(2))
    assert fixed["here"] == pytest.approx(sum(score["elbo"]["mean"] for score in scores["fixed"]) / 2)
    assert (vae["n_samples"], vae["epochs"], vae["recipe_epochs"], fixed["n_samples"]) == (50, 1, 3, 1)
    assert [(row["images"], row["number"], row["metric"]) for row in (vae, fixed, rbm)] == [
        ("fresh", "bound", "iwae"), ("not known; here fixed", "bound", "elbo"), ("not known", "estimate", "ais"),
    ]  # fmt: skip
    assert [row["published"] for row in (vae, fixed, rbm)] == [-21.5, -22, -20.25]
    assert [row["status"] for row in (vae, fixed, rbm)] == ["quoted", "read", "recalled"]
    assert "here" not in rbm

    shown = likelihoods("table").out
    (line,) = [line for line in shown.splitlines() if line.startswith(" VAE")]
    assert f"{vae['here']:.2f} ± {vae['stderr']:.2f}†".replace("-", "−") in line
    assert "lower bound, iwae" in line
    assert "−21.5° [1]" in line
    assert re.search(r"−20\.25\* \[1\] +no model yet", shown)
    for said in ("[1] A book", "Mean log p(x)", "1/3", "Parzen scores are densities"):
        assert said in " ".join(shown.split())
    shown = {form: likelihoods("table", f"format={form}").out for form in ("markdown", "latex", "csv")}
    rows = list(csv.DictReader(io.StringIO(shown["csv"])))
    assert float(rows[0]["here"]) == vae["here"]
    assert not re.search("[^\x00-\x7f]", shown["latex"])
    value = f"{vae['here']:.2f}"
    assert value.replace("-", "−") in shown["markdown"]
    assert value.replace("-", "$-$") in shown["latex"]


def test_a_likelihood_by_a_metric_that_the_recipe_has_not_is_a_mistake_of_the_paper(likelihoods, tmp_path):
    file = tmp_path / "conf/paper/bounds.yaml"
    file.write_text(file.read_text().replace("metric: iwae", "metric: ais"))
    answer = likelihoods("table")
    assert answer.code == 2
    assert f"{file} is wrong: VAE has metric ais, and its runs are scored by parzen, elbo, iwae" in answer.err


@pytest.mark.slow
def test_published_likelihoods_are_of_images_as_the_recipes_make_them(genexp):
    table = paper("goodfellow2014").tables["likelihood"]
    assert isinstance(table, LikelihoodTable)
    assert {row.name: row.value for row in table.rows if row.train} == {
        "VAE, k = 1": -86.76, "VAE, k = 50": -86.35, "IWAE, k = 50": -84.78, "RBM, 500 units, CD-25": -86.34,
        "DBN, 500-2000, bound": -86.22, "DBM, 500-1000": -84.62,
    }  # fmt: skip
    for row in table.rows:
        assert (row.train is None) == (row.missing is not None)
        if row.train is not None:
            recipe = answers.experiment(row.train, None)
            assert recipe.dataset["binarize"] == (row.images or "fresh")
            assert "parzen" not in recipe.metrics, "which is of real-valued images"
            if row.metric == "ais":
                assert (recipe.metrics["ais"]["runs"], recipe.metrics["ais"]["temperatures"]) == (100, 14_500)
                continue
            assert recipe.metrics[row.metric]["n_samples"] == 5000
            assert recipe.model["k"] == (1 if "k = 1" in row.name else 50)
            assert recipe.model["objective"] == ("iwae" if "IWAE" in row.name else "elbo")


def test_text_survives_every_format():
    awkward = "50% of A_b & C#1 | ~x^2 {y} \\z $5"
    columns = [Column("a", lambda row: row[0], lambda row: {"a": row[0]}),
               Column("b", lambda row: row[1], lambda row: {"b": row[1]})]  # fmt: skip
    made = Document("Doc", [Table(columns, [("row", awkward)], "Title")], ["a note with * and _"])
    assert json.loads(render(made, "json"))["tables"][0]["rows"][0]["b"] == awkward
    assert next(csv.DictReader(io.StringIO(render(made, "csv"))))["b"] == awkward
    assert r"50\% of A\_b \& C\#1 $|$ \textasciitilde{}x\textasciicircum{}2 \{y\} \textbackslash{}z \$5" in render(
        made, "latex"
    )
    assert "C#1 \\| ~x" in render(made, "markdown")
    assert r"a note with \* and \_" in render(made, "markdown")
    assert awkward in render(made, "terminal")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table=3"], "The tables are: 1, neighbours, 2, scores, likelihood"),
        (["table=neigbours"], "did you mean 'neighbours'?"),
        (["format=html"], "'markdown'"),
        (["paper=goodfelow2014"], "did you mean 'goodfellow2014'?"),
        (["tabel=1"], "did you mean 'table'?"),
    ],
)
def test_mistakes_are_answered(genexp, words, said):
    answer = genexp("table", *words)
    assert answer.code == 2
    assert said in answer.err


def test_a_mistake_in_a_paper_names_its_file(toy, likelihoods, tmp_path):
    for name, words in (("toy", ()), ("bounds", ("paper=bounds",))):
        file = tmp_path / f"conf/paper/{name}.yaml"
        file.write_text(file.read_text().replace("status:", "state:"))
        answer = toy("table", *words)
        assert answer.code == 2
        assert f"{file} is wrong:" in answer.err


@pytest.mark.slow
def test_the_footer_says_the_whole_command(toy, tmp_path):
    text = " ".join(toy("table", "data_dir=nothing", "outputs_dir=o2").out.split())
    command = f"genexp reproduce --config-dir {tmp_path / 'conf'} table=1 paper=toy data_dir=nothing outputs_dir=o2"
    assert f"`{command}` runs what is not run." in text
    answer = toy("reproduce", *command.split()[5:], "dry_run=true")  # it is a command
    assert answer.code in (0, 1), answer.err
    assert "GAN on digits" in answer.out


@pytest.mark.slow
def test_a_text_table_is_not_reproduced(genexp):
    assert "gan, conv_gan, dcgan" in genexp("table", "table=2", "format=markdown").out
    answer = genexp("reproduce", "table=2")
    assert answer.code == 2
    assert "`genexp table table=2` prints it" in answer.err


@pytest.mark.slow
def test_a_failure_is_said_and_does_not_keep_others_from_running(toy, tmp_path):
    file = tmp_path / "conf/paper/toy.yaml"
    file.write_text(file.read_text().replace("[experiment=toy], quick", "[experiment=toy, batch_size=5000], quick"))
    answer = toy("reproduce", "budget=quick", "data_dir=nothing")
    assert answer.code == 1
    assert "batch_size=5000 is larger" in answer.err
    assert [one.config.model["name"] for one in find(tmp_path / "outputs")] == ["dae"]
    assert "yardstick: mean image" in answer.out


@pytest.mark.slow(10)
def test_the_scores_table_has_a_column_for_each_extractor_and_the_floor(toy):
    answer = toy("reproduce", "table=scores", "budget=quick", "data_dir=nothing")
    assert answer.code == 0, answer.err
    found = json.loads(toy("table", "table=scores", "format=json").out)["tables"][0]["rows"]
    assert [row["model"] for row in found] == ["GAN", "DAE", "floor: training images"]
    (fid,) = [name for name in found[0] if name.startswith("FID") and ": " not in name]
    assert found[0][f"{fid}: n_samples"] == 10_000
    assert re.fullmatch(r"FID ↓ \(classifier-[0-9a-f]{8}\)", fid)
    assert found[0][fid] > 0
    assert float(found[2][fid]) < found[0][fid]


@pytest.mark.slow
def test_a_table_of_scores_that_no_run_has_needs_no_data_and_no_torch(tmp_path):
    """Runs of digits, and a table of MNIST; a process of its own shows what is imported."""
    run = tmp_path / "outputs/digits/vae-adam-seed0-88c605f2"
    shutil.copytree(ROOT / "tests/kept" / run.name, run)
    program = "import sys; from genexp.cli import main; assert main() == 0; assert 'torch' not in sys.modules"
    words = [sys.executable, "-c", program, "table", "table=scores", "data_dir=nothing"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GENEXP_CACHE_DIR": str(tmp_path / "cache")}
    answer = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("not run") >= 6
    assert "1 other run follows none" in answer.stdout
    assert "floor" not in answer.stdout


def test_yardsticks_are_what_they_are_called():
    data = digits(ROOT)
    metric = {"name": "parzen", "_target_": "genexp.metrics.parzen.parzen", "n_samples": 200, "n_valid": 100,
              "sigma_grid": [0.1, 0.2, 0.4], "split": "test"}  # fmt: skip
    scores = yardsticks.score_yardsticks(data, metric)
    images = yardsticks.training_images(data, 200)
    settings = {"n_valid": 100, "sigma_grid": [0.1, 0.2, 0.4], "split": "test"}
    assert scores["training_images"].mean == score_samples(images, data, **settings).mean
    assert len(images.flatten(1).unique(dim=0)) == 200
    train = {tuple(image.tolist()) for image in data.images("train").flatten(1)}
    assert all(tuple(image.tolist()) in train for image in images.flatten(1))

    mean = data.images("train").mean(0)
    test = data.images("test").flatten(1)
    direct = torch.distributions.Normal(mean.flatten(), scores["mean_image"].sigma).log_prob(test).sum(1).mean()
    assert scores["mean_image"].mean == pytest.approx(direct.item(), abs=1e-3)
    repeated = log_likelihood(test, mean.flatten().repeat(7, 1), [scores["mean_image"].sigma]).mean()
    assert repeated.item() == pytest.approx(direct.item(), abs=1e-3)  # how often it is there does not matter

    drawn = yardsticks.pixel_gaussian(data, 20_000).flatten(1)
    flat = data.images("train").flatten(1)
    inside = (flat.mean(0) > 0.35) & (flat.mean(0) < 0.65) & (flat.std(0) < 0.36)  # where clipping matters little
    assert inside.sum() > 5
    assert (drawn.mean(0) - flat.mean(0))[inside].abs().max() < 0.03
    ours, theirs = torch.corrcoef(drawn[:, inside].T), torch.corrcoef(flat[:, inside].T)
    assert (ours - theirs).abs().max() < 0.06

    centroids = yardsticks.centroids(data, 200).flatten(1)
    assert len(centroids) == 200
    assert torch.cdist(flat, centroids).min(1).values.mean() < torch.cdist(flat, images.flatten(1)).min(1).values.mean()
    assert scores["centroids"].sample_kind == "mean"
