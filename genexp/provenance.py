"""Where a result came from: code, versions, device, arithmetic, time."""

import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genexp

if TYPE_CHECKING:
    import torch


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def provenance(device: "torch.device", precision: str) -> dict[str, Any]:
    """What is to be kept beside a result that was computed on this device."""
    import torch  # not by those who only want to know the time

    commit, dirty = _git_state(Path(genexp.__file__).parent)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    libraries = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "hydra-core")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {
            "genexp": genexp.__version__,
            "python": platform.python_version(),
            **{library: metadata.version(library) for library in libraries},
        },
        "device": f"{device.type} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "time": now(),
    }


def _git_state(package: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that holds the package, and whether it was changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else the checkout is somebody else's, around a venv
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None
