"""Layers shared by the models of this literature, written for speed where a step's time is seen to go."""

from typing import Any

import torch
from torch import Tensor, nn


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
    """(n, pieces, units) -> (n, units), like `amax(1)` in three fifths of its time: which piece won is found once,
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
    """Draw the weights of every linear layer below `module` from U(−bound, bound); set the biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
