"""Time a training alone and beside busy processes. `scripts/bench` prints the table, the tests use the same numbers.

`busy.py SECONDS THREADS...` trains a VAE on the digits in this process, in turns of so many seconds with each number of
threads, and prints as JSON the steps a second and the CPU milliseconds of a step for each.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULT = "300000"  # spins of GNU's OpenMP where nobody sets GOMP_SPINCOUNT
ROUNDS, SECONDS = 4, 1.0
SETTINGS = ("model=vae", "dataset=digits", "epochs=1000000", "log.every_steps=1000000")


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Have n other processes compute within it."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(threads: list[int], seconds: float = SECONDS, **environment: str) -> dict[int, tuple[float, float]]:
    """Return steps a second and CPU milliseconds of a step for each number of threads, from a new process.

    Its threads wait as genexp has them wait, unless `environment` has GOMP_SPINCOUNT.
    """
    chosen = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    inherited = {name: value for name, value in os.environ.items() if name not in chosen}
    command = [sys.executable, __file__, str(seconds), *map(str, threads)]
    answer = subprocess.run(command, env=inherited | environment, stdout=subprocess.PIPE, check=True)
    return {int(n): tuple(values) for n, values in json.loads(answer.stdout).items()}


def in_turns(threads: list[int], seconds: float) -> dict[int, tuple[float, float]]:
    """Train in turns with each number of threads; return the medians of steps a second and CPU milliseconds a step."""
    from genexp.config.command_line import CommandLine
    from genexp.config.compose import configuration
    from genexp.device import select
    from genexp.training import build
    from genexp.training.loop import train

    config = configuration(CommandLine("train", SETTINGS))
    device = select("cpu", None)
    data = build.data_set(config.dataset, config.data_dir).to(device)
    steps = train(config, build.training(config, data, device), data, config.epochs)
    rounds: dict[int, list[tuple[float, float]]] = {n: [] for n in threads}
    for _ in range(ROUNDS):
        for n in threads:
            select("cpu", n)
            next(steps)
            wall, cpu, done = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - wall < seconds:
                next(steps)
                done += 1
            rounds[n].append((done / (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu) / done))
    return {n: tuple(map(statistics.median, zip(*measures, strict=True))) for n, measures in rounds.items()}


def table() -> None:
    """Print the speed of a training alone and beside a busy process for each core, by OpenMP's default and by ours."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"a VAE on the digits, batch 100, {cores} threads: steps a second (CPU time of a step)")
    for name, environment in (("OpenMP's default", {"GOMP_SPINCOUNT": DEFAULT}), ("genexp", {})):
        alone = measured([cores], **environment)[cores]
        with busy_processes(cores):
            beside = measured([cores], **environment)[cores]
        parts = (f"{speed:7.0f} ({cost:6.2f} ms)" for speed, cost in (alone, beside))
        print(f"  {name:20}alone {next(parts)}   beside {cores} busy processes {next(parts)}", flush=True)


if __name__ == "__main__":
    print(json.dumps(in_turns([int(word) for word in sys.argv[2:]], float(sys.argv[1]))))
