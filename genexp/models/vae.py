"""Variational autoencoders (Kingma and Welling 2014), fully connected.

They may be conditional (Sohn et al. 2015), and trained on the importance-weighted bound (Burda et al. 2016).
"""

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Autoencoder, Outcome
from genexp.models.layers import BLACK, fully_connected
from genexp.models.samplers import ancestral
from genexp.noise import Corruption, draw_prior
from genexp.ranges import AsBefore, NonNegativeFloat, PositiveInt, Units, Widths

LOG_2PI = math.log(2 * math.pi)
FIRST_STD = 0.1  # initial std of p(x | z) over that of the pixels; from 1, the codes collapse to the prior
SMALL, LARGE = 28 * 28, 64 * 64  # values of an image, see VAE
ACTIVE = 0.01  # variance over images above which a dimension of the posterior mean is active (Burda et al. 2016)


class VAE(Autoencoder):
    """p(z) = N(0, I), p(x | z) Bernoulli or Gaussian, q(z | x) = N(μ(x), diag σ²(x)); `noise` corrupts q's input.

    The Bernoulli likelihood takes grey values in [0, 1] as probabilities of white: each term is an expectation over
    binary images drawn from them, and the bounds hold for their expected log-likelihood. The Gaussian likelihood is a
    density of pixels in [0, 1], with one learned variance for all pixels.

    The `objective` is a bound of log p(x) from `k` codes for each image: "elbo" is the evidence lower bound, whose
    expected log-likelihood is a mean over the codes; "iwae" is the importance-weighted bound, which is tighter the
    larger k is (Burda et al. 2016, equation 8).

    With `conditional`, encoder and decoder also receive the label y as one of as many units as there are classes, all 0
    for an image without a label: p(x | z, y) and q(z | x, y), and the prior of z is the same for all classes (the
    independent prior of Sohn et al. 2015, section 4.1). All bounds are then of log p(x | y).

    Adam moves each weight by its learning rate, whatever the gradient. So the more pixels there are, the further a step
    moves a hidden unit, and from some 10⁴ on the first step lets exp(log σ²) overflow. Images of more than LARGE values
    are therefore multiplied by `pixel_scale`, SMALL / values, and the first weights divided by it: the model at its
    start is the same, and a step moves a hidden unit as far as one of 28×28 pixels.
    """

    sampler_settings = ("sample_kind",)
    pixel_scale: Tensor | None

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        latent_dim: PositiveInt,
        hidden_units: Units,
        likelihood: Literal["bernoulli", "gaussian"],
        beta: NonNegativeFloat,
        sample_kind: Literal["draw", "mean"],
        conditional: Annotated[bool, AsBefore(False)] = False,
        objective: Annotated[Literal["elbo", "iwae"], AsBefore("elbo")] = "elbo",
        k: Annotated[PositiveInt, AsBefore(1)] = 1,
        beta_warmup: Annotated[NonNegativeFloat, AsBefore(0.0)] = 0.0,
    ) -> None:
        super().__init__()
        if objective == "iwae" and beta_warmup:
            raise UsageError(
                f"model.beta_warmup={beta_warmup:g} raises the weight of the elbo's divergence, and "
                "model.objective=iwae has none\nLeave model.beta_warmup at 0, or choose model.objective=elbo"
            )
        if objective == "iwae" and beta != 1:
            raise UsageError(
                f"model.beta={beta:g} weighs the divergence of the elbo, and model.objective=iwae has none\n"
                "Leave model.beta at 1, or choose model.objective=elbo"
            )
        if conditional and not data.classes:
            raise UsageError(
                "model.conditional=true learns from labels, and the training images of this data set have none\n"
                "Leave it out, or choose a data set with labels, such as dataset=mnist or a folder with a subfolder "
                "for each class"
            )
        if likelihood == "bernoulli" and data.points:
            raise UsageError("points of the plane are no shades of grey: set model.likelihood=gaussian")
        self.noise, self.shape, self.latent_dim = noise, data.shape, latent_dim
        self.likelihood, self.beta, self.sample_kind = likelihood, beta, sample_kind
        self.objective, self.k, self.beta_warmup = objective, k, beta_warmup
        self.conditional, self.classes = conditional, len(data.classes) if conditional else 0
        inputs = [data.size + self.classes, *hidden]
        self.trunk = nn.Sequential(nn.Flatten(), fully_connected(inputs, [hidden_units] * len(hidden)))
        is_large = not data.points and data.size > LARGE
        self.register_buffer("pixel_scale", torch.tensor(SMALL / data.size) if is_large else None)
        if self.pixel_scale is not None:
            self.trunk[1][0].weight.data[:, : data.size] /= self.pixel_scale  # type: ignore[index]
        self.posterior_mean = fully_connected([hidden[-1], latent_dim], ["linear"])
        self.posterior_log_variance = fully_connected([hidden[-1], latent_dim], ["linear"])
        widths = [latent_dim + self.classes, *reversed(hidden), data.size]
        self.decoder = fully_connected(widths, [hidden_units] * len(hidden) + ["linear"])
        output: nn.Linear = self.decoder[-2]  # type: ignore[assignment]
        output.bias.data.copy_(data.pixel_mean.flatten().logit(eps=BLACK))
        if likelihood == "gaussian":
            self.log_variance = nn.Parameter(torch.tensor(2 * math.log(data.pixel_std * FIRST_STD)))

    def with_labels(self, inputs: Tensor, labels: Tensor | None) -> Tensor:
        """Return the inputs (n, d) of a network, beside their labels (n,) in a conditional model."""
        if not self.conditional:
            return inputs
        if labels is None:
            raise UsageError("model=vae with model.conditional=true needs the labels of images and codes")
        is_class = labels.unsqueeze(1) == torch.arange(self.classes, device=labels.device)
        return torch.cat([inputs, is_class.to(inputs.dtype)], 1)

    def posterior(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return μ and log σ² of q(z | x), each (n, latent_dim)."""
        pixels = images.flatten(1)
        if self.pixel_scale is not None:
            pixels = pixels * self.pixel_scale
        h = self.trunk(self.with_labels(pixels, labels))
        return self.posterior_mean(h).float(), self.posterior_log_variance(h).float()

    def log_likelihood(self, images: Tensor, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log p(x | z) of each code given its image, (m,), in nats.

        There are as many codes, (m, latent_dim), for each of n images: first all of the first image. `labels`, (m,),
        are those of the codes.
        """
        logits = self.decoder(self.with_labels(codes, labels)).float().view(len(images), -1, images[0].numel())
        x = images.flatten(1)[:, None].expand_as(logits)  # a copy for each code would take as much time as a layer
        if self.likelihood == "bernoulli":
            return -binary_cross_entropy_with_logits(logits, x, reduction="none").sum(2).flatten()
        squares = torch.square(x - logits.sigmoid()).sum(2).flatten()
        return -0.5 * (squares * torch.exp(-self.log_variance) + (self.log_variance + LOG_2PI) * x.shape[2])

    def play(self, images: Tensor, labels: Tensor | None = None, epoch: Tensor | None = None) -> Outcome:
        """Return the negative objective: −E_q[log p(x | z)] + β KL(q(z | x) ‖ p(z)), or the importance-weighted one.

        Over the first `beta_warmup` epochs β rises linearly from 0 (Sønderby et al. 2016); `epoch` of them are done.
        """
        posterior = self.posterior(self.noise(images), labels)
        codes, noise, log_variance = _draws(posterior, self.k)
        log_likelihoods = self._log_likelihoods(images, codes, self.k, labels)
        reconstruction = -log_likelihoods.mean()
        divergence = kl_from_prior(*posterior).mean()  # here, or gradients are added in another order than in kept runs
        watched = {
            "reconstruction": reconstruction.detach(),
            "kl": divergence.detach(),
            "active_dims": (posterior[0].detach().var(0, correction=0) > ACTIVE).sum().float(),
        }
        beta: float | Tensor = self.beta
        if self.beta_warmup and epoch is not None:
            beta = watched["beta"] = self.beta * (epoch / self.beta_warmup).clamp(max=1)
        if self.objective == "elbo":
            return Outcome({"autoencoder": reconstruction + beta * divergence}, watched)
        bounds = (log_likelihoods + log_ratios(codes, noise, log_variance, self.k)).logsumexp(1) - math.log(self.k)
        return Outcome({"autoencoder": -bounds.mean()}, watched)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over a state; one from before there was `pixel_scale` has none, which is 1."""
        if self.pixel_scale is not None:
            state_dict.setdefault(f"{prefix}pixel_scale", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def first_layers(self) -> dict[str, nn.Linear]:
        return {"encoder": self.trunk[1][0]}  # type: ignore[index]

    def filters(self) -> dict[str, Tensor]:
        """Return the weights of the encoder's first layer for pixels, without those for labels."""
        return {name: weights[:, : math.prod(self.shape)] for name, weights in super().filters().items()}

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.posterior(images, labels)[0]

    def decode(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean image E[x | z]."""
        return torch.sigmoid(self.decoder(self.with_labels(codes, labels))).view(-1, *self.shape)

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        return draw_prior("gaussian", n, self.latent_dim, self.device, generator)

    def sample(self, n: int, generator: torch.Generator, data: DataSet, labels: Tensor | None = None) -> Tensor:
        """Draw z ~ p(z), and return x ~ p(x | z) for `sample_kind` "draw" or E[x | z] for "mean"."""
        means = ancestral(self.decode, self.draw_codes(n, generator), labels)
        if self.sample_kind == "mean":
            return means
        if self.likelihood == "bernoulli":
            return torch.bernoulli(means, generator=generator)
        noise = torch.randn_like(means, generator=generator)
        return (means + torch.exp(0.5 * self.log_variance) * noise).clamp(0, 1)

    def lower_bound(self, images: Tensor, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """Return E_q[log p(x | z)] − KL(q ‖ p) of each image, (n,), with one draw of z and the exact divergence."""
        mean, log_variance = self.posterior(images, labels)
        codes, _ = reparameterized(mean, log_variance, generator)
        return self.log_likelihood(images, codes, labels) - kl_from_prior(mean, log_variance)

    def log_weights(self, images: Tensor, k: int, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """Return log p(x, z) − log q(z | x) for k draws z ~ q(z | x) of each image, (n, k)."""
        codes, noise, log_variance = _draws(self.posterior(images, labels), k, generator)
        return self._log_likelihoods(images, codes, k, labels) + log_ratios(codes, noise, log_variance, k)

    def _log_likelihoods(self, images: Tensor, codes: Tensor, k: int, labels: Tensor | None) -> Tensor:
        """Return log p(x | z) of k codes for each image, (n, k)."""
        of_codes = labels if labels is None or k == 1 else labels.repeat_interleave(k)
        return self.log_likelihood(images, codes, of_codes).view(-1, k)


def _draws(
    posterior: tuple[Tensor, Tensor], k: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return k codes z for each image, their ε, and the log σ² that they were drawn with, each (n·k, latent_dim)."""
    mean, log_variance = posterior if k == 1 else (moment.repeat_interleave(k, 0) for moment in posterior)
    codes, noise = reparameterized(mean, log_variance, generator)
    return codes, noise, log_variance


def log_ratios(codes: Tensor, noise: Tensor, log_variance: Tensor, k: int) -> Tensor:
    """Return log p(z) − log q(z | x) of k codes z = μ + σε for each image, (n, k); the constants cancel."""
    return 0.5 * (noise.square() + log_variance - codes.square()).sum(1).view(-1, k)


def reparameterized(
    mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return z = μ + σε with ε ~ N(0, I), and ε (Kingma and Welling 2014, section 2.4)."""
    noise = torch.randn_like(mean, generator=generator)
    return mean + torch.exp(0.5 * log_variance) * noise, noise


def kl_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(0, I)) of each row, (n,), in nats (Kingma and Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
