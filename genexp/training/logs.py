"""What a run tells while it trains: metrics.jsonl, TensorBoard, pictures of samples, and the terminal."""

import json
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from genexp.figures.pictures import Picture, save_picture
from genexp.storage.files import atomic, make_folder, sync
from genexp.text import duration
from genexp.training.loop import Tick

EVENTS = "events.out.tfevents.*"  # TensorBoard's files, one for each session of a run
FRAME = 16  # bytes around each of TensorBoard's records: length, its digest, and that of the content
SCORES = ("score/", "valid/")  # the curves of scores on the test and on the validation images
LINE_SECONDS = 2
WIDE = 110  # columns of a terminal that has room for D(x) and D(G(z)) beside the losses and a bar


class Logs:
    """The log files of one run, cut back to the step that it goes on from, and open within a `with`.

    With `scored_again`, what TensorBoard was told of scores at that very step is taken back, too.
    """

    def __init__(self, folder: Path, from_step: int, scored_again: bool = False) -> None:
        self.folder, self.from_step, self.scored_again = folder, from_step, scored_again
        self.metrics, self.curves = folder / "metrics.jsonl", folder / "tensorboard"

    def _open(self) -> None:
        _cut_back(self.metrics, self.from_step)
        make_folder(self.curves)
        _cut_back_events(self.curves, self.from_step, self.scored_again)
        self.stream = self.metrics.open("a", encoding="utf-8")
        self.tensorboard = SummaryWriter(str(self.curves), purge_step=self.from_step + 1)
        if not self.from_step:
            config = (self.folder / "config.yaml").read_text(encoding="utf-8")
            self.tensorboard.add_text("config", f"```yaml\n{config}\n```")

    def scalars(self, tick: Tick, values: dict[str, float]) -> None:
        """A line of metrics.jsonl and the same points in TensorBoard."""
        record = {"step": tick.step, "epoch": tick.epoch, "time": time.time(), **values}
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()
        self.points(values, tick.step)

    def points(self, values: dict[str, float], step: int) -> None:
        """A point of each curve in TensorBoard."""
        for name, value in values.items():
            self.tensorboard.add_scalar(_tag(name), value, step)

    def picture(self, name: str, picture: Picture, tick: Tick) -> None:
        """A picture, as NAME/epoch-NNNN.png and in TensorBoard."""
        save_picture(picture, self.folder / name / f"epoch-{tick.epoch:04d}.png")
        self.tensorboard.add_image(name, picture, tick.step, dataformats="HWC")

    def codes(self, codes: Tensor, step: int) -> None:
        """The histogram of all values of (n, latent_dim) codes, in TensorBoard."""
        self.tensorboard.add_histogram("codes", codes, step)

    def projector(self, codes: Tensor, labels: Tensor, images: Tensor, step: int) -> None:
        """Codes with their labels and pictures, for TensorBoard's embedding projector."""
        square = images.shape[2] == images.shape[3] > 1
        self.tensorboard.add_embedding(codes, labels.tolist(), images if square else None, step, tag="codes")

    def hparams(self, settings: dict[str, Any], scores: dict[str, float]) -> None:
        """What the run is and how it scored, for TensorBoard's table of hyperparameters."""
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        make: Any = hparams
        writer: Any = self.tensorboard.file_writer  # add_hparams would write to a folder of its own
        for summary in make(plain, {_tag(name): value for name, value in scores.items()}):
            writer.add_summary(summary)

    def flush(self) -> None:
        """Put all of it on the disk: a checkpoint that is written next takes for granted what was logged before."""
        self.stream.flush()
        for _ in range(2):  # TensorBoard writes in a thread, whose error is raised by the call after the one it met
            self.tensorboard.flush()
        for place in (self.metrics, *self.curves.glob(EVENTS), self.folder, self.curves):  # content, and new names
            sync(place)

    def __enter__(self) -> "Logs":
        self._hook = threading.excepthook
        threading.excepthook = self._say_unless_full  # before TensorBoard's thread begins
        try:
            self._open()
        except BaseException:
            threading.excepthook = self._hook
            raise
        return self

    def _say_unless_full(self, arguments: threading.ExceptHookArgs) -> None:
        """A disk that is full for TensorBoard's thread is told by the main one, which meets it, too."""
        if not issubclass(arguments.exc_type, OSError):
            self._hook(arguments)

    def __exit__(self, *_: object) -> None:
        try:
            self.stream.close()
        finally:
            self.tensorboard.close()
            threading.excepthook = self._hook


class Terminal:
    """A live bar on a terminal; elsewhere a plain line at an epoch's end, seldom more than one in LINE_SECONDS."""

    def __init__(self, epochs: int, steps_per_epoch: int, from_step: int) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.from_step, self.started = from_step, time.perf_counter()
        self.next_line = 0.0
        console = Console()
        self.live = console.is_terminal
        self.wide = console.width >= WIDE or not self.live
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            *([BarColumn(bar_width=16)] if self.wide else []),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[values]}"),
            console=console,
            disable=not self.live,
        )
        self.task = self.progress.add_task(
            "", total=epochs * steps_per_epoch, completed=from_step, epoch=from_step // steps_per_epoch,
            epochs=epochs, values="",
        )  # fmt: skip

    def show(self, tick: Tick) -> None:
        if self.live:
            current = min(tick.epoch + (not tick.ends_epoch), self.epochs)
            self.progress.update(self.task, completed=tick.step, epoch=current)
            if tick.values:
                self.progress.update(self.task, values=_summary(tick.values, self.wide))
        elif tick.ends_epoch and tick.values and (self._is_time() or tick.epoch == self.epochs):
            left = (time.perf_counter() - self.started) / (tick.step - self.from_step)
            left *= self.epochs * self.steps_per_epoch - tick.step
            print(
                f"epoch {tick.epoch}/{self.epochs}  {_summary(tick.values, self.wide)}  {duration(left)} left",
                flush=True,
            )

    def _is_time(self) -> bool:
        now = time.perf_counter()
        if now < self.next_line:
            return False
        self.next_line = now + LINE_SECONDS
        return True

    def __enter__(self) -> "Terminal":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


def _summary(values: dict[str, float], wide: bool) -> str:
    shown = {name.removeprefix("loss/"): value for name, value in values.items() if name.startswith("loss/")}
    watched = [name for name in values if "/" not in name and name != "images_per_second"]
    shown |= {name: values[name] for name in watched if wide}
    parts = [f"{name} {value:.{3 if wide else 2}f}" for name, value in shown.items()]
    return "  ".join([*parts, f"{values['images_per_second']:,.0f} images/s"])


def _tag(name: str) -> str:
    """TensorBoard allows letters, digits, '_', '-', '.' and '/' in tags: D(G(z)) becomes D_G_z."""
    return name.replace("(", "_").replace(")", "")


def _cut_back(file: Path, step: int) -> None:
    """Keep the lines of metrics.jsonl up to `step`; those after it will be written again."""
    if not file.exists():
        return
    kept = []
    for line in file.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError, RecursionError):  # cut short when the process was killed
            continue
    with atomic(file) as stream:
        stream.write(b"".join(kept))


def _cut_back_events(folder: Path, step: int, scored_again: bool) -> None:
    """Keep what TensorBoard's files say up to `step`, each in its place, so that a kill on the way costs nothing.

    TensorBoard itself would leave later points out, but not every reader of its files does, and points that are logged
    once more at the same step would be there twice. A file that is damaged is named, and kept beside what can be read.
    """
    for file in sorted(folder.glob(EVENTS)):
        if not step:
            file.unlink()
            continue
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # slow to import
        from tensorboard.summary.writer.record_writer import RecordWriter

        read = 0
        with atomic(file) as stream:
            writer = RecordWriter(stream)
            for record in RawEventFileLoader(str(file)).Load():  # up to where it was cut short, if it was
                read += FRAME + len(record)
                event = Event.FromString(record)
                if event.HasField("file_version") or (event.HasField("summary") and _stays(event, step, scored_again)):
                    writer.write(record)
            whole = file.read_bytes()
            if _is_damaged(whole[read:]):
                kept = next(place for n in range(1, 10**6) if not (place := folder / f"damaged-{n}").exists())
                kept.write_bytes(whole)
                print(
                    f"warning: {file} is damaged at byte {read:,}, and what follows is lost to TensorBoard; it is kept "
                    f"as {kept.name}, and metrics.jsonl has all curves",
                    flush=True,
                )


def _is_damaged(rest: bytes) -> bool:
    """Whether what could not be read of TensorBoard's records is more than a last one that was cut short."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    if len(rest) < 12:
        return False
    (length,), (digest,) = struct.unpack("<Q", rest[:8]), struct.unpack("<I", rest[8:12])
    return len(rest) >= FRAME + length or bool(masked_crc32c(rest[:8]) != digest)


def _stays(event: Event, step: int, scored_again: bool) -> bool:
    tags = [value.tag for value in event.summary.value]
    if event.step > step or any(tag.startswith("_hparams_/") for tag in tags):  # those are logged at every end
        return False
    return not (scored_again and event.step == step and any(tag.startswith(SCORES) for tag in tags))
