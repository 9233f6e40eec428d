"""Movement of a sampler's Markov chains: a Parzen score of chains that stay where they began says nothing."""

from typing import Any, Unpack

from torch import Tensor, rand

from genexp import rng
from genexp.data import DataSet
from genexp.metrics import Subject, diagnosis, of_models
from genexp.metrics.nearest import nearest
from genexp.metrics.parzen import SampleProtocol, score_of
from genexp.models import Reconstructs, evaluating, in_unit_range
from genexp.models.samplers import ChainSampler
from genexp.score import Score

COMPARED = 1000  # samples, and images of the split, whose nearest training image is sought


@diagnosis
@of_models(ChainSampler, "it describes Markov chains, and this model samples without one")
def chain(subject: Subject, **protocol: Unpack[SampleProtocol]) -> Score:
    """Return the mean distance ‖x − x₀‖ of samples from the image at which their chain began.

    The samples are those of the Parzen score. Beside the distance stand
    `between_images`: the distance of unrelated training images;
    `nearest`: the mean distance of samples to the nearest training image, `nearest_split` that of images of the split;
    `autocorrelation`: of a chain's sample with its next one, `thinning` steps on;
    `control`: the Parzen score of the chains' first images, passed through the model without a walk;
    `from_noise`: the Parzen score of chains that begin at uniform noise.
    """
    model, data, device = subject.model, subject.data, subject.data.device
    assert isinstance(model, ChainSampler)
    n_samples, split = protocol["n_samples"], protocol["split"]
    starts = model.starts(n_samples, rng.generator(device, subject.seed, "scored samples"), data)
    samples = subject.samples(n_samples)
    generator = rng.generator(device, subject.seed, "chain")
    noise = rand(starts.shape, generator=generator, device=device)
    with evaluating(model):  # type: ignore[arg-type]
        from_noise = model.walk(noise, n_samples, generator, data)
        control = model.reconstruct(starts) if isinstance(model, Reconstructs) else None
    from_noise = in_unit_range(from_noise, f"{type(model).__name__}.walk makes samples")
    if control is not None:
        control = in_unit_range(control, f"{type(model).__name__}.reconstruct makes images")

    chains = len(starts)
    own = starts.repeat(-(-n_samples // chains), *[1] * (starts.ndim - 1))[:n_samples]
    moved = distances(samples, own)
    values = {
        "between_images": between_images(data, moved.numel(), subject.seed).mean().item(),
        "nearest": nearest(samples[:COMPARED], data)[1].mean().item(),
        "nearest_split": nearest(data.images(split, slice(0, COMPARED)), data)[1].mean().item(),
        "autocorrelation": autocorrelation(samples, chains),
        "control": None if control is None else score_of(control, data, protocol).mean,
        "from_noise": score_of(from_noise, data, protocol).mean,
    }
    settings = {name: getattr(model, name) for name in ("burn_in", "thinning")}
    return Score(
        moved.mean().item(),
        None,
        summary(moved.mean().item(), values, settings, split),
        split=split,
        n_samples=n_samples,
        sample_kind=subject.sample_kind,
        details=values | settings | {"chains": chains, "seed": subject.seed},
    )


def summary(moved: float, values: dict[str, Any], settings: dict[str, int], split: str) -> str:
    """Return the score in words."""
    correlation, control = values["autocorrelation"], values["control"]
    parts = [
        f"samples {moved:.2f} from where their chain began (unrelated images {values['between_images']:.2f})",
        f"{values['nearest']:.2f} from the nearest training image ({split} images {values['nearest_split']:.2f})",
        f"autocorrelation {correlation:.3f} in {settings['thinning']} steps" if correlation is not None else "",
        f"parzen without a walk {control:.1f}" if control is not None else "",
        f"from noise {values['from_noise']:.1f}",
    ]
    return ", ".join(part for part in parts if part)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖a_i − b_i‖, (n,), of images or points."""
    lengths: Tensor = (a - b).flatten(1).norm(dim=1)
    return lengths


def between_images(data: DataSet, n: int, seed: int) -> Tensor:
    """Return the distances of up to n pairs of training images, drawn at random, (n,)."""
    device, size = data.device, len(data.train)
    generator = rng.generator(device, seed, "pairs of images")
    n = min(n, COMPARED)
    first, second = (rand(2, n, generator=generator, device=device) * size).long()
    return distances(data.images("train", first), data.images("train", second))


def autocorrelation(samples: Tensor, chains: int) -> float | None:
    """Return the correlation of a chain's sample with its next: E[(x_t − m)ᵀ(x_{t+1} − m)] / E‖x_t − m‖².

    samples: (n, ...), the first sample of every chain, then the second of every chain, and so on; m is their mean.
    Returns None if there is one sample of each chain only, or if all samples are the same.
    """
    centred = samples.flatten(1).cpu().double()
    centred = centred - centred.mean(0)
    now, following = centred[:-chains], centred[chains:]
    variance = centred.square().sum(1).mean().item()
    if not len(following) or variance == 0:
        return None
    return (now * following).sum(1).mean().item() / variance
