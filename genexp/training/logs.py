"""The logs of a run that trains: metrics.jsonl, TensorBoard, and pictures of samples."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from genexp.figures.canvas import Picture, save_picture
from genexp.numbers import finite
from genexp.rundirs.directory import Run
from genexp.score import Score, in_brief
from genexp.storage.files import atomic, sync
from genexp.training.loop import Tick
from genexp.training.tensorboard import EventLog


class Logs:
    """The log files of one run, open within a `with`, without what was logged after the step that it goes on from.

    metrics.jsonl is cut back to that step. `tensorboard` has the event files, which are optional.
    """

    def __init__(self, run: Run, from_step: int, model: str = "model", about: str = "") -> None:
        """`about` says in the pictures what they are of."""
        self.run, self.from_step, self.model, self.about = run, from_step, model, about

    def __enter__(self) -> "Logs":
        with ExitStack() as opened:
            self._cut_back()
            self.stream = opened.enter_context(self.run.metrics_file.open("a", encoding="utf-8"))
            self.tensorboard = EventLog(self.run, self.from_step, self.model, warn)
            opened.callback(self.tensorboard.close)
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
        self.tensorboard.points(values, tick.step, tick.epoch if tick.ends_epoch else None)

    def picture(self, name: str, picture: Picture, tick: Tick, scores: Mapping[str, Score]) -> None:
        """Log a picture as NAME/epoch-NNNN.png, with the stage's name if there are several, and in TensorBoard.

        Its caption tells the `scores` of the model at this epoch, if they were taken.
        """
        stage = f"-{tick.stage.name.replace(' ', '_')}" if tick.stage.name else ""
        file = self.run.path / name / f"epoch-{tick.epoch:04d}{stage}.png"
        save_picture(picture, file, f"{self.about}, epoch {tick.epoch}: {name}{in_brief(scores)}")
        self.tensorboard.picture(name, picture, tick.step)

    def flush(self) -> None:
        """Put all of it on the disk. A checkpoint that is written next relies on what was logged before it."""
        self.stream.flush()
        self.tensorboard.flush()
        for place in (self.run.metrics_file, self.run.path):
            sync(place)


def warn(message: str) -> None:
    print(f"warning: {message}", flush=True)
