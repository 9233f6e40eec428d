"""The provenance that is kept beside a result."""

import subprocess

from genexp.rundirs import provenance


def test_a_patch_holds_the_code_that_differs_and_no_data(tmp_path, monkeypatch):
    """In a checkout of its own: a change, a new module and a folder of pictures that nobody told git of."""
    package = tmp_path / "genexp"
    package.mkdir()
    (package / "__init__.py").write_text("first = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance.genexp, "__file__", str(package / "__init__.py"))
    provenance.checkout.cache_clear()
    clean = provenance.checkout()
    assert (len(clean.commit), clean.patch) == (40, b"")
    (package / "__init__.py").write_text("first = 2\n")
    (package / "mine.py").write_text("second = 3\n")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(bytes(1000))
    assert provenance.checkout() == clean  # what changes later is not what runs
    provenance.checkout.cache_clear()
    provenance.keep_patch(tmp_path / "run")
    provenance.checkout.cache_clear()
    (kept,) = (tmp_path / "run").iterdir()
    assert "photos" not in kept.read_text()
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(tmp_path), str(other)], check=True)
    subprocess.run(["git", "-C", str(other), "apply", str(kept)], check=True)
    assert (other / "genexp" / "__init__.py").read_text() == "first = 2\n"
    assert (other / "genexp" / "mine.py").read_text() == "second = 3\n"
