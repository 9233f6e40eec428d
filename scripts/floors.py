"""A step of each shipped model against its floor: the time of its matrix products and convolutions alone.

`scripts/bench floors [MODEL...]` prints a table in Markdown, a row for each stage of training, and writes
`floors.json`. All models are at their shipped sizes and batches, on MNIST, in float32. The products of one step are
recorded, and each kind is timed by itself on random numbers of the same shapes, in the same process. What a row has
above its floor goes into everything else: sigmoids, random numbers, the optimizer, and Python.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from genexp.config.command_line import CommandLine
from genexp.config.compose import configuration
from genexp.config.schema import CONFIGS, TrainConfig
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import GenexpError
from genexp.rundirs.provenance import processor
from genexp.training import build
from genexp.training.loop import Training, train
from genexp.training.plan import PlannedStage

SECONDS, PRODUCT_SECONDS, LEAST = 2.0, 0.1, 5  # of steps, of each kind of product; the least number of both
PRODUCTS = {
    getattr(torch.ops.aten, name)
    for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "convolution", "convolution_backward")
}
ON_32 = {"conv_gan": "experiment=goodfellow2014/conv_gan_cifar10"}  # on random images of CIFAR-10's shape


class Recorder(TorchDispatchMode):
    """Count the products that are computed within it, by operation and by shapes, strides and types of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, Any, Any]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PRODUCTS:
            self.calls[(func, _described(args), _described(tuple((kwargs or {}).items())))] += 1
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ("tensor", tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else value


def _made(value: Any, device: torch.device) -> Any:
    """Return arguments like those described, of random numbers."""
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        _, shape, stride, dtype = value
        return torch.empty_strided(shape, stride, dtype=dtype, device=device).normal_()
    return [_made(each, device) for each in value] if isinstance(value, tuple) else value


def median_seconds(act: Callable[[], Any], least_seconds: float) -> float:
    act()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < least_seconds:
        started = time.perf_counter()
        act()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def floor_of(calls: Counter[tuple[Any, Any, Any]], device: torch.device) -> float:
    """Return the seconds that the recorded products take alone."""
    total = 0.0
    for (func, args, kwargs), times in calls.items():
        given, named = _made(args, device), dict(_made(kwargs, device))
        total += times * median_seconds(lambda f=func, a=given, k=named: f(*a, **k), PRODUCT_SECONDS)
    return total


def measured(config: TrainConfig, training: Training, data: DataSet, stage: PlannedStage) -> dict[str, float]:
    """Return seconds of a step of the stage, GFLOP of its products, and their seconds alone."""
    training.step, training.window = stage.first_step, []
    steps = train(config, training, data, config.epochs)
    for _ in range(3):
        next(steps)
    with FlopCounterMode(display=False) as flops, Recorder() as recorder:
        next(steps)
    left = stage.steps_per_epoch - 5  # an epoch's end looks at validation images
    times: list[float] = []
    while len(times) < min(left, LEAST) or (sum(times) < SECONDS and len(times) < left):
        started = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - started)
    floor = floor_of(recorder.calls, training.model.device)
    return {"step": statistics.median(times), "gflop": flops.get_total_flops() / 1e9, "floor": floor}


def rows(name: str, device: torch.device) -> dict[str, dict[str, float]]:
    """Return what is measured of a model, by the name of the row."""
    words = (ON_32[name],) if name in ON_32 else (f"model={name}", "dataset=mnist")
    data_dir = os.environ.get("GENEXP_DATA_DIR", "data")
    more = ("log.every_steps=1000000", f"data_dir={data_dir}")
    config: TrainConfig = configuration(CommandLine("train", (*words, *more)))
    if name in ON_32:
        noise = torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8)
        data = DataSet(noise, noise[:1000], noise[:1000]).to(device)
    else:
        data = build.data_set(config.dataset, config.data_dir, config.dataset_b).to(device)
    training = build.training(config, data, device)
    stages = training.plan.stages
    return {f"{name}, {each.name}" if each.name else name: measured(config, training, data, each) for each in stages}


def main(names: list[str]) -> None:
    device = select("auto", None)
    threads = torch.get_num_threads()
    known = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{processor()}, {threads} threads"
    print(f"{machine}, torch {torch.__version__}, Python {platform.python_version()}\n", flush=True)
    print("| model | step, ms | GFLOP | floor, ms | GFLOP/s of the floor | step / floor |\n|---|---|---|---|---|---|")
    kept: dict[str, dict[str, float]] = {}
    for name in names or known:
        for row, values in rows(name, device).items():
            kept[row] = values
            step, gflop, floor = values["step"], values["gflop"], values["floor"]
            numbers = f"{1e3 * step:.2f} | {gflop:.3f} | {1e3 * floor:.2f} | {gflop / floor:.0f} | {step / floor:.2f}"
            print(f"| {row} | {numbers} |", flush=True)
    Path("floors.json").write_text(json.dumps({"machine": machine, "torch": torch.__version__, "rows": kept}, indent=2))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except GenexpError as error:
        sys.exit(str(error))
