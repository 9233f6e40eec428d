"""Adversarial nets in two stages, as the code of Goodfellow et al. 2014 trains them on the Toronto Face Database.

Source: goodfeli/adversarial, tfd_pretrain/pretrain.yaml and, for the second stage, tfd_pretrain/train.yaml.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from genexp.data import DataSpec
from genexp.models import Outcome, Stage, Update
from genexp.models.adversarial import AdversarialNets, ranges
from genexp.models.gan import GAN, Networks, first_maxout, game_of, hidden_layers, initialize, maxout_discriminator
from genexp.noise import Corruption
from genexp.ranges import PositiveInt, UnitsOfLayers, Widths


class StackedGAN(AdversarialNets):
    """A GAN; then a second generator in front of the first one, against a new discriminator.

    In the first stage, of `pretrain_epochs`, the nets of model=gan play. In the second stage new layers map z to
    `latent_dim` sigmoid units, and the first generator receives these in the place of its z. All layers of both
    generators then move: the published `add_layers` joins them to one net, and freezes none. Images are drawn and
    judged by the nets of the stage that was trained last.
    """

    stage: Tensor  # 1 or 2, that is trained or was trained last

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        pretrain_epochs: PositiveInt,
        front_hidden: Widths,
        front_units: UnitsOfLayers,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(noise, **game_of(networks))
        self.pretrain_epochs = pretrain_epochs
        self.first = GAN(data, noise, **networks)
        hidden = hidden_layers("front", [self.latent_dim, *front_hidden], front_units)
        self.generator = nn.Sequential(*hidden, nn.Linear(front_hidden[-1], self.latent_dim), nn.Sigmoid())
        initialize(self.generator, networks)
        _, from_images, _ = ranges(networks["generator_output"], data)
        self.discriminator = maxout_discriminator(data, from_images, networks)
        self.register_buffer("stage", torch.tensor(1))

    def players(self) -> dict[str, nn.Module]:
        first = {f"{player}_1": nets for player, nets in self.first.players().items()}
        both_generators = nn.ModuleList([self.generator, self.first.generator])
        return {**first, "discriminator_2": self.discriminator, "generator_2": both_generators}

    def stages(self) -> list[Stage]:
        first = [self._of_stage(1, update) for update in self.first.updates()]
        second = [self._of_stage(2, update) for update in self.updates()]
        stage = Stage("both generators", second, begin=self.enter)
        return [Stage("first generator", first, self.pretrain_epochs), stage]

    def enter(self, _images: Tensor) -> None:
        """Begin the second stage."""
        self.stage.fill_(2)

    def _of_stage(self, stage: int, update: Update) -> Update:
        """Return the update with the names of this stage's players."""

        def play(images: Tensor) -> Outcome:
            losses, watched = update.play(images)
            return Outcome({f"{player}_{stage}": loss for player, loss in losses.items()}, watched)

        return Update(tuple(f"{player}_{stage}" for player in update.players), play, update.repeats)

    def generate(self, codes: Tensor) -> Tensor:
        return self.first.generate(self.generator(codes))

    def decode(self, codes: Tensor) -> Tensor:
        return self.first.decode(codes) if self.stage == 1 else super().decode(codes)

    def logits(self, images: Tensor) -> Tensor:
        # In training only the second stage comes here, and the stage is not read back from the device.
        return self.first.logits(images) if not self.training and self.stage == 1 else super().logits(images)

    def first_layers(self) -> dict[str, nn.Linear]:
        return {"discriminator": first_maxout(self.first.discriminator if self.stage == 1 else self.discriminator)}
