"""The minibatches of a stage of training, in an order that follows from the seed and the epoch."""

import torch
from torch import Tensor

from genexp import rng
from genexp.data import DataSet
from genexp.models import Batch, Model, Update, evaluating
from genexp.models.samplers import CHUNK
from genexp.training.ahead import CopiedAhead
from genexp.training.plan import PlannedStage

BEGINNING = 10_000  # training images that a stage may look at before its first step
CODES_IN_MEMORY = 2**31  # bytes; codes of a stage that are more are computed a minibatch at a time


class Minibatches:
    """The minibatches of a stage. Each data set is shuffled anew for each epoch; the smaller one is passed repeatedly.

    Codes of frozen layers are computed here once for all training images, if they fit into CODES_IN_MEMORY and the
    images are the same at each use.
    """

    def __init__(self, data: DataSet, stage: PlannedStage, batch_size: int, seed: int, model: Model) -> None:
        self.data, self.stage, self.batch_size, self.seed, self.model = data.drawn(None), stage, batch_size, seed, model
        self.epoch, self.orders = -1, dict[str, Tensor]()
        self.sets = {"rows": self.data} if self.data.second is None else {"rows": self.data, "rows_b": self.data.second}
        self.copied = {name: CopiedAhead(each.train, each.device) for name, each in self.sets.items() if each.on_host}
        self.codes = self._all_codes()

    def begin(self) -> None:
        """Let the stage prepare its players. No checkpoint lies between this and the stage's first step."""
        begin, place = self.stage.stage.begin, self.stage.first_step
        if begin is None:
            return
        device, n = self.model.device, len(self.data.train)
        rows = _order(n, min(n, BEGINNING), self.seed, "stage order", place, device)
        rng.reseed(device, self.seed, "stage", place)
        if self.codes is not None:
            codes = self.codes[rows]
        else:
            images = self.data.images("train", rows)
            codes = images if self.stage.stage.codes is None else self._codes(images)
        with torch.no_grad():
            begin(codes)

    def given(self, step: int) -> dict[str, Tensor]:
        """Return what the step after `step` completed ones is given, on the model's device.

        "rows" and "rows_b" are the rows, (minibatches, batch_size), of the first and second data set that it takes;
        "images of rows" are the stored images at these rows, if they stay on the host; "epoch" is the place in the
        stage, if an update asks for it.
        """
        epoch, position = divmod(step - self.stage.first_step, self.stage.steps_per_epoch)
        n = self.stage.images_per_step
        if self.epoch != epoch:
            self.epoch, length = epoch, self.stage.steps_per_epoch * n
            index = self.stage.first_epoch + epoch
            for name, purpose in {"rows": "order", "rows_b": "order b"}.items():
                if name in self.sets:
                    images = self.sets[name].train
                    self.orders[name] = _order(len(images), length, self.seed, purpose, index, images.device)
        here = slice(position * n, (position + 1) * n)
        given = {name: order[here].view(-1, self.batch_size) for name, order in self.orders.items()}
        for name, copied in self.copied.items():
            stored = copied.take(self.orders[name], position * n, n)
            given[f"images of {name}"] = stored.view(-1, self.batch_size, *stored.shape[1:])
            given[name] = given[name].to(self.model.device)
        if any("epoch" in update.asking.names for update, _ in self.stage.moves):
            given["epoch"] = torch.tensor(self.stage.progress(step), device=self.model.device)
        return given

    def batch(self, update: Update, given: dict[str, Tensor], minibatch: int) -> Batch:
        """Return the tensors of a minibatch that the update asks for, made from what the step is given."""
        batch: Batch = {}
        names = set(update.asking.names)
        if names & {"images", "labels"} or ("codes" in names and self.codes is None):
            batch |= self._of("rows", given, minibatch)
        if "rows_b" in self.sets and names & {"images_b", "labels_b"}:
            batch |= {f"{name}_b": tensor for name, tensor in self._of("rows_b", given, minibatch).items()}
        if "codes" in names:
            rows = given["rows"][minibatch]
            batch["codes"] = self._codes(batch["images"]) if self.codes is None else self.codes[rows]
        if "epoch" in names:
            batch["epoch"] = given["epoch"]
        return batch

    def _of(self, name: str, given: dict[str, Tensor], minibatch: int) -> Batch:
        stored = given.get(f"images of {name}")
        at = None if stored is None else stored[minibatch]
        return self.sets[name].batch("train", given[name][minibatch], at)

    def _codes(self, images: Tensor) -> Tensor:
        codes = self.stage.stage.codes
        assert codes is not None
        with evaluating(self.model):
            of_images: Tensor = codes(images)
            return of_images

    def _all_codes(self) -> Tensor | None:
        if self.stage.stage.codes is None or self.data.fresh or self.data.flip:
            return None
        n = len(self.data.train)
        chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
        first = self._codes(self.data.images("train", chunks[0]))
        if n * first[0].numel() * first.element_size() > CODES_IN_MEMORY:
            return None
        return torch.cat([first, *(self._codes(self.data.images("train", chunk)) for chunk in chunks[1:])])


def _order(n: int, length: int, seed: int, purpose: str, epoch: int, device: torch.device) -> Tensor:
    """Return `length` rows of n images: one random permutation after another."""
    shuffler = rng.generator(torch.device("cpu"), seed, purpose, epoch)
    permutations = [torch.randperm(n, generator=shuffler) for _ in range(-(-length // n))]
    return torch.cat(permutations)[:length].to(device)
