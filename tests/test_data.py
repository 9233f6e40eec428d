"""The data sets: their splits, and what is said when files are missing or damaged."""

import shutil
import subprocess
import sys
import time

import filelock
import pytest
import torch

from genexp.data.digits import digits
from genexp.data.mnist import MD5, mnist


def test_digits_splits_are_whole_and_fixed(tmp_path):
    from sklearn.datasets import load_digits

    data = digits(tmp_path)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [1197, 300, 300]
    everything = torch.cat([data.train, data.valid, data.test]).flatten(1)
    original = torch.as_tensor(load_digits().data).to(torch.uint8)
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, original.tolist()))
    assert torch.equal(data.train, digits(tmp_path).train)
    assert data.images("train").max() == 1
    assert {len(labels) for labels in data.labels.values()} == {1197, 300}


def test_mnist_splits_are_the_papers(mnist_dir):
    data = mnist(mnist_dir)
    assert [tuple(split.shape) for split in (data.train, data.valid, data.test)] == [
        (50_000, 1, 28, 28), (10_000, 1, 28, 28), (10_000, 1, 28, 28),
    ]  # fmt: skip
    raw = (mnist_dir / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    image = torch.frombuffer(bytearray(raw[16 + 50_000 * 784 : 16 + 50_001 * 784]), dtype=torch.uint8)
    assert torch.equal(data.valid[0].flatten(), image)
    assert data.labels["train"][:5].tolist() == [5, 0, 4, 1, 9]
    assert data.images("train", slice(0, 1)).dtype == torch.float32
    assert data.spec().pixel_mean.mean() == pytest.approx(0.1307, abs=1e-3)  # the well-known mean of MNIST


def copy(mnist_dir, place):
    raw = place / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name in MD5:
        shutil.copy(mnist_dir / "MNIST" / "raw" / name, raw / name)
        (raw / name).chmod(0o644)
    return raw


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_file_is_named_with_the_remedy(genexp, mnist_dir, tmp_path, damage):
    file = copy(mnist_dir, tmp_path / "data") / "t10k-images-idx3-ubyte"
    content = file.read_bytes()
    changed = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
    file.write_bytes({"truncated": content[:-1], "changed": changed, "empty": b""}[damage])
    answer = genexp("train", "data_dir=data")
    assert answer.code == 1
    assert "t10k-images-idx3-ubyte is damaged" in answer.err
    assert "put a good copy in its place" in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "outputs").exists()


def test_a_missing_file_without_network_is_named_with_the_remedy(genexp, mnist_dir, tmp_path, monkeypatch):
    (copy(mnist_dir, tmp_path / "data") / "train-labels-idx1-ubyte").unlink()
    from torchvision.datasets import MNIST

    def no_network(self):
        raise RuntimeError("Error downloading train-labels-idx1-ubyte.gz: Name or service not known")

    monkeypatch.setattr(MNIST, "download", no_network)
    answer = genexp("train", "data_dir=data")
    assert answer.code == 1
    assert "train-labels-idx1-ubyte is missing from data/MNIST/raw" in answer.err
    assert "Put the four uncompressed files" in answer.err
    assert len(answer.err.strip().splitlines()) <= 3
    assert not (tmp_path / "outputs").exists()


def test_a_second_process_waits_for_the_first_and_then_reads(mnist_dir, tmp_path):
    """The first is played by this test: it holds the lock, and puts the files there before it lets go."""
    place = tmp_path / "data"
    place.mkdir()
    program = (
        "from pathlib import Path; from genexp.data.mnist import mnist\n"
        f"print(len(mnist(Path({str(place)!r})).train), flush=True)"
    )
    with filelock.FileLock(place / ".mnist.lock"):
        second = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "waiting for another process" in second.stdout.readline()
        time.sleep(0.5)
        assert second.poll() is None
        copy(mnist_dir, place)
    assert second.stdout.read().strip() == "50000"
    assert second.wait() == 0


def test_a_torchvision_of_another_release_is_explained(genexp, mnist_dir, monkeypatch):
    """What an older CPU-only torch beside the index's torchvision does at import."""
    import builtins

    original = builtins.__import__

    def broken(name, *arguments, **keywords):
        if name.startswith("torchvision"):
            raise RuntimeError("operator torchvision::nms does not exist")
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", broken)
    answer = genexp("train", f"data_dir={mnist_dir}")
    assert answer.code == 1
    assert "torchvision does not import beside torch" in answer.err
    assert "pip install --upgrade" in answer.err
