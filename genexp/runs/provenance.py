"""Where a result came from: code, versions, machine, command line, arithmetic, time."""

import functools
import hashlib
import os
import platform
import shlex
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp
from genexp.storage.files import atomic
from genexp.text import now

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "hydra-core")
CODE = ("*.py", "configs", "pyproject.toml")  # what of the new files is taken into a patch: code, not data

command_line = ""  # that this process was given; set where it begins


@dataclass(frozen=True)
class Checkout:
    """The state of the checkout that genexp is run from."""

    commit: str | None = None  # None outside a checkout
    patch: bytes = b""  # what differs from the commit, new files included; `git apply` makes the same of it


def shown(words: list[str]) -> str:
    """The command line of genexp with these words, as one would type it."""
    return shlex.join(["genexp", *words])


def provenance(device: "torch.device", precision: str) -> dict[str, Any]:
    """What is to be kept beside a result that was computed on this device."""
    import torch  # not by those who only want to know the time

    code = checkout()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "commit": code.commit,
        "dirty": bool(code.patch) if code.commit else None,
        "patch": patch_name(code.patch) if code.patch else None,
        "command": command_line,
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
        "time": now(),
    }


def keep_patch(folder: Path) -> None:
    """Keep in `folder` the difference between the code that runs and its commit, if there is one."""
    patch = checkout().patch  # as it was when this was asked for the first time
    if patch and not (folder / patch_name(patch)).exists():
        with atomic(folder / patch_name(patch)) as stream:
            stream.write(patch)


def patch_name(patch: bytes) -> str:
    return f"uncommitted-{hashlib.sha256(patch).hexdigest()[:8]}.patch"


def processor() -> str:
    """The model of the CPU, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def checkout() -> Checkout:
    """The state of the code that runs, as git sees it when a process asks first: later changes do not run in it."""
    package = Path(genexp.__file__).parent

    def git(*arguments: str, folder: Path = package, may_differ: bool = False) -> bytes:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, check=not may_differ, timeout=30)
        return done.stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else the checkout is somebody else's, around a venv
        commit = git("rev-parse", "HEAD").decode().strip()
        root = Path(git("rev-parse", "--show-toplevel").decode().strip())
        patch = git("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", folder=root)
        new = git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE, folder=root).decode().split("\0")
        for name in sorted(filter(None, new)):
            added = ("diff", "--no-index", "--binary", "--no-color", "--", os.devnull, name)
            patch += git(*added, folder=root, may_differ=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return Checkout()
    return Checkout(commit, patch)
