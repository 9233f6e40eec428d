"""Stacked contractive autoencoders (Rifai et al. 2011), and the walk in their top layer (Rifai et al. 2012)."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Stage
from genexp.models.layers import BLACK
from genexp.models.samplers import ChainSampler, Transition
from genexp.models.stacked import Stacked, TiedLayer
from genexp.noise import Corruption, unchanged
from genexp.ranges import Count, NonNegativeFloat, PositiveFloat, PositiveInt, Widths


class ContractiveLayer(TiedLayer):
    """A layer whose codes h = sigmoid(Wx + b) change little with x.

    The Jacobian is J(x) = diag(d) W with d = h(1 − h), so ‖J(x)‖²_F = Σ_j d_j² ‖W_j‖². The term of CAE+H (Rifai et al.
    2011, "Higher order contractive auto-encoder") is E‖J(x) − J(x + ε)‖²_F with ε ~ N(0, hessian_std² I).
    """

    def __init__(
        self, inputs: int, units: int, *, contraction: float, hessian: float, hessian_std: float, corruptions: int
    ) -> None:
        super().__init__(inputs, units)
        self.contraction, self.hessian = contraction, hessian
        self.hessian_std, self.corruptions = hessian_std, corruptions

    def loss(self, x: Tensor) -> Tensor:
        """Return cross-entropy + λ‖J‖²_F + γ E‖J(x) − J(x + ε)‖²_F, the mean over rows (n, inputs) in [0, 1]."""
        h = self.encoder(x)
        squares = self.linear.weight.square().sum(1)
        slopes = (h * (1 - h)).to(squares.dtype)
        loss: Tensor = binary_cross_entropy_with_logits(self.decoder(h).to(x.dtype), x, reduction="sum") / len(x)
        loss = loss + self.contraction * (slopes.square() @ squares).mean()
        if self.hessian:
            loss = loss + self.hessian * self.hessian_penalty(x, slopes, squares)
        return loss

    def hessian_penalty(self, x: Tensor, slopes: Tensor, squares: Tensor) -> Tensor:
        """Return the mean of ‖J(x) − J(x + ε)‖²_F over `corruptions` draws of ε for each row of x."""
        near = x.repeat(self.corruptions, 1)
        h = self.encoder(near + self.hessian_std * torch.randn_like(near))
        change = slopes.repeat(self.corruptions, 1) - h * (1 - h)
        penalty: Tensor = change.square() @ squares
        return penalty.mean()

    def begin(self, x: Tensor) -> None:
        """Set the biases of the reconstruction so that at h = 0 it is the mean of x, (n, inputs)."""
        self.decoder.bias.data.copy_(x.mean(0).logit(eps=BLACK))

    def tangent(self, codes: Tensor, noise: Tensor) -> Tensor:
        """Return J Jᵀ ε, (n, units), at the inputs of codes (n, units): noise along the directions that J keeps."""
        slopes, weight = codes * (1 - codes), self.linear.weight
        return slopes * linear(linear(slopes * noise, weight.T), weight)


class StackedCAE(Stacked[ContractiveLayer]):
    """Each layer is contractive on the codes of the layers below it, which are frozen."""

    sampler_settings = (*ChainSampler.sampler_settings, "walk_std")

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: Widths,
        contraction: NonNegativeFloat,
        hessian: NonNegativeFloat,
        hessian_std: PositiveFloat,
        corruptions: PositiveInt,
        pretrain_epochs: PositiveInt,
        chains: PositiveInt,
        burn_in: Count,
        thinning: PositiveInt,
        walk_std: PositiveFloat,
    ) -> None:
        if noise is not unchanged:
            raise UsageError("model=stacked_cae learns from images without noise: leave out noise")
        penalties = {"contraction": contraction, "hessian": hessian, "hessian_std": hessian_std}
        layers = [
            ContractiveLayer(inputs, units, **penalties, corruptions=corruptions)
            for inputs, units in zip([data.size, *hidden], hidden, strict=False)
        ]
        super().__init__("stacked_cae", data, layers, pretrain_epochs)
        self.noise, self.walk_std = noise, walk_std
        self.chains, self.burn_in, self.thinning = chains, burn_in, thinning

    def stages(self) -> list[Stage]:
        first, *upper = super().stages()
        return [first, *(replace(stage, begin=layer.begin) for stage, layer in zip(upper, self.stack[1:], strict=True))]

    def chain(self, images: Tensor, generator: torch.Generator, data: DataSet) -> tuple[Tensor, Transition]:
        """Return the walk u ← g(f(u) + J Jᵀε), ε ~ N(0, `walk_std`² I), in the input u of the top layer.

        A sample is the mean image of f(u) + J Jᵀε, decoded down through all layers.
        """
        top = self.stack[-1]

        def step(state: Tensor) -> tuple[Tensor, Tensor]:
            codes = top.encoder(state)
            codes = codes + top.tangent(codes, self.walk_std * torch.randn_like(codes, generator=generator))
            return top.decoder(codes).sigmoid(), self.decode(codes)

        return self.encode(images, len(self.stack) - 1), step
