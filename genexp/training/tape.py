"""A computation as the list of its operations, which is played again without Python's and autograd's part in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from genexp.device import never_compiled

MOST = 2**25  # bytes of results that a tape holds: more leave the caches, which costs more time than Python does
aten = torch.ops.aten
COPIES = {aten.clone.default, aten._to_copy.default}
ALLOCATES = {getattr(aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty")}  # no values yet
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
READ = "it reads a value back"


class Tape:
    """The tensor operations of a computation, also those of its backward passes; `play` makes them again.

    The results of the recording are the memory of each playing. So what the computation is given must be there at the
    same place with its new values, and what it returned holds the new results. Views of this memory stay valid, and are
    not made again. Draws of the default generators are new ones.

    If `why_not` is set, the computation cannot be repeated: a shape or Python itself depends on values, or the results
    take more than `most` bytes.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.bytes = most, 0
        self.calls: list[Callable[[], object]] = []
        self.why_not: str | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Return a context in which operations are made and recorded."""
        with _Reads(self), _Operations(self):
            yield
        if self.why_not is not None:
            self.calls.clear()

    def play(self) -> None:
        """Make the recorded operations again, on the values that their memory holds now."""
        with torch.no_grad():
            for call in self.calls:
                call()

    def note(self, func: Any, args: Any, kwargs: Any, results: Any) -> None:
        """Add what writes the results of an operation into their memory."""
        if not READS.isdisjoint(func.tags) and not _indexes_by_numbers(func, args):
            self.why_not = READ
            return
        made = list(_tensors(results))
        given = {_place(tensor) for tensor in _tensors([args, kwargs])}
        views = [_place(tensor) in given for tensor in made]
        self.bytes += sum(tensor.nbytes for tensor, view in zip(made, views, strict=True) if not view)
        if self.bytes > self.most:
            self.why_not = f"its results take more than {self.most >> 20} MiB"
            self.calls.clear()
        elif func._schema.is_mutable:
            self.calls.append(partial(func, *args, **kwargs))
        elif all(views) or func.overloadpacket in ALLOCATES:
            return
        elif func is aten.relu.default:  # has no variant that writes; this is what it calls
            self.calls.append(partial(aten.clamp_min.out, *args, 0, out=made[0]))
        elif func in COPIES:
            self.calls.append(partial(made[0].copy_, args[0]))
        elif (out := _writing(func)) is not None and not any(views):
            variant, names = out
            self.calls.append(partial(variant, *args, **kwargs, **dict(zip(names, made, strict=True))))
        else:
            self.calls.append(partial(_copied, made, partial(func, *args, **kwargs)))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make each operation, and note it."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if self.tape.why_not is None:
            self.tape.note(func, _without_graph(args), _without_graph(kwargs), _without_graph(results))
        return results


never_compiled(_Operations.__torch_dispatch__)


class _Reads(TorchFunctionMode):
    """Notice what reads a tensor's values without an operation."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            self.tape.why_not = READ
        return func(*args, **kwargs or {})


def _copied(memory: list[Tensor], call: Callable[[], Any]) -> None:
    for place, result in zip(memory, _tensors(call()), strict=True):
        place.copy_(result)


def _writing(func: Any) -> tuple[Any, list[str]] | None:
    """Return the variant of an operation that writes into given memory, and the names of these arguments."""
    wanted = [(argument.name, str(argument.type)) for argument in func._schema.arguments]
    for name in func.overloadpacket.overloads():
        variant = getattr(func.overloadpacket, name)
        arguments = variant._schema.arguments
        out = [argument.name for argument in arguments if argument.is_out]
        rest = [(argument.name, str(argument.type)) for argument in arguments if not argument.is_out]
        generated = torch.Tag.generated in variant.tags  # it copies, too
        if len(out) == len(func._schema.returns) > 0 and rest == wanted and not generated:
            return variant, out
    return None


def _indexes_by_numbers(func: Any, args: Any) -> bool:
    """Return True for an indexing whose shape is known: not by a mask."""
    return func is aten.index.Tensor and all(each is None or each.dtype != torch.bool for each in args[1])


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _without_graph(value: Any) -> Any:
    """Return the same memory without autograd's graph, which is not to be kept alive."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, list | tuple):
        return type(value)(map(_without_graph, value))
    return {key: _without_graph(each) for key, each in value.items()} if isinstance(value, dict) else value


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
