"""The convolutional adversarial nets of Goodfellow et al. 2014, as their published code trains them on CIFAR-10."""

from typing import Unpack

import torch
from torch import Tensor, nn

from genexp.data import DataSpec
from genexp.errors import UsageError
from genexp.models.adversarial import AdversarialNets, Game, ranges
from genexp.models.layers import Dropout, Maxout, MaxoutConv, uniform_weights
from genexp.noise import Corruption
from genexp.ranges import Fraction, PositiveFloat, PositiveInt

STRIDE, KERNEL = 3, 5  # of the generator's deconvolution, which turns a side of s into 3(s − 1) + 5


class ConvGAN(AdversarialNets):
    """A generator of two fully connected layers and a deconvolution, against a convolutional maxout discriminator.

    The second layer has sigmoid units, reshaped to `generator_maps` square maps of the side that the deconvolution
    enlarges to the image's (10 for 32). The output has a bias for each pixel and channel.
    """

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        generator_hidden: PositiveInt,
        generator_maps: PositiveInt,
        generator_init: PositiveFloat,
        discriminator_init: PositiveFloat,
        dropout_input: Fraction,
        dropout_hidden: Fraction,
        **game: Unpack[Game],
    ) -> None:
        super().__init__(noise, **game)
        channels, side, width = data.image_shape("conv_gan")
        if side != width or side < 14 or (side - KERNEL) % STRIDE:
            raise UsageError(f"model=conv_gan makes square images of side 3s + 5 from 14 on, as 32, not {side}×{width}")
        to_images, from_images, _ = ranges(game["generator_output"], data)

        s = (side - KERNEL) // STRIDE + 1
        self.generator = nn.Sequential(
            nn.Linear(self.latent_dim, generator_hidden),
            nn.ReLU(),
            nn.Linear(generator_hidden, generator_maps * s * s),
            nn.Sigmoid(),
            nn.Unflatten(1, (generator_maps, s, s)),
            nn.ConvTranspose2d(generator_maps, channels, KERNEL, STRIDE, bias=False),
            PixelBias(data.shape),
            *to_images,
        )
        uniform_weights(self.generator, generator_init)

        maxout = nn.Sequential(
            Dropout(dropout_input),
            MaxoutConv(channels, 32, 2, kernel=8, padding=4, pool=4, stride=2),
            Dropout(dropout_hidden),
            MaxoutConv(32, 32, 2, kernel=8, padding=3, pool=4, stride=2),
            Dropout(dropout_hidden),
            MaxoutConv(32, 192, 2, kernel=5, padding=3, pool=2, stride=2),
            nn.Flatten(),
            Dropout(dropout_hidden),
        )
        features = maxout(data.pixel_mean.unsqueeze(0)).shape[1]
        self.discriminator = nn.Sequential(
            *from_images, *maxout, Maxout(features, 500, 5), Dropout(dropout_hidden), nn.Linear(500, 1), nn.Flatten(0)
        )
        uniform_weights(self.discriminator, discriminator_init)


class PixelBias(nn.Module):
    """Add a bias to each value of an image."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.bias
