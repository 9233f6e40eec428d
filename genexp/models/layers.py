"""Layers shared by the models of this literature, written for speed where a step's time is seen to go."""

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

# Of Glorot's uniform initialisation: 4 for sigmoid units (Glorot and Bengio 2010), √2 for ReLU (He et al. 2015).
GAINS: dict[Units, float] = {"sigmoid": 4.0, "tanh": 1.0, "relu": math.sqrt(2), "linear": 1.0}

BLACK = 1e-3  # a pixel that is black in every training image starts as this grey, or its unit could hardly learn


def fully_connected(widths: Sequence[int], units: Sequence[Units]) -> nn.Sequential:
    """Linear layers from each width to the next, with Glorot's initialisation, each followed by its units."""
    layers: list[nn.Module] = []
    for (inputs, outputs), kind in zip(pairwise(widths), units, strict=True):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight, GAINS[kind])
        nn.init.zeros_(linear.bias)
        layers += [linear, UNITS[kind]()]
    return nn.Sequential(*layers)


class Transposed(nn.Module):
    """x ↦ xW + b with the weights W of another linear layer (tied weights) and a bias of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.tied_to = [linear]  # in a list, or its weights would be listed as this layer's too
        self.bias = nn.Parameter(torch.zeros(linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.tied_to[0].weight.T, self.bias)


class Affine(nn.Module):
    """x ↦ scale·x + shift: between [0, 1] and the range in which a network works."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Maxout(nn.Module):
    """Maxout units (Goodfellow et al. 2013): h_i = max_j (xᵀW_ij + b_ij), over `pieces` linear pieces.

    (n, inputs) -> (n, units). The pieces of all units lie one after another, so that the maximum runs along memory.
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, pieces * units)
        self.units, self.pieces = units, pieces

    def forward(self, x: Tensor) -> Tensor:
        pieces: Tensor = self.linear(x).view(len(x), self.pieces, self.units)
        maximum: Tensor = _MaximumOfPieces.apply(pieces)
        return maximum


class _MaximumOfPieces(torch.autograd.Function):
    """(n, pieces, ...) -> (n, ...), like `amax(1)` in three fifths of its time: which piece won is found once,
    not at each player's backward pass. Pieces that tie all get the gradient.
    """

    @staticmethod
    def forward(ctx: Any, pieces: Tensor) -> Tensor:
        maximum = pieces.amax(1)
        ctx.save_for_backward(pieces == maximum.unsqueeze(1))
        return maximum

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (won,) = ctx.saved_tensors
        spread: Tensor = gradient.unsqueeze(1) * won
        return spread


class MaxoutConv(nn.Module):
    """Convolutional maxout units: the maximum over `pieces` feature maps, then over each pooling window.

    (n, inputs, H, W) -> (n, channels, H', W'), with the windows at the far edges cut short, as pylearn2 pools.
    """

    def __init__(
        self, inputs: int, channels: int, pieces: int, *, kernel: int, padding: int, pool: int, stride: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, pieces * channels, kernel, padding=padding)
        self.pool = nn.MaxPool2d(pool, stride, ceil_mode=True)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        maximum: Tensor = _MaximumOfPieces.apply(self.conv(x).unflatten(1, (self.pieces, -1)))
        pooled: Tensor = self.pool(maximum)
        return pooled


class Dropout(nn.Module):
    """Inverted dropout: each input is kept with probability 1 − p and then divided by it.

    On the CPU the mask is made of raw random bits, 16 for each input, which is several times faster than drawing
    from `bernoulli_`; 1 − p is therefore rounded to a multiple of 2⁻¹⁶, but not to 0 or 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.kept = min(max(round((1 - p) * 2**16), 1), 2**16 - 1)  # of the 2¹⁶ values that 16 bits can have

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits < self.kept - 2**15).to(x.dtype).mul_(2**16 / self.kept)


def uniform_weights(module: nn.Module, bound: float) -> None:
    """Draw the weights of every layer below `module` from U(−bound, bound); set the biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
