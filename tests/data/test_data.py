"""The data sets: their splits, and what is said when files are missing or damaged."""

import hashlib
import io
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from images import plain, write
from omegaconf import OmegaConf
from PIL import Image

from genexp.config.schema import CONFIGS
from genexp.data import cifar10, folder, mixtures, tfd
from genexp.data import decoding as decoder
from genexp.data.digits import digits
from genexp.data.mnist import FILES, fashion_mnist, mnist
from genexp.data.remarks import mistake
from genexp.errors import DataError, UsageError

SPLITS = ("train", "valid", "test")


def shipped(name, **changed):
    """The settings of a data set's YAML, with some changed."""
    settings = OmegaConf.to_container(OmegaConf.load(CONFIGS / "dataset" / f"{name}.yaml"))
    others = ("name", "_target_", "defaults")  # defaults choose the scores
    return {key: value for key, value in settings.items() if key not in others} | changed


def shapes(data):
    return [tuple(getattr(data, split).shape) for split in SPLITS]


def message(error, *parts):
    """The text of an error for people: its parts, in three lines at most."""
    text = str(error.value)
    assert len(text.splitlines()) <= 3, text
    for part in parts:
        assert part in text, text
    return text


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


@pytest.mark.slow
def test_mnist_splits_are_the_papers(mnist_dir):
    data = mnist(mnist_dir)
    assert [tuple(split.shape) for split in (data.train, data.valid, data.test)] == [
        (50_000, 1, 28, 28), (10_000, 1, 28, 28), (10_000, 1, 28, 28),
    ]  # fmt: skip
    more = mnist(mnist_dir, train_on_valid=True)
    assert torch.equal(more.train[50_000:], data.valid)
    assert torch.equal(more.valid, data.valid)
    raw = (mnist_dir / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    image = torch.frombuffer(bytearray(raw[16 + 50_000 * 784 : 16 + 50_001 * 784]), dtype=torch.uint8)
    assert torch.equal(data.valid[0].flatten(), image)
    assert data.labels["train"][:5].tolist() == [5, 0, 4, 1, 9]
    assert data.images("train", slice(0, 1)).dtype == torch.float32
    assert data.spec().pixel_mean.mean() == pytest.approx(0.1307, abs=1e-3)  # the well-known mean of MNIST


def copy(mnist_dir, place):
    raw = place / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name in FILES:
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


@pytest.mark.slow
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
    assert mnist(mnist_dir).classes == tuple("0123456789")  # files that are there need no torchvision
    answer = genexp("train", "data_dir=elsewhere")
    assert answer.code == 1
    assert "torchvision does not import beside torch" in answer.err
    assert "pip install --upgrade" in answer.err


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("")
    for load, title in ((mnist, "MNIST"), (fashion_mnist, "Fashion-MNIST")):
        with pytest.raises(DataError) as error:
            load(tmp_path / "data")
        message(error, f"{title} is not in", "cannot be downloaded there", "Set data_dir=FOLDER")


# Fashion-MNIST


@pytest.fixture
def fashion_dir(tmp_path):
    """Files of the true format and size, zero (and so taking no room on the disk) but for a few values."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, (shape, _) in FILES.items():
        header = struct.pack(f">{2 + len(shape) - 1}i", 0x0800 + len(shape), *shape)
        with (raw / name).open("wb") as stream:
            stream.write(header)
            stream.truncate(len(header) + math.prod(shape))
    for name, place, value in (
        ("train-images-idx3-ubyte", 16 + 49_999 * 784 + 3 * 28 + 5, 200),
        ("train-images-idx3-ubyte", 16 + 50_000 * 784 + 7, 201),
        ("t10k-images-idx3-ubyte", 16 + 10_000 * 784 - 1, 202),
        ("train-labels-idx1-ubyte", 8 + 49_999, 7),
        ("train-labels-idx1-ubyte", 8 + 50_000, 8),
        ("t10k-labels-idx1-ubyte", 8, 9),
    ):
        with (raw / name).open("r+b") as stream:
            stream.seek(place)
            stream.write(bytes([value]))
    return tmp_path


def test_fashion_mnist_splits(fashion_dir):
    data = fashion_mnist(fashion_dir)
    assert shapes(data) == [(50_000, 1, 28, 28), (10_000, 1, 28, 28), (10_000, 1, 28, 28)]
    assert data.train[-1, 0, 3, 5] == 200
    assert data.valid[0, 0, 0, 7] == 201
    assert data.test[-1, 0, 27, 27] == 202
    assert [int(data.labels["train"][-1]), int(data.labels["valid"][0]), int(data.labels["test"][0])] == [7, 8, 9]
    assert {split: len(labels) for split, labels in data.labels.items()} == {
        "train": 50_000, "valid": 10_000, "test": 10_000,
    }  # fmt: skip
    assert data.white == 255
    assert (data.labels["test"].dtype, data.train.dtype) == (torch.int64, torch.uint8)


@pytest.mark.slow
def test_both_mnists_are_read_as_torchvision_reads_them(fashion_dir, mnist_dir):
    from torchvision.datasets import MNIST, FashionMNIST

    for data, reader, place in (
        (mnist(mnist_dir), MNIST, mnist_dir),
        (fashion_mnist(fashion_dir), FashionMNIST, fashion_dir),
    ):
        train, test = reader(place, train=True), reader(place, train=False)
        assert torch.equal(torch.cat([data.train, data.valid])[:, 0], train.data)
        assert torch.equal(torch.cat([data.labels["train"], data.labels["valid"]]), train.targets)
        assert torch.equal(data.test[:, 0], test.data)
        assert torch.equal(data.labels["test"], test.targets)
        assert [name.partition(" - ")[0] for name in train.classes] == list(data.classes)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["shorter", "longer", "header"])
def test_a_damaged_file_of_fashion_mnist_is_named(fashion_dir, name, damage):
    file = fashion_dir / "FashionMNIST" / "raw" / name
    with file.open("r+b") as stream:
        if damage == "header":
            stream.seek(6)
            stream.write(b"\x01")
        else:
            stream.truncate(file.stat().st_size + {"shorter": -1, "longer": 1}[damage])
    with pytest.raises(DataError) as error:
        fashion_mnist(fashion_dir)
    said = {"header": "that begin with 0000080"}.get(damage, "where there should be")
    message(error, f"Fashion-MNIST: {file} is damaged", said, "put a good copy")


def test_fashion_mnist_that_cannot_be_downloaded(fashion_dir, monkeypatch):
    (fashion_dir / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    from torchvision.datasets import MNIST, FashionMNIST

    asked = []

    def no_network(self):
        asked.append(type(self))
        raise EOFError

    monkeypatch.setattr(MNIST, "download", no_network)
    with pytest.raises(DataError) as error:
        fashion_mnist(fashion_dir)
    message(error, "Fashion-MNIST: t10k-labels-idx1-ubyte is missing", "the download failed: EOFError")
    message(error, "the four uncompressed files", "the folder that holds FashionMNIST/raw")
    assert asked == [FashionMNIST]


# CIFAR-10


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Six files of the true format with ten images each, and their pixels and labels by batch."""
    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    pixels = {name: random.integers(0, 256, (10, 3072), dtype=np.uint8) for name in names}
    labels = {name: random.integers(0, 10, 10).tolist() for name in names}

    def write(name, content):
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((place / name).read_bytes()).hexdigest()

    lists = [[name, write(name, {"data": pixels[name], "labels": labels[name]})] for name in names]
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", lists[:5])
    monkeypatch.setattr(CIFAR10, "test_list", lists[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    monkeypatch.setattr(cifar10, "TRAINING_IMAGES", 40)
    return tmp_path, pixels, labels


def test_cifar10_splits_and_channels(cifar):
    place, pixels, labels = cifar
    data = cifar10.cifar10(place, **shipped("cifar10"))
    assert shapes(data) == [(40, 3, 32, 32), (10, 3, 32, 32), (10, 3, 32, 32)]
    for split, first, name in (("train", 0, "data_batch_1"), ("train", 30, "data_batch_4"),
                               ("valid", 0, "data_batch_5"), ("test", 0, "test_batch")):  # fmt: skip
        images = getattr(data, split)[first : first + 10]
        assert torch.equal(images, torch.from_numpy(pixels[name]).view(10, 3, 32, 32)), name
        assert data.labels[split][first : first + 10].tolist() == labels[name]
    assert data.train[3, 2, 4, 5] == pixels["data_batch_1"][3, 2 * 1024 + 4 * 32 + 5]  # blue is the third plane
    assert data.train.is_contiguous()
    assert {labels.dtype for labels in data.labels.values()} == {torch.int64}


def test_cifar10_is_cut_where_the_recipe_cuts_it():
    assert cifar10.TRAINING_IMAGES == 40_000
    assert shipped("cifar10") == {"normalization": "none", "flip": False}


def by_formula(pixels):
    """The definition, in float64: uint8 (n, 3072) to values in [0, 255], not rounded."""
    centred = pixels.astype(np.float64) - pixels.astype(np.float64).mean(1, keepdims=True)
    v = 55 * centred / np.sqrt((centred**2).sum(1, keepdims=True))
    return 255 * np.clip(0.5 + v / 8, 0, 1)


@pytest.mark.parametrize("chunk", [5000, 7])
def test_contrast_normalisation_is_its_formula(cifar, monkeypatch, chunk):
    place, pixels, _ = cifar
    monkeypatch.setattr(cifar10, "CHUNK", chunk)
    data = cifar10.cifar10(place, normalization="gcn")
    expected = by_formula(np.concatenate([pixels[f"data_batch_{number}"] for number in range(1, 5)]))
    assert data.train.dtype == torch.uint8
    assert np.abs(data.train.flatten(1).numpy() - expected).max() < 0.501
    assert np.abs(data.valid.flatten(1).numpy() - by_formula(pixels["data_batch_5"])).max() < 0.501
    assert np.abs(data.test.flatten(1).numpy() - by_formula(pixels["test_batch"])).max() < 0.501
    v = 8 * (data.images("train").flatten(1) - 0.5)
    assert v.norm(dim=1).sub(55).abs().max() < 0.05
    assert v.mean(1).abs().max() < 5e-3


def test_contrast_normalisation_at_its_limits():
    images = torch.full((4, 3, 32, 32), 77, dtype=torch.uint8)
    images[1, 0, 0, 0] = 78  # one step of contrast, all of it in one value: clipped there, and nearly grey elsewhere
    images[2, :, :16], images[2, :, 16:] = 0, 255  # ±0.992 everywhere
    images[3] = 251
    result = cifar10.contrast_normalized(images)
    assert torch.equal(result[0], torch.full((3, 32, 32), 128, dtype=torch.uint8))
    assert torch.equal(result[3], result[0])
    assert result[1, 0, 0, 0] == 255
    assert result[1].flatten()[1:].unique().tolist() == [127]  # v = −0.018
    assert result[2].unique().tolist() == [96, 159]  # 255·(0.5 ∓ 0.9923/8)


def test_a_damaged_batch_is_named_and_not_unpickled(cifar):
    place = cifar[0]

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(place / "attacked"),)

    file = place / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError) as error:
        cifar10.cifar10(place, normalization="none")
    message(error, f"CIFAR-10: {file} is damaged", "which should be", "Delete it to have it downloaded again")
    assert not (place / "attacked").exists()


def test_cifar10_that_cannot_be_downloaded(cifar, monkeypatch):
    from torchvision.datasets import CIFAR10

    def no_network(self):
        raise RuntimeError("Error downloading\nName or service not known")

    place = cifar[0]
    monkeypatch.setattr(CIFAR10, "download", no_network)
    (place / "cifar-10-batches-py" / "batches.meta").unlink()
    with pytest.raises(DataError) as error:
        cifar10.cifar10(place, normalization="none")
    message(error, "CIFAR-10: batches.meta is missing from", "Name or service not known")
    message(error, "the files of cifar-10-python.tar.gz", "the folder that holds cifar-10-batches-py")


def test_cifar10_is_downloaded_where_it_is_read(cifar, monkeypatch):
    from torchvision.datasets import CIFAR10

    place, pixels, _ = cifar
    whole = place / "cifar-10-batches-py"
    kept = whole.rename(place / "elsewhere")
    monkeypatch.setattr(CIFAR10, "download", lambda self: shutil.copytree(kept, Path(self.root, self.base_folder),
                                                                          dirs_exist_ok=True))  # fmt: skip
    data = cifar10.cifar10(place, normalization="none")
    assert torch.equal(data.test.flatten(1), torch.from_numpy(pixels["test_batch"]))


# Toronto Face Database


def faces():
    """Twelve faces: six without a label, and six whose part in the folds moves on by one each fold."""
    random = np.random.default_rng(0)
    folds = np.zeros((12, 5), dtype=np.uint8)
    folds[6:] = [[1 + (row + fold) % 3 for fold in range(5)] for row in range(6)]
    labels = np.full((12, 1), -1, dtype=np.int16)
    labels[6:, 0] = [1, 2, 3, 4, 7, 7]
    images = random.integers(0, 256, (12, 48, 48), dtype=np.uint8)
    return {"images": images, "labs_ex": labels, "labs_id": labels, "folds": folds}


def save_faces(file, content):
    from scipy.io import savemat

    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, content)


@pytest.mark.parametrize("fold", [1, 2, 5])
def test_tfd_splits(tmp_path, fold):
    content = faces()
    save_faces(tmp_path / "TFD" / "TFD_48x48.mat", content)
    data = tfd.tfd(tmp_path, **shipped("tfd", fold=fold))
    assert torch.equal(data.train.squeeze(1), torch.from_numpy(content["images"][:6]))
    for split, code in (("valid", 2), ("test", 3)):
        rows = [6 + row for row in range(6) if 1 + (row + fold - 1) % 3 == code]
        assert torch.equal(getattr(data, split), torch.from_numpy(content["images"][rows]).unsqueeze(1))
        assert data.labels[split].tolist() == (content["labs_ex"][rows, 0] - 1).tolist()
    assert shapes(data) == [(6, 1, 48, 48), (2, 1, 48, 48), (2, 1, 48, 48)]
    assert data.labels["train"].tolist() == [-1] * 6
    assert data.labels["train"].dtype == torch.int64


def test_tfd_elsewhere_and_with_labels_as_a_row(tmp_path):
    content = faces()
    content["labs_ex"] = content["labs_ex"].T.astype(np.float64)
    save_faces(tmp_path / "other.mat", content)
    data = tfd.tfd(tmp_path, path=str(tmp_path / "other.mat"), fold=1)
    assert data.labels["valid"].tolist() == [1, 6]


def test_tfd_is_asked_for_and_never_downloaded(tmp_path):
    with pytest.raises(DataError) as error:
        tfd.tfd(tmp_path, path=None, fold=1)
    message(error, f"{tmp_path / 'TFD' / 'TFD_48x48.mat'} is missing", "on request", "put it there", "dataset.path")
    with pytest.raises(UsageError) as error:
        tfd.tfd(tmp_path, path="nowhere.mat", fold=1)
    message(error, "nowhere.mat is no file")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": None}, "no variable 'images'"),
        ({"labs_ex": None}, "no variable 'labs_ex'"),
        ({"folds": None}, "no variable 'folds'"),
        ({"images": faces()["images"][:, :24, :24]}, "'images' is 12×24×24 and should be 12×48×48"),
        ({"images": faces()["images"] / 255}, "'images' is float64 and should be uint8"),
        ({"images": np.zeros((0, 48, 48), np.uint8)}, "'images' is"),
        ({"labs_ex": np.ones((11, 1))}, "'labs_ex' is 11 and should be 12"),
        ({"labs_ex": np.array([["a"]] * 12, dtype=object)}, "'labs_ex' holds no numbers"),
        ({"folds": faces()["folds"][:, :4]}, "'folds' is 12×4 and should be 12×5"),
        ({"folds": faces()["folds"] + 1}, "'folds' holds other codes"),
        ({"folds": np.maximum(faces()["folds"], 1)}, "no image has the code 0 in fold 1 ('folds'), so train is empty"),
        ({"folds": np.minimum(faces()["folds"], 2)}, "no image has the code 3 in fold 1 ('folds'), so test is empty"),
        ({"folds": np.zeros((12, 5))}, "so valid is empty"),
    ],
)
def test_what_is_wrong_with_a_tfd_file_is_said(tmp_path, change, said):
    file = tmp_path / "TFD" / "TFD_48x48.mat"
    save_faces(file, {name: value for name, value in (faces() | change).items() if value is not None})
    with pytest.raises(DataError) as error:
        tfd.tfd(tmp_path, path=None, fold=1)
    message(error, f"{file} is damaged", said, "good copy")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "hdf5"])
def test_a_tfd_file_that_is_none(tmp_path, damage):
    file = tmp_path / "TFD" / "TFD_48x48.mat"
    save_faces(file, faces())
    whole = file.read_bytes()
    hdf5 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + whole[128:]
    file.write_bytes({"cut": whole[:5000], "empty": b"", "text": b"not found" * 100, "hdf5": hdf5}[damage])
    with pytest.raises(DataError) as error:
        tfd.tfd(tmp_path, path=None, fold=1)
    message(error, f"{file} is damaged", "cannot be read as a MATLAB file")


# Gaussians in the plane


def in_the_plane(data, split):
    """A split's points in the units of the mixture's definition."""
    return data.bounds.coordinates(getattr(data, split))


RING = [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)]
GRID = [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]


@pytest.mark.parametrize(
    ("name", "means", "std", "extent"), [("ring", RING, 0.01, 1.5), ("grid", GRID, 0.05, 6.0)], ids=["ring", "grid"]
)
def test_a_mixture_is_what_pacgan_draws_from(tmp_path, name, means, std, extent):
    data = getattr(mixtures, name)(tmp_path, **shipped(name))
    means = torch.tensor(means, dtype=torch.float64)
    modes = len(means)
    assert shapes(data) == [(100_000, 2), (10_000, 2), (10_000, 2)]
    assert (data.train.dtype, data.white) == (torch.float32, 1)
    assert data.bounds == mixtures.Bounds((pytest.approx(-extent),) * 2, (pytest.approx(extent),) * 2)
    assert torch.allclose(data.density.means, means, atol=1e-5)
    assert data.density.stds.tolist() == [pytest.approx(std)] * modes
    assert torch.pdist(means).min() > 0.7  # all of them distinct
    for split in SPLITS:
        assert getattr(data, split).min() > 0
        assert getattr(data, split).max() < 1
        points, labels = in_the_plane(data, split), data.labels[split]
        assert torch.equal(torch.cdist(points, means).argmin(1), labels)
        n = len(points)
        noise = (points - means[labels]) / std
        assert noise.mean(0).abs().max() < 5 / math.sqrt(n)
        assert (noise.T @ noise / n - torch.eye(2)).abs().max() < 5 * math.sqrt(2 / n)
        counts = torch.bincount(labels, minlength=modes)
        assert ((counts - n / modes).abs() < 5 * math.sqrt(n / modes)).all()
    assert (
        len(torch.cat([getattr(data, split) for split in SPLITS]).view(-1, 2).unique(dim=0)) > 119_000
    )  # not the same
    again = getattr(mixtures, name)(tmp_path, **shipped(name))
    assert torch.equal(again.train, data.train)


def test_a_mixture_of_other_sizes_stays_inside(tmp_path):
    for data in (
        mixtures.ring(tmp_path, n=300, radius=2.0, std=3.0),
        mixtures.grid(tmp_path, n=300, spacing=0.5, std=2.0),
    ):
        assert len(data.train) == 300
        assert len(data.test) == 10_000
        for split in SPLITS:
            assert getattr(data, split).min() >= 0
            assert getattr(data, split).max() <= 1
    wide = mixtures.ring(tmp_path, n=300, radius=2.0, std=0.01)
    assert in_the_plane(wide, "test").norm(dim=1).mean() == pytest.approx(2, abs=1e-3)
    near = mixtures.grid(tmp_path, n=300, spacing=0.5, std=0.01)
    assert in_the_plane(near, "test").max() == pytest.approx(1, abs=0.06)


# Folders of images


@pytest.fixture
def pictures(tmp_path):
    """Twenty grey images of 4×4, each of one value: 0, 10, 20, ..."""
    for index in range(20):
        write(tmp_path / "pictures" / f"{index:02d}.png", plain(10 * index))
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))


def load(place, data_dir, **changed):
    return folder.folder(data_dir, **shipped("folder", **({"path": str(place), "size": 4, "channels": 1} | changed)))


def values(data):
    """The values of images that have one each, by split."""
    return {split: getattr(data, split)[:, 0, 0, 0].tolist() for split in SPLITS}


def every(data):
    return [value for found in values(data).values() for value in found]


@pytest.fixture
def decoding(monkeypatch):
    """A list that grows with each image decoded."""
    calls, decode = [], decoder.decode

    def counted(*arguments):
        calls.append(arguments)
        return decode(*arguments)

    monkeypatch.setattr(decoder, "decode", counted)
    return calls


def decoded(content, size, channels, crop=None, **more):
    """The pixels of a file's bytes, as the settings of a folder ask for them."""
    return decoder.decode(content, decoder.Format(size, size, channels, None if crop is None else (crop, crop), **more))


def test_a_folder_is_split_by_one_permutation(pictures, tmp_path):
    data = load(pictures, tmp_path)
    assert shapes(data) == [(16, 1, 4, 4), (2, 1, 4, 4), (2, 1, 4, 4)]
    found = values(data)
    assert sorted(every(data)) == list(range(0, 200, 10))
    assert found["train"] != sorted(found["train"])
    assert data.labels["train"].tolist() == [-1] * 16
    assert (data.train.dtype, data.labels["train"].dtype, data.white) == (torch.uint8, torch.int64, 255)
    assert values(load(pictures, tmp_path / "elsewhere")) == found
    assert shapes(load(pictures, tmp_path, valid_share=0.25, test_share=0.5))[0][0] == 5
    assert shapes(load(pictures, tmp_path, valid_share=0.25, test_share=0.5))[1][0] == 5


def test_labels_are_the_subfolders(tmp_path):
    place = tmp_path / "pictures"
    for index in range(10):
        write(place / "zebra" / "deep" / f"{index}.png", plain(index))
        write(place / "ant" / f"{index}.PNG", plain(100 + index))
        write(place / f"{index}.bmp", plain(200 + index))
    write(place / ".hidden.png", plain(50))
    write(place / ".thumbnails" / "0.png", plain(51))
    (place / "ant" / "notes.txt").write_text("not an image")
    data = load(place, tmp_path)
    for split in SPLITS:
        for value, label in zip(values(data)[split], data.labels[split].tolist(), strict=True):
            assert label == {0: 1, 1: 0, 2: -1}[value // 100]
    assert sorted(every(data)) == sorted([*range(10), *range(100, 110), *range(200, 210)])


def test_given_splits_are_kept_and_share_their_labels(tmp_path, capsys):
    place = tmp_path / "pictures"
    for file, value in (("train/ant/0", 1), ("train/bee/0", 2), ("train/0", 3), ("valid/bee/0", 4), ("test/cow/0", 5),
                        ("elsewhere/0", 6), ("0", 7)):  # fmt: skip
        write(place / f"{file}.png", plain(value))
    data = load(place, tmp_path)
    assert values(data) == {"train": [3, 1, 2], "valid": [4], "test": [5]}
    assert {split: labels.tolist() for split, labels in data.labels.items()} == {
        "train": [-1, 0, 1], "valid": [1], "test": [2],
    }  # fmt: skip
    assert f"note: {place}: 2 images left out, outside of train, valid, test\n" in capsys.readouterr().out
    (place / "test" / "cow" / "0.png").unlink()
    with pytest.raises(DataError) as error:
        load(place, tmp_path)
    message(error, f"{place} has too few images", "3 train, 1 valid, 0 test", "subfolders train, valid, test")


def test_links_are_followed_and_loops_are_not(pictures, tmp_path):
    place = tmp_path / "linked"
    place.mkdir()
    (place / "there").symlink_to(pictures)
    (pictures / "back").symlink_to(place)
    data = load(place, tmp_path)
    assert len(every(data)) == 20
    assert data.labels["train"].unique().tolist() == [0]


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_central_square_is_cut_out():
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    content = encoded(Image.fromarray(pixels))
    assert np.array_equal(decoded(content, 6, 1, None), pixels[None, :, 2:8])
    assert np.array_equal(decoded(content, 4, 1, 4), pixels[None, 1:5, 3:7])
    assert np.array_equal(decoded(encoded(Image.fromarray(pixels.T.copy())), 6, 1, None), pixels.T[None, 2:8])
    with pytest.raises(ValueError, match=r"10×6, smaller than dataset\.crop=7"):
        decoded(content, 4, 1, 7)


def test_resizing_averages_and_keeps_places():
    pixels = np.kron([[0, 200], [100, 40]], np.ones((16, 16))).astype(np.uint8)
    for size in (8, 64):
        result = decoded(encoded(Image.fromarray(pixels)), size, 1, None)[0]
        near, far = size // 8, -size // 8 - 1  # further from the edge between two values than the filter reaches
        assert result.shape == (size, size)
        assert [result[y, x] for y in (near, far) for x in (near, far)] == [0, 200, 100, 40]
    fine = np.tile(np.array([[0, 250], [250, 0]], np.uint8), (32, 32))
    assert np.abs(decoded(encoded(Image.fromarray(fine)), 8, 1, None).astype(int)[0, 2:-2, 2:-2] - 125).max() <= 1


def test_colours_and_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    assert np.array_equal(decoded(encoded(colour), 5, 3, None), pixels.transpose(2, 0, 1))
    grey = decoded(encoded(colour), 5, 1, None)
    assert np.abs(grey[0] - pixels @ np.array([0.299, 0.587, 0.114])).max() <= 1
    assert np.array_equal(decoded(encoded(Image.fromarray(grey[0])), 5, 3, None), np.repeat(grey, 3, 0))
    assert decoded(encoded(Image.new("1", (2, 2), 1)), 2, 1, None).tolist() == [[[255, 255], [255, 255]]]


def test_palettes_and_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    wide = palette.resize((4, 2), Image.Resampling.NEAREST)  # the central square is half of each colour
    result = decoded(encoded(wide), 2, 3, None)
    assert result[:, 0, 0].tolist() == [10, 20, 30]
    assert result[:, 0, 1].tolist() == [200, 100, 50]
    see_through = decoded(encoded(wide, transparency=1), 2, 3, None)
    assert see_through[:, 0, 0].tolist() == [10, 20, 30]
    assert see_through[:, 0, 1].tolist() == [255, 255, 255]
    for alpha, expected in ((255, [200, 0, 0]), (0, [255, 255, 255]), (51, [244, 204, 204])):
        image = Image.new("RGBA", (3, 3), (200, 0, 0, alpha))
        assert decoded(encoded(image), 3, 3, None)[:, 1, 1].tolist() == expected
    assert decoded(encoded(Image.new("LA", (3, 3), (90, 0))), 3, 1, None).max() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled(kind):
    pixels = np.array([[0, 128, 129], [257 * 100, 257 * 100 + 128, 65535], [256, 65406, 65407]], dtype=np.uint16)
    expected = [[0, 0, 1], [100, 100, 255], [1, 254, 255]]
    content = encoded(Image.fromarray(pixels), kind)
    assert decoded(content, 3, 1, None)[0].tolist() == expected
    assert decoded(content, 3, 3, None)[2].tolist() == expected


@pytest.mark.parametrize("pixels", [np.full((3, 3), 0.5, np.float32), np.full((3, 3), 70_000, np.int32)])
def test_pixels_of_32_bits_have_no_known_white(pixels):
    with pytest.raises(ValueError, match="white is not known"):
        decoded(encoded(Image.fromarray(pixels), "TIFF"), 3, 1, None)


@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_are_turned_upright(bits):
    upright = np.arange(9).reshape(3, 3).astype(np.uint8)
    stored = upright * np.uint16(257) if bits == 16 else upright
    for orientation, turned in ((1, stored), (3, stored[::-1, ::-1]), (6, np.rot90(stored)), (2, stored[:, ::-1])):
        exif = Image.Exif()
        exif[274] = orientation
        content = encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
        assert np.array_equal(decoded(content, 3, 1, None)[0], upright), orientation


def test_images_are_decoded_once(pictures, tmp_path, decoding):
    first = load(pictures, tmp_path)
    assert len(decoding) == 20
    second = load(pictures, tmp_path)
    assert len(decoding) == 20
    assert all(torch.equal(getattr(first, split), getattr(second, split)) for split in SPLITS)
    assert shapes(load(pictures, tmp_path, test_share=0.5, skip_broken=True))[2][0] == 10
    assert len(decoding) == 20  # the splits are not part of what is kept
    shutil.copytree(pictures, tmp_path / "copied")
    assert values(load(tmp_path / "copied", tmp_path)) == values(first)
    assert len(decoding) == 20  # nor is the place
    assert len(list((tmp_path / "cache/folders").glob("*.npz"))) == 1


def test_cached_images_are_read_without_the_lock(pictures, tmp_path, decoding, capsys):
    load(pictures, tmp_path)
    (file,) = (tmp_path / "cache/folders").glob("*.npz")
    with filelock.FileLock(file.with_suffix(".lock")):
        load(pictures, tmp_path)
    assert len(decoding) == 20
    assert "waiting" not in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"size": 3}, {"channels": 3}, {"crop": 2}])
def test_other_settings_decode_again(pictures, tmp_path, decoding, changed):
    load(pictures, tmp_path)
    data = load(pictures, tmp_path, **changed)
    assert len(decoding) == 40
    assert shapes(data)[0][1:] == (changed.get("channels", 1), *[changed.get("size", 4)] * 2)


def test_changed_bytes_of_the_same_size_and_time_decode_again(tmp_path, decoding):
    for index in range(10):
        write(tmp_path / "pictures" / f"{index}.bmp", plain(index))
    place = tmp_path / "pictures"
    assert 3 in every(load(place, tmp_path))
    before = (place / "3.bmp").stat()
    write(place / "3.bmp", plain(99))
    os.utime(place / "3.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (place / "3.bmp").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    found = every(load(place, tmp_path))
    assert 99 in found
    assert 3 not in found
    assert len(decoding) == 20
    (place / "9.bmp").rename(place / "9-renamed.bmp")  # the last one still
    load(place, tmp_path)
    assert len(decoding) == 30


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickled"])
def test_a_damaged_cache_is_replaced(pictures, tmp_path, decoding, capsys, damage):
    first = load(pictures, tmp_path)
    (file,) = (tmp_path / "cache/folders").glob("*.npz")
    whole = file.read_bytes()
    place = whole.index(first.train[3].numpy().tobytes())

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    if damage == "pickled":
        with file.open("wb") as stream:
            np.savez(stream, images=np.array([Attack()]), kept=np.arange(20), broken=np.array([], np.str_))
    else:
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        file.write_bytes({"cut": whole[:-40], "flipped": flipped, "empty": b""}[damage])
    capsys.readouterr()
    second = load(pictures, tmp_path)
    assert len(decoding) == 40
    assert not (tmp_path / "attacked").exists()
    assert torch.equal(first.train, second.train)
    assert f"warning: {file} is damaged" in capsys.readouterr().out
    load(pictures, tmp_path)
    assert len(decoding) == 40


def test_a_cache_that_cannot_be_written_is_a_warning(pictures, tmp_path, decoding, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    data = load(pictures, tmp_path / "data")
    assert len(data.train) == 16
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warned) == 1
    assert f"{tmp_path / 'cache'}" in warned[0]
    assert "cannot be written: Not a directory" in warned[0]
    load(pictures, tmp_path / "data")
    assert len(decoding) == 40


def break_some(place):
    """Twelve broken images of three kinds beside the twenty good ones."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for index in range(4):
        whole = encoded(Image.fromarray(noise), "JPEG")
        (place / f"a{index}-cut.jpg").write_bytes(whole[: len(whole) // 2])
        (place / f"b{index}-text.png").write_text("<html>not found</html>")
        (place / f"c{index}-empty.png").write_bytes(b"")


def test_broken_images_are_listed_and_can_be_left_out(pictures, tmp_path, decoding, capsys):
    good = values(load(pictures, tmp_path))
    decoding.clear()
    break_some(pictures)
    with pytest.raises(DataError) as error:
        load(pictures, tmp_path)
    text = message(error, f"12 of 32 images in {pictures} cannot be used", "dataset.skip_broken=true leaves them out")
    message(error, "a0-cut.jpg (image file is truncated", "b1-text.png (not an image", "; and 2 more")
    assert "c1-empty.png (not an image" in text
    assert "c2" not in text
    assert len(decoding) == 32
    for _ in range(2):
        capsys.readouterr()
        data = load(pictures, tmp_path, skip_broken=True)
        warned = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("warning"))
        assert f"12 of 32 images in {pictures} are left out: a0-cut.jpg (image" in warned
        assert "; and 2 more" in warned
        assert values(data) == good
    with pytest.raises(DataError, match="12 of 32"):
        load(pictures, tmp_path)
    assert len(decoding) == 32  # what is broken is kept as well


def test_broken_images_do_not_shift_labels_or_splits(tmp_path):
    place = tmp_path / "pictures"
    for split in SPLITS:
        for index, name in enumerate(("ant", "bee", "cow")):
            write(place / split / name / "1.png", plain(SPLITS.index(split) * 10 + index))
            (place / split / name / "0.png").write_bytes(b"")
    (place / "train" / "bee" / "1.png").write_bytes(b"")
    for split in SPLITS:
        (place / split / "ant" / "1.png").write_bytes(b"")  # nothing is left of this class
    data = load(place, tmp_path, skip_broken=True)
    assert values(data) == {"train": [2], "valid": [11, 12], "test": [21, 22]}
    assert data.labels["train"].tolist() == [2]
    assert data.labels["test"].tolist() == [1, 2]


def test_images_smaller_than_the_crop_are_named(pictures, tmp_path):
    for index in range(20, 40):
        write(pictures / f"{index}.png", plain(index, size=8))
    with pytest.raises(DataError) as error:
        load(pictures, tmp_path, crop=8)
    message(error, "20 of 40 images", "00.png (4×4, smaller than dataset.crop=8)", "; and 10 more")
    data = load(pictures, tmp_path, crop=8, skip_broken=True)
    assert sorted(every(data)) == list(range(20, 40))


def test_the_order_of_the_threads_does_not_matter(pictures, tmp_path, monkeypatch):
    expected = values(load(pictures, tmp_path / "one"))
    decode, seen = decoder.decode, set()
    value = lambda content: np.asarray(Image.open(io.BytesIO(content)))[0, 0]  # noqa: E731

    def late(content, *rest):
        seen.add(threading.get_ident())
        time.sleep(0.001 * (200 - int(value(content))) / 10)  # the first ones end last
        return decode(content, *rest)

    monkeypatch.setattr(decoder, "decode", late)
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "another cache"))
    assert values(load(pictures, tmp_path / "two")) == expected
    assert len(seen) > 1


def test_progress_is_a_line_or_a_bar(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    load(pictures, tmp_path / "one")
    assert capsys.readouterr().out.splitlines() == [f"reading 20 images in {pictures}", "decoding them"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "another cache"))
    load(pictures, tmp_path / "two")
    drawn = capsys.readouterr().out
    assert "decoding them" in drawn
    assert "100%" in drawn


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: place.mkdir(), "holds no image"),
        (lambda place: write(place / ".hidden.png", plain(0)), "holds no image"),
        (lambda place: [write(place / f"{n}.png", plain(n)) for n in range(4)], "4 train, 0 valid, 0 test"),
        (lambda place: (place.mkdir(), (place / "0.png").symlink_to("gone.png")), "1 of 1 images"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, make, said):
    place = tmp_path / "pictures"
    make(place)
    with pytest.raises(DataError) as error:
        load(place, tmp_path)
    message(error, str(place), said)


def test_wrong_settings_of_a_folder_are_usage_errors(pictures, tmp_path):
    (tmp_path / "a_file").write_text("")
    for name, said in (("gone", "does not exist"), ("a_file", "is not a folder")):
        with pytest.raises(UsageError, match=f"{tmp_path / name} {said}"):
            load(tmp_path / name, tmp_path)
    with pytest.raises(UsageError, match=r"dataset=folder needs dataset\.path=FOLDER"):
        load(None, tmp_path, path=None)
    with pytest.raises(UsageError, match=r"valid_share=0\.5 and dataset\.test_share=0\.5: both should"):
        load(pictures, tmp_path, valid_share=0.5, test_share=0.5)
    with pytest.raises(UsageError, match="test_share=0: both should be above 0"):
        load(pictures, tmp_path, test_share=0.0)
    for split in SPLITS:
        write(tmp_path / "given" / split / "0.png", plain(0))
    assert len(load(tmp_path / "given", tmp_path, test_share=0.0).test) == 1  # not used there


def test_a_folder_from_the_command_line(genexp, pictures, tmp_path):
    assert "dataset=folder needs dataset.path=FOLDER" in (answer := genexp("train", "dataset=folder")).err
    assert answer.code == 2
    answer = genexp("train", "dataset=folder", "dataset.path=gone")
    assert f"dataset.path=gone: {tmp_path / 'gone'} does not exist" in answer.err
    assert answer.code == 2
    answer = genexp("train", "dataset=folder", "dataset.path=pictures", "dataset.valid_share=1")
    assert "dataset.valid_share=1" in answer.err
    assert answer.code == 2


def test_validation_images_may_be_training_images_too():
    data = digits(None)
    more = data.with_valid_in_training()
    assert torch.equal(more.train, torch.cat([data.train, data.valid]))
    assert torch.equal(more.labels["train"], torch.cat([data.labels["train"], data.labels["valid"]]))
    assert torch.equal(more.valid, data.valid)
    assert torch.equal(more.labels["valid"], data.labels["valid"])
    assert mistake(more) is None
    unlabelled = replace(data, labels={}).with_valid_in_training()
    assert (len(unlabelled.train), unlabelled.labels) == (1497, {})
