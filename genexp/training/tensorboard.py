"""A run's log for TensorBoard. It is optional: whatever fails in it is a warning, and the run goes on."""

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from genexp.figures.canvas import Picture
from genexp.numbers import finite
from genexp.rundirs.directory import EVENTS, Run
from genexp.storage.files import atomic, make_folder, sync
from genexp.text import first_line

SPRITE = 8192  # pixels of a side: browsers show no larger texture
OVER_EPOCHS = ("loss/", "score/", "valid/")  # curves that are shown over epochs, too
GROUPS = {  # of tags; in this order TensorBoard shows samples before what a model reconstructs, and weights last
    "chains": "samples/chains",
    "reconstructions": "valid/reconstructions",
    "translations": "valid/translations",
    "filters": "weights",
    "images_per_second": "speed/images_per_second",
}
FIRST = "model.name"  # of the hyperparameters, which TensorBoard sorts: its name is given a space before it
WRITER = "_AsyncWriterThread"  # of TensorBoard, which writes in a thread of its own


class EventLog:
    """The event files of one session. After the first failure nothing more is written, and `warn` has been told why.

    Earlier files stay; TensorBoard is told to leave out their steps after `from_step`. A run whose event files lie in
    its folder `tensorboard` goes on there, with the tags that they have.
    """

    def __init__(self, run: Run, from_step: int, model: str, warn: Callable[[str], None]) -> None:
        self.folder, self.from_step, self.model, self.warn = run.tensorboard, from_step, model, warn
        self.grouped = self.folder == run.path
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._report  # before TensorBoard's thread begins
        self._attempt(lambda: self._open(run))

    def _open(self, run: Run) -> None:
        make_folder(self.folder)
        if not self.from_step:
            for file in self.folder.glob(EVENTS):
                file.unlink()
        self._writer = SummaryWriter(str(self.folder), purge_step=self.from_step + 1)
        if not self.from_step:
            config = _utf8(run.config_file.read_text(encoding="utf-8"))
            self._writer.add_text("config", f"```yaml\n{config}\n```")

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)
        threading.excepthook = self._hook

    def points(self, values: dict[str, float], step: int, epoch: int | None = None) -> None:
        """Log values as points over steps; losses and scores of an epoch's end over epochs as well."""

        def write(writer: SummaryWriter) -> None:
            for name, value in finite(values).items():
                writer.add_scalar(self._tag(name), value, step)
                if epoch is not None and name.startswith(OVER_EPOCHS):
                    writer.add_scalar(f"epochs/{self._tag(name)}", value, epoch)

        self._write(write)

    def picture(self, name: str, picture: Picture, step: int) -> None:
        self._write(lambda writer: writer.add_image(self._tag(name), picture, step, dataformats="HWC"))

    def histogram(self, name: str, make: Callable[[], Tensor], step: int) -> None:
        """Log a histogram of the values that `make` returns."""
        self._write(lambda writer: writer.add_histogram(self._tag(name), make(), step))

    def hparams(self, settings: dict[str, Any], scores: dict[str, float]) -> None:
        """Log the run's settings for TensorBoard's table of hyperparameters.

        The summary of an experiment, whose columns would be those of all runs in the table, is left out: TensorBoard
        then gathers the columns from all runs.
        """
        named = {name: value for name, value in settings.items() if not name.endswith("_target_")}
        plain = {f" {name}" if name == FIRST else name: _plain(value) for name, value in named.items()}

        def write(writer: SummaryWriter) -> None:
            make: Any = hparams
            files: Any = writer.file_writer  # add_hparams would write to a folder of its own
            _, *session = make(plain, {self._tag(name): value for name, value in finite(scores).items()})
            for summary in session:
                files.add_summary(summary)

        self._write(write)

    def projector(self, make: Callable[[], tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the codes (n, d), labels (n,) and images (n, C, H, W) that `make` returns for the embedding projector.

        The images are made smaller where their sprite would be larger than SPRITE. Points have none.
        """
        self._write(lambda _: self._project(*make()))

    def _project(self, codes: Tensor, labels: Tensor, images: Tensor) -> None:
        tables = {
            "tensors.tsv": "\n".join("\t".join(map(str, row)) for row in codes.tolist()),
            "metadata.tsv": "\n".join(map(str, labels.tolist())),
        }
        described = ['tensor_name: "codes"', 'tensor_path: "projector/tensors.tsv"']
        described += ['metadata_path: "projector/metadata.tsv"']
        for name, text in tables.items():
            with atomic(self.folder / "projector" / name) as stream:
                stream.write(f"{text}\n".encode())
        if images.ndim == 4 and min(images.shape[2:]) > 1:
            picture, (height, width) = sprite(images)
            with atomic(self.folder / "projector" / "sprite.png") as stream:
                Image.fromarray(picture).save(stream, format="PNG")
            size = f"single_image_dim: {width} single_image_dim: {height}"
            described.append(f'sprite {{ image_path: "projector/sprite.png" {size} }}')
        with atomic(self.folder / "projector_config.pbtxt") as stream:
            stream.write(f"embeddings {{ {' '.join(described)} }}\n".encode())

    def flush(self) -> None:
        """Put all of it on the disk."""

        def write(writer: SummaryWriter) -> None:
            for _ in range(2):  # TensorBoard writes in a thread and raises its error at the next call
                writer.flush()
            for place in (*self.folder.glob(EVENTS), self.folder):
                sync(place)

        self._write(write)

    def _write(self, write: Callable[[SummaryWriter], None]) -> None:
        writer = self._writer
        if writer is not None:
            self._attempt(lambda: write(writer))

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do the work; if it fails, warn, and log nothing more in this session."""
        try:
            work()
        except Exception as error:
            reason = error.strerror or error if isinstance(error, OSError) else first_line(error)
            self.warn(f"TensorBoard's log fails and is left off from here on ({reason}); the run goes on without it")
            writer, self._writer = self._writer, None
            if writer is not None:
                with suppress(Exception):
                    writer.close()

    def _report(self, arguments: threading.ExceptHookArgs) -> None:
        """Report an error of a thread, but not of TensorBoard's: it is raised here at the next call."""
        if type(arguments.thread).__name__ != WRITER:
            self._hook(arguments)

    def _tag(self, name: str) -> str:
        """Return a tag that TensorBoard takes: letters, digits, '_', '-', '.' and '/', in a group before the first '/'.

        D(G(z)) becomes discriminator/D_G_z, and a value of the model that has no group gets the model's name as one.
        """
        plain = name.replace("(", "_").replace(")", "")
        if not self.grouped or name == "samples":
            return plain
        group, slash, rest = plain.partition("/")
        if group in GROUPS:
            return GROUPS[group] + slash + rest
        return plain if slash else f"{'discriminator' if name.startswith('D(') else self.model}/{plain}"


def sprite(images: Tensor) -> tuple[Picture, tuple[int, int]]:
    """Return images (n, C, H, W) in [0, 1] side by side in a square, and the height and width of one of them in it."""
    n, _, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    largest = max(1, SPRITE // columns)
    if max(height, width) > largest:
        scale = largest / max(height, width)
        height, width = (max(1, int(side * scale)) for side in (height, width))
        images = interpolate(images, size=(height, width), mode="area")
    tiles = torch.zeros(columns**2, 3, height, width, dtype=torch.uint8)
    tiles[:n] = images.clamp(0, 1).mul(255).round().byte()
    square = tiles.view(columns, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    return np.ascontiguousarray(square.reshape(columns * height, columns * width, 3).numpy()), (height, width)


def _plain(value: Any) -> int | float | str:
    return value if isinstance(value, int | float) else _utf8(str(value))


def _utf8(text: str) -> str:
    """Return the text with what is no valid Unicode, as in a folder's name, written as \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode()
