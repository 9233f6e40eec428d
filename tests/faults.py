"""Real training processes killed at random instants, and what came of them beside runs that nobody touched.

`scripts/faults 200` kills more often than the suite does.
"""

import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from conftest import assert_same_state, last_checkpoint, read_metrics, without_times
from forked import Forked
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genexp.storage.checkpoint import load

SHOWN = ("scalars", "images", "histograms")  # of which TensorBoard would otherwise show a sample
OFTEN = [  # so that instants fall within checkpoints, pictures and scores as well
    "checkpoint.every_minutes=0.002",
    "log.samples_every_epochs=1",
    "log.scores_every_epochs=2",
    "log.every_steps=3",
    "metrics.parzen.n_samples=100",
    "device.threads=1",
]
GAN = ["model=gan", "dataset=digits", "epochs=8", "model.generator_hidden=[64]", "model.discriminator_hidden=[32]"]
CHAIN = ["model.latent_dim=32", "model.chains=20", "model.burn_in=5", "model.thinning=1"]
RUNS = {  # a run of every model that takes a second
    "ae": ["model=ae", "dataset=digits", "epochs=4", "model.hidden=[32]", "model.latent_dim=5"],
    "cae": ["model=cae", "dataset=digits", "epochs=3", *CHAIN],
    "conv_gan": [
        *("model=conv_gan", "dataset=folder", "dataset.path=pictures", "dataset.size=32", "batch_size=12", "epochs=1"),
        "log.scores_every_epochs=1",
        *("model.latent_dim=8", "model.generator_hidden=64", "model.generator_maps=4", "checkpoint.every_minutes=0.02"),
    ],
    "dae": ["model=dae", "dataset=digits", "epochs=8", *CHAIN],
    "dcgan": ["model=dcgan", "dataset=digits", "epochs=3", "model.channels=4", "model.latent_dim=8"],
    "gan": GAN,
    "vae": [
        *("model=vae", "dataset=digits", "epochs=8", "model.hidden=[32]", "metrics.iwae.n_samples=5"),
        *("dataset.binarize=fresh", "model.objective=iwae", "model.k=3"),
    ],
    "stacked_dae": [
        *("model=stacked_dae", "dataset=digits", "epochs=2", "model.pretrain_epochs=1", "model.hidden=[64,48,32]"),
        *("model.fine_tuning=true", "ema=0.9", "model.chains=20", "model.burn_in=5", "model.thinning=1"),
    ],
    "stacked_cae": [
        *("model=stacked_cae", "dataset=digits", "epochs=4", "model.pretrain_epochs=4", "model.hidden=[64,48]"),
        *("model.chains=20", "model.burn_in=5", "model.thinning=1"),
    ],
    "gsn": ["model=gsn", "dataset=digits", "epochs=5", "model.hidden=[64,32]", "model.chains=20", "model.burn_in=5"],
    "dbn": [
        *("model=dbn", "dataset=digits", "epochs=3", "model.pretrain_epochs=2", "model.hidden=[64,48]"),
        *("model.persistent_chains=20", "model.chains=20", "model.burn_in=5", "model.thinning=1"),
    ],
    "stacked_gan": [
        *("model=stacked_gan", "dataset=digits", "epochs=5", "model.pretrain_epochs=4", "model.front_hidden=[48]"),
        *("model.generator_hidden=[64]", "model.discriminator_hidden=[32]", "optimizer.max_col_norm=1.5", "ema=0.9"),
    ],
    "rbm": ["model=rbm", "dataset=digits", "epochs=8", "model.hidden=64", *CHAIN[1:], "ema=0.99"],
    "dbm": [
        *("model=dbm", "dataset=digits", "epochs=3", "model.pretrain_epochs=2", "model.hidden=[64,32]", *CHAIN[1:]),
        *("dataset.binarize=fresh", "+metric@metrics.ais=ais", "metrics.ais.temperatures=50", "metrics.ais.burn_in=5"),
    ],
    "cyclegan": [
        *("model=cyclegan", "dataset=digits", "epochs=2", "batch_size=30", "model.channels=4", "model.blocks=1"),
        *("model.discriminator_channels=4", "model.pool=20", "~metric@metrics.translation_accuracy", "ema=0.99"),
        *("metric@metrics.parzen=parzen", "checkpoint.every_minutes=0.005"),
    ],
}


class Trial:
    """A folder with pictures, runs in it, and the processes that make them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds = folder, 0.0  # that the last process took
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / "pictures" / f"{number:03d}.png")

    def run(self, words: list[str], place: str, kill_after: float | None) -> bool:
        """Begin the run or go on with it; kill it after so many seconds. Whether it came to its end before that."""
        begun = time.perf_counter()
        process = Forked(self.folder, "train", *OFTEN, *words, f"outputs_dir={place}")
        code = process.wait(kill_after)
        self.seconds = time.perf_counter() - begun
        if code is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        assert code == 0, process.err[-3000:]
        return True

    def compare(self, model: str, kills: int, rng: random.Random) -> int:
        """Kill a run of the model so many times at least, and hold what becomes of it against one left alone.

        Returns how many kills there were. What was killed is begun again until it ends; then the next one is begun.
        """
        words = RUNS[model]
        self.run(words, f"{model}-whole", None)
        seconds = self.seconds
        done, attempt = 0, 0
        while done < kills:
            attempt += 1
            place = f"{model}-{attempt}"
            while not self.run(words, place, rng.uniform(0.02, 1.0) * seconds if done < kills else None):
                done += 1
            same(self.only_run(f"{model}-whole"), self.only_run(place))
        return done

    def only_run(self, place: str) -> Path:
        (found,) = (file.parent for file in (self.folder / place).glob("*/*/results.json"))
        return found


def same(whole: Path, killed: Path) -> None:
    """Assert that two runs left the same: state, best state, log lines, curves, pictures, scores, to the last bit."""
    assert_same_state(last_checkpoint(killed), last_checkpoint(whole))
    assert_same_state(load(killed / "checkpoints/best.pt"), load(whole / "checkpoints/best.pt"))
    assert without_times(read_metrics(killed)) == without_times(read_metrics(whole))
    steps = [line["step"] for line in read_metrics(killed)]
    assert steps == sorted(set(steps))
    assert points(killed) == points(whole)
    pictures = sorted(file.relative_to(whole) for file in whole.rglob("*.png"))
    assert pictures == sorted(file.relative_to(killed) for file in killed.rglob("*.png"))
    assert all((whole / picture).read_bytes() == (killed / picture).read_bytes() for picture in pictures)
    results = [json.loads((run / "results.json").read_text()) for run in (whole, killed)]
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["evaluations"].keys() == results[1]["evaluations"].keys()
    assert json.loads((killed / "status.json").read_text())["status"] == "finished"
    assert not list(killed.rglob("*.partial"))


def points(run: Path) -> list[tuple[str, int]]:
    """Every point that TensorBoard shows of a run, tag and step, each with one value."""
    shown = EventAccumulator(str(run), size_guidance=dict.fromkeys(SHOWN, 0)).Reload()
    kinds = [(shown.Scalars, "scalars"), (shown.Images, "images"), (shown.Histograms, "histograms")]
    found: dict[tuple[str, int], object] = {}
    for read, kind in kinds:
        for tag in shown.Tags()[kind]:
            for event in read(tag):
                value = getattr(event, "value", None)
                speed = tag == "speed/images_per_second"
                assert found.setdefault((tag, event.step), value) == value or speed, f"{tag} has two values at a step"
    return sorted(found)


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**6
    rng = random.Random(seed)
    begun, done = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        for model in RUNS:
            share = -(-kills // len(RUNS))
            done += trial.compare(model, share, rng)
            print(f"{model}: {share} kills survived, {done} so far, {time.perf_counter() - begun:.0f} s", flush=True)
    print(f"{done} kills, all survived bit for bit (seed {seed}, {time.perf_counter() - begun:.0f} s)")


if __name__ == "__main__":
    main()
