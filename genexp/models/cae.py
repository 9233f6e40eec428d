"""Contractive autoencoders (Rifai et al. 2011), and the walk along their tangents (Rifai et al. 2012)."""

from collections.abc import Callable
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.func import jacrev, vjp, vmap

from genexp.data import DataSet, DataSpec
from genexp.models import Outcome
from genexp.models.autoencoder import Architecture, FullyConnectedAutoencoder
from genexp.models.samplers import ChainSampler, Transition
from genexp.noise import Corruption
from genexp.ranges import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Units

SLOPES: dict[Units, Callable[[Tensor], Tensor]] = {  # s'(a) as a function of h = s(a)
    "sigmoid": lambda h: h * (1 - h),
    "tanh": lambda h: 1 - h.square(),
    "relu": lambda h: (h > 0).to(h.dtype),
    "linear": torch.ones_like,
}


class CAE(ChainSampler, FullyConnectedAutoencoder):
    """Minimises the reconstruction error + λ‖J‖²_F, with J = ∂f/∂x the Jacobian of the encoder at its input.

    ‖J‖²_F is computed in closed form for one layer, and by automatic differentiation for more. `penalty=stochastic`
    replaces it by the unbiased estimate ‖Jᵀε‖² with one ε ~ N(0, I) for each image.
    """

    sample_kind = "mean"
    sampler_settings = (*ChainSampler.sampler_settings, "walk_std")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        contraction: NonNegativeFloat,
        penalty: Literal["exact", "stochastic"],
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        walk_std: PositiveFloat,
        **architecture: Unpack[Architecture],
    ) -> None:
        super().__init__(data, noise, **architecture)
        self.contraction, self.walk_std = contraction, walk_std
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning
        self.slopes = SLOPES[architecture["code_units"]]
        exact = self.jacobian_penalty if architecture["hidden"] else self.one_layer_penalty
        self.penalty = exact if penalty == "exact" else self.stochastic_penalty

    def play(self, images: Tensor) -> Outcome:
        x = self.noise(images)
        reconstruction, penalty = self.reconstruction_error(self.encode(x), images), self.penalty(x).mean()
        watched = {"reconstruction": reconstruction.detach(), "penalty": penalty.detach()}
        return Outcome({"autoencoder": reconstruction + self.contraction * penalty}, watched)

    def one_layer_penalty(self, images: Tensor) -> Tensor:
        """Return ‖J‖²_F = Σ_j s'(a_j)² Σ_i W_ji², (n,), for the layer h = s(a), a = Wx + b."""
        layer: nn.Linear = self.encoder[1][0]  # type: ignore[index]
        weights = layer.weight.square().sum(1)
        h = self.encode(images).to(weights.dtype)
        return self.slopes(h).square() @ weights

    def jacobian_penalty(self, images: Tensor) -> Tensor:
        """Return ‖J‖²_F, (n,), from the whole Jacobian of each image."""
        jacobians: Tensor = vmap(jacrev(lambda image: self.encode(image.unsqueeze(0))[0]))(images)
        return jacobians.flatten(1).square().sum(1)

    def stochastic_penalty(self, images: Tensor) -> Tensor:
        """Return ‖Jᵀε‖², (n,), whose expectation over ε ~ N(0, I) is ‖J‖²_F."""
        codes, pull_back = vjp(self.encode, images)[:2]
        tangents: Tensor = pull_back(torch.randn_like(codes))[0]
        return tangents.flatten(1).square().sum(1)

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return the walk x ← g(f(x) + J Jᵀε), ε ~ N(0, `walk_std`² I).

        J Jᵀ keeps the noise along the directions that the encoder does not contract, and shrinks it along others.
        """

        def step(state: Tensor) -> tuple[Tensor, Tensor]:
            codes, pull_back = vjp(self.encode, state)[:2]
            noise = self.walk_std * torch.randn_like(codes, generator=generator)
            tangent, push_forward = vjp(lambda v: pull_back(v)[0], noise)[:2]  # the transpose of v ↦ Jᵀv is u ↦ Ju
            state = self.decode(codes + push_forward(tangent)[0])
            return state, state.clamp(0, 1)

        return images, step
