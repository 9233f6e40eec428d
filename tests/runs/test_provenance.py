"""The provenance that is kept beside a result."""

import subprocess

import torch

from genexp import optimizers
from genexp.runs import provenance

CPU = torch.device("cpu")
SGD = {"lr_decay": 1.0, "lr_min": 0.0, "momentum_final": None, "momentum_ramp": [1, 250], "nesterov": False}
RATE = {"lr": 0.01, "lr_decay": 1.0, "lr_min": 0.0, "weight_decay": 0.1}
REFERENCES = {  # ours, and torch's with the same settings by its own names
    "sgd": (
        lambda p: optimizers.sgd(p, **RATE, momentum=0.5, nesterov=False, momentum_final=None, momentum_ramp=[1, 2]),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, weight_decay=0.1),
    ),
    "nesterov": (
        lambda p: optimizers.sgd(p, **RATE, momentum=0.5, nesterov=True, momentum_final=None, momentum_ramp=[1, 2]),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, nesterov=True, weight_decay=0.1),
    ),
    "adam": (
        lambda p: optimizers.adam(p, **RATE, beta1=0.5, beta2=0.99, eps=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.99), eps=1e-3, weight_decay=0.1),
    ),
    "rmsprop": (
        lambda p: optimizers.rmsprop(p, **RATE, alpha=0.9, momentum=0.1, eps=1e-3),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.1, eps=1e-3, weight_decay=0.1),
    ),
    "adadelta": (
        lambda p: optimizers.adadelta(p, **RATE, rho=0.7, eps=1e-3),
        lambda p: torch.optim.Adadelta(p, lr=0.01, rho=0.7, eps=1e-3, weight_decay=0.1),
    ),
}


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
