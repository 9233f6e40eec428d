"""Tables in terminals of any width, and cells that would break a table."""

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import ROOT

from genexp import layout
from genexp.layout import lines_of, wrapped
from genexp.rundirs.directory import Run
from genexp.score import Score
from genexp.sweeps import board
from genexp.sweeps.jobs import FINISHED, Job
from genexp.tables import Column, Document, Table, render

KEPT = ROOT / "tests/kept/vae-adam-seed0-88c605f2"


def job(seed: int) -> Job:
    settings = (f"seed={seed}", "model.hidden=[1200,1200]", f"optimizer.lr=0.00{seed}")
    made = Job(settings, Run(Path(f"outputs/digits/vae-adam-masking-seed{seed}-88c605f{seed}")))
    made.state = FINISHED
    score = Score(-123.4 - seed, 0.5, "")
    made.results = type(
        "Results", (), {"epochs": 100, "train_seconds": 61.0, "scores": {"parzen": score}, "remarks": []}
    )()
    return made


@pytest.mark.parametrize("width", [*range(50, 130, 5), None])
def test_the_closing_table_of_a_sweep_fits_and_names_each_run(width):
    jobs = [job(seed) for seed in range(3)]
    (table,) = board.ranking(jobs, None, {"model.hidden=[1200,1200]"}).tables
    lines = lines_of(table, width)
    assert width is None or max(map(len, lines)) <= width, "\n".join(lines)
    rows = [line.split() for line in lines if line.strip().startswith(("1 ", "2 ", "3 "))]
    assert len(rows) == 3
    for seed, row in enumerate(rows):
        whole = f"vae-adam-masking-seed{seed}-88c605f{seed}"
        assert row[-1] in (f"88c605f{seed}", whole), "the run is never left out, and is what run= takes"
        assert width is not None or row[-1] == whole
        if "–" not in " ".join(row):
            assert f"{-123.4 - seed:.2f}" in row or "parzen" in lines[-2], "a number is whole or left out"


def test_columns_are_shortened_and_then_left_out_from_the_last_to_the_first():
    columns = [
        Column("name", lambda row: row[0], left=True, cut="end"),
        Column("n", lambda row: row[1]),
        Column("empty", lambda row: ""),
        Column("m", lambda row: row[2]),
        Column("words", lambda row: row[3], left=True, cut="start"),
        Column("run", lambda row: "a/long/path/" + row[0], left=True, brief=lambda row: row[1]),
    ]
    table = Table(
        columns, [("a name of many letters", "1234567890", "0987654321", "words of which the end tells more")]
    )
    whole = lines_of(table, None)
    assert "not shown" not in "\n".join(whole)
    needed = max(map(len, whole))
    assert lines_of(table, needed) == whole
    briefer = lines_of(table, needed - 1)[3]
    assert briefer.endswith("  1234567890")
    assert "words of which the end tells more" in briefer
    shorter = lines_of(table, 84)[3]
    assert "… end tells more" in shorter.replace("…the end", "… end")
    assert "a name of many letters" in shorter, "the last column is shortened first"
    one_out = "\n".join(lines_of(table, 76))
    assert "not shown in 76 columns: empty" in one_out, "an empty column tells nothing"
    several = "\n".join(lines_of(table, 56))
    assert "not shown in 56 columns: empty, words" in several
    assert "1234567890  0987654321" in several
    fewest = "\n".join(lines_of(table, 30))
    assert "not shown in 30 columns: n, empty, m, words" in " ".join(fewest.split())
    assert "a name of many …" not in fewest
    assert "a name of many" in fewest


def test_wide_letters_are_measured_as_the_terminal_shows_them():
    table = Table(
        [Column("名", lambda row: row, cut="end"), Column("b", lambda row: "x", left=True)], ["数" * 20, "ab"]
    )
    for line in lines_of(table, 24):
        assert sum(2 if ord(letter) > 0x2FFF else 1 for letter in line) <= 24, line


def test_a_note_is_broken_between_words_only():
    path = "outputs/" + "long-name-" * 12
    lines = wrapped(f"it is in {path} and nowhere else", 60)
    assert path in lines


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_a_cell_of_several_lines_is_one_row(form):
    columns = [Column("a", lambda row: row), Column("b", lambda row: "x\n\ny | z")]
    text = render(Document("D", [Table(columns, ["first\nsecond\r\nthird"], "T\nT")], ["note\n# no heading"]), form)
    (row,) = [line for line in text.splitlines() if "first" in line]
    assert "first second third" in row
    assert "x y" in row
    assert "# no heading" not in text.splitlines()
    assert form != "markdown" or row == "| first second third | x y \\| z |"


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.slow
def test_genexp_runs_fits_a_real_terminal(tmp_path, width):
    for seed in range(2):
        shutil.copytree(KEPT, tmp_path / f"outputs/digits/vae-adam-with-a-long-name-seed{seed}-0000000{seed}")
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    surroundings = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "genexp", "runs"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=child, stderr=child, env=surroundings)
    os.close(child)
    text = b""
    try:
        while part := os.read(parent, 4096):
            text += part
    except OSError:  # the end
        pass
    assert process.wait(60) == 0, text
    lines = text.decode().splitlines()
    assert max(map(len, lines)) <= width, text.decode()
    rows = [line for line in lines if line.startswith(" finished")]
    assert [row.split()[-1] for row in rows] == ["00000000", "00000001"]


def test_a_pipe_gets_whole_lines(genexp, tmp_path):
    run = tmp_path / f"outputs/digits/{'a-long-name-' * 12}-seed0-00000000"
    shutil.copytree(KEPT, run)
    assert str(run.relative_to(tmp_path)) in genexp("runs").out
    assert layout.terminal_width() is None
