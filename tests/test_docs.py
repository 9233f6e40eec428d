"""Every page: its links lead somewhere, its commands compose."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from images import write

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
VAE = ("model=vae", "dataset=digits", "epochs=1", "metrics.parzen.n_samples=100", "~metrics.elbo")
ELSEWHERE = ("-m", "hydra/launcher", "search=")  # sweeps and searches, whose jobs are composed by tests of their own


def commands(page):
    """Return the commands of the page's blocks and lines of code, as words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose)]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("genexp ")]


def test_there_is_something_to_test():
    assert sum(len(commands(page)) for page in PAGES) > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], target


@pytest.mark.slow(10)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_compose(genexp, finished, tmp_path, page):
    """A command stands for a run with PATH, for images with FOLDER and FILE.npz; what it would do is not done."""
    run = finished(*VAE).run
    for name in ("FOLDER", "photos", "summer", "winter"):
        for number in range(3):
            write(tmp_path / name / f"{number}.png", np.full((16, 16), 80 * number, np.uint8))
    np.savez(tmp_path / "FILE.npz", samples=np.zeros((4, 1, 8, 8)))
    for words in commands(page):
        given = [re.sub(r"\bPATH(\|GLOB\|FOLDER)?$", str(run), word) for word in words[1:]]
        if "…" in " ".join(given) or given[0].isupper() or any(word.startswith(ELSEWHERE) for word in given):
            continue
        given = [word for word in given if not word.startswith(("--config-dir", "conf", "trust="))]
        if given == ["--help"] or "model=constant" in given or given[1:] == ["--help"]:
            continue
        answer = genexp(*given, *([] if "--cfg" in given else ["--cfg", "job"]))
        assert answer.code == 0, f"{' '.join(words)}\n{answer.err}"
