"""What a person sees on a terminal while a command works, in a pseudo-terminal; and what a pipe gets of it: nothing."""

import os
import re
import select
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SMALL

pty = pytest.importorskip("pty")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_a_terminal(columns: int, *arguments: str, seconds: float = 120) -> tuple[str, int]:
    """Run Python with these arguments on a terminal so wide; return all that it printed, and its exit code."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns)) if hasattr(termios, "tcsetwinsize") else fcntl.ioctl(
        slave, termios.TIOCSWINSZ, bytes([24, 0, columns, 0, 0, 0, 0, 0])
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    printed, end = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                content = os.read(master, 65536)
                if not content:
                    break
                printed += content
            elif process.poll() is not None:
                break
    except OSError:  # how Linux says that the terminal has no process any more
        pass
    finally:
        process.kill() if process.poll() is None and time.monotonic() >= end else None
        os.close(master)
    return printed.decode(), process.wait(10)


def lines_of(printed: str) -> list[str]:
    """Return what was shown, line by line; a line that was overwritten is there in each of its forms."""
    return [line for line in re.split(r"[\r\n]+", CODES.sub("", printed)) if line.strip()]


SLOW = """
import sys, time
from genexp import alive
alive.PATIENCE, alive.REFRESH = map(float, sys.argv[1:])
with alive.watched():
    print("begun")
    with alive.doing("k-means of " + "many " * 30 + "images"):
        time.sleep(1.5 * alive.PATIENCE)
    time.sleep(1.5 * alive.REFRESH)
    print("done", flush=True)
    print("half a line", end="", flush=True)
    time.sleep(1.5 * alive.PATIENCE)
    print(", the other half", flush=True)
    time.sleep(1.5 * alive.PATIENCE)
    print("an error", file=sys.stderr)
"""


@pytest.mark.parametrize("columns", [60, 120])
@pytest.mark.slow
def test_a_terminal_shows_what_takes_long_and_forgets_it(columns):
    printed, code = on_a_terminal(columns, "-c", SLOW, "1.0", "0.2")
    assert code == 0
    shown = lines_of(printed)
    signs = [line for line in shown if re.search(r" \.\.\. \d:\d\d$", line)]
    assert signs[0].startswith("k-means of many many")
    assert "working ... 0:01" in signs
    assert all(len(line) < columns for line in signs)
    assert [line for line in shown if line not in signs] == ["begun", "done", "half a line, the other half", "an error"]
    after = printed.split("0:01")[-1]
    assert after.startswith("\x1b[2K", after.index("\r") + 1)  # erased before what is printed next


@pytest.mark.slow
def test_a_pipe_gets_nothing_of_it():
    done = subprocess.run(
        [sys.executable, "-c", SLOW, "0.2", "0.05"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["begun", "done", "half a line, the other half"]
    assert done.stderr == "an error\n"


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.slow
def test_training_on_a_terminal_shows_a_bar_of_one_line(columns, tmp_path):
    words = ["train", *SMALL, "epochs=8", f"outputs_dir={tmp_path}"]
    printed, code = on_a_terminal(columns, "-m", "genexp", *words)
    assert code == 0, printed
    shown = lines_of(printed)
    bars = [line for line in shown if "━" in line]
    assert bars
    assert all(len(line) < columns for line in bars)
    last = bars[-1]
    assert last.startswith("epoch 8/8")
    for said in ("0:00 left", "im", "loss" if columns == 60 else "discriminator"):
        assert said in last
    assert re.search(r"\dk? (images|img)/s", last)
    assert any(line.startswith("parzen: ") for line in shown)


@pytest.mark.slow
def test_checking_many_jobs_shows_how_far_it_is(tmp_path):
    program = (
        "import sys, time\nfrom genexp import alive, cli\nfrom genexp.sweeps import sweep\nalive.PATIENCE = 0.0\n"
        "alive.REFRESH = 0.01\noriginal = sweep.Job.of\n"
        "sweep.Job.of = lambda *given: (time.sleep(0.03), original(*given))[1]\n"
        "sweep.get_ready = lambda jobs: None\n"
        "seeds = ','.join(map(str, [*range(60), -1]))\n"
        f"sys.argv = ['genexp', 'train', '-m', 'dataset=digits', f'seed={{seeds}}', 'outputs_dir={tmp_path}']\n"
        "sys.exit(cli.main())"
    )
    printed, code = on_a_terminal(80, "-c", program)
    assert code == 2, printed
    assert re.search(r"checking job \d+ of 61 \.\.\. 0:0\d", CODES.sub("", printed))
