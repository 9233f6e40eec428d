"""metric=chain: correlations of a known process, chains that stay, and chains that forget at once."""

import pytest
import torch

from genexp.data.digits import digits
from genexp.errors import UsageError
from genexp.metrics import GivenSamples, Subject
from genexp.metrics.chain import autocorrelation, chain
from genexp.metrics.parzen import parzen
from genexp.models import Model
from genexp.models.samplers import ChainSampler

PROTOCOL = {"n_samples": 200, "n_valid": 100, "sigma_grid": [0.2, 0.3, 0.4], "split": "test"}


class Walker(ChainSampler, Model):
    """Images that stay where they begin, or that are drawn anew from the training images at each step."""

    sample_kind = "draw"

    def __init__(self, stays):
        super().__init__()
        self.stays, self.chains, self.burn_in, self.thinning = stays, 50, 3, 2
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def players(self):
        return {"walker": self}

    def reconstruct(self, images):
        return images

    def chain(self, images, generator, data):
        def step(state):
            rows = torch.randint(len(data.train), (len(images),), generator=generator)
            following = state if self.stays else data.images("train", rows)
            return following, following

        return images, step


def test_the_autocorrelation_of_a_process_is_the_known_one():
    torch.manual_seed(0)
    chains, rho = 500, 0.7
    x = torch.randn(chains, 30)
    samples = []
    for _ in range(40):
        x = rho * x + (1 - rho**2) ** 0.5 * torch.randn_like(x)
        samples.append(x)
    assert autocorrelation(torch.cat(samples), chains) == pytest.approx(rho, abs=0.01)
    assert autocorrelation(samples[0], chains) is None
    assert autocorrelation(torch.ones(100, 3), 50) is None


def test_a_chain_that_stays_has_moved_nowhere_and_scores_what_its_start_does():
    subject = Subject(Walker(True), digits(None), seed=0)
    score = chain(subject, **PROTOCOL)
    assert score.mean == 0
    assert score.details["autocorrelation"] == pytest.approx(1, abs=1e-6)
    assert score.details["nearest"] == 0
    assert score.details["control"] == pytest.approx(parzen(subject, **PROTOCOL).mean, abs=1e-3)
    assert score.details["from_noise"] < score.details["control"]
    assert (score.details["chains"], score.details["burn_in"], score.details["thinning"]) == (50, 3, 2)


def test_a_chain_that_forgets_is_as_far_from_its_start_as_unrelated_images():
    subject = Subject(Walker(False), digits(None), seed=0)
    score = chain(subject, **PROTOCOL)
    assert score.mean == pytest.approx(score.details["between_images"], rel=0.05)
    assert abs(score.details["autocorrelation"]) < 0.1
    assert score.details["from_noise"] == pytest.approx(parzen(subject, **PROTOCOL).mean, abs=2)
    assert score.details["nearest_split"] > 0.5
    assert chain(subject, **PROTOCOL) == score


def test_a_sampler_without_chains_is_refused():
    subject = Subject(GivenSamples(torch.zeros(5, 1, 8, 8), "draw"), digits(None), 0)
    with pytest.raises(UsageError, match="samples without one"):
        chain(subject, **PROTOCOL)
