"""The waiting of CPU threads for each other. By default they spin, which is ruinous beside another busy process.

It does not import torch: OpenMP reads its settings once, as torch is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPINS = "1000"  # of a thread before it sleeps; beside a busy process, the default costs 5 to 30 times the CPU time
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # a user who set one of them knows better


def spin_briefly() -> None:
    """Have the threads of GNU's OpenMP, which torch's wheels use, spin briefly, in this process and those it starts."""
    if not any(name in os.environ for name in CHOSEN):
        os.environ["GOMP_SPINCOUNT"] = SPINS


@contextmanager
def one_for_blas() -> Iterator[None]:
    """Keep NumPy's linear algebra to one thread within it, and scikit-learn's own loops to torch's number of threads.

    OpenBLAS's threads wait by spinning, whatever is set. Beside a busy process two of them took 40 times as long for a
    mixture of Gaussians as one. With one, a result does not depend on the number of threads, either.
    """
    import torch
    from threadpoolctl import threadpool_limits

    with threadpool_limits({"blas": 1, "openmp": torch.get_num_threads()}):
        yield
