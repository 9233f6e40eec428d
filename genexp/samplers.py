"""Samplers: plain functions from a trained network and a generator of random numbers to samples."""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 1000  # codes decoded at a time; fixed, so that samples do not depend on anything else


def ancestral(decoder: Callable[[Tensor], Tensor], draw_codes: Callable[[int], Tensor], n: int) -> Tensor:
    """n samples: codes from the prior, (n, dim), then what the decoder makes of them."""
    codes = draw_codes(n)
    return torch.cat([decoder(chunk) for chunk in torch.split(codes, CHUNK)])
