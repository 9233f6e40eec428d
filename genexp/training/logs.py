"""The logs of a run that trains: metrics.jsonl, TensorBoard, pictures of samples, and the terminal."""

import json
import time
from contextlib import ExitStack, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from genexp.figures.canvas import Picture, save_picture
from genexp.runs.directory import Run
from genexp.storage.files import atomic, sync
from genexp.text import duration
from genexp.training.loop import Tick
from genexp.training.plan import Plan, PlannedStage
from genexp.training.tensorboard import EventLog

LINE_SECONDS = 2
WIDE = 110  # columns of a terminal that has room for D(x) and D(G(z)) beside the losses and a bar


class Logs:
    """The log files of one run, open within a `with`, without what was logged after the step that it goes on from.

    metrics.jsonl is cut back to that step. `tensorboard` has the event files, which are optional.
    """

    def __init__(self, run: Run, from_step: int, model: str = "model") -> None:
        self.run, self.from_step, self.model = run, from_step, model

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
        """Log values as a line of metrics.jsonl and as points in TensorBoard."""
        stage = {"stage": tick.stage.name} if tick.stage.name else {}
        record = {"step": tick.step, "epoch": tick.epoch, **stage, "time": time.time(), **values}
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()
        self.tensorboard.points(values, tick.step, tick.epoch if tick.ends_epoch else None)

    def picture(self, name: str, picture: Picture, tick: Tick) -> None:
        """Log a picture as NAME/epoch-NNNN.png, with the stage's name if there are several, and in TensorBoard."""
        stage = f"-{tick.stage.name.replace(' ', '_')}" if tick.stage.name else ""
        save_picture(picture, self.run.path / name / f"epoch-{tick.epoch:04d}{stage}.png")
        self.tensorboard.picture(name, picture, tick.step)

    def flush(self) -> None:
        """Put all of it on the disk. A checkpoint that is written next relies on what was logged before it."""
        self.stream.flush()
        self.tensorboard.flush()
        for place in (self.run.metrics_file, self.run.path):
            sync(place)


class Terminal:
    """A live bar on a terminal, within `progress`; elsewhere a line at an epoch's end, at most one in LINE_SECONDS."""

    def __init__(self, plan: Plan, epochs: int, from_step: int) -> None:
        self.plan, self.epochs, self.steps, self.from_step = plan, epochs, plan.last_step(epochs), from_step
        self.started, self.next_line = time.perf_counter(), 0.0
        console = Console()
        self.live = console.is_terminal
        self.wide = console.width >= WIDE or not self.live
        self.progress = Progress(
            TextColumn("{task.fields[place]}"),
            *([BarColumn(bar_width=16)] if self.wide else []),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[values]}"),
            console=console,
            disable=not self.live,
        )
        place = place_of(plan.stage(from_step), from_step, epochs)
        self.task = self.progress.add_task("", total=self.steps, completed=from_step, place=place, values="")

    def show(self, tick: Tick) -> None:
        """Show a completed step."""
        now = time.perf_counter()
        if self.live:
            step = min(tick.step, self.steps - 1)  # at the end, the last epoch is shown
            stage = self.plan.stage(step)
            place = place_of(stage, step + stage.steps_per_epoch, self.epochs)  # the epoch that goes on
            self.progress.update(self.task, completed=tick.step, place=place)
            if tick.values:
                self.progress.update(self.task, values=_summary(tick.values, self.wide))
        elif tick.ends_epoch and tick.values and (now >= self.next_line or tick.ends_stage or tick.step == self.steps):
            self.next_line = now + LINE_SECONDS
            left = (now - self.started) / (tick.step - self.from_step) * (self.steps - tick.step)
            summary = _summary(tick.values, self.wide)
            print(f"{place_of(tick.stage, tick.step, self.epochs)}  {summary}  {duration(left)} left", flush=True)


def place_of(stage: PlannedStage, step: int, epochs: int) -> str:
    """Return where training is after `step` steps: its stage, if there are several, and the epoch within it."""
    name = f"{stage.name}, " if stage.name else ""
    return f"{name}epoch {stage.epoch(step)}/{stage.stage.epochs or epochs}"


def _summary(values: dict[str, float], wide: bool) -> str:
    shown = {name.removeprefix("loss/"): value for name, value in values.items() if name.startswith("loss/")}
    if wide:
        shown |= {name: values[name] for name in values if "/" not in name and name != "images_per_second"}
    parts = [f"{name} {value:.{3 if wide else 2}f}" for name, value in shown.items()]
    return "  ".join([*parts, f"{values['images_per_second']:,.0f} images/s"])


def warn(message: str) -> None:
    print(f"warning: {message}", flush=True)
