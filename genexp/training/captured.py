"""Steps of training as CUDA graphs: a GPU is given a whole step at once, not one small operation after another."""

import warnings
from itertools import chain

import torch
from torch import Tensor

from genexp.errors import UsageError
from genexp.training.moves import Moves

WARM = 3  # steps that are made as usual before one is captured: libraries and optimizers prepare themselves in them
CHECKED = 2  # replays of a graph that are compared with the step made as usual


class CapturedMoves(Moves):
    """Moves that are captured as a CUDA graph once, and replayed with other minibatches, draws and learning rates.

    A replay is the same sequence of operations on the same memory, so it equals the step made as usual bit for bit;
    the first replays of each graph are compared with it. A step is not captured if it waits for the device (`item`,
    `tolist`, `cpu` ...), draws from the CPU's generator, or replaces a buffer instead of changing it in place: then all
    is made as usual, and `why_not` says why. A step at which the gradients' norms are asked for is made as usual, too.
    """

    def __init__(self, moves: Moves) -> None:
        super().__init__(moves.model, moves.optimizers, moves.minibatches, moves.seed, moves.precision)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.constants: list[dict[str, float]] | None = None  # settings that a graph holds as numbers
        self.given: dict[str, Tensor] = {}  # what a replay reads
        self.row = torch.empty(0)  # what a replay writes
        self.warm = self.checked = 0  # steps of the present constants, replays of the present graph
        self.why_not: str | None = None

    def make(self, step: int, norms: dict[str, Tensor] | None = None) -> Tensor:
        constants = [optimizer.constants(*self.stage.place(step)) for optimizer in self.optimizers.values()]
        if constants != self.constants:
            self.constants, self.graph, self.warm = constants, None, 0
        self.warm += 1
        if norms is not None or self.why_not is not None or self.warm < WARM:
            return super().make(step, norms)
        if self.graph is None:
            row = self._observed(step)
            if self.why_not is None:
                self._capture(step)
            return row
        self.prepare(step)
        for name, tensor in self.minibatches.given(step).items():
            self.given[name].copy_(tensor)
        if self.checked < CHECKED:
            return self._checked(step)
        self.graph.replay()
        return self.row.clone()

    def _observed(self, step: int) -> Tensor:
        """Make a step as usual, and note in `why_not` what would not be repeated by a graph."""
        self.prepare(step)
        given, mode = self.minibatches.given(step), torch.cuda.get_sync_debug_mode()
        drawn, places = torch.default_generator.get_state(), [tensor.data_ptr() for tensor in self._state()]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                row = self.make_prepared(given)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        if any("called a synchronizing" in str(warning.message) for warning in caught):
            self.why_not = "it waits for the device"
        elif not torch.equal(drawn, torch.default_generator.get_state()):
            self.why_not = "it draws from the CPU's random generator"
        elif places != [tensor.data_ptr() for tensor in self._state()]:
            self.why_not = "it replaces a tensor of its state"
        return row

    def _capture(self, step: int) -> None:
        self.given = {name: tensor.clone() for name, tensor in self.minibatches.given(step).items()}
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.row = self.make_prepared(self.given)
        except RuntimeError as error:
            raise UsageError(
                f"{type(self.model).__name__}: its step could not be captured as a CUDA graph: {error}\n"
                "Go on with device.capture=false"
            ) from error
        self.graph, self.checked = graph, 0

    def _checked(self, step: int) -> Tensor:
        """Replay the step, make it as usual from the same state, and give up capturing if the two differ."""
        assert self.graph is not None
        before = [tensor.detach().clone() for tensor in self._state()]
        self.graph.replay()
        replayed = [self.row.clone(), *(tensor.detach().clone() for tensor in self._state())]
        with torch.no_grad():
            torch._foreach_copy_(self._state(), before)
        self.prepare(step)
        row = self.make_prepared(self.given)
        usual = [row, *self._state()]
        self.checked += 1
        if not all(_same(one, other) for one, other in zip(replayed, usual, strict=True)):
            self.why_not, self.graph = "its replay gives other numbers", None
        return row

    def _state(self) -> list[Tensor]:
        """Return all tensors that a step may change."""
        states = (state for optimizer in self.optimizers.values() for state in optimizer.optimizer.state.values())
        kept = [tensor for state in states for tensor in state.values() if isinstance(tensor, Tensor)]
        return [*(tensor.detach() for tensor in chain(self.model.parameters(), self.model.buffers())), *kept]


def _same(one: Tensor, other: Tensor) -> bool:
    """Return True if two tensors are equal bit for bit; NaN equals NaN."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
