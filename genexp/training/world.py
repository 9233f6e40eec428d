"""Data parallel training: several processes train one run, each on its share of every minibatch.

torchrun starts the processes. All make the same model and hold the same weights. In a step, each takes the gradients
of the losses of its share; they are averaged over the processes, and all make the same step of the optimizer. Shares
are of equal size, so the averaged gradient is that of the whole minibatch for any loss that is a mean over images.

The process of rank 0 leads. It is what a process alone would be: it holds the run, logs, scores and saves. Before each
step it tells the others that there is one more, or that training ended. The others write nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from genexp import ranks
from genexp.config.kept import differences
from genexp.errors import GenexpError, UsageError
from genexp.signals import Stop

PATIENCE = timedelta(minutes=10)  # with a process that is alive and does not answer in the middle of a step
LEADER_PATIENCE = timedelta(days=30)  # between steps: it may be scoring


class Ended(Exception):
    """The leader told this process that there is no further step."""


class World:
    """The processes that train together, as one of them sees them. A process that is lost raises GenexpError."""

    def __init__(self) -> None:
        self.rank, self.size = ranks.rank(), ranks.size()
        self.leads = self.rank == 0
        self.stop = Stop(patient=True)  # torchrun and a scheduler may both send a signal
        with _reached("the processes could not find each other; torchrun tells them where to meet"):
            distributed.init_process_group("gloo", rank=self.rank, world_size=self.size, timeout=PATIENCE)
            patience = PATIENCE if self.leads else LEADER_PATIENCE
            self._words: Any = distributed.new_group(timeout=patience)
        self._others_wait = True  # for the leader's word

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do what all processes do within it. The leader's word begins it; others wait for that.

        Raises Ended in them if it is the last word.
        """
        if not self._word(True):
            raise Ended
        self._others_wait = False
        yield
        self._others_wait = True

    def agree(self, facts: dict[str, Any]) -> None:
        """Compare what each process is about to train on. Raises UsageError in the leader if they differ."""
        all_facts: list[dict[str, Any]] = [{}] * self.size
        with self.together(), _reached():
            distributed.all_gather_object(all_facts, facts)
        for rank, others in enumerate(all_facts):
            if self.leads and others != facts:
                raise UsageError(
                    f"the process of rank {rank} would train on something else than that of rank 0:\n"
                    f"{differences(facts, others)}\nGive all processes the same command, code and data"
                )

    def from_leader(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the leader's state; each process gives its own."""
        objects = [state if self.leads else None]
        with self.together(), _reached():
            distributed.broadcast_object_list(objects, 0)
        return objects[0] or {}

    def mean(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the means of tensors over the processes, the same bits in each of them."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _reached():
            distributed.all_reduce(flat)
        parts = torch.split(flat.div_(self.size), [tensor.numel() for tensor in tensors])
        return tuple(part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True))

    def mean_of_step(self, row: Tensor) -> Tensor:
        """Return the mean of a step's row. Once one of the processes is asked to stop, all are."""
        mean, asked = self.mean([row, row.new_tensor(float(self.stop.heard))])
        if asked > 0:
            self.stop.told = True
        return mean

    def check_same_state(self, model: nn.Module) -> None:
        """Raise UsageError, in all processes, if a tensor that a model keeps differs between them in any bit.

        Running statistics of batch normalisation, which each takes of its share, are first replaced by the leader's.
        """
        with _reached():
            for statistics in _running_statistics(model):
                distributed.broadcast(statistics, 0)
        state = model.state_dict()
        digests = torch.tensor([_digest(tensor) for tensor in state.values()])
        all_digests = [torch.empty_like(digests) for _ in range(self.size)]
        with _reached():
            distributed.all_gather(all_digests, digests)
        same = (torch.stack(all_digests) == digests).all(0)
        differ = [name for name, is_same in zip(state, same, strict=True) if not is_same]
        if differ:
            raise UsageError(
                f"{type(model).__name__}: {', '.join(differ[:3])} differs between the processes after a step\n"
                "Train a model that keeps something of each image from step to step by one process"
            )

    def leave(self) -> None:
        """End the training of the others, as the leader; leave them.

        Others that do not wait for a word, since an error ended a step, learn of it as the connection is closed.
        """
        with suppress(GenexpError):  # one of them may be lost
            if self.leads and self._others_wait:
                self._word(False)
        distributed.destroy_process_group()

    def _word(self, word: bool) -> bool:
        """Return the leader's word."""
        told = torch.tensor(int(word))
        with _reached():
            distributed.broadcast(told, 0, group=self._words)
        return bool(told)


@contextmanager
def joined() -> Iterator[World | None]:
    """Join the processes that were started with this one; yield None if it was started alone."""
    if ranks.size() == 1:
        yield None
        return
    world = World()
    try:
        yield world
    finally:
        world.leave()


@contextmanager
def _reached(trouble: str = "another process of this training ended, or does not answer") -> Iterator[None]:
    """Say it in plain words if the other processes cannot be reached."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise GenexpError(f"{trouble}\nOnce what ended it is mended, the same command goes on") from error


def _digest(tensor: Tensor) -> int:
    """Return a 56-bit digest of a tensor's bytes."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return int.from_bytes(hashlib.blake2b(content.data, digest_size=7).digest(), "little")


def _running_statistics(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            yield from module.buffers(recurse=False)
