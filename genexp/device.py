"""Where a run computes: choosing the device, its threads, and the arithmetic of its matrix products."""

import contextlib
import os
from pathlib import Path

import torch

from genexp.errors import UsageError

ALL_THREADS = torch.get_num_threads()  # before any run of this process has set its own


def select(kind: str, threads: int | None) -> torch.device:
    """The device of that kind, with CPU threads set. Raises UsageError when this machine has none."""
    torch.set_num_threads(threads or ALL_THREADS)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        kind = next(name for name, there in available.items() if there)
    if not available[kind]:
        others = [name for name, there in available.items() if there]
        raise UsageError(
            f"device={kind}: this machine has no {kind.upper()} device that torch can use; "
            f"use device=auto or device={others[0]}"
        )
    return torch.device(kind, 0) if kind != "cpu" else torch.device("cpu")


def products(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Within it matrix products run in `precision`, each weight cast at most once; all else stays float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware there; elsewhere they are emulated and many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return True
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return os.uname().machine == "arm64"
    flags = cpuinfo.read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16\n", " bf16 "))
