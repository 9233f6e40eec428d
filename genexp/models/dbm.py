"""Deep Boltzmann machines (Salakhutdinov and Hinton 2009): greedy pretraining, then all layers together."""

from functools import partial
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from genexp.data import DataSpec
from genexp.models import Outcome, Stage, Update
from genexp.models.boltzmann import RBMLayer, bernoulli, energy_gap
from genexp.models.layers import stacked_filters
from genexp.models.undirected import Chains, UndirectedModel
from genexp.noise import Corruption
from genexp.ranges import PositiveInt, TwoOrThreeWidths

BOUND_STEPS = 25  # of mean field for a bound of log p(x): more than training takes, since each makes it tighter


class CopiedLayer(RBMLayer):
    """A layer in pretraining: an RBM with `below` copies of its visible units and `above` copies of its hidden ones.

    A hidden layer of the deep machine has two neighbours, and in pretraining the copy stands for the one that is not
    there (section 3.1). Only the outermost layers have none.
    """

    def __init__(self, inputs: int, units: int, below: int, above: int, mean: Tensor | None = None) -> None:
        super().__init__(inputs, units, "bernoulli", mean)
        self.below, self.above = below, above

    def hidden_logits(self, v: Tensor) -> Tensor:
        return linear(v, self.below * self.weight, self.hidden_bias).to(self.weight.dtype)

    def visible_field(self, h: Tensor) -> Tensor:
        return linear(h, self.above * self.weight.T, self.visible_bias).to(self.weight.dtype)


class DBM(UndirectedModel):
    """E(v, h¹, …) = −cᵀv − Σ_l (b^lᵀh^l + h^lᵀW^l h^(l−1)) with h⁰ = v; two or three layers of binary hidden units.

    Layers of even number, v among them, depend on those of odd number only, and the other way round: so the machine is
    an RBM between the two groups. "Odd" are states of its visible units, (n, h¹ and h³), "even" those of its hidden
    ones, (n, v and h²). The bias of a hidden layer is the mean of those that the two layers of pretraining give it.
    """

    log_likelihood = "lower bound"  # by mean field
    persistent_states: Tensor  # even, (persistent_chains, ·)

    def __init__(
        self,
        data: DataSpec,
        noise: Corruption,
        *,
        hidden: TwoOrThreeWidths,
        pretrain_epochs: PositiveInt,
        pretrain_gibbs_steps: PositiveInt,
        mean_field_steps: PositiveInt,
        gibbs_steps: PositiveInt,
        persistent_chains: PositiveInt,
        centered: bool,
        **sampler: Unpack[Chains],
    ) -> None:
        super().__init__("dbm", data, noise, "bernoulli", **sampler)
        self.pretrain_epochs, self.pretrain_gibbs_steps = pretrain_epochs, pretrain_gibbs_steps
        self.mean_field_steps, self.gibbs_steps, self.centered = mean_field_steps, gibbs_steps, centered
        widths, top = [data.size, *hidden], len(hidden) - 1
        self.stack = [
            CopiedLayer(
                inputs, units, 1 if layer == top else 2, 1 if layer == 0 else 2, self.mean if not layer else None
            )
            for layer, (inputs, units) in enumerate(zip(widths, hidden, strict=False))
        ]
        self.layers = nn.ModuleList(self.stack)
        self.inputs = data.size
        self.register_buffer("persistent_states", torch.zeros(persistent_chains, sum(widths[::2])))

    @property
    def shareable(self) -> bool:
        return False

    def players(self) -> dict[str, nn.Module]:
        return {f"layer_{number}": layer for number, layer in enumerate(self.stack, 1)} | {"dbm": self.layers}

    def stages(self) -> list[Stage]:
        first = Update(("layer_1",), partial(self.play_layer, 0))
        stages = [Stage("layer 1", [first], self.pretrain_epochs)]
        for below in range(1, len(self.stack)):
            update = Update((f"layer_{below + 1}",), partial(self.play_codes, below))
            codes = partial(self.codes_below, below)
            stages.append(Stage(f"layer {below + 1}", [update], self.pretrain_epochs, codes))
        return [*stages, Stage("joint", [Update(("dbm",), self.play)], begin=self.begin)]

    def play_layer(self, layer: int, images: Tensor) -> Outcome:
        return self.play_codes(layer, images.flatten(1))

    def play_codes(self, layer: int, codes: Tensor) -> Outcome:
        """Return the contrastive loss of one layer; codes of hidden units are drawn as binary ones."""
        v = bernoulli(codes) if layer else codes
        loss, _ = self.stack[layer].contrast(v, steps=self.pretrain_gibbs_steps)
        return Outcome({f"layer_{layer + 1}": loss}, {})

    def codes_below(self, layers: int, images: Tensor) -> Tensor:
        """Return what the first `layers` layers of pretraining make of images, (n, units)."""
        x = images.flatten(1)
        for layer in self.stack[:layers]:
            x = layer.hidden_means(x)
        return x

    def parameters_of_groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return W (even, odd), the bias of even and the bias of odd of the RBM between the groups, differentiable."""
        stack = self.stack
        means = [(lower.hidden_bias + upper.visible_bias) / 2 for lower, upper in pairwise(stack)]
        between = [2 * mean - mean.detach() for mean in means]  # the mean, that moves as fast as a bias of its own
        biases = [stack[0].visible_bias, *between, stack[-1].hidden_bias]
        columns = [torch.cat([stack[0].weight.T, stack[1].weight])]
        if len(stack) == 3:
            top = stack[2].weight.T
            columns.append(torch.cat([top.new_zeros(self.inputs, top.shape[1]), top]))
        return torch.cat(columns, 1), torch.cat(biases[::2]), torch.cat(biases[1::2])

    def machine(self) -> RBMLayer:
        return RBMLayer.of(*self.parameters_of_groups())

    def play(self, images: Tensor) -> Outcome:
        """Return mean E(images and their mean-field hidden units) − mean E(persistent chains): section 2.1."""
        parameters = self.parameters_of_groups()
        with torch.no_grad():
            machine = RBMLayer.of(*parameters)
            odd, even, field = mean_field(machine, images.flatten(1), self.mean_field_steps)
            states = self.persistent_states
            for _ in range(self.gibbs_steps):
                chain_odd = machine.draw_visible(states)
                logits = machine.hidden_logits(chain_odd)
                states = bernoulli(logits.sigmoid())
            means = logits.sigmoid()
            energy = -(odd * field).sum(1) - even @ machine.hidden_bias
            chain_energy = -(means * logits).sum(1) - chain_odd @ machine.visible_bias
            value = energy.mean() - chain_energy.mean()
        self.persistent_states.copy_(states)
        return Outcome({"dbm": energy_gap(parameters, value, (odd, even), (chain_odd, means), self.centered)}, {})

    def begin(self, images: Tensor) -> None:
        """Begin the persistent chains at training images and draws of their hidden units.

        Chains that began elsewhere would move the pretrained weights far before they reach the data.
        """
        rows = torch.arange(len(self.persistent_states), device=images.device) % len(images)
        _, even, _ = mean_field(self.machine(), images[rows].flatten(1), self.mean_field_steps)
        self.persistent_states.copy_(bernoulli(even))

    def encode(self, images: Tensor) -> Tensor:
        """Return the mean-field means of the hidden layers of odd number, (n, units)."""
        return mean_field(self.machine(), images.flatten(1), self.mean_field_steps)[0]

    def decode(self, codes: Tensor) -> Tensor:
        return self.images_of(self.machine().hidden_means(codes)[:, : self.inputs])

    def filters(self) -> dict[str, Tensor]:
        return stacked_filters([layer.weight for layer in self.stack])

    def first_states(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Return even states: v, and the layers above drawn given a draw of those between."""
        machine = self.machine()
        odd, _, _ = mean_field(machine, v, self.mean_field_steps)
        even = machine.draw_hidden(bernoulli(odd, generator), generator)
        return torch.cat([v, even[:, self.inputs :]], 1)

    def next_states(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return even ~ p(even | odd) with odd ~ p(odd | state), and as images its v or E[v | odd]."""
        machine = self.machine()
        means = machine.hidden_means(machine.draw_visible(state, generator))
        even = bernoulli(means, generator)
        return even, self.images_of((even if self.sample_kind == "draw" else means)[:, : self.inputs])

    def base_rates(self) -> tuple[Tensor, Tensor]:
        """Return 0 for all hidden units, and the bias for the data's base rates for v."""
        _, even, odd = self.parameters_of_groups()
        hidden = torch.zeros_like(even)
        hidden[: self.inputs] = self.stack[0].bias_for(self.mean)
        return torch.zeros_like(odd), hidden

    def log_unnormalized(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return E_q[−E] + H(q) with the mean-field q(h | v), which is at most log p*(v) (section 2.2)."""
        machine, v = self.machine(), bernoulli(self.visible_values(images), generator)
        odd, even, field = mean_field(machine, v, max(self.mean_field_steps, BOUND_STEPS))
        entropy = binary_entropy(odd).sum(1) + binary_entropy(even[:, self.inputs :]).sum(1)
        return (odd * field).sum(1) + even @ machine.hidden_bias + entropy


def mean_field(machine: RBMLayer, v: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the means of odd and of even given v = even[:, :inputs], (n, inputs), and the visible field for `even`.

    Each step sets the other even means, then the odd ones (section 2.2, equation 10). The first odd means are from v
    alone, with its weights doubled for what is above.
    """
    inputs, dtype = v.shape[1], machine.weight.dtype
    from_v, above = machine.weight[:inputs], machine.weight[inputs:]
    given_v = torch.mm(v, from_v).to(dtype)
    field = machine.visible_bias + 2 * given_v
    given_v += machine.visible_bias
    for _ in range(steps):
        means = linear(field.sigmoid(), above, machine.hidden_bias[inputs:]).to(dtype).sigmoid_()
        field = torch.addmm(given_v, means, above).to(dtype)
    return field.sigmoid(), torch.cat([v, means], 1), field


def binary_entropy(p: Tensor) -> Tensor:
    """Return the entropy of Bernoulli units with means p, in nats, in the shape of p."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
