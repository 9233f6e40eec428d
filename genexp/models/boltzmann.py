"""The restricted Boltzmann machine as a layer: what model=rbm, model=dbm and stacks of such layers are made of."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from genexp.models.layers import BLACK

Visible = Literal["bernoulli", "gaussian"]
INITIAL_STD = 0.01  # of weights (Hinton 2010, A practical guide to training RBMs, section 8)


class RBMLayer(nn.Module):
    """A restricted Boltzmann machine with binary hidden units: p(v, h) = exp(−E(v, h)) / Z.

    E(v, h) = −cᵀv − bᵀh − hᵀWv for Bernoulli visible units, which also take values in [0, 1] as probabilities; and
    ½‖v − c‖² − bᵀh − hᵀWv for Gaussian ones, which have variance 1: divide data by their standard deviation first.
    Visible values are (n, inputs) float32, hidden states (n, units). W ~ N(0, 0.01²), b = 0, and c is such that without
    hidden units the visible ones have the means `mean`, (inputs,); c = 0 without it.
    """

    def __init__(self, inputs: int, units: int, visible: Visible = "bernoulli", mean: Tensor | None = None) -> None:
        super().__init__()
        self.inputs, self.units, self.visible = inputs, units, visible
        self.weight = nn.Parameter(INITIAL_STD * torch.randn(units, inputs))
        self.hidden_bias = nn.Parameter(torch.zeros(units))
        self.visible_bias = nn.Parameter(torch.zeros(inputs) if mean is None else self.bias_for(mean))

    @classmethod
    def of(cls, weight: Tensor, hidden_bias: Tensor, visible_bias: Tensor) -> "RBMLayer":
        """Return a layer of Bernoulli units with the given parameters, as constants and without a copy."""
        units, inputs = weight.shape
        layer = cls(0, 0)
        layer.inputs, layer.units = inputs, units
        parameters = {"weight": weight, "hidden_bias": hidden_bias, "visible_bias": visible_bias}
        for name, tensor in parameters.items():
            setattr(layer, name, nn.Parameter(tensor.detach(), requires_grad=False))
        return layer

    def bias_for(self, mean: Tensor) -> Tensor:
        """Return the visible bias c with which visible units have the given means if W is 0."""
        return mean.logit(eps=BLACK) if self.visible == "bernoulli" else mean.clone()

    def hidden_logits(self, v: Tensor) -> Tensor:
        """Return log p(h=1 | v) / p(h=0 | v), (n, units)."""
        return linear(v, self.weight, self.hidden_bias).to(self.weight.dtype)

    def hidden_means(self, v: Tensor) -> Tensor:
        """Return p(h=1 | v), (n, units): the codes of v, and what the layer above is trained on."""
        return self.hidden_logits(v).sigmoid()

    def visible_field(self, h: Tensor) -> Tensor:
        """Return the logits of p(v=1 | h), (n, inputs); for Gaussian visible units their means."""
        return linear(h, self.weight.T, self.visible_bias).to(self.weight.dtype)

    def visible_means(self, h: Tensor) -> Tensor:
        """Return E[v | h], (n, inputs)."""
        return self.field_means(self.visible_field(h))

    def field_means(self, field: Tensor) -> Tensor:
        """Return the means of visible units whose field `visible_field` returned, in its shape."""
        return field.sigmoid() if self.visible == "bernoulli" else field

    def draw_field(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw visible units whose field `visible_field` returned, in its shape."""
        if self.visible == "bernoulli":
            return bernoulli(field.sigmoid(), generator)
        return field + torch.randn(field.shape, generator=generator, device=field.device)

    def draw_hidden(self, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw h ~ p(h | v), (n, units) float32 of 0 and 1."""
        return bernoulli(self.hidden_means(v), generator)

    def draw_visible(self, h: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw v ~ p(v | h), (n, inputs)."""
        return self.draw_field(self.visible_field(h), generator)

    def gibbs(self, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the next state of a chain of visible values: h ~ p(h | v), then v ~ p(v | h)."""
        return self.draw_visible(self.draw_hidden(v, generator), generator)

    def free_energy(self, v: Tensor) -> Tensor:
        """Return F(v) = −log Σ_h exp(−E(v, h)), (n,), in nats: log p(v) = −F(v) − log Z."""
        return self._visible_energy(v) - softplus(self.hidden_logits(v)).sum(1)

    def _visible_energy(self, v: Tensor) -> Tensor:
        if self.visible == "bernoulli":
            return -(v @ self.visible_bias)
        return 0.5 * (v - self.visible_bias).square().sum(1)

    def contrast(
        self, data: Tensor, hidden: Tensor | None = None, *, steps: int = 1, end: Literal["draw", "mean"] = "draw"
    ) -> tuple[Tensor, Tensor]:
        """Return the loss mean F(data) − mean F(chain), and the chain's hidden states.

        Its gradient is that of contrastive divergence (Hinton 2002): the chain is not differentiated. A chain begins at
        `hidden`, (m, units) of 0 and 1, and makes `steps` times v ~ p(v | h), h ~ p(h | v). Give it the states that the
        last call returned, kept as a buffer, for persistent chains (PCD, Tieleman 2008), with any number m of chains;
        without `hidden` the chains begin at h ~ p(h | data) (CD). With `end` "mean" the last v is E[v | h].
        The draws are those of the default generator, which the training loop seeds for each step.
        """
        with torch.no_grad():
            data_logits = self.hidden_logits(data)
            data_means = data_logits.sigmoid()
            h = bernoulli(data_means) if hidden is None else hidden
            for step in range(1, steps + 1):
                v = self.visible_means(h) if step == steps and end == "mean" else self.draw_visible(h)
                logits = self.hidden_logits(v)
                means = logits.sigmoid()
                if step < steps or hidden is not None:  # CD does not go on from its last h
                    h = bernoulli(means)
            free_energy_of_data = self._visible_energy(data).mean() - softplus(data_logits).sum() / len(data)
            value = free_energy_of_data - self._visible_energy(v).mean() + softplus(logits).sum() / len(v)
        return energy_gap((self.weight, self.hidden_bias, self.visible_bias), value, (data, data_means), (v, means)), h


def energy_gap(
    parameters: tuple[Tensor, Tensor, Tensor],
    value: Tensor,
    data: tuple[Tensor, Tensor],
    chain: tuple[Tensor, Tensor],
    centered: bool = False,
) -> Tensor:
    """Return `value` with the gradient of mean E(data) − mean E(chain), each pair (v, h) of states held constant.

    `parameters` are W (units, inputs), hidden and visible bias. With h = p(h=1 | v) the gradient is that of the free
    energies, in two products instead of autograd's four.

    With `centered` it is the direction in which the same machine moves when each unit counts from its mean over data
    and chains (Montavon and Müller 2012; the enhanced gradient of Cho et al. 2011), without weights that are exactly 0:
    those of units that are not connected.
    """
    gap: Tensor = _EnergyGap.apply(*parameters, value, *data, *chain, centered)
    return gap


class _EnergyGap(torch.autograd.Function):
    """Return `value` as it is; its gradient is that of the mean energy of the data's pairs minus the chain's."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, _b: Tensor, _c: Tensor, value: Tensor, *pairs_and_centered: Any) -> Tensor:
        *pairs, ctx.centered = pairs_and_centered
        ctx.save_for_backward(w, *pairs)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        w, v, h, chain_v, chain_h = ctx.saved_tensors
        n, m = len(v), len(chain_v)
        weight = (chain_h.T @ chain_v).addmm_(h.T, v, beta=1 / m, alpha=-1 / n)
        h_mean, v_mean, chain_h_mean, chain_v_mean = h.mean(0), v.mean(0), chain_h.mean(0), chain_v.mean(0)
        hidden_bias, visible_bias = chain_h_mean - h_mean, chain_v_mean - v_mean
        if ctx.centered:
            h_mean, v_mean = (h_mean + chain_h_mean) / 2, (v_mean + chain_v_mean) / 2
            weight.addr_(h_mean, visible_bias, alpha=-1).addr_(hidden_bias, v_mean, alpha=-1).mul_(w != 0)
            hidden_bias, visible_bias = hidden_bias - weight @ v_mean, visible_bias - h_mean @ weight
        return weight.mul_(gradient), hidden_bias * gradient, visible_bias * gradient, *([None] * 6)


def bernoulli(means: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw 1 with the given probabilities and 0 otherwise, in their shape and type."""
    uniform = torch.rand(means.shape, generator=generator, device=means.device, dtype=means.dtype)
    return uniform.lt_(means)  # 0 and 1 in place; a boolean would have to be converted
