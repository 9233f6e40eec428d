"""The logs of a run that trains: metrics.jsonl, TensorBoard, and pictures of samples."""

import json
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from genexp.figures.canvas import Picture, save_picture
from genexp.numbers import finite
from genexp.runs.directory import Run
from genexp.storage.files import atomic, make_folder, sync
from genexp.training.loop import Tick

EVENTS = "events.out.tfevents.*"  # TensorBoard's files, one for each session of a run


class Logs:
    """The log files of one run, open within a `with`, without what was logged after the step that it goes on from.

    metrics.jsonl is cut back to that step. TensorBoard's earlier files stay; it is told to leave out their later steps.
    """

    def __init__(self, run: Run, from_step: int) -> None:
        self.run, self.from_step = run, from_step

    def __enter__(self) -> "Logs":
        with ExitStack() as opened:
            self._hook = threading.excepthook
            opened.callback(setattr, threading, "excepthook", self._hook)
            threading.excepthook = self._report_unless_full  # before TensorBoard's thread begins
            self._cut_back()
            make_folder(self.run.tensorboard)
            if not self.from_step:
                for file in self.run.tensorboard.glob(EVENTS):
                    file.unlink()
            self.stream = opened.enter_context(self.run.metrics_file.open("a", encoding="utf-8"))
            self.tensorboard = SummaryWriter(str(self.run.tensorboard), purge_step=self.from_step + 1)
            opened.callback(self.tensorboard.close)
            if not self.from_step:
                config = self.run.config_file.read_text(encoding="utf-8")
                self.tensorboard.add_text("config", f"```yaml\n{config}\n```")
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _cut_back(self) -> None:
        """Keep the lines of metrics.jsonl up to the step that the run goes on from; later ones are written again."""
        file, kept = self.run.metrics_file, []
        if not file.exists():
            return
        for line in file.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # of a line that a kill cut short
                if json.loads(line)["step"] <= self.from_step:
                    kept.append(line + b"\n")
        with atomic(file) as stream:
            stream.write(b"".join(kept))

    def scalars(self, tick: Tick, values: dict[str, float]) -> None:
        """Log values as a line of metrics.jsonl and as points in TensorBoard, without those that are not finite."""
        values = finite(values)
        stage = {"stage": tick.stage.name} if tick.stage.name else {}
        record = {"step": tick.step, "epoch": tick.epoch, **stage, "time": time.time(), **values}
        self.stream.write(json.dumps(record, allow_nan=False) + "\n")
        self.stream.flush()
        self.points(values, tick.step)

    def points(self, values: dict[str, float], step: int) -> None:
        """Log values as points in TensorBoard."""
        for name, value in finite(values).items():
            self.tensorboard.add_scalar(_tag(name), value, step)

    def picture(self, name: str, picture: Picture, tick: Tick) -> None:
        """Log a picture as NAME/epoch-NNNN.png, with the stage's name if there are several, and in TensorBoard."""
        stage = f"-{tick.stage.name.replace(' ', '_')}" if tick.stage.name else ""
        save_picture(picture, self.run.path / name / f"epoch-{tick.epoch:04d}{stage}.png")
        self.tensorboard.add_image(name, picture, tick.step, dataformats="HWC")

    def projector(self, codes: Tensor, labels: Tensor, images: Tensor, step: int) -> None:
        """Log codes with their labels and images for TensorBoard's embedding projector."""
        square = images.ndim == 4 and images.shape[2] == images.shape[3] > 1
        self.tensorboard.add_embedding(codes, labels.tolist(), images if square else None, step, tag="codes")

    def hparams(self, settings: dict[str, Any], scores: dict[str, float]) -> None:
        """Log the run's settings and scores for TensorBoard's table of hyperparameters."""
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        make: Any = hparams
        writer: Any = self.tensorboard.file_writer  # add_hparams would write to a folder of its own
        for summary in make(plain, {_tag(name): value for name, value in finite(scores).items()}):
            writer.add_summary(summary)

    def flush(self) -> None:
        """Put all of it on the disk. A checkpoint that is written next relies on what was logged before it."""
        self.stream.flush()
        for _ in range(2):  # TensorBoard writes in a thread and raises its error at the next call
            self.tensorboard.flush()
        for place in (self.run.metrics_file, *self.run.tensorboard.glob(EVENTS), self.run.path, self.run.tensorboard):
            sync(place)

    def _report_unless_full(self, arguments: threading.ExceptHookArgs) -> None:
        """Report an error of TensorBoard's thread, but not a full disk: the main thread meets that, too."""
        if not issubclass(arguments.exc_type, OSError):
            self._hook(arguments)


def _tag(name: str) -> str:
    """Return a tag that TensorBoard takes: letters, digits, '_', '-', '.' and '/'. D(G(z)) becomes D_G_z."""
    return name.replace("(", "_").replace(")", "")
