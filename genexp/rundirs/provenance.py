"""Provenance of a result: code, versions, machine, command line, arithmetic, time."""

import functools
import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp
from genexp import ranks
from genexp.storage.files import atomic
from genexp.text import now

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "hydra-core")
CODE = ("*.py", "configs", "pyproject.toml")  # new files that belong in a patch: code, not data


@dataclass(frozen=True)
class Checkout:
    """The state of the checkout that genexp runs from."""

    commit: str | None = None  # None outside a checkout
    patch: bytes = b""  # the difference from the commit, with new files, for `git apply`


def provenance(device: "torch.device", precision: str, command: str) -> dict[str, Any]:
    """Return the provenance of a result that a command computes on this device."""
    import torch

    code = checkout()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "commit": code.commit,
        "dirty": bool(code.patch) if code.commit else None,
        "patch": patch_name(code.patch) if code.patch else None,
        "command": command,
        "versions": {
            "genexp": genexp.__version__,
            "python": platform.python_version(),
            **{library: metadata.version(library) for library in LIBRARIES},
        },
        "machine": {
            "host": platform.node(),
            "system": f"{platform.system()} {platform.release()}",
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        "device": f"{device.type} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        **({"processes": ranks.size()} if ranks.size() > 1 else {}),
        "time": now(),
    }


def keep_patch(folder: Path) -> None:
    """Write the difference between the running code and its commit into `folder`, if there is one."""
    patch = checkout().patch
    file = folder / patch_name(patch)
    if patch and not file.exists():
        with atomic(file) as stream:
            stream.write(patch)


def patch_name(patch: bytes) -> str:
    """Return the file name of a patch."""
    return f"uncommitted-{hashlib.sha256(patch).hexdigest()[:8]}.patch"


def processor() -> str:
    """Return the model of the CPU, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


@functools.cache
def checkout() -> Checkout:
    """Return the state of the running code. It is read once, since later changes do not run in this process."""
    package = Path(genexp.__file__).parent

    def git(*arguments: str, folder: Path = package, may_differ: bool = False) -> bytes:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, check=not may_differ, timeout=30).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails in a venv inside another checkout
        commit = git("rev-parse", "HEAD").decode().strip()
        root = Path(git("rev-parse", "--show-toplevel").decode().strip())
        patch = git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", folder=root)
        new = git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE, folder=root).decode().split("\0")
        for name in sorted(filter(None, new)):
            arguments = ("diff", "--no-index", "--binary", "--no-color", "--", os.devnull, name)
            patch += git(*arguments, folder=root, may_differ=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return Checkout()
    return Checkout(commit, patch)
