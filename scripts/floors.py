"""A step of each shipped model against its floor: the time of its matrix products and convolutions alone.

`scripts/bench floors [MODEL...]` prints a table in Markdown, a row for each stage of training; of all models it writes
`docs/floors.json`, too. All models are at their shipped sizes and batches, on MNIST, in float32. The operations of one
step are recorded on a tape, and groups of them are played again, in the same process:

floor: each product by itself, repeated. This is the rate that the machine reaches in a product of this shape.
products: all products of the step, one after another, as in the step. Weights come from farther away than the
    nearest caches then, so this takes longer, whoever calls them.
optimizer: its operations alone. They go once through weights, gradients and what the optimizer keeps.
others: the other operations alone, such as sigmoids, random numbers and losses.
Python: what the step takes beyond all its operations; less than 0 where these are slower on tape.
"""

import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import peers
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
from genexp.training.minibatches import Minibatches
from genexp.training.moves import Moves
from genexp.training.plan import PlannedStage
from genexp.training.tape import Tape

SECONDS, GROUP_SECONDS, PRODUCT_SECONDS, LEAST = 2.0, 0.5, 0.1, 5  # of steps, of each group, of each product
PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv_", "convolution", "convolution_backward"}
OPTIMIZERS = {"_fused_adam_", "_fused_sgd_", "_foreach_add_"}
ON_32 = {"conv_gan": "experiment=goodfellow2014/conv_gan_cifar10"}  # on random images of CIFAR-10's shape

MORE = {"cyclegan": ("~metric@metrics.translation_accuracy",)}


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


def group_of(call: Callable[[], object]) -> str:
    """Return the group of a call of a tape."""
    inner = next((each for each in getattr(call, "args", ()) if isinstance(each, partial)), call)
    name = getattr(inner.func, "overloadpacket", inner.func).__name__ if isinstance(inner, partial) else ""
    return "products" if name in PRODUCTS else "optimizer" if name in OPTIMIZERS else "others"


def play(calls: list[Callable[[], object]]) -> None:
    with torch.no_grad():
        for call in calls:
            call()


def recorded(config: TrainConfig, training: Training, data: DataSet, stage: PlannedStage) -> tuple[Tape, float]:
    """Return a step of the stage on tape, and the floating-point operations of its products."""
    minibatches = Minibatches(data, stage, training.plan.batch_size, config.seed, training.model)
    minibatches.begin()
    players = {player: training.optimizers[player] for player in stage.players}
    moves = Moves(training.model, players, minibatches, config.seed, config.device.precision)
    for step in range(3):
        moves.make(stage.first_step + step)
    moves.prepare(stage.first_step + 3)
    given, tape = minibatches.given(stage.first_step + 3), Tape(most=2**40, most_recorded=2**40)
    with FlopCounterMode(display=False) as flops:
        tape.record(lambda: moves.make_prepared(given))
    return tape, float(flops.get_total_flops())


def measured(config: TrainConfig, training: Training, data: DataSet, stage: PlannedStage) -> dict[str, float]:
    """Return GFLOP of the stage's step, and the seconds of the step and of its parts."""
    before = copy.deepcopy(training.state_dict())  # to play the optimizer alone ruins the weights
    tape, flop = recorded(config, training, data, stage)
    training.step, training.window = stage.first_step + 4, []
    steps = train(config, training, data, config.epochs)
    for _ in range(7):  # captured, and checked
        next(steps)
    left = stage.steps_per_epoch - 12  # an epoch's end looks at validation images
    times: list[float] = []
    while len(times) < min(left, LEAST) or (sum(times) < SECONDS and len(times) < left):
        started = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - started)
    groups: dict[str, list[Callable[[], object]]] = {"products": [], "optimizer": [], "others": []}
    for call in tape.calls:
        groups[group_of(call)].append(call)
    floor = sum(median_seconds(partial(play, [call]), PRODUCT_SECONDS) for call in groups["products"])
    parts = {name: median_seconds(partial(play, calls), GROUP_SECONDS) for name, calls in groups.items() if calls}
    training.load_state_dict(before)
    return {"step": statistics.median(times), "gflop": flop / 1e9, "floor": floor, **parts}


def rows(name: str, device: torch.device) -> dict[str, dict[str, float]]:
    """Return what is measured of a model, by the name of the row."""
    words = (ON_32[name],) if name in ON_32 else (f"model={name}", "dataset=mnist")
    data_dir = os.environ.get("GENEXP_DATA_DIR", "data")
    more = ("log.every_steps=1000000", f"data_dir={data_dir}", *MORE.get(name, ()))
    config: TrainConfig = configuration(CommandLine("train", (*words, *more)))
    if name in ON_32:
        noise = torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8)
        data = DataSet(noise, noise[:1000], noise[:1000]).to(device)
    else:
        data = build.data_set(config.dataset, config.data_dir, config.dataset_b).to(device)
    training = build.training(config, data, device)
    stages = training.plan.stages
    of_rows = {f"{name}, {each.name}" if each.name else name: measured(config, training, data, each) for each in stages}
    for peer, step in peers(name, config, data).items():
        of_rows[f"{name}, {peer}"] = {"step": median_seconds(step, SECONDS)}
    return of_rows


def in_table(name: str, values: dict[str, float]) -> str:
    """Return a row of the table; a peer has its step alone."""
    if "floor" not in values:
        return f"| {name} | {1e3 * values['step']:.2f} | | | | | | | |"
    parts = [values.get(part, 0.0) for part in ("products", "optimizer", "others")]
    rest = values["step"] - sum(parts)
    milliseconds = " | ".join(f"{1e3 * seconds:.2f}" for seconds in (values["floor"], *parts, rest))
    rate = values["gflop"] / values["floor"]
    numbers = f"{1e3 * values['step']:.2f} | {values['gflop']:.3f} | {rate:.0f} | {milliseconds}"
    return f"| {name} | {numbers} | {values['step'] / values['floor']:.2f} |"


def main(names: list[str]) -> None:
    device = select("auto", None)
    threads = torch.get_num_threads()
    known = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{processor()}, {threads} threads"
    print(f"{machine}, torch {torch.__version__}, Python {platform.python_version()}; milliseconds\n", flush=True)
    print("| model | step | GFLOP | GFLOP/s | floor | products | optimizer | others | Python | step / floor |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    kept: dict[str, dict[str, float]] = {}
    for name in names or known:
        for row, values in rows(name, device).items():
            kept[row] = values
            print(in_table(row, values), flush=True)
    if not names:
        found = {"machine": machine, "torch": torch.__version__, "rows": kept}
        Path("docs/floors.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except GenexpError as error:
        sys.exit(str(error))
