"""A computation as the list of its operations, which is played again without Python's and autograd's part in it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from genexp.device import never_compiled

MOST = 2**25  # bytes that a tape needs: more leave the caches, which costs more time than Python does
MOST_RECORDED = 2**28  # bytes of all results together, which are there at once only while a tape is recorded
LARGE = 2**12  # bytes from which a result shares memory with others
MOST_SHARING = 1000  # results that do so, the largest: where they are to lie takes time that grows quadratically
ALIGNMENT = 64  # bytes, a line of the caches
aten = torch.ops.aten
COPIES = {aten.clone.default, aten._to_copy.default}
ALLOCATES = {getattr(aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty")}  # no values yet
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
READ = "it reads a value back"


class Tape:
    """The tensor operations of a computation, also those of its backward passes; `play` makes them again.

    Each operation writes into memory that is the same in each playing. So what the computation is given must be there
    at the same place with its new values, and what it returned holds the new result. Views are not made again. Draws of
    the default generators are new ones. Results that are not needed at the same time share memory, which is not that of
    the recording: a result that Python keeps, beside the returned one, keeps its first values.

    If `why_not` is set, the computation cannot be repeated: a shape or Python itself depends on values, or it needs
    more than `most` bytes at a time, or has results of more than `most_recorded` bytes.
    """

    def __init__(self, most: int = MOST, most_recorded: int = MOST_RECORDED) -> None:
        self.most, self.most_recorded, self.recorded = most, most_recorded, 0
        self.calls: list[partial[Any]] = []
        self.made: list[Tensor] = []  # results with memory of their own, while a computation is recorded
        self.why_not: str | None = None

    def record(self, compute: Callable[[], Tensor]) -> Tensor:
        """Make a computation, record its operations, and return its result."""
        with _Reads(self), _Operations(self):
            result = compute()
        if self.why_not is None:
            self._share_memory(result)
        if self.why_not is not None:
            self.calls.clear()
        self.made.clear()
        return result

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
        if any(tensor.layout != torch.strided for tensor in _tensors([args, kwargs, results])):
            self.why_not = "it has sparse tensors"
            return
        made = list(_tensors(results))
        given = {_place(tensor) for tensor in _tensors([args, kwargs])}
        views = [_place(tensor) in given for tensor in made]
        own = [tensor for tensor, view in zip(made, views, strict=True) if not view]
        self.made += own
        self.recorded += sum(tensor.nbytes for tensor in own)
        if self.recorded > self.most_recorded:
            self.why_not = f"all its results together take more than {self.most_recorded >> 20} MiB"
            self.calls.clear()
            self.made.clear()
        elif torch.Tag.inplace_view in func.tags:  # it changes what a view shows, which stays so
            return
        elif func._schema.is_mutable and not own:
            self.calls.append(partial(func, *args, **kwargs))
        elif all(views) or func.overloadpacket in ALLOCATES:
            return
        elif func is aten.relu.default:  # has no variant that writes; this is what it calls
            self.calls.append(partial(aten.clamp_min.out, *args, 0, out=made[0]))
        elif func in COPIES:
            self.calls.append(partial(Tensor.copy_, made[0], args[0]))
        elif (out := _writing(func)) is not None and len(own) == len(out[1]):
            variant, names = out
            self.calls.append(partial(variant, *args, **kwargs, **dict(zip(names, made, strict=True))))
        else:
            self.calls.append(partial(_copied, made, partial(func, *args, **kwargs)))

    def _share_memory(self, result: Tensor) -> None:
        """Move the large results into one block of memory, in which places are used again; not the one returned."""
        sizes = {_place(tensor): tensor.untyped_storage().nbytes() for tensor in self.made}
        lives: dict[int, tuple[int, int]] = {}  # the first and the last call with a result's memory
        for index, call in enumerate(self.calls):
            for place in map(_place, _tensors(call)):
                if place != _place(result) and sizes.get(place):
                    lives[place] = (lives.get(place, (index, 0))[0], index)
        large = sorted((place for place in lives if sizes[place] >= LARGE), key=lambda place: -sizes[place])
        offsets, size = _packed({place: sizes[place] for place in large[:MOST_SHARING]}, lives)
        if size + sum(sizes[place] for place in lives if place not in offsets) > self.most:
            self.why_not = f"it needs more than {self.most >> 20} MiB at a time"
            return
        block = torch.empty(size, dtype=torch.uint8).numpy()
        # Each has a storage of its own, so operations see that two results are not views of each other.
        pieces = {place: torch.from_numpy(block[offset : offset + sizes[place]]) for place, offset in offsets.items()}

        def moved(tensor: Tensor) -> Tensor:
            piece = pieces.get(_place(tensor))
            if piece is None:
                return tensor
            whole = piece[: len(piece) // tensor.element_size() * tensor.element_size()].view(tensor.dtype)
            same = whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            same = same.conj() if tensor.is_conj() else same
            return torch._neg_view(same) if tensor.is_neg() else same

        self.calls = [_mapped(call, moved) for call in self.calls]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make each operation, and note it."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if self.tape.why_not is None:
            self.tape.note(func, *(_mapped(each, Tensor.detach) for each in (args, kwargs, results)))  # without graph
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
    if "reduction" in dict(wanted):  # of these losses some take the memory of their one number for all numbers at first
        return None
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


def _packed(sizes: dict[int, int], lives: dict[int, tuple[int, int]]) -> tuple[dict[int, int], int]:
    """Return where each piece of memory lies in a block, in bytes, and the size of the block.

    They are placed in their order, best the largest first, each as far in front as no piece of an overlapping life is.
    """
    offsets: dict[int, int] = {}
    for place in sizes:
        first, last = lives[place]
        offset = 0
        beside = (other for other in offsets if lives[other][0] <= last and first <= lives[other][1])
        for begin, end in sorted((offsets[other], offsets[other] + sizes[other]) for other in beside):
            if offset + sizes[place] <= begin:
                break
            offset = max(offset, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[place] = offset
    size = max((offset + sizes[place] for place, offset in offsets.items()), default=0)
    return offsets, -(-size // ALIGNMENT) * ALIGNMENT


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, partial):
        yield from _tensors([value.args, value.keywords])


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the same structure with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, change) for each in value)
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, partial):
        return partial(value.func, *_mapped(value.args, change), **_mapped(value.keywords, change))
    return value


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
