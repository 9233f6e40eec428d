"""genexp: an experiment runner for the classic deep generative models, on the command line and in notebooks.

`genexp.train`, `load` and `runs` are those of `genexp.api`, and `parzen`, `fid` and `prdc` those of `genexp.arrays`.
They are imported when they are asked for.
"""

from typing import TYPE_CHECKING, Any

from genexp.threads import spin_briefly

if TYPE_CHECKING:
    from genexp.api import OpenRun, load, runs, train
    from genexp.arrays import fid, parzen, prdc

__version__ = "0.1.0"
__all__ = ["OpenRun", "fid", "load", "parzen", "prdc", "runs", "train"]

spin_briefly()  # before torch is imported, in every process that computes


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'genexp' has no attribute '{name}'")
    from genexp import api, arrays

    return getattr(arrays if hasattr(arrays, name) else api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
