"""PSNR and SSIM of reconstructions against torchmetrics, and reconstructions whose error is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from genexp.data import DataSet
from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.metrics.distortion import psnr, ssim
from genexp.models import Autoencoder


class Given(Autoencoder):
    """An autoencoder whose reconstructions are a function of the images."""

    sample_kind = "mean"

    def __init__(self, reconstruction):
        super().__init__()
        self.reconstruction, self.weight = reconstruction, torch.nn.Parameter(torch.zeros(1))

    def encode(self, images):
        self.shape = images.shape[1:]
        return self.reconstruction(images).flatten(1)

    def decode(self, codes):
        return codes.view(-1, *self.shape)

    def sample(self, n, generator, data):
        raise NotImplementedError


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def data(request):
    images = torch.randint(256, (130, request.param, 14, 17), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    return DataSet(images, images[:5], images)


def blurred(images):
    return torch.nn.functional.avg_pool2d(images, 3, 1, 1)


def test_they_are_those_of_torchmetrics(data):
    images = data.images("test").double()
    pairs = blurred(data.images("test")).double(), images
    score = psnr(Subject(Given(blurred), data, 0), split="test")
    theirs = peak_signal_noise_ratio(*pairs, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert score.mean == pytest.approx(theirs.mean().item(), rel=1e-6)
    assert score.stderr == pytest.approx(theirs.std(correction=0).item() / 130**0.5, rel=1e-5)
    score = ssim(Subject(Given(blurred), data, 0), split="test")
    _, theirs = structural_similarity_index_measure(*pairs, data_range=1.0, reduction="none", return_full_image=True)
    inside = theirs[..., 5:-5, 5:-5]  # theirs has windows across the border, too, where images are reflected
    assert score.mean == pytest.approx(inside.mean().item(), rel=1e-5)
    assert score.details == {"code_size": data.train[0].numel(), "n_points": 130}


def test_a_known_error_and_an_exact_copy(data):
    off = psnr(Subject(Given(lambda images: images + 0.1), data, 0), split="valid")
    assert off.mean == pytest.approx(20, abs=1e-4)
    assert off.summary.endswith(f" dB, codes of {data.train[0].numel()} numbers")
    exact = Subject(Given(lambda images: images), data, 0)
    assert psnr(exact, split="test").mean == pytest.approx(58.92, abs=0.01)  # that of rounding to 8 bits
    assert ssim(exact, split="test").mean == pytest.approx(1)


def test_what_cannot_be_compared_is_refused(genexp, data):
    small = digits(Path())
    with pytest.raises(UsageError, match="sides of 11 pixels"):
        ssim(Subject(Given(blurred), small, 0), split="test")
    points = replace(data, bounds=((0.0,), (1.0,)))
    with pytest.raises(UsageError, match="these are points"):
        psnr(Subject(Given(blurred), points, 0), split="test")
    answer = genexp("train", "model=gan", "dataset=digits", "metric@metrics.psnr=psnr")
    assert answer.code == 2
    assert "this model makes none" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("model", [["model=vae", "model.conditional=true"], ["model=rbm"], ["model=dae"]])
def test_a_run_is_scored_by_the_command(genexp, model):
    words = ["dataset=digits", "epochs=1", "metrics.parzen.n_samples=50", "metric@metrics.psnr=psnr"]
    answer = genexp("train", *model, *words)
    assert answer.code == 0, answer.err
    assert " dB" in answer.out
