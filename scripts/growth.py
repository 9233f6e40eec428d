"""How seconds and memory grow with what grows: `scripts/bench growth [NAME...]` prints a table in Markdown.

Each measurement is a process of its own, whose memory is the largest that it held. "power" is the exponent p of
seconds ∝ sizeᵖ from the second largest size to the largest: 1 is linear. MNIST is read from GENEXP_DATA_DIR.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEPS = 20
IMAGES_OF_FOLDER = 32  # pixels on a side


def step(*words: str, side: int | None = None) -> float:
    """Return the seconds of a step of training, the median of STEPS; on random images of `side` pixels, if given."""
    from statistics import median

    import torch

    from genexp.config.command_line import CommandLine
    from genexp.config.compose import configuration
    from genexp.data import DataSet
    from genexp.device import select
    from genexp.training import build
    from genexp.training.loop import train

    data_dir = os.environ.get("GENEXP_DATA_DIR", "data")
    config = configuration(CommandLine("train", (*words, "log.every_steps=1000000", f"data_dir={data_dir}")))
    device = select("auto", None)
    if side is None:
        data = build.data_set(config.dataset, config.data_dir).to(device)
    else:
        images = torch.randint(256, (5000, 1, side, side), dtype=torch.uint8)
        data = DataSet(images, images[:100], images[:100]).to(device)
    steps = train(config, build.training(config, data, device), data, config.epochs)
    times = []
    for _ in range(STEPS + 8):
        started = time.perf_counter()
        next(steps)
        times.append(time.perf_counter() - started)
    return median(times[8:])


def parzen(n: int) -> float:
    import torch

    from genexp import parzen as score_of

    samples, test, valid = torch.rand(n, 784), torch.rand(1000, 784), torch.rand(100, 784)
    started = time.perf_counter()
    score_of(samples, test, valid)
    return time.perf_counter() - started


def first_step_of_folder(n: int) -> float:
    """Return the seconds from the command to the end of its first epoch, with an empty cache."""
    import numpy as np
    from PIL import Image

    side = IMAGES_OF_FOLDER
    with tempfile.TemporaryDirectory() as place:
        images, noise = Path(place, "images"), np.random.default_rng(0)
        images.mkdir()
        for number in range(n):
            pixels = noise.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{number}.png", compress_level=0)
        words = ["model=vae", "dataset=folder", f"dataset.path={images}", f"dataset.size={side}", "epochs=1"]
        words += ["batch_size=500", "model.likelihood=gaussian", "~metrics"]
        return command("train", *words, "report=false", f"outputs_dir={place}/outputs", cache=f"{place}/cache")


def runs(n: int) -> float:
    """Return the seconds of `genexp runs` over n copies of a finished run."""
    with tempfile.TemporaryDirectory() as place:
        outputs = Path(place, "outputs")
        small = ["model=vae", "dataset=digits", "epochs=1", "~metrics.elbo", "metrics.parzen.n_samples=100"]
        command("train", *small, "report=false", f"outputs_dir={outputs}")
        (run,) = (outputs / "digits").iterdir()
        files = {each.name: each.read_bytes() for each in run.iterdir() if each.suffix in (".yaml", ".json", ".jsonl")}
        for number in range(n - 1):
            copy = run.with_name(f"{run.name}-{number}")
            copy.mkdir()
            for name, content in files.items():
                (copy / name).write_bytes(content)
        return command("runs", f"outputs_dir={outputs}")


def jobs(n: int) -> float:
    """Return the seconds until all n jobs of a sweep are checked."""
    from genexp.config.command_line import parse
    from genexp.sweeps.sweep import plan

    line = parse("train", ["-m", "model=vae", "dataset=digits", f"seed=range({n})", "outputs_dir=/nowhere"])
    started = time.perf_counter()
    plan(line)
    return time.perf_counter() - started


def command(*words: str, cache: str | None = None) -> float:
    environment = os.environ | ({} if cache is None else {"GENEXP_CACHE_DIR": cache})
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "genexp", *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


VAE = ("model=vae", "dataset=mnist")
MEASURES: dict[str, tuple[list[int], Callable[[int], float]]] = {
    "batch size (vae, a step)": ([50, 200, 800, 3200], lambda n: step(*VAE, f"batch_size={n}")),
    "width (vae, a step)": ([125, 500, 2000, 4000], lambda n: step(*VAE, f"model.hidden=[{n},{n}]")),
    "pixels (dcgan with 16 maps, a step)": (
        [8**2, 16**2, 32**2, 64**2],
        lambda n: step("model=dcgan", "dataset=digits", "model.channels=16", side=math.isqrt(n)),
    ),
    "samples (parzen, 1,000 test images)": ([1000, 4000, 16000, 64000], parzen),
    "images of a folder (vae, a command of one epoch)": (
        [1000, 10_000, 100_000],
        first_step_of_folder,
    ),
    "runs in outputs/ (genexp runs)": ([100, 1000, 10_000], runs),
    "jobs of a sweep (until all are checked)": ([10, 100, 1000, 10_000], jobs),
}


def measured(name: str, size: int) -> tuple[float, float]:
    """Return seconds and MiB of one measurement, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, __file__, "--one", name, str(size)], check=True, capture_output=True, text=True
    )
    seconds, mebibytes = json.loads(answer.stdout.splitlines()[-1])
    return seconds, mebibytes


def main(names: list[str]) -> None:
    for name, (sizes, _) in MEASURES.items():
        if names and not any(name.startswith(wanted) for wanted in names):
            continue
        found = [measured(name, size) for size in sizes]
        (before, last), (n, m) = (seconds for seconds, _ in found[-2:]), sizes[-2:]
        power = math.log(last / before) / math.log(m / n)
        print(f"\n| {name} | {' | '.join(f'{size:,}' for size in sizes)} | power |\n{'|---' * (len(sizes) + 2)}|")
        print(f"| seconds | {' | '.join(f'{seconds:.4g}' for seconds, _ in found)} | {power:.2f} |")
        print(f"| MiB | {' | '.join(f'{mebibytes:,.0f}' for _, mebibytes in found)} | |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        seconds = MEASURES[sys.argv[2]][1](int(sys.argv[3]))
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        print(json.dumps((seconds, max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024)))
    else:
        main(sys.argv[1:])
