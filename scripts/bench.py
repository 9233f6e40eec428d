"""Time genexp against the same work written plainly, in turns within one process; only ratios are meant to travel.

1. A step of experiment=goodfellow2014/gan_mnist, in float32 and (where the processor has it) bfloat16, against the
   same model as a tutorial would write it.
2. The whole Parzen protocol against one float32 product of the size of its distances.
3. Parzen log-likelihoods against scikit-learn's KernelDensity, whose default leaf size is wrong here and slower.
4. An epoch of an RBM 784-500 with persistent chains against scikit-learn's BernoulliRBM, on one thread each.
5. A VAE on the digits, alone and beside busy processes, with OpenMP's default of waiting and with ours.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import busy
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.profiler import ProfilerActivity, profile

from genexp.config.command_line import CommandLine
from genexp.config.compose import configuration as checked_configuration
from genexp.config.schema import TrainConfig
from genexp.data import DataSet
from genexp.device import select
from genexp.errors import GenexpError
from genexp.metrics.parzen import log_likelihood, score_samples
from genexp.training import build
from genexp.training.loop import train

ROUNDS, STEPS = 15, 20
KERNELS, BANDWIDTH = 2000, 0.2
RBM_IMAGES, RBM_ROUNDS = 10_000, 5
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "mkldnn::_linear_pointwise"}


def configuration(*overrides: str) -> TrainConfig:
    experiment = ("experiment=goodfellow2014/gan_mnist", "epochs=1000000")
    config: TrainConfig = checked_configuration(CommandLine("train", (*experiment, *overrides)))
    return config


def ours(config: TrainConfig, data: DataSet, device: torch.device) -> Callable[[], None]:
    """A step of genexp's own loop, logging every 100 steps as shipped."""
    steps = train(config, build.training(config, data, device), data, config.epochs)
    return lambda: next(steps) and None


class PlainMaxout(nn.Module):
    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units * pieces)
        self.units, self.pieces = units, pieces

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).view(len(x), self.units, self.pieces).max(2).values


def plain(data_dir: str, device: torch.device) -> Callable[[], None]:
    """The same model as a tutorial would write it, float32."""
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    images = torch.utils.data.Subset(MNIST(data_dir, train=True, transform=ToTensor()), range(50_000))
    loader = torch.utils.data.DataLoader(images, batch_size=100, shuffle=True)
    generator = nn.Sequential(
        *(nn.Linear(100, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 784), nn.Sigmoid())
    ).to(device)
    discriminator = nn.Sequential(
        *(nn.Dropout(0.2), PlainMaxout(784, 240, 5), nn.Dropout(0.5)),
        *(PlainMaxout(240, 240, 5), nn.Dropout(0.5), nn.Linear(240, 1)),
    ).to(device)
    optimizer_g = torch.optim.SGD(generator.parameters(), lr=0.1, momentum=0.5)
    optimizer_d = torch.optim.SGD(discriminator.parameters(), lr=0.1, momentum=0.5)
    ones, zeros = torch.ones(100, 1, device=device), torch.zeros(100, 1, device=device)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    source = batches()

    def step() -> None:
        x = next(source)[0].view(100, 784).to(device)
        fake = generator((torch.rand(100, 100, device=device) * 2 - 1) * 3**0.5)
        optimizer_d.zero_grad()
        loss_d = 0.5 * (bce(discriminator(x), ones) + bce(discriminator(fake.detach()), zeros))
        loss_d.backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        loss_g = bce(discriminator(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        loss_d.item(), loss_g.item()

    return step


def seconds(step: Callable[[], None], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def share_of_products(step: Callable[[], None]) -> float:
    """The share of a step's time that is spent in matrix products, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        whole = time.perf_counter() - started
    spent = sum(event.self_cpu_time_total for event in profiled.key_averages() if event.key in PRODUCTS)
    return spent / 1e6 / whole


def against_scikit_learn(centres: torch.Tensor, points: torch.Tensor) -> None:
    """The log-likelihood of each point, by scikit-learn's tree with its default leaves and with one leaf, and ours."""
    from sklearn.neighbors import KernelDensity

    print(
        f"Parzen log-likelihoods of {len(points):,} images under {len(centres):,} others, σ = {BANDWIDTH}, 784 pixels"
    )
    log_likelihood(points, centres, [BANDWIDTH])
    ours = log_likelihood(points, centres, [BANDWIDTH])[0].numpy()
    base = statistics.median(seconds(lambda: log_likelihood(points, centres, [BANDWIDTH]), 1) for _ in range(5))
    print(f"  {'genexp':36}{base:7.3f} s")
    x, y = centres.cpu().double().numpy(), points.cpu().double().numpy()
    for name, leaves in (("default leaf_size", {}), (f"leaf_size={len(x)}", {"leaf_size": len(x)})):
        started = time.perf_counter()
        theirs = KernelDensity(bandwidth=BANDWIDTH, **leaves).fit(x).score_samples(y)
        spent = time.perf_counter() - started
        off = abs(theirs - ours)
        differ = (
            f"differs by up to {off.max():.3g} nats, by more than 0.01 at {100 * (off > 0.01).mean():.0f}% of points"
        )
        print(f"  KernelDensity, {name:21}{spent:7.3f} s, {spent / base:.0f} times as long; {differ}")


def rbm_against_scikit_learn(data_dir: str, device: torch.device) -> None:
    """An epoch on 10,000 images, PCD-1 with 100 chains in minibatches of 100: genexp's loop, and BernoulliRBM.fit."""
    from sklearn.neural_network import BernoulliRBM
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ("model=rbm", "dataset=mnist", "dataset.binarize=threshold", "epochs=1000000", "log.every_steps=1000000")
    config: TrainConfig = checked_configuration(CommandLine("train", (*words, f"data_dir={data_dir}")))
    data = build.data_set(config.dataset, config.data_dir).to(device)
    data = replace(data, train=data.train[:RBM_IMAGES])
    step = ours(config, data, device)
    images = data.images("train").flatten(1).cpu().numpy()
    kinds = {"float32": images, "float64": images.astype(float)}
    times: dict[str, list[float]] = {"genexp": [], **{f"BernoulliRBM, {kind}": [] for kind in kinds}}
    steps = RBM_IMAGES // 100 - 1  # without the look at validation images at an epoch's end
    with threadpool_limits(1):
        for _ in range(RBM_ROUNDS):
            times["genexp"].append(seconds(step, steps) * (steps + 1))
            step()
            for kind, x in kinds.items():
                machine = BernoulliRBM(500, learning_rate=0.05, batch_size=100, n_iter=1)
                times[f"BernoulliRBM, {kind}"].append(seconds(lambda m=machine, x=x: m.fit(x), 1))
    torch.set_num_threads(threads)
    print(f"an epoch of an RBM 784-500 on {RBM_IMAGES:,} binary images, one thread, {RBM_ROUNDS} rounds in turn")
    for name, spent in times.items():
        ratios = [slow / fast for slow, fast in zip(spent, times["genexp"], strict=True)]
        print(f"  {name:24}{statistics.median(spent):7.2f} s, {statistics.median(ratios):.1f} times as long")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return True if the device multiplies bfloat16 in hardware; emulated products are many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return True
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return os.uname().machine == "arm64"
    flags = cpuinfo.read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16\n", " bf16 "))


def main() -> None:
    data_dir = os.environ.get("GENEXP_DATA_DIR", "data")
    device = select(sys.argv[1] if len(sys.argv) > 1 else "auto", None)
    config = configuration(f"data_dir={data_dir}")
    data = build.data_set(config.dataset, config.data_dir).to(device)
    contenders = {"plain PyTorch, float32": plain(data_dir, device), "genexp, float32": ours(config, data, device)}
    if multiplies_bfloat16(device):
        bfloat16 = configuration(f"data_dir={data_dir}", "device.precision=bfloat16")
        contenders["genexp, bfloat16"] = ours(bfloat16, data, device)
    else:
        print("bfloat16: not timed, this device multiplies it only by emulation")

    threads = torch.get_num_threads()
    print(f"the GAN step, batch 100, {threads} threads, {device}: {ROUNDS} rounds of {STEPS} steps in turn")
    for step in contenders.values():
        seconds(step, STEPS)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, step in contenders.items():
            times[name].append(seconds(step, STEPS))
    base = next(iter(times.values()))
    for name, step in contenders.items():
        median = statistics.median(times[name])
        ratios = sorted(slow / fast for slow, fast in zip(base, times[name], strict=True))
        quartiles = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        products = f"{100 * share_of_products(step):.0f}% in products" if device.type == "cpu" else ""
        ratio = f"{statistics.median(ratios):.2f}x ({quartiles})"
        print(f"  {name:24}{1e3 * median:6.1f} ms {100 / median:8,.0f} images/s   {ratio:22}{products}")

    samples = data.images("train").flatten(1)
    test = data.images("test").flatten(1)
    settings = {key: config.metrics["parzen"][key] for key in ("n_valid", "sigma_grid", "split")}
    protocol, product = [], []
    for _ in range(4):
        product.append(seconds(lambda: samples[:10_000] @ test.T, 1))
        protocol.append(seconds(lambda: score_samples(samples[:10_000], data, **settings), 1))
    ratios = [slow / fast for slow, fast in zip(protocol[1:], product[1:], strict=True)]
    print("the Parzen protocol: 10 bandwidths on 1,000 images, then 10,000 test images, against 10,000 samples")
    ratio = f"{statistics.median(ratios):.2f} times one 10,000 x 784 x 10,000 product"
    print(f"  {statistics.median(protocol[1:]):.2f} s, {ratio}")
    against_scikit_learn(samples[:KERNELS], test[:KERNELS])
    rbm_against_scikit_learn(data_dir, device)
    if device.type == "cpu":
        busy.table()


if __name__ == "__main__":
    try:
        main()
    except GenexpError as error:
        sys.exit(str(error))
