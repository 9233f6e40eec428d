"""`genexp report`: what the pages hold, that they need nothing from outside, and how a browser runs them."""

import csv
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VAE = ("model=vae", "dataset=digits", "epochs=4", "log.samples_every_epochs=1", "metrics.parzen.n_samples=100")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """The tags of a page, and its text without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.within = "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.within = tag
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within not in ("script", "style"):
            self.text += data

    def sources(self):
        """Every address that a browser would load."""
        return [each[name] for tag, each in self.tags for name in ("src", "srcset", "data") if each.get(name)]


def read(answer) -> tuple[str, Reader]:
    assert answer.code == 0, answer.out + answer.err
    line = next(line for line in answer.out.splitlines() if line.startswith("report: "))
    page = Path(line.removeprefix("report: ")).read_text()
    return page, Reader(page)


def rows_of(page: str) -> list[list[str]]:
    """The cells of all tables, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in cells]


@pytest.mark.slow
def test_the_page_of_a_run(genexp, finished):
    answer = finished(*VAE)
    page, reader = read(genexp("report", str(answer.run)))
    scores = json.loads((answer.run / "results.json").read_text())["scores"]
    assert [row for row in rows_of(page) if row[0] in scores] == [[name, scores[name]["summary"]] for name in scores]
    labels = [each["data-label"] for tag, each in reader.tags if tag == "img" and "samples" in each["alt"]]
    assert labels == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    assert "again: genexp train model=vae dataset=digits" in " ".join(reader.text.split())
    for said in ("vae on digits, seed 0", "finished, epoch 4 of 4", "reconstruction error", "torch"):
        assert said in reader.text
    assert len(page.encode()) < 1_000_000


@pytest.mark.slow
def test_a_page_loads_nothing_from_elsewhere(genexp, finished):
    run = finished(*VAE).run
    for page, reader in (read(genexp("report", str(run))), read(genexp("report", "table=2"))):
        assert all(source.startswith("data:") for source in reader.sources())
        assert not [tag for tag, _ in reader.tags if tag in ("link", "iframe", "object", "embed", "base")]
        assert not re.search(r"@import|url\((?!#)", page)


@pytest.mark.slow
def test_text_is_shown_as_text(genexp, finished):
    """A status is written by whoever trained the run; a page that is passed on must not run what it says."""
    run = finished(*VAE).run
    status = json.loads((run / "status.json").read_text())
    attack = "</p><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    (run / "status.json").write_text(json.dumps(status | {"command": attack, "error": attack}))
    page, reader = read(genexp("report", str(run)))
    assert attack in reader.text
    assert page.count("<script>") == 1


@pytest.mark.slow
def test_the_page_of_several_runs(genexp):
    assert genexp("train", "-m", *VAE, "seed=0,1", "optimizer.lr=1e-3,1e-4").code == 0
    page, reader = read(genexp("report", "outputs/digits/*"))
    rows = [dict(zip(rows_of(page)[0], row, strict=True)) for row in rows_of(page)[1:]]
    listed = json.loads(genexp("runs", "format=json").out)["tables"][0]["rows"]
    assert {row["settings"] for row in rows} == {row["settings"] for row in listed} == {"lr=0.001", "lr=0.0001"}
    for row, run in zip(rows, listed, strict=True):
        scores = json.loads(Path(run["run"], "results.json").read_text())["scores"]
        assert float(row["parzen"].split(" ")[0]) == pytest.approx(scores["parzen"]["mean"], abs=0.051)
        assert [row["seed"], row["epoch"], row["status"]] == [str(run["seed"]), "4/4", "finished"]
    links = [each["href"] for tag, each in reader.tags if tag == "a" and each.get("href")]
    assert all((Path("outputs/digits") / link / "results.json").is_file() for link in links)
    assert len(links) == 4
    assert page.count("lr=0.001 autoencoder") == 1  # a curve for each experiment, not for each seed


@pytest.mark.slow
def test_the_runs_of_a_sweep_and_of_a_folder(genexp):
    assert genexp("train", "-m", *VAE, "seed=0,1").code == 0
    (sweep,) = Path("outputs/sweeps").iterdir()
    with (sweep / "table.csv").open(newline="") as stream:
        paths = {row["run"] for row in csv.DictReader(stream)}
    page, _ = read(genexp("report", str(sweep)))
    assert (sweep / "report.html").read_text() == page
    of_folder, _ = read(genexp("report", "outputs"))
    _, elsewhere = read(genexp("report", "outputs", "out=sent/page.html"))
    links = [each["href"] for tag, each in elsewhere.tags if tag == "a"]
    assert all(Path("sent", link, "results.json").is_file() for link in links)
    assert len(paths) == 2
    for each in (page, of_folder):
        assert sorted(row[4] for row in rows_of(each)[1:]) == ["0", "1"]


@pytest.mark.slow
def test_the_page_of_a_table_says_in_words_what_was_reached(genexp, finished, tmp_path):
    own = tmp_path / "own" / "paper"
    own.mkdir(parents=True)
    cell = "{value: %s, spread: %s, status: read, source: here, train: [%s]}"
    vae = ", ".join(VAE)
    (own / "mine.yaml").write_text(
        "name: mine\ntitle: Mine\ntables:\n  '1':\n    kind: parzen\n    title: Scores\n    columns:\n"
        "      digits: {title: digits, train: [dataset=digits, metrics.parzen.n_samples=100], spread: of seeds}\n"
        "    rows:\n"
        f"      - {{name: low, cells: {{digits: {cell % (-1000, 1, vae)}}}}}\n"
        f"      - {{name: high, cells: {{digits: {cell % (1000, 1, vae)}}}}}\n"
        f"      - {{name: none, cells: {{digits: {{value: 5, status: read, source: here}}}}}}\n"
    )
    run = finished(*VAE).run
    mean = json.loads((run / "results.json").read_text())["scores"]["parzen"]["mean"]
    page, reader = read(genexp("report", "table=1", "paper=mine", "--config-dir", "own"))
    assert f"low: reached; {mean:.1f} here is {mean + 1000:.1f} above the published -1000." in reader.text
    assert f"high: not reached; {mean:.1f} here is {1000 - mean:.1f} below the published 1000." in reader.text
    assert "none: " not in reader.text
    assert [row[0] for row in rows_of(page)][1:4] == ["low", "high", "none"]
    assert "training images" in reader.text  # a yardstick
    assert [each["alt"] for tag, each in reader.tags if tag == "img"] == [
        f"{row} on digits, epoch 4" for row in ("low", "high")
    ]


@pytest.mark.slow
def test_training_ends_with_a_page_and_so_do_sweeps_and_searches(genexp, monkeypatch):
    monkeypatch.setenv("GENEXP_REPORT", "true")
    answer = genexp("train", *VAE)
    assert f"report: {answer.run}/report.html" in answer.out
    assert "report:" not in genexp("train", *VAE, "seed=5", "report=false").out
    (answer.run / "report.html").unlink()
    assert f"report: {answer.run}/report.html" in genexp("train", *VAE).out  # finished already
    assert "report: outputs/sweeps/" in genexp("train", "-m", *VAE, "seed=0,1").out
    assert list(Path("outputs/digits").glob("*seed1*/report.html")) == []  # a sweep has one page for all
    search = ["search=optuna", "search.metric=parzen", "search.trials=3"]
    ranges = [
        "+search.ranges.optimizer.lr={low: 1e-3, high: 1e-2}",
        "+search.ranges.model.latent_dim={low: 2, high: 9}",
    ]
    page, reader = read(genexp("train", *VAE, *search, *ranges))
    assert "Hyperparameter Importances" in reader.text
    assert "Parallel Coordinate" in page


@pytest.mark.slow
def test_a_page_that_cannot_be_made_is_no_error_of_the_training(genexp, monkeypatch):
    monkeypatch.setenv("GENEXP_REPORT", "true")
    monkeypatch.setattr("genexp.commands.report.page_of_run", lambda *_: 1 / 0)
    answer = genexp("train", *VAE, "seed=7")
    assert answer.code == 0
    assert "warning: no report was written: division by zero" in answer.out
    assert (answer.run / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "genexp report PATH, a glob or a folder of runs, or genexp report table=1"),
        (["outputs", "table=1"], 2, "genexp report PATH"),
        (["outputs", "out=page.pdf"], 2, "out=page.pdf: a report is written as FILE.html"),
        (["nowhere"], 2, "run=nowhere: there is no run's directory"),
        (["table=9"], 2, "has no such table here"),
        (["outputs", "out=/proc/none/page.html"], 1, "Set out=FILE.html to another place"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_reported_is_said(genexp, finished, words, code, said):
    finished(*VAE)
    answer = genexp("report", *words)
    assert (answer.code, said in answer.err) == (code, True), answer.err
    assert "Traceback" not in answer.err


def test_a_run_that_has_just_begun_has_a_page(genexp, finished):
    run = finished(*VAE).run
    for name in ("results.json", "metrics.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "samples")
    _, reader = read(genexp("report", str(run)))
    assert "The run is not finished. Its newest score: none yet." in reader.text


def in_browser(page: Path, script: str, width: int = 1400) -> str:
    """Open a page with a script at its end in a headless browser; return what the script wrote into the title."""
    tried = page.with_name("tried.html")
    tried.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    command = [BROWSER, *words, "--dump-dom", tried.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "Uncaught" not in done.stderr, done.stderr
    return html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1])


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_in_a_browser_the_slider_moves_and_the_table_sorts_and_filters(genexp, finished, tmp_path):
    run = finished(*VAE).run
    page = read(genexp("report", str(run)))[0]
    (tmp_path / "run.html").write_text(page)
    seen = in_browser(
        tmp_path / "run.html",
        "const film = document.querySelector('.film'), slider = film.querySelector('input'), seen = [];"
        "for (const value of [3, 0, 2]) { slider.value = value; slider.dispatchEvent(new Event('input'));"
        " seen.push(film.querySelector('output').textContent + ' ' +"
        " [...film.querySelectorAll('img')].filter((each) => !each.hidden).map((each) => each.dataset.label).join()); }"
        "document.title = seen.join('; ')",
    )
    assert seen == "epoch 4 epoch 4; epoch 1 epoch 1; epoch 3 epoch 3"

    assert genexp("train", "-m", *VAE, "seed=0,1,2").code == 0
    read(genexp("report", "outputs", f"out={tmp_path}/runs.html"))
    header = rows_of((tmp_path / "runs.html").read_text())[0]
    seen = in_browser(
        tmp_path / "runs.html",
        f"const column = {header.index('parzen')}, table = document.querySelector('table');"
        "const order = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.order).join();"
        "const title = table.tHead.rows[0].cells[column], seen = [];"
        "title.click(); seen.push(order()); title.click(); seen.push(order());"
        "const words = document.querySelector('input[type=search]'); words.value = 'VAE nothing';"
        "words.dispatchEvent(new Event('input'));"
        "seen.push([...table.tBodies[0].rows].filter((row) => !row.hidden).length);"
        "words.value = 'vae'; words.dispatchEvent(new Event('input'));"
        "seen.push([...table.tBodies[0].rows].filter((row) => !row.hidden).length);"
        "document.title = seen.join(' ')",
    )
    up, down, none, all_of_them = seen.split(" ")
    values = [float(value) for value in up.split(",")]
    assert values == sorted(values)
    assert down.split(",") == up.split(",")[::-1]
    assert (none, all_of_them) == ("0", "3")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize(("width", "display"), [(1400, "table-header-group"), (500, "none")])
def test_on_a_phone_the_rows_of_a_paper_s_table_are_cards(genexp, tmp_path, width, display):
    page, _ = read(genexp("report", "table=2", f"out={tmp_path}/table.html"))
    assert page
    seen = in_browser(
        tmp_path / "table.html",
        "const head = document.querySelector('.stacked thead'), wide = document.querySelector('.wide');"
        "document.title = [getComputedStyle(head).display, document.body.scrollWidth <= innerWidth,"
        " wide.scrollWidth <= wide.clientWidth].join(' ')",
        width,
    )
    assert seen == f"{display} true true"


@pytest.mark.slow
def test_a_long_log_makes_no_heavy_page(genexp, finished):
    run = finished(*VAE).run
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    lines = [last | {"step": step, "epoch": step // 100, "score/parzen": 1.0} for step in range(1000, 60_000, 2000)]
    lines += [last | {"step": step, "epoch": step // 100} for step in range(1, 60_001)]
    lines = sorted(lines, key=lambda line: line["step"])
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, _ = read(genexp("report", str(run)))
    assert len(page) < 3_000_000


@pytest.mark.slow
def test_curves_of_several_runs_are_laid_over_each_other(genexp):
    assert genexp("train", "-m", *VAE, "seed=0,1", "optimizer.lr=1e-3,1e-4").code == 0
    answer = genexp("figure", "outputs/digits/*", "kind=curves")
    assert answer.code == 0, answer.err
    assert "figure: outputs/digits/curves.svg" in answer.out
    assert "A line is the mean over seeds" in answer.out
    drawn = Path("outputs/digits/curves.svg").read_text()
    assert list(Path("outputs/digits").glob("*/figures")) == []
    assert Path("outputs/digits/curves.png").exists()
    assert drawn.startswith("<?xml")
    assert genexp("figure", "outputs/digits/*", "kind=curves", "out=both.svg").code == 0
    assert Path("both.svg").exists()
    wrong = genexp("figure", "outputs/digits/*", "kind=curves", "out=both.npz")
    assert (wrong.code, "FILE.svg" in wrong.err) == (2, True)
