"""Addressed randomness: every draw comes from a generator seeded by (seed, purpose, index).

Data order, noise, initialisation and evaluation have separate streams. Thus drawing samples more often does not change
training, and a resumed run draws the same numbers as an uninterrupted one.
"""

import hashlib

import torch


def address(seed: int, purpose: str, index: int = 0) -> int:
    """Return a 63-bit seed for one stream; streams of different addresses are independent for practical purposes."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(device: torch.device, seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a new generator on `device`, at the start of its stream."""
    return torch.Generator(device).manual_seed(address(seed, purpose, index))


def reseed(device: torch.device, seed: int, purpose: str, index: int = 0) -> None:
    """Put the default generators (the CPU's and the device's) at the start of a stream.

    This is for code that uses the default generators, such as layers. Unlike `torch.manual_seed` it is fast enough to
    call at every step.
    """
    value = address(seed, purpose, index)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
