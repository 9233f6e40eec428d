"""The same networks trained by others, for `scripts/bench floors`: plain scripts, pythae and scikit-learn.

Peers that are not installed are left out (`.venv/bin/pip install pythae`).
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import DataLoader, TensorDataset

from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.training import build

IMAGES = 10_000  # that peers are trained on
Step = Callable[[], Any]


def peers(name: str, config: TrainConfig, data: DataSet) -> dict[str, Step]:
    """Return a step of training of each peer of a model, by the peer's name."""
    model = build.model(config.model, config.noise, data.spec(), config.seed, data.device)
    images, n = data.images("train", slice(IMAGES)), config.batch_size
    if name in ("dcgan", "conv_gan"):
        return {"plain script": adversarial(model, batches(images, n), config.model["latent_dim"])}
    if name == "cyclegan" and data.second is not None:
        others = data.second.images("train", slice(IMAGES))
        return {"plain script": cycle_consistent(model, batches(images, n), batches(others, n))}
    if name == "rbm" and data.device.type == "cpu":
        return boltzmann(config, images, n)
    if name in ("ae", "vae"):
        return {"plain script": autoencoder(model, batches(images, n)), **of_pythae(name, config, model, images)}
    return {}


def batches(images: Tensor, n: int) -> Iterator[Tensor]:
    loader = DataLoader(TensorDataset(images.cpu()), batch_size=n, shuffle=True, drop_last=True)
    while True:
        for (batch,) in loader:
            yield batch.to(images.device)


def autoencoder(model: Any, source: Iterator[Tensor]) -> Step:
    """Return a step on the model's own losses, by `backward` and torch's Adam as it comes."""
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        loss = model.play(next(source)).losses["autoencoder"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def adversarial(model: Any, source: Iterator[Tensor], latent_dim: int) -> Step:
    """Return a step as PyTorch's tutorial of DCGAN has it."""
    generator, discriminator = model.generator, model.discriminator
    of_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step() -> None:
        real = next(source)
        ones, zeros = real.new_ones(len(real)), real.new_zeros(len(real))
        of_d.zero_grad()
        on_real = bce(discriminator(real).flatten(), ones)
        on_real.backward()
        fake = generator(torch.rand(len(real), latent_dim, device=real.device) * 2 - 1)
        on_fake = bce(discriminator(fake.detach()).flatten(), zeros)
        on_fake.backward()
        of_d.step()
        of_g.zero_grad()
        loss = bce(discriminator(fake).flatten(), ones)
        loss.backward()
        of_g.step()
        on_real.item(), on_fake.item(), loss.item()

    return step


def cycle_consistent(model: Any, source_a: Iterator[Tensor], source_b: Iterator[Tensor]) -> Step:
    """Return a step in the order of the published code: both generators, then each discriminator; without its pool."""
    to_b, to_a, d_a, d_b = model.generator_ab, model.generator_ba, model.discriminator_a, model.discriminator_b
    of_g = torch.optim.Adam(chain(to_a.parameters(), to_b.parameters()), lr=2e-4, betas=(0.5, 0.999))
    of_d = torch.optim.Adam(chain(d_a.parameters(), d_b.parameters()), lr=2e-4, betas=(0.5, 0.999))
    l1, cycle = nn.functional.l1_loss, model.cycle

    def square(judged: Tensor, target: float) -> Tensor:
        return nn.functional.mse_loss(judged, torch.full_like(judged, target))

    def step() -> None:
        a, b = next(source_a), next(source_b)
        fake_b, fake_a = to_b(a), to_a(b)
        loss = square(d_b(fake_b), 1) + square(d_a(fake_a), 1)
        loss = loss + cycle * (l1(to_a(fake_b), a) + l1(to_b(fake_a), b))
        if model.identity:
            loss = loss + cycle * model.identity * (l1(to_a(a), a) + l1(to_b(b), b))
        for network in (d_a, d_b):
            network.requires_grad_(False)
        of_g.zero_grad()
        loss.backward()
        of_g.step()
        for network in (d_a, d_b):
            network.requires_grad_(True)
        of_d.zero_grad()
        for network, real, fake in ((d_a, a, fake_a), (d_b, b, fake_b)):
            (0.5 * (square(network(real), 1) + square(network(fake.detach()), 0))).backward()
        of_d.step()
        loss.item()

    return step


def boltzmann(config: TrainConfig, images: Tensor, n: int) -> dict[str, Step]:
    """Return a step of scikit-learn's BernoulliRBM on float32: persistent chains, one Gibbs step."""
    from sklearn.neural_network import BernoulliRBM

    machine = BernoulliRBM(config.model["hidden"], learning_rate=0.05, batch_size=n)
    source = batches((images > 0.5).float().flatten(1), n)
    return {"scikit-learn's BernoulliRBM": lambda: machine.partial_fit(next(source).numpy())}


def of_pythae(name: str, config: TrainConfig, model: Any, images: Tensor) -> dict[str, Step]:
    """Return a step of pythae's trainer on the model's own networks and loss."""
    try:
        peer = f"pythae {version('pythae')}"
    except PackageNotFoundError:
        return {}
    logging.disable(logging.WARNING)  # what it says on the way
    from pythae.data.datasets import BaseDataset
    from pythae.models import AE, VAE, AEConfig, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            names = ("trunk", "posterior_mean", "posterior_log_variance") if name == "vae" else ("encoder",)
            self.networks = nn.ModuleList(getattr(model, each) for each in names)

        def forward(self, x: Tensor) -> Any:
            h = self.networks[0](x.flatten(1))
            if name == "ae":
                return ModelOutput(embedding=h)
            return ModelOutput(embedding=self.networks[1](h), log_covariance=self.networks[2](h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(model.decoder, nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z).view(-1, *images.shape[1:]))

    settings = {"input_dim": tuple(images.shape[1:]), "latent_dim": config.model["latent_dim"]}
    if name == "vae":
        theirs = VAE(VAEConfig(**settings, reconstruction_loss="bce"), Encoder(), Decoder())
    else:  # it has the squared error alone
        theirs = AE(AEConfig(**settings), Encoder(), Decoder())
    n = config.batch_size
    trainer = BaseTrainer(
        theirs,
        BaseDataset(images.cpu(), torch.zeros(len(images))),
        None,
        BaseTrainerConfig(tempfile.mkdtemp(), per_device_train_batch_size=n, no_cuda=images.device.type == "cpu"),
    )
    trainer.prepare_training()
    trainer.callback_handler.callbacks = []  # bars, which are for epochs
    loader = trainer.train_loader

    class One(list[Any]):
        """A loader of one batch."""

        dataset = loader.dataset

    def steps() -> Iterator[Any]:
        while True:
            for batch in loader:
                trainer.train_loader = One([batch])
                yield trainer.train_step(1)

    made = steps()
    return {peer: lambda: next(made)}
