"""The server of a sweep's processes: what it imports before its first job starts, and what behind that."""

import os
import subprocess
import sys

from conftest import ROOT

from genexp.sweeps import slots

SERVER = """
import os, sys, time
import genexp.sweeps.jobserver

def in_a_fork():
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.write(theirs, b"1" if sys.modules.get("slow") and sys.modules["slow"].done else b"0")
        os._exit(0)
    return os.read(ours, 1).decode()

assert "slow" not in sys.modules
assert os.environ.get(sys.argv[1]) is None
begun = time.monotonic()
first = in_a_fork()
waited = time.monotonic() - begun
print(first, waited < 1, in_a_fork(), in_a_fork())
"""


def test_the_first_fork_waits_for_no_import_and_later_ones_have_all(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2)\ndone = True\n")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", slots.REST: "missing slow"}
    answer = subprocess.run(
        [sys.executable, "-c", SERVER, slots.REST], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.stdout.split() == ["0", "True", "1", "1"], answer.stderr
