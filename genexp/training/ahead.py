"""Training images that stay in the host's memory, and their minibatches on a GPU."""

import torch
from torch import Tensor


class CopiedAhead:
    """Copies images of the next step to the GPU while the present one is computed, from pinned memory."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.order, self.start = torch.empty(0), -1  # of what is on its way
        self.coming = torch.empty(0)

    def take(self, order: Tensor, start: int, n: int) -> Tensor:
        """Return the images at `order[start:start + n]`, on the GPU, and begin to copy the n behind them."""
        if self.order is not order or self.start != start:
            self._copy(order, start, n)
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(self.stream)
        images = self.coming
        images.record_stream(here)
        if start + 2 * n <= len(order):
            self._copy(order, start + n, n)
        return images

    def _copy(self, order: Tensor, start: int, n: int) -> None:
        rows = order[start : start + n]
        pinned = torch.empty((n, *self.images.shape[1:]), dtype=self.images.dtype, pin_memory=True)
        torch.index_select(self.images, 0, rows, out=pinned)
        with torch.cuda.stream(self.stream):
            self.coming = pinned.to(self.device, non_blocking=True)
        self.order, self.start = order, start
