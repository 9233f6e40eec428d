"""Checkpoints: whole or not at all, and never executed."""

import pytest
import torch

from genexp import optimizers
from genexp.errors import GenexpError
from genexp.storage import checkpoint

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


def test_checkpoints_keep_two_and_pass_over_a_damaged_one(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step, "weights": torch.ones(1000)})
    newest, older = checkpoint.checkpoints(tmp_path)
    assert [newest.name, older.name] == ["step-000000003.pt", "step-000000002.pt"]
    newest.write_bytes(newest.read_bytes()[:-600])
    warnings = []
    _, state = checkpoint.load_latest(tmp_path, warnings.append)
    assert state["step"] == 2
    assert newest.name in warnings[0]
    checkpoint.save(tmp_path, 2, state)  # gone back behind the damaged one, which goes
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000000002.pt"]


def test_a_checkpoint_that_is_taken_away_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    read = checkpoint.load

    def meanwhile(path):
        if path.name == "step-000000002.pt":
            path.rename(tmp_path / "step-000000003.pt")
        return read(path)

    monkeypatch.setattr(checkpoint, "load", meanwhile)
    assert checkpoint.load_latest(tmp_path, pytest.fail)[1] == {"step": 2}


def test_checkpoints_never_execute_what_they_hold(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('executed')",))

    torch.save({"step": Bomb()}, tmp_path / "step-000000001.pt", pickle_module=pickle)
    warnings = []
    with pytest.raises(GenexpError, match="fresh=true"):
        checkpoint.load_latest(tmp_path, warnings.append)
    assert len(warnings) == 1
    assert checkpoint.load_latest(tmp_path / "none", warnings.append) is None


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "status.json"
    file.write_text("old")

    def write_half():
        with checkpoint.atomic(file) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("status.json", "old")]
