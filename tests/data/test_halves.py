"""The other half of a data set: no image in both, and the truth of each."""

import pytest
import torch
from conftest import config_of

from genexp.data import SPLITS, DataSet
from genexp.data.digits import digits
from genexp.data.halves import TRANSFORMS, other_half
from genexp.errors import UsageError
from genexp.training import build


def numbered(n=40, channels=1, side=8):
    """Images that can be told apart, all with different values."""
    generator = torch.Generator().manual_seed(0)
    images = lambda: torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)  # noqa: E731
    return DataSet(images(), images(), images(), {split: torch.arange(n) % 5 for split in SPLITS})


def test_each_image_is_in_one_half():
    first = numbered()
    pair = other_half(None, transform="inverted").pair(first)
    for split in SPLITS:
        whole = {image.numpy().tobytes() for image in getattr(first, split)}
        a = {image.numpy().tobytes() for image in getattr(pair, split)}
        b = {(255 - image).numpy().tobytes() for image in getattr(pair.second, split)}
        assert (len(a), len(b)) == (20, 20)
        assert not a & b
        assert a | b == whole


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_both_halves_know_the_truth(transform):
    first = numbered(side=16)
    pair = other_half(None, transform=transform).pair(first)
    labels = {
        image.numpy().tobytes(): int(label) for image, label in zip(first.test, first.labels["test"], strict=True)
    }
    for image, truth, label in zip(pair.test, pair.truth["test"], pair.labels["test"], strict=True):
        expected = (255 * TRANSFORMS[transform](image[None] / 255)).round()[0]
        assert torch.equal(truth.float(), expected)
        assert labels[image.numpy().tobytes()] == int(label)
    for image, truth in zip(pair.second.test, pair.second.truth["test"], strict=True):
        assert truth.numpy().tobytes() in labels  # an image of the first data set as it is
        assert torch.equal(image.float(), (255 * TRANSFORMS[transform](truth[None] / 255)).round()[0])
    assert pair.second.shape == ((3, 16, 16) if transform == "coloured" else (1, 16, 16))


def test_transforms_are_what_they_say():
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 5] = 1  # the middle row
    image[0, 0, 0, 10] = 1  # ten rows above it
    sheared = TRANSFORMS["sheared"](image)
    assert sheared[0, 0, 10, 5].item() == pytest.approx(1, abs=1e-5)
    assert sheared[0, 0, 0].argmax() == 14  # moved by 0.4 · 10 columns
    thick = TRANSFORMS["thick"](image)
    assert thick.sum() == 9 + 6  # 3×3, and 2×3 at the edge
    assert TRANSFORMS["thick"](image[:, :, :8, :8]).shape == (1, 1, 8, 8)
    coloured = TRANSFORMS["coloured"](image)
    assert coloured[0, :, 10, 5].tolist() == pytest.approx([1.0, 0.9, 0.2])
    assert coloured[0, :, 3, 3].tolist() == pytest.approx([0.1, 0.1, 0.4])
    assert TRANSFORMS["inverted"](image)[0, 0, 10, 5] == 0


def test_what_cannot_be_halved_is_refused():
    one = numbered(1)
    with pytest.raises(UsageError, match="has one image"):
        other_half(None, transform="inverted").pair(one)
    with pytest.raises(UsageError, match="coloured is of grey images"):
        other_half(None, transform="coloured").pair(numbered(channels=3))


def test_a_pair_has_one_digest_and_moves_together():
    config = config_of("model=cyclegan", "dataset=digits")
    pair = build.data_set(config.dataset, "data", config.dataset_b)
    other = other_half(None, transform="thick").pair(digits(None))
    assert pair.digest() != digits(None).digest()
    assert pair.digest() != other.digest()
    assert pair.digest() == pair.to(torch.device("cpu")).digest()
    assert pair.spec().second.shape == (1, 8, 8)
    meta = pair.to(torch.device("meta"))
    assert {meta.second.test.device.type, meta.truth["test"].device.type} == {"meta"}
