"""The view of a run that trains in a terminal: a bar with the losses, images/s and the time left; elsewhere lines."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from genexp import alive
from genexp.text import duration
from genexp.training.loop import Tick
from genexp.training.plan import Plan, PlannedStage

LINE_SECONDS = 2
LONGEST_BAR = 30  # columns
GAP = "  "


@dataclass(frozen=True)
class Line:
    """The state of a training in numbers and words. `text` says as much of it as there is room for."""

    place: str
    share: float  # of the steps that are done
    left: str
    speed: float | None  # images per second
    losses: dict[str, float]
    others: dict[str, float]  # such as D(x)

    def text(self, width: int) -> Text:
        """Return the line in at most `width` columns: the other values go first, then names of losses, then the bar."""
        short = f"loss {' / '.join(f'{value:.2f}' for value in self.losses.values())}" if self.losses else ""
        full, fewer = _named(self.losses, 3), _named(self.losses, 2)
        speed = "" if self.speed is None else f"{self.speed:,.0f} images/s"
        brief = "" if self.speed is None else f"{_brief(self.speed)} img/s"
        candidates: list[tuple[int, list[str]]] = [  # the least columns of the bar, and what stands behind it
            (16, [self.left, speed, full, _named(self.others, 3)]),
            (12, [self.left, speed, full]),
            (8, [self.left, speed, fewer]),
            (4, [self.left, brief, fewer]),
            (8, [self.left, speed, short]),
            (4, [self.left, brief, short]),
            (0, [self.left, brief, short]),
            (0, [self.left, short]),
            (0, [short]),
        ]
        for least, parts in candidates:
            right = GAP.join(part for part in parts if part)
            room = width - len(self.place) - len(right) - 2 * len(GAP)
            if room >= least or (least, parts) == candidates[-1]:
                break
        bar = min(room, LONGEST_BAR) if least else 0
        done = round(bar * self.share)
        drawn = Text("━" * done, "bar.complete") + Text("━" * (bar - done), "bar.back") + GAP if bar else Text()
        return (Text(f"{self.place}{GAP}") + drawn + right)[:width]


def _named(values: dict[str, float], digits: int) -> str:
    return GAP.join(f"{name} {value:.{digits}f}" for name, value in values.items())


def _brief(number: float) -> str:
    return f"{number / 1000:,.0f}k" if number >= 10_000 else f"{number:,.0f}"


class _Bar(ProgressColumn):
    """The whole line, as wide as the terminal is at the moment."""

    max_refresh = 0.1

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def render(self, task: Task) -> Text:
        stage, place, values = (task.fields[name] for name in ("stage", "place", "values"))
        seconds, work = task.time_remaining, alive.current()
        line = Line(
            place=f"{place}, {work}" if work else place,
            share=task.percentage / 100,
            left=f"{'-:--' if seconds is None else duration(seconds)} left",
            speed=_speed(values) or (task.speed * stage.images_per_step if task.speed else None),
            losses=_losses(values),
            others=_others(values),
        )
        return line.text(self.console.width - 1)


class Terminal:
    """A live bar on a terminal, within `progress`; elsewhere a line at an epoch's end, at most one in LINE_SECONDS."""

    def __init__(self, plan: Plan, epochs: int, from_step: int) -> None:
        self.plan, self.epochs, self.steps, self.from_step = plan, epochs, plan.last_step(epochs), from_step
        self.started, self.next_line = time.perf_counter(), 0.0
        console = Console()
        self.live = console.is_terminal
        self.progress = Progress(_Bar(console), console=console, disable=not self.live)
        stage = plan.stage(from_step)
        fields: dict[str, Any] = {
            "stage": stage,
            "place": place_of(stage, from_step + stage.steps_per_epoch, epochs),
            "values": {},
        }
        self.task = self.progress.add_task("", total=self.steps, completed=from_step, **fields)

    def show(self, tick: Tick) -> None:
        """Show a completed step."""
        now = time.perf_counter()
        if self.live:
            step = min(tick.step, self.steps - 1)  # at the end, the last epoch is shown
            stage = self.plan.stage(step)
            place = place_of(stage, step + stage.steps_per_epoch, self.epochs)  # the epoch that goes on
            self.progress.update(self.task, completed=tick.step, stage=stage, place=place)
            if tick.values:
                self.progress.update(self.task, values=tick.values)
        elif tick.ends_epoch and tick.values and (now >= self.next_line or tick.ends_stage or tick.step == self.steps):
            self.next_line = now + LINE_SECONDS
            left = (now - self.started) / (tick.step - self.from_step) * (self.steps - tick.step)
            parts = [_named(_losses(tick.values) | _others(tick.values), 3), f"{_speed(tick.values):,.0f} images/s"]
            summary = GAP.join(part for part in parts if part)
            print(f"{place_of(tick.stage, tick.step, self.epochs)}  {summary}  {duration(left)} left", flush=True)


def place_of(stage: PlannedStage, step: int, epochs: int) -> str:
    """Return where training is after `step` steps: its stage, if there are several, and the epoch within it."""
    name = f"{stage.name}, " if stage.name else ""
    return f"{name}epoch {stage.epoch(step)}/{stage.stage.epochs or epochs}"


def _losses(values: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("loss/"): value for name, value in values.items() if name.startswith("loss/")}


def _others(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "/" not in name and name != "images_per_second"}


def _speed(values: dict[str, float]) -> float:
    """Return the training images of a second; 0 before the first logged step."""
    return values.get("images_per_second", 0.0)
