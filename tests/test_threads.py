"""How threads wait, also beside other busy processes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from genexp.data import DataSet
from genexp.figures.kinds import _project
from genexp.metrics.frechet import frechet_distance
from genexp.models.samplers import code_density
from genexp.papers.yardsticks import centroids

SCRIPTS = Path(__file__).parent.parent / "scripts"
MODULES = (
    "genexp.__main__",
    "genexp.cli",
    "genexp.sweeps.jobserver",
    "genexp.sweeps.elsewhere",
    "genexp.training.build",
)
FREE = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
CODES = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randint(256, (200, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = DataSet(IMAGES, IMAGES, IMAGES)


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("module", MODULES)  # the command, the server of jobs, a launcher's task, and Python's door
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
@pytest.mark.slow
def test_threads_spin_briefly_unless_the_user_says_otherwise(module, given, spins):
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
import {module}
print(os.environ.get("GOMP_SPINCOUNT"))"""
    answer = subprocess.run([sys.executable, "-c", code], env=FREE | given, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [spins]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are put on two cores by Linux's means")
@pytest.mark.slow(12)
def test_beside_busy_processes_a_training_keeps_a_third_of_its_speed(monkeypatch):
    """One thread waits for no other, so the CPU time of its step is that of an idle machine, whatever else runs."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core: OpenMP does not spin where there are more threads than cores")
    monkeypatch.syspath_prepend(SCRIPTS)
    from busy import busy_processes, measured

    os.sched_setaffinity(0, sorted(cores)[:2])  # those that are started inherit it
    try:
        with busy_processes(2):
            costs = {n: cost for n, (_, cost) in measured([1, 2], seconds=0.3).items()}
    finally:
        os.sched_setaffinity(0, cores)
    assert costs[2] < 3 * costs[1], costs


@pytest.mark.parametrize(
    ("place", "name", "work"),
    [
        ("sklearn.mixture.GaussianMixture", "fit", lambda: code_density(CODES, 2, 5, generator())),
        ("sklearn.cluster.KMeans", "fit", lambda: centroids(DATA, 10)),
        ("torch_fidelity.metric_fid", "fid_statistics_to_metric", lambda: frechet_distance(CODES, CODES)),
        ("sklearn.decomposition.PCA", "fit_transform", lambda: _project(CODES.numpy(), "pca", generator())),
    ],
)
def test_linear_algebra_of_numpy_has_one_thread(monkeypatch, place, name, work):
    module, _, owner = place.rpartition(".")
    holder = importlib.import_module(place) if owner.islower() else getattr(importlib.import_module(module), owner)
    original, threads = getattr(holder, name), set()

    def watched(*arguments, **settings):
        threads.update(pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas")
        return original(*arguments, **settings)

    monkeypatch.setattr(holder, name, watched)
    with threadpool_limits(2):
        work()
    assert threads == {1}
