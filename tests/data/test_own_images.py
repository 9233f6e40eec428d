"""Folders of one's own images: what is read and what is not, where they lie, and what is said about them."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import config_of
from images import plain, write
from omegaconf import OmegaConf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genexp import rng
from genexp.config.schema import CONFIGS
from genexp.data import DataSet, decoding, digits, download, folder
from genexp.data.remarks import copies, remarks
from genexp.errors import DataError, UsageError
from genexp.storage import caches
from genexp.storage.files import cache_folder

SPLITS = ("train", "valid", "test")
TRAIN = ["train", "model=vae", "dataset=folder", "dataset.size=8", "dataset.channels=1", "epochs=1", "batch_size=4"]
TRAIN += ["model.hidden=[8]", "model.latent_dim=2", "metrics.parzen.n_samples=20", "~metrics.iwae", "~metrics.elbo"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENEXP_CACHE_DIR", str(tmp_path / "cache"))


def load(place, **changed):
    settings = OmegaConf.to_container(OmegaConf.load(CONFIGS / "dataset" / "folder.yaml"))
    settings = {key: value for key, value in settings.items() if key not in ("name", "_target_")}
    return folder.folder(place, **(settings | {"path": str(place), "size": 4, "channels": 1} | changed))


def values(data):
    return {split: getattr(data, split)[:, 0, 0, 0].tolist() for split in SPLITS}


def every(data):
    return sorted(value for found in values(data).values() for value in found)


@pytest.fixture
def photos(tmp_path):
    """Sixty noisy images of 8×8."""
    noise = np.random.default_rng(0)
    for index in range(60):
        write(tmp_path / "photos" / f"{index:02d}.png", noise.integers(0, 256, (8, 8), dtype=np.uint8))
    return tmp_path / "photos"


# What is read


@pytest.mark.slow
def test_pictures_of_runs_are_no_images(genexp, photos, monkeypatch):
    monkeypatch.chdir(photos)
    first = genexp(*TRAIN, "dataset.path=.")
    assert first.code == 0, first.err
    assert genexp("export", str(first.run), "out=deep/shared").code == 0
    pictures = [file for file in first.run.rglob("*.png") if ".png" in file.name]
    assert pictures
    again = genexp(*TRAIN, "dataset.path=.")
    assert again.code == 0, again.err
    assert "already finished" in again.out
    left_out = len(pictures) + 1
    assert (
        f"note: .: {left_out} images left out, in directories of runs and exports: deep/shared, outputs/" in again.out
    )
    other = genexp(*TRAIN, "dataset.path=.", "seed=1")
    assert "(48 train, 6 valid, 6 test images)" in other.out
    shown = genexp(*TRAIN, f"dataset.path={first.run}", "dataset.valid_share=0.3", "dataset.test_share=0.3")
    assert f"{len(pictures)} images in" in shown.out + shown.err  # a run's pictures that are asked for are read


def test_files_that_are_passed_over_are_counted(tmp_path, capsys):
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", plain(index))
    for name in ("a.txt", "b.TXT", "raw", "c.cr2", ".hidden"):
        (tmp_path / "photos" / name).write_text("")
    load(tmp_path / "photos")
    expected = "4 files passed over, without the ending of an image that Pillow reads: 2 .txt, "
    assert f"note: {tmp_path / 'photos'}: {expected}" in capsys.readouterr().out
    (tmp_path / "photos/raw").unlink()
    load(tmp_path / "photos")
    assert "without ending" not in capsys.readouterr().out


def given(place, names, n=2):
    for number, name in enumerate(names):
        for index in range(n):
            write(place / name / "cat" / f"{index}.png", plain(10 * number + index))
    return place


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Validation", "Test"), ("TRAINING", "valid", "testing")]
)
def test_splits_by_other_names(tmp_path, names):
    data = load(given(tmp_path / "photos", names))
    assert values(data) == {"train": [0, 1], "valid": [10, 11], "test": [20, 21]}
    assert data.classes == ("cat",)


def test_half_a_convention_is_refused(tmp_path, capsys):
    place = given(tmp_path / "photos", ("train", "test"), n=10)
    with pytest.raises(
        DataError, match=r"has train and test, but no valid \(val, validation\)\n.*dataset\.splits=exact"
    ):
        load(place)
    data = load(place, splits="exact")  # as before there was the setting
    assert (len(data.train), data.classes) == (16, ("test", "train"))
    given(place, ("val", "Validation"))
    with pytest.raises(DataError, match="has Validation and val, which all name the valid images"):
        load(place)
    given(place, ("valid",))
    assert len(load(place).valid) == 2  # the very names
    assert "4 images left out, outside of train, valid, test" in capsys.readouterr().out


def test_a_split_that_links_to_another_one_is_whole_and_said(tmp_path):
    place = given(tmp_path / "photos", ("train", "test"), n=3)
    (place / "valid").symlink_to(place / "test")
    data = load(place)
    assert values(data) == {"train": [0, 1, 2], "valid": [10, 11, 12], "test": [10, 11, 12]}
    assert copies(data) == {("test", "valid"): 3}


def test_a_folder_that_is_linked_again_is_said(tmp_path, capsys):
    place = given(tmp_path / "photos", ("a",), n=10)
    (place / "b").symlink_to(place / "a")
    assert len(every(load(place))) == 10
    assert f"note: {place}: read once only, though links lead there again: {place / 'b'}" in capsys.readouterr().out


def test_a_link_that_leads_nowhere_is_a_broken_image(tmp_path, capsys):
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", plain(index))
    (tmp_path / "photos/x.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"1 of 11 images .*: x\.png \(No such file or directory\)\n.*skip_broken=true"):
        load(tmp_path / "photos")
    assert every(load(tmp_path / "photos", skip_broken=True)) == list(range(10))
    assert "x.png (No such file or directory)" in capsys.readouterr().out
    write(tmp_path / "photos/gone.png", plain(50))
    assert every(load(tmp_path / "photos")) == [*range(10), 50, 50]  # nothing of the failure is kept


def test_large_images_and_long_texts_are_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    text = PngInfo()
    text.add_text("prompt", "a" * 3_000_000, zip=True)
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", plain(index, size=8), pnginfo=text)
    assert every(load(tmp_path / "photos")) == list(range(10))
    assert Image.MAX_IMAGE_PIXELS == 10  # others' limits are theirs


# Shades and shapes


def test_white_of_files_with_more_bits(tmp_path):
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", np.full((4, 4), 455 * index, np.uint16))
    assert every(load(tmp_path / "photos", white=4095)) == [round(255 * 455 * n / 4095) for n in range(10)]
    assert every(load(tmp_path / "photos"))[-1] == 16
    with pytest.raises(DataError, match=r"values from 4095 to 4095, outside of 0 to dataset\.white=4000"):
        load(tmp_path / "photos", white=4000)


def test_white_of_files_with_8_bits_and_of_floats():
    def decoded(image, kind, white):
        import io

        stream = io.BytesIO()
        image.save(stream, kind)
        return decoding.decode(stream.getvalue(), decoding.Format(2, 2, 1, None, white))

    assert decoded(Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)), "PNG", 1).tolist() == [[[0, 255], [255, 0]]]
    assert decoded(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF", 1).max() in (127, 128)
    half_seen = Image.merge("LA", [Image.new("L", (2, 2), 1), Image.new("L", (2, 2), 51)])
    assert decoded(half_seen, "PNG", 2).tolist() == [[[230] * 2] * 2]  # transparency is no shade: 0.8·255 + 0.2·128
    with pytest.raises(ValueError, match=r"values up to 9 of 8 bits do not go with dataset\.white=4095"):
        decoded(Image.new("L", (2, 2), 9), "PNG", 4095)


@pytest.mark.slow
def test_hardly_any_contrast_is_said(genexp, tmp_path):
    noise = np.random.default_rng(0)
    for index in range(30):
        write(tmp_path / "photos" / f"{index}.png", noise.integers(0, 4096, (8, 8)).astype(np.uint16))
    answer = genexp(*TRAIN, "dataset.path=photos")
    assert "warning: the training images have almost no contrast: values from 0.000 to 0.063, " in answer.out
    assert "set dataset.white, as to 4095 for 12 bits" in answer.out
    assert "contrast" not in genexp(*TRAIN, "dataset.path=photos", "dataset.white=4095").out
    assert not list(remarks(digits.digits(None), False))


@pytest.mark.slow
def test_sizes_that_are_not_square(tmp_path):
    picture = np.arange(60, dtype=np.uint8).reshape(6, 10)
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", picture)
    data = load(tmp_path / "photos", size=[6, 10])
    assert data.shape == (1, 6, 10)
    assert np.array_equal(data.train[0, 0], picture)
    assert np.array_equal(load(tmp_path / "photos", size=[6, 3]).train[0, 0], picture[:, 3:6])  # the largest part
    assert np.array_equal(load(tmp_path / "photos", size=[4, 2], crop=[4, 2]).train[0, 0], picture[1:5, 4:6])
    with pytest.raises(UsageError, match=r"dataset\.crop=4 and dataset\.size=\[4, 2\] are of different shapes"):
        load(tmp_path / "photos", size=[4, 2], crop=4)
    words = ["model=vae", "dataset=folder", "dataset.path=photos"]
    assert config_of(*words, "dataset.size=[32,32]").identity() == config_of(*words, "dataset.size=32").identity()
    for wrong in ("0", "[3]", "[3,0]", "x"):
        with pytest.raises(UsageError, match="should be a whole number above 0, or two of them"):
            config_of(*words, f"dataset.size={wrong}")


@pytest.mark.parametrize("model", ["vae", "gan"])
@pytest.mark.slow
def test_a_model_of_images_that_are_not_square(genexp, photos, model):
    small = ["epochs=1", "batch_size=4", "metrics.parzen.n_samples=20"]
    answer = genexp("train", f"model={model}", "dataset=folder", "dataset.path=photos", "dataset.size=[8,6]",
                    "dataset.channels=1", *small)  # fmt: skip
    assert answer.code == 0, answer.err
    assert genexp("sample", str(answer.run), "n=2").code == 0


# Where they lie


@pytest.mark.slow
def test_a_place_is_no_identity(genexp, photos):
    first = genexp(*TRAIN, "dataset.path=photos")
    for path in ("photos/", "./photos", "photos/../photos"):
        answer = genexp(*TRAIN, f"dataset.path={path}")
        assert "already finished" in answer.out
        assert answer.run == first.run
    assert "already finished" in genexp(*TRAIN, "dataset.path=photos", "dataset.skip_broken=true").out
    assert first.run.name.endswith("7264e6a8")  # what version 0.1.0 called it


def test_where_the_faces_lie_is_no_identity():
    elsewhere, here = (config_of("dataset=tfd", *path) for path in (["dataset.path=x.mat"], []))
    assert elsewhere.identity() == here.identity()
    assert elsewhere.identity(as_typed=True) != here.identity(as_typed=True)


@pytest.mark.slow
def test_runs_of_earlier_versions_stay_found(genexp, photos):
    words = [*TRAIN[1:], "dataset.path=photos/", "dataset.skip_broken=true"]
    config = config_of(*words)
    earlier = config._directory(config.identity(as_typed=True))
    assert earlier != config.directory()
    genexp(*TRAIN, "dataset.path=photos").run.rename(earlier)
    answer = genexp("train", *words)
    assert "already finished" in answer.out
    assert answer.run == earlier
    assert config_of(*TRAIN[1:], "dataset.path=photos").directory() != earlier


@pytest.mark.slow
def test_images_that_moved_are_the_same_run(genexp, photos):
    first = genexp(*TRAIN, "dataset.path=photos")
    photos.rename(photos.with_name("moved"))
    gone = genexp(*TRAIN, "dataset.path=photos", "epochs=2")
    assert gone.code == 2
    assert "if they moved from there, add dataset.known_as=photos" in gone.err
    new = genexp(*TRAIN, "dataset.path=moved")
    assert f"note: {first.run} has the same settings and the same images, from photos\n" in new.out
    assert "dataset.known_as=photos says so" in new.out
    assert new.run != first.run
    again = genexp(*TRAIN, "dataset.path=moved", "dataset.known_as=photos")
    assert (again.run, "already finished" in again.out) == (first.run, True)
    assert genexp("evaluate", str(first.run), "dataset.path=moved").code == 0


@pytest.mark.slow
def test_a_run_whose_images_moved_is_run_again(genexp, photos):
    first = genexp(*TRAIN, "dataset.path=photos")
    photos.rename(photos.with_name("moved"))
    assert "Set it to the folder" in genexp("rerun", str(first.run)).err
    for _ in range(2):
        answer = genexp("rerun", str(first.run), "dataset.path=moved")
        assert answer.code == 0, answer.err
        assert "equal, bit for bit" in answer.out
    for wrong in ("dataset.size=16", "dataset.flip=true"):
        answer = genexp("rerun", str(first.run), wrong)
        assert answer.code == 2
        assert "was trained with" in answer.err
    write(photos.with_name("moved") / "00.png", plain(3, size=8))
    answer = genexp("rerun", str(first.run), "dataset.path=moved")
    assert "these are not the images that" in answer.err


def test_a_path_that_reads_as_a_number_is_to_be_quoted(genexp, tmp_path):
    answer = genexp("train", "dataset=folder", "dataset.path=123")
    assert answer.code == 2
    assert """quote it twice: dataset.path='"123"'""" in answer.err
    assert f"{tmp_path / '123'} does not exist" in genexp("train", "dataset=folder", 'dataset.path="123"').err


# What is kept


def test_decoded_images_are_in_the_cache_folder_and_no_more_than_the_limit(tmp_path, monkeypatch, capfd, genexp):
    Path(os.environ["GENEXP_CACHE_DIR"], "classifiers").unlink()  # other tests may have trained some meanwhile
    for name in ("one", "two", "three"):
        for index in range(10):
            write(tmp_path / name / f"{index}.png", plain(index, size=64))
        load(tmp_path / name, size=64)
        time.sleep(0.02)
    files = caches.contents(cache_folder("folders"))
    assert len(files) == 1  # the same names and contents
    assert {entry.name for entry in (tmp_path / "one").iterdir()} == {f"{n}.png" for n in range(10)}
    for number, name in enumerate(("two", "three")):
        write(tmp_path / name / "new.png", plain(100 + number, size=64))
        load(tmp_path / name, size=64)
        time.sleep(0.02)
    load(tmp_path / "one", size=64)  # used last
    assert "one, 64×64" in genexp("cache").out
    assert "3 files, 0.1 MB, in " in genexp("cache").out
    monkeypatch.setenv("GENEXP_CACHE_GB", "0.0001")
    capfd.readouterr()
    write(tmp_path / "two/newest.png", plain(200, size=64))
    load(tmp_path / "two", size=64)
    assert "note: 2 files removed from" in capfd.readouterr().out
    assert files[0].file in [cached.file for cached in caches.contents(cache_folder("folders"))]
    monkeypatch.setenv("GENEXP_CACHE_GB", "0")
    write(tmp_path / "two/newer.png", plain(201, size=64))
    load(tmp_path / "two", size=64)
    assert "is not kept (GENEXP_CACHE_GB is 0)" in capfd.readouterr().out
    assert genexp("cache", "clear=folders").code == 0
    assert "0 files" in genexp("cache").out
    monkeypatch.setenv("GENEXP_CACHE_GB", "x")
    assert genexp("cache").code == 2


def test_a_failed_download_leaves_nothing(tmp_path):
    def reader(place, download):
        raise RuntimeError("no network")

    (tmp_path / "mine").mkdir()
    for data_dir in (tmp_path / "mine", tmp_path / "new/data"):
        with pytest.raises(DataError, match="no network"):
            download.fetch(lambda: reader, "MNIST", data_dir, data_dir / "MNIST/raw", ["a"], "it")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]  # what was there stays
    assert not list((tmp_path / "mine").iterdir())


# What is said, and mirrored


def test_test_images_that_are_training_images_are_said(genexp, photos):
    for index in range(30):
        os.link(photos / f"{index:02d}.png", photos / f"copy{index:02d}.png")
    answer = genexp(*TRAIN, "dataset.path=photos")
    data = load(photos, size=8)
    train = {image.tobytes() for image in data.train.numpy()}
    n = sum(image.tobytes() in train for image in data.test.numpy())
    assert n
    assert f"warning: {n} of 9 test images are copies of training images, equal in each value" in answer.out


def test_validation_images_that_are_trained_on_by_request_are_no_copies():
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    data = DataSet(images[:20], images[20:25], images[25:])
    assert copies(data) == {}
    assert copies(data.with_valid_in_training()) == {}


def test_half_of_the_training_images_are_mirrored(tmp_path):
    image = np.array([[0, 250]] * 2, np.uint8)
    for index in range(10):
        write(tmp_path / "photos" / f"{index}.png", image)
    data = load(tmp_path / "photos", size=2, flip=True).drawn(None)

    def draw(step):
        rng.reseed(torch.device("cpu"), 0, "step", step)
        return data.images("train", torch.zeros(1000, dtype=torch.int64))

    left = (draw(1)[:, 0, 0, 0] > 0.5).float().mean().item()
    assert 0.4 < left < 0.6
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert (data.images("test") == data.images("test")[0]).all()  # other splits are as they are
    assert (data.drawn(3).images("train") == data.images("test")[0]).all()  # and so are those of a score
    plain_one = load(tmp_path / "photos", size=2)
    assert data.digest() == plain_one.digest()
    words = ["model=vae", "dataset=folder", "dataset.path=photos"]
    assert config_of(*words, "dataset.flip=true").identity() != config_of(*words).identity()
    assert "flip" not in json.dumps(config_of(*words).identity())


@pytest.mark.parametrize("splits", [False, True], ids=["no splits", "splits"])
def test_a_subfolder_that_cannot_be_listed_is_left_out_and_said(tmp_path, monkeypatch, capsys, splits):
    root = tmp_path / "photos"
    for number, name in enumerate(("a", "b", "closed")):
        for split in SPLITS if splits else (".",):
            for index in range(4):
                write(root / split / name / f"{index}.png", plain(10 * number + index))
    scandir = os.scandir

    def of_no_right(path="."):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", of_no_right)
    with pytest.raises(DataError, match=r"closed cannot be read: Permission denied\n.*skip_broken=true leaves it out"):
        load(root, valid_share=0.25, test_share=0.25)
    capsys.readouterr()
    data = load(root, valid_share=0.25, test_share=0.25, skip_broken=True)
    assert sum(len(getattr(data, split)) for split in SPLITS) == (24 if splits else 8)
    assert max(every(data)) < 20
    out = capsys.readouterr().out
    assert f"{3 if splits else 1} subfolder{'s' if splits else ''} left out, which cannot be listed: " in out
    assert "closed (Permission denied)" in out


def test_a_folder_that_cannot_be_listed_is_an_error_of_its_own(photos, monkeypatch):
    def of_no_right(path="."):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", of_no_right)
    for skip in (False, True):
        with pytest.raises(
            DataError, match=r"photos cannot be read: Permission denied\nMend that, or set dataset\.path"
        ):
            load(photos, splits="exact", skip_broken=skip)
