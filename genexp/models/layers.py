"""Layers that several models share; those that take most of a step's time are written for speed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from genexp.ranges import Units

UNITS: dict[Units, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "linear": nn.Identity,
}

# Gains of Glorot's uniform initialisation: 4 for sigmoid units (Glorot and Bengio 2010), √2 for ReLU (He et al. 2015).
GAINS: dict[Units, float] = {"sigmoid": 4.0, "tanh": 1.0, "relu": math.sqrt(2), "linear": 1.0}

BLACK = 1e-3  # the output for a pixel that is always black starts at this grey; at 0 its gradient would vanish


def fully_connected(widths: Sequence[int], units: Sequence[Units]) -> nn.Sequential:
    """Return linear layers from each width to the next, with Glorot's initialisation, each followed by its units."""
    layers: list[nn.Module] = []
    for (inputs, outputs), kind in zip(pairwise(widths), units, strict=True):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight, GAINS[kind])
        nn.init.zeros_(linear.bias)
        layers += [linear, UNITS[kind]()]
    return nn.Sequential(*layers)


class Transposed(nn.Module):
    """Map x to xW + b, with the weights W of another linear layer (tied weights) and a bias of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.tied_to = [linear]  # a list, so that its weights are not registered a second time
        self.bias = nn.Parameter(torch.zeros(linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.tied_to[0].weight.T, self.bias)


class ReflectionPad(nn.Module):
    """Continue images (n, C, H, W) by `width` mirrored pixels on each side, as nn.ReflectionPad2d does.

    The gradient of that one adds in another order each time on an NVIDIA GPU, so that no run could be repeated there.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return nn.functional.pad(x, [self.width] * 4, "reflect")
        return self.in_pieces(x)

    def in_pieces(self, x: Tensor) -> Tensor:
        for dim in (3, 2):
            before, after = x.narrow(dim, 1, self.width), x.narrow(dim, x.shape[dim] - 1 - self.width, self.width)
            x = torch.cat([before.flip(dim), x, after.flip(dim)], dim)
        return x


class Affine(nn.Module):
    """Map x to scale·x + shift, between [0, 1] and the range in which a network works."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Maxout(nn.Module):
    """Maxout units (Goodfellow et al. 2013): h_i = max_j (xᵀW_ij + b_ij), over `pieces` linear pieces.

    (n, inputs) -> (n, units). The linear layer's outputs are ordered by piece, then by unit, for contiguous access.
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, pieces * units)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        maximum: Tensor = _MaximumOfPieces.apply(self.linear(x).unflatten(1, (self.pieces, self.units)))
        return maximum


class _MaximumOfPieces(torch.autograd.Function):
    """Return the maximum of (n, pieces, ...) over the pieces, (n, ...), in three fifths of the time of `amax(1)`.

    The mask of the largest pieces is computed once for the backward passes of both players. Ties all get the gradient.
    """

    @staticmethod
    def forward(ctx: Any, pieces: Tensor) -> Tensor:
        maximum = pieces.amax(1)
        ctx.save_for_backward(pieces == maximum.unsqueeze(1))
        return maximum

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (largest,) = ctx.saved_tensors
        input_gradient: Tensor = gradient.unsqueeze(1) * largest
        return input_gradient


class MaxoutConv(nn.Module):
    """Convolutional maxout units: the maximum over `pieces` feature maps, then over each pooling window.

    (n, inputs, H, W) -> (n, channels, H', W'). Windows are cut off at the right and lower edge, as in pylearn2.
    """

    def __init__(
        self, inputs: int, channels: int, pieces: int, *, kernel: int, padding: int, pool: int, stride: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, pieces * channels, kernel, padding=padding)
        self.pieces, self.pool, self.stride = pieces, pool, stride

    def forward(self, x: Tensor) -> Tensor:
        maximum: Tensor = _MaximumOfPieces.apply(self.conv(x).unflatten(1, (self.pieces, -1)))
        return nn.functional.max_pool2d(maximum, self.pool, self.stride, ceil_mode=True)


class Dropout(nn.Module):
    """Inverted dropout: each input is divided by 1 − p with probability 1 − p, and set to 0 otherwise.

    On the CPU the mask compares 16 random bits for each input with a threshold, several times faster than
    `bernoulli_`. 1 − p is therefore rounded to a multiple of 2⁻¹⁶, but never to 0 or 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.threshold = min(max(round((1 - p) * 2**16), 1), 2**16 - 1)  # of 2¹⁶ values, those that keep an input

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        values = bits.view(torch.int16)[: x.numel()].view(x.shape)  # from −2¹⁵ to 2¹⁵ − 1
        return x * (values < self.threshold - 2**15).to(x.dtype).mul_(2**16 / self.threshold)


def uniform_weights(module: nn.Module, bound: float) -> None:
    """Draw the weights of every layer below `module` from U(−bound, bound); set the biases to 0."""
    for name, parameter in module.named_parameters():
        if name.endswith("weight"):
            nn.init.uniform_(parameter, -bound, bound)
        else:
            nn.init.zeros_(parameter)


def sparse_weights(linear: nn.Linear, inputs: int) -> None:
    """Draw so many incoming weights of each unit from N(0, 1), of random inputs; set the others and the biases to 0.

    This is `sparse_init` of pylearn2, after Martens 2010.
    """
    chosen = torch.rand_like(linear.weight).topk(inputs, dim=1).indices
    nn.init.zeros_(linear.bias)
    nn.init.zeros_(linear.weight)
    linear.weight.data.scatter_(1, chosen, torch.randn(chosen.shape))


def stacked_filters(weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what the units of each layer look for in pixels, by the layer's name; weights are (units, inputs).

    The weights of an upper layer weigh the filters of the layer below it.
    """
    filters, below = {}, None
    for number, weight in enumerate(weights, 1):
        below = weight.detach() if below is None else weight.detach() @ below
        filters[f"layer_{number}"] = below
    return filters
