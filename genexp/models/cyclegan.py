"""Cycle-consistent adversarial networks, which translate between two unpaired data sets (Zhu et al. 2017)."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from genexp.data import DataSet, DataSpec
from genexp.errors import UsageError
from genexp.models import Model, Outcome, Side, Update
from genexp.models.layers import Affine, ReflectionPad
from genexp.noise import Corruption, unchanged
from genexp.ranges import Count, NonNegativeFloat, PositiveInt

LEAK = 0.2
INIT_STD = 0.02
MOST_STRIDED = 3  # halvings of a discriminator: its patches are 70×70 pixels, as in the paper
LARGE = 16  # pixels from which sides are halved twice
CHUNK = 100  # images translated at a time
SAME_CHANNELS = 0.5  # weight of the identity term, over that of the cycle term, as in the published code
# Without a bias where instance norm would remove it.
convolution = partial(nn.Conv2d, bias=False)


class CycleGAN(Model):
    """Generators G: A → B and F: B → A, each against a discriminator of patches of the images that it makes.

    The losses of D_B are ½ E[(D_B(b) − 1)²] + ½ E[D_B(G(a))²], and of G and F together E[(D_B(G(a)) − 1)²] +
    E[(D_A(F(b)) − 1)²] + `cycle`·(‖F(G(a)) − a‖₁ + ‖G(F(b)) − b‖₁) + `cycle`·`identity`·(‖G(b) − b‖₁ + ‖F(a) − a‖₁),
    where ‖·‖₁ is the mean over values in the networks' range [−1, 1]. All four move at once, from one forward pass.
    Discriminators see generated images of earlier steps, too, from a pool (Shrivastava et al. 2017).
    """

    sample_kind = "draw"
    pool_a: Tensor  # (pool, C, H, W), earlier translations into A; likewise pool_b
    pool_b: Tensor
    pooled: Tensor  # (), int64, how many of these there are in each

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        channels: PositiveInt,
        blocks: PositiveInt,
        discriminator_channels: PositiveInt,
        cycle: NonNegativeFloat,
        identity: NonNegativeFloat | None,
        pool: Count,
    ) -> None:
        super().__init__()
        if data.second is None:
            raise UsageError(
                "model=cyclegan is trained on two data sets: choose the second one by dataset@dataset_b=NAME"
            )
        if noise is not unchanged:
            raise UsageError("model=cyclegan corrupts no images: leave out noise")
        (a, height, width), (b, *_) = data.image_shape("cyclegan"), data.second.image_shape("cyclegan")
        halvings = 2 if min(height, width) >= LARGE and height % 4 == width % 4 == 0 else 1
        if {a, b} - {1, 3} or height % 2 or width % 2 or min(height, width) < 8:
            raise UsageError(
                f"model=cyclegan translates grey and colour images with even sides of 8 pixels or more, and these are "
                f"{a}×{height}×{width} and {b}×{height}×{width}"
            )
        if a != b and identity:
            raise UsageError(
                f"model.identity={identity:g} compares images of the two data sets, which have {a} and {b} channels\n"
                "Set model.identity=0, or give both the same channels"
            )
        self.cycle = cycle
        self.identity = (SAME_CHANNELS if a == b else 0.0) if identity is None else identity
        self.generator_ab = generator(a, b, channels, halvings, blocks)
        self.generator_ba = generator(b, a, channels, halvings, blocks)
        self.discriminator_a = discriminator(a, min(height, width), discriminator_channels)
        self.discriminator_b = discriminator(b, min(height, width), discriminator_channels)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, 0, INIT_STD)
            else:
                nn.init.zeros_(parameter)
        self.register_buffer("pool_a", torch.zeros(pool, a, height, width))
        self.register_buffer("pool_b", torch.zeros(pool, b, height, width))
        self.register_buffer("pooled", torch.zeros((), dtype=torch.int64))

    @property
    def shareable(self) -> bool:
        return len(self.pool_a) == 0

    def players(self) -> dict[str, nn.Module]:
        names = ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b")
        return {name: getattr(self, name) for name in names}

    def updates(self) -> list[Update]:
        return [Update(tuple(self.players()), self.play)]

    def play(self, images: Tensor, images_b: Tensor) -> Outcome:
        """Return the losses of all four players from one pass; the generators share theirs."""
        a, b = images, images_b
        fake_b, same_b = self.translate_both(self.generator_ab, a, b)
        fake_a, same_a = self.translate_both(self.generator_ba, b, a)
        cycle = l1(self.generator_ba(fake_b), a) + l1(self.generator_ab(fake_a), b)
        identity = l1(same_b, b) + l1(same_a, a) if self.identity else cycle.new_zeros(())
        adversarial = square(self.discriminator_b(fake_b), 1) + square(self.discriminator_a(fake_a), 1)
        generators = adversarial + self.cycle * (cycle + self.identity * identity)

        earlier_a = self.from_pool(self.pool_a, fake_a.detach().float())
        earlier_b = self.from_pool(self.pool_b, fake_b.detach().float())
        self.pooled.add_(len(a)).clamp_(max=len(self.pool_a))
        losses = {
            "generator_ab": generators,
            "generator_ba": generators,
            "discriminator_a": discriminator_loss(self.discriminator_a, a, earlier_a),
            "discriminator_b": discriminator_loss(self.discriminator_b, b, earlier_b),
        }
        watched = {"cycle": cycle, "identity": identity, "adversarial": adversarial}
        return Outcome(losses, {name: value.detach() for name, value in watched.items()})

    def translate_both(self, network: nn.Module, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the translations of images, and what the network makes of images that need no translation.

        Instance norm treats each image by itself, so one pass over both is the same as two.
        """
        if not self.identity:
            return network(images), others
        translated, same = network(torch.cat([images, others])).split([len(images), len(others)])
        return translated, same

    def from_pool(self, pool: Tensor, images: Tensor) -> Tensor:
        """Return each image, or with probability ½ an earlier one from the pool, whose place it takes.

        Until the pool is full, images are stored and returned. No value is read back, so a step can be captured.
        """
        n, size = len(images), len(pool)
        if size == 0:
            return images
        is_swapped = torch.rand(n, device=pool.device) < 0.5
        free = self.pooled + torch.arange(n, device=pool.device)  # where each image goes while there is room
        is_stored = free < size
        places = torch.where(is_stored, free, torch.randint(size, (n,), device=pool.device))
        chosen = []
        singles = torch.split(images, 1), torch.split(places, 1)
        for image, place, stored, swapped in zip(*singles, is_stored, is_swapped, strict=True):
            earlier = pool.index_select(0, place)
            pool.index_copy_(0, place, torch.where(stored | swapped, image, earlier))
            chosen.append(torch.where(swapped & ~stored, earlier, image))
        return torch.cat(chosen)

    def translate(self, images: Tensor, to: Side) -> Tensor:
        network = self.generator_ab if to == "b" else self.generator_ba
        return torch.cat([network(chunk) for chunk in torch.split(images, CHUNK)])

    def sample(self, n: int, generator: torch.Generator, data: DataSet) -> Tensor:
        """Return n test images of the second data set, drawn with repetition, as images of the first one."""
        assert data.second is not None
        rows = torch.randint(len(data.second.test), (n,), generator=generator, device=generator.device)
        return torch.cat([self.translate(data.second.images("test", chunk), "a") for chunk in torch.split(rows, CHUNK)])


def generator(inputs: int, outputs: int, channels: int, halvings: int, blocks: int) -> nn.Sequential:
    """Return a residual network from images to images, both in [0, 1] (section 7.2 of the paper, after Johnson et al.).

    Convolutions halve the sides and double the maps, `blocks` residual blocks follow, and fractionally strided
    convolutions double the sides again.
    """
    maps = [channels * 2**level for level in range(halvings + 1)]
    layers: list[nn.Module] = [Affine(2, -1), ReflectionPad(3), convolution(inputs, channels, 7)]
    layers += [nn.InstanceNorm2d(channels), nn.ReLU()]
    for fewer, more in pairwise(maps):
        layers += [convolution(fewer, more, 3, stride=2, padding=1), nn.InstanceNorm2d(more), nn.ReLU()]
    layers += [Residual(maps[-1]) for _ in range(blocks)]
    for more, fewer in pairwise(reversed(maps)):
        layers += [
            nn.ConvTranspose2d(more, fewer, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.InstanceNorm2d(fewer),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, ReflectionPad(3), nn.Conv2d(channels, outputs, 7), nn.Tanh(), Affine(0.5, 0.5))


class Residual(nn.Module):
    """x plus two convolutions of x, each with instance norm."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for units in ([nn.ReLU()], []):
            layers += [ReflectionPad(1), convolution(maps, maps, 3), nn.InstanceNorm2d(maps), *units]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + residual


def discriminator(inputs: int, side: int, channels: int) -> nn.Sequential:
    """Return a network from images in [0, 1] to a value for each patch, which is at most as large as the image.

    With three strided convolutions the patches are 70×70 pixels, as in the paper; with two 34×34, one 16×16, none 7×7.
    """
    strided = max(n for n in range(MOST_STRIDED + 1) if n == 0 or patch(n) <= side)
    layers: list[nn.Module] = [Affine(2, -1)]
    for level in range(strided + 1):
        maps = channels * 2 ** min(level, 3)
        stride = 2 if level < strided else 1
        layers += [nn.Conv2d(inputs, maps, 4, stride, padding=1, bias=level == 0)]
        layers += [nn.InstanceNorm2d(maps)] if level else []
        layers += [nn.LeakyReLU(LEAK)]
        inputs = maps
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=1))


def patch(strided: int) -> int:
    """Return the side, in pixels, of what one value of a discriminator sees."""
    side = 7
    for _ in range(strided):
        side = 2 * (side - 1) + 4
    return side


def l1(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean absolute difference of images in [0, 1], in the networks' range, which is twice as wide."""
    return 2 * (images.float() - others).abs().mean()


def square(judged: Tensor, target: float) -> Tensor:
    return (judged.float() - target).square().mean()


def discriminator_loss(network: nn.Module, images: Tensor, generated: Tensor) -> Tensor:
    """Return ½ E[(D(x) − 1)²] + ½ E[D(x̂)²] (Mao et al. 2017), from one pass."""
    on_data, on_generated = network(torch.cat([images, generated])).split([len(images), len(generated)])
    return 0.5 * (square(on_data, 1) + square(on_generated, 0))
