"""Checkpoints: whole or not at all, and never executed."""

import pytest
import torch

from genexp.errors import GenexpError
from genexp.storage import checkpoint


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
