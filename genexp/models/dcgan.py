"""Deep convolutional generative adversarial nets (Radford et al. 2016)."""

from itertools import pairwise
from typing import Unpack

from torch import Tensor, nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models.adversarial import AdversarialNets, Game, ranges
from genexp.noise import Corruption
from genexp.ranges import PositiveInt

SMALLEST = 4  # pixels: sides are halved down to this, or to an odd number
LEAK = 0.2
INIT_STD = 0.02


class DCGAN(AdversarialNets):
    """As in sections 3 and 4 of the paper; the authors' code adds weight decay, here `optimizer.weight_decay`.

    Strided convolutions only, batch norm in both networks but at the generator's output and the discriminator's
    input, ReLU in the generator, leaky ReLU in the discriminator, all weights from N(0, 0.02²).

    Each halving of the sides doubles the feature maps, which are `channels` beside the image: 4 halvings and maps of
    128 to 1024 for 64×64 as in the paper with `channels=128`, 2 for 28×28.
    """

    def __init__(self, data: DataSpec, noise: Corruption, *, channels: PositiveInt, **game: Unpack[Game]) -> None:
        super().__init__(noise, **game)
        colours, height, width = data.shape
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
            *(nn.BatchNorm2d(maps[-1]), nn.ReLU()),
        ]
        for inputs, outputs in pairwise(reversed(maps)):
            layers += [doubling(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.generator = nn.Sequential(*layers, doubling(maps[0], colours), *to_images)

        layers = [*from_images, halving(colours, maps[0]), nn.LeakyReLU(LEAK)]
        for inputs, outputs in pairwise(maps):
            layers += [halving(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(LEAK)]
        features = maps[-1] * height * width
        self.discriminator = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))

        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0, INIT_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1, INIT_STD)

    def judge(self, images: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Data and samples in passes of their own, for batch norm is to see one kind at a time."""
        return self.logits(images), self.logits(samples)


def halving(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A convolution that halves both sides."""
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=bias)


def doubling(inputs: int, outputs: int, bias: bool = True) -> nn.ConvTranspose2d:
    """A fractionally strided convolution that doubles both sides."""
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=bias)
