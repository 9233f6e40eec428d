"""The picture at the top of the README: samples of each model on MNIST, with the scores of the same samples.

`scripts/gallery [OUTPUTS]` trains each model at its defaults on MNIST, unless its run is in OUTPUTS already, and
writes docs/gallery.png. It takes two hours on two cores, most of them for the GAN, and goes on where it was stopped.
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import genexp
from genexp.config.command_line import parse
from genexp.config.compose import configuration
from genexp.data import DataSet
from genexp.figures.canvas import FONT, INK, PAPER, Picture, grid
from genexp.metrics import GivenSamples, Subject
from genexp.models import Model
from genexp.score import Score
from genexp.training import build

SHOWN, SEED, SCALE = 8, 0, 2
ROWS: dict[str, list[str]] = {
    "autoencoder": ["model=ae"],
    "denoising autoencoder": ["model=dae"],
    "contractive autoencoder": ["model=cae"],
    "stacked contractive": ["model=stacked_cae"],
    "restricted Boltzmann m.": ["model=rbm"],
    "variational autoencoder": ["model=vae"],
    "GAN of 2014": ["experiment=goodfellow2014/gan_mnist_averaged"],
    "DCGAN": ["model=dcgan"],
}
HEIGHT, FIRST, COLUMN = 58, 210, 120  # pixels of a row, of its name, of a score


def main(outputs: str) -> None:
    more = ["dataset=mnist", f"data_dir={os.environ.get('GENEXP_DATA_DIR', 'data')}", f"outputs_dir={outputs}"]
    rows: list[tuple[str, Picture, dict[str, Score]]] = []
    for name, words in ROWS.items():
        run = genexp.load(genexp.train(*words, *more, "report=false").path, "device=cpu")
        if not rows:
            training = GivenSamples(run.data.images("train"), "draw")
            test = grid(run.data.images("test", slice(SHOWN)), SHOWN)
            rows.append(("test images of MNIST", test, scores_of(training, run.data)))
        rows.append((name, grid(run.sample(SHOWN, seed=SEED), SHOWN), scores_of(run.model, run.data)))
        print(name, {metric: score.summary for metric, score in rows[-1][2].items()}, flush=True)
    out = Path("docs/gallery.png")
    drawn(rows).convert("L").save(out, optimize=True)
    print(out, f"{out.stat().st_size:,} bytes")


def scores_of(samples: Model | GivenSamples, data: DataSet) -> dict[str, Score]:
    """Return the Parzen score and FID; those of training images are what perfect samples would have."""
    config = configuration(parse("train", ["model=ae", "dataset=mnist", "metric@metrics.fid=fid"]))
    return build.scores({name: config.metrics[name] for name in ("parzen", "fid")}, Subject(samples, data, SEED))


def drawn(rows: list[tuple[str, Picture, dict[str, Score]]]) -> Image.Image:
    """Return the picture: a name, images and two scores in each row, below a head."""
    font, small = ImageFont.truetype(FONT, 15), ImageFont.truetype(FONT, 13)
    right = FIRST + rows[0][1].shape[1] * SCALE
    picture = Image.new("RGB", (right + 2 * COLUMN, (len(rows) + 1) * HEIGHT + SCALE), PAPER)
    draw = ImageDraw.Draw(picture)
    heads = ("Parzen, nats", "FID")
    for number, head in enumerate(heads):
        place = (right + (number + 0.92) * COLUMN, HEIGHT / 2)
        draw.text(place, f"{head}\n{('higher', 'lower')[number]} is better", INK, small, anchor="rm", align="right")
    for index, (name, pixels, scores) in enumerate(rows, 1):
        middle = (index + 0.5) * HEIGHT
        draw.text((FIRST - 12, middle), name, INK, font, anchor="rm")
        picture.paste(Image.fromarray(np.kron(pixels, np.ones((SCALE, SCALE, 1), np.uint8))), (FIRST, index * HEIGHT))
        for number, (metric, digits) in enumerate((("parzen", 0), ("fid", 1))):
            place = (right + (number + 0.92) * COLUMN, middle)
            draw.text(place, f"{scores[metric].mean:.{digits}f}".replace("-", "−"), INK, font, anchor="rm")
    return picture


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "outputs/gallery")
