"""Steps of training that are made once, and replayed: without the time that Python and autograd take for each."""

import warnings
from itertools import chain

import torch
from torch import Tensor

from genexp.errors import UsageError
from genexp.training.moves import Moves
from genexp.training.tape import Tape

WARM = 3  # steps that are made as usual before one is captured: libraries and optimizers prepare themselves in them
CHECKED = 2  # replays of a captured step that are compared with the step made as usual


class CapturedMoves(Moves):
    """Moves that are captured once, and replayed with other minibatches, draws and learning rates.

    A replay is the same sequence of operations on the same memory, so it equals the step made as usual bit for bit;
    the first replays are compared with it. A step is not captured if it waits for the device or reads a value back
    (`item`, `tolist` ...), or replaces a buffer instead of changing it in place: then all is made as usual, and
    `why_not` says why. A step at which the gradients' norms are asked for is made as usual, too.
    """

    captured = False
    constants: list[dict[str, float]] | None = None  # settings that a captured step holds as numbers
    warm = checked = 0  # steps of the present constants, replays of the present captured step
    why_not: str | None = None
    given: dict[str, Tensor]  # what a replay reads
    row: Tensor  # what it writes, beside the state

    def make(self, step: int, norms: dict[str, Tensor] | None = None) -> Tensor:
        constants = [optimizer.constants(*self.stage.place(step)) for optimizer in self.optimizers.values()]
        if constants != self.constants:
            self.constants, self.captured, self.warm = constants, False, 0
        self.warm += 1
        if norms is not None or self.why_not is not None or self.warm < WARM:
            return super().make(step, norms)
        self.prepare(step)
        given = self.minibatches.given(step)
        if not self.captured:
            self.given = {name: tensor.clone() for name, tensor in given.items()}
            places, self.checked = [tensor.data_ptr() for tensor in self._state()], 0
            row = self.capture()
            if places != [tensor.data_ptr() for tensor in self._state()]:
                self.why_not = "it replaces a tensor of its state"
            self.captured = self.why_not is None
            return row
        for name, tensor in given.items():
            self.given[name].copy_(tensor)
        if self.checked < CHECKED:
            return self._checked(step)
        self.replay()
        return self.row.clone()

    def capture(self) -> Tensor:
        """Make the prepared step on `given`; capture it, or set `why_not`; return its row."""
        raise NotImplementedError

    def replay(self) -> None:
        """Make the captured step on what `given` holds."""
        raise NotImplementedError

    def _checked(self, step: int) -> Tensor:
        """Replay the step, make it as usual from the same state, and give up capturing if the two differ."""
        before = [tensor.detach().clone() for tensor in self._state()]
        try:
            self.replay()
        except (RuntimeError, ValueError):  # an operation does not work on memory that it is given, or gives less
            self.why_not = "its replay fails"
        replayed = [self.row.clone(), *(tensor.detach().clone() for tensor in self._state())]
        with torch.no_grad():
            torch._foreach_copy_(self._state(), before)
        self.prepare(step)
        row = self.make_prepared(self.given)
        usual = [row, *self._state()]
        self.checked += 1
        if self.why_not is None and not all(_same(one, other) for one, other in zip(replayed, usual, strict=True)):
            self.why_not = "its replay gives other numbers"
        self.captured = self.why_not is None
        return row

    def _state(self) -> list[Tensor]:
        """Return all tensors that a step may change."""
        states = (state for optimizer in self.optimizers.values() for state in optimizer.optimizer.state.values())
        kept = [tensor for state in states for tensor in state.values() if isinstance(tensor, Tensor)]
        return [*(tensor.detach() for tensor in chain(self.model.parameters(), self.model.buffers())), *kept]


class MovesOnTape(CapturedMoves):
    """Moves on the CPU, as a list of operations (`tape.Tape`)."""

    def capture(self) -> Tensor:
        self.tape = Tape()
        self.row = self.tape.record(lambda: self.make_prepared(self.given)).detach()
        self.why_not = self.tape.why_not
        return self.row.clone()

    def replay(self) -> None:
        self.tape.play()


class MovesAsGraph(CapturedMoves):
    """Moves on an NVIDIA GPU, as a CUDA graph: the GPU is given a whole step at once."""

    def capture(self) -> Tensor:
        row = self._observed()
        if self.why_not is not None:
            return row
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph):
                self.row = self.make_prepared(self.given)
        except RuntimeError as error:
            raise UsageError(
                f"{type(self.model).__name__}: its step could not be captured as a CUDA graph: {error}\n"
                "Go on with device.capture=false"
            ) from error
        return row

    def replay(self) -> None:
        self.graph.replay()

    def _observed(self) -> Tensor:
        """Make the step as usual, and note in `why_not` what a graph would not repeat."""
        drawn, mode = torch.default_generator.get_state(), torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                row = self.make_prepared(self.given)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        if any("called a synchronizing" in str(warning.message) for warning in caught):
            self.why_not = "it waits for the device"
        elif not torch.equal(drawn, torch.default_generator.get_state()):
            self.why_not = "it draws from the CPU's random generator"
        return row


def _same(one: Tensor, other: Tensor) -> bool:
    """Return True if two tensors are equal bit for bit; NaN equals NaN."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
