"""Deep convolutional generative adversarial nets (Radford et al. 2016)."""

from functools import partial
from itertools import pairwise
from typing import Unpack

from torch import Tensor, nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models.adversarial import AdversarialNets, Game, ranges
from genexp.noise import Corruption
from genexp.ranges import PositiveInt

SMALLEST = 4  # pixels; sides are halved until one is at most this, or odd
LEAK = 0.2
INIT_STD = 0.02
# Convolutions that halve both sides, and fractionally strided ones that double them.
halving = partial(nn.Conv2d, kernel_size=5, stride=2, padding=2)
doubling = partial(nn.ConvTranspose2d, kernel_size=5, stride=2, padding=2, output_padding=1)


class DCGAN(AdversarialNets):
    """The networks of sections 3 and 4 of the paper; set `optimizer.weight_decay` for the weight decay of its code.

    All layers but one in each network are strided convolutions, with batch norm except at the generator's output and
    the discriminator's input, ReLU in the generator, leaky ReLU in the discriminator, and weights from N(0, 0.02²).
    The layer next to the image has `channels` feature maps, and each halving of the sides doubles them: images of
    64×64 and `channels=128` give 4 halvings and up to 1024 maps, as in the paper. Images of 28×28 are halved twice.
    """

    def __init__(self, data: DataSpec, noise: Corruption, *, channels: PositiveInt, **game: Unpack[Game]) -> None:
        super().__init__(noise, **game)
        colours, height, width = data.image_shape("dcgan")
        halvings = 0
        while height > SMALLEST and width > SMALLEST and height % 2 == width % 2 == 0:
            height, width, halvings = height // 2, width // 2, halvings + 1
        if halvings == 0:
            raise UsageError(f"model=dcgan halves images at least once, but they are {height}×{width} here")
        to_images, from_images, _ = ranges(game["generator_output"], data)
        maps = [channels * 2**level for level in range(halvings)]

        layers: list[nn.Module] = [
            nn.Linear(self.latent_dim, maps[-1] * height * width, bias=False),
            nn.Unflatten(1, (maps[-1], height, width)),
            nn.BatchNorm2d(maps[-1]),
            nn.ReLU(),
        ]
        for inputs, outputs in pairwise(reversed(maps)):
            layers += [doubling(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.generator = nn.Sequential(*layers, doubling(maps[0], colours), *to_images)

        layers = [*from_images, halving(colours, maps[0]), nn.LeakyReLU(LEAK)]
        for inputs, outputs in pairwise(maps):
            layers += [halving(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(LEAK)]
        features = maps[-1] * height * width
        self.discriminator = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))

        for name, parameter in [*self.generator.named_parameters(), *self.discriminator.named_parameters()]:
            if name.endswith("weight"):
                nn.init.normal_(parameter, 1 if parameter.ndim == 1 else 0, INIT_STD)  # batch norm's are vectors
            else:
                nn.init.zeros_(parameter)

    def judge(self, images: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits on data and on samples, from separate passes, so that batch norm never mixes them."""
        return self.logits(images), self.logits(samples)
