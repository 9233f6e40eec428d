"""`genexp train`: build what the configuration names, train it, score it, and leave a run directory behind."""

import math
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from genexp import rng, signals
from genexp.config.schema import TrainConfig, nearest
from genexp.data import DataSet
from genexp.device import multiplies_bfloat16, select
from genexp.errors import DivergedError, GenexpError, UsageError
from genexp.figures import pictures
from genexp.metrics import Subject
from genexp.models import Autoencoder, Model, evaluating
from genexp.runs import directory as run
from genexp.runs import provenance, results
from genexp.storage.checkpoint import BEST, checkpoints, fitting, load, load_latest, save, write
from genexp.storage.files import read_json
from genexp.text import duration
from genexp.training import build
from genexp.training.logs import Logs, Terminal
from genexp.training.loop import Tick, Training, images_per_step, steps_per_epoch, train

PROJECTED = 2500  # validation images whose codes are shown in histograms and in the projector


def main(config: TrainConfig, patient: bool = False) -> dict[str, Any]:
    """Train, or go on training, or report what is finished; print the scores and where the run is.

    Returns what results.json holds, and under "run" the directory. As a job of a sweep it is `patient`, see `Stop`.
    """
    done = run.finished(config)
    if done is not None and "path" not in config.dataset:  # what lies at a path may have changed since
        return _already_finished(config, done)
    begun = run.threads_begun(config)  # to go on with as many is to end where an uninterrupted run does
    device = select(config.device.kind, config.device.threads or begun)
    if config.device.precision == "bfloat16" and not multiplies_bfloat16(device):
        _warn("this device has no bfloat16 arithmetic; it is emulated, many times slower than float32")
    data = build_data(config)
    digest = data.digest()
    data = data.to(device)
    training = build_training(config, data, device)
    build.check_metrics(config.metrics, training.model, data)
    with run.Run.hold(config) as held:
        run.refuse_other_data(config, digest)
        done = run.finished(config)  # by another process, maybe, until it let go of the run
        if done is not None:
            return _already_finished(config, done)
        held.begin(config)
        try:
            held.write_json("data.json", {"digest": digest})
            summary = _train_to_the_end(config, training, data, device, held, Stop(patient))
        except BaseException as error:
            ending = _ending(error, held, training, config)
            if ending is error:
                raise
            raise ending from error
    _report(summary, held.path, config.epochs)
    return summary | {"run": str(held.path)}


def _already_finished(config: TrainConfig, done: dict[str, Any]) -> dict[str, Any]:
    print(f"already finished, {_epochs(done)}; epochs=N goes on from there, fresh=true starts over")
    _report(done, config.directory(), config.epochs)
    return done | {"run": str(config.directory())}


def build_data(config: TrainConfig) -> DataSet:
    """The data set; raises UsageError when a batch is larger than its training split."""
    data = build.data_set(config.dataset, config.data_dir)
    if config.batch_size > len(data.train):
        raise UsageError(
            f"batch_size={config.batch_size} is larger than the {len(data.train):,} training images of "
            f"{config.dataset['name']}; set batch_size to at most that"
        )
    return data


def build_training(config: TrainConfig, data: DataSet, device: torch.device) -> Training:
    """The model and its players' optimizers, at the start; the initial weights follow from the seed."""
    model = build.model(config.model, config.noise, data.spec(), config.seed, device)
    if steps_per_epoch(model, len(data.train), config.batch_size) == 0:
        raise UsageError(
            f"one step takes several minibatches of {config.batch_size}, more than the {len(data.train):,} training "
            f"images of {config.dataset['name']}; set a smaller batch_size"
        )
    players = model.players()
    for player in config.optimizers:
        if player not in players:
            raise UsageError(
                f"optimizers.{player}: {config.model['name']} has no player '{player}'{nearest(player, players)}; "
                f"it has {', '.join(players)}"
            )
    return Training(
        model,
        {
            player: build.make("optimizer", config.optimizers.get(player, config.optimizer), list(part.parameters()))
            for player, part in players.items()
        },
    )


def ticks(config: TrainConfig, training: Training, data: DataSet, device: torch.device) -> Iterator[Tick]:
    """The training that the configuration asks for, from where `training` stands."""
    return train(
        training,
        data,
        device,
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        precision=config.device.precision,
        log_every=config.log.every_steps,
    )


@dataclass
class Stop:
    """What SIGINT, SIGTERM and SIGHUP do: while training, the first one asks to stop and a second stops at once.

    If `patient`, only SIGINT stops at once: a job of a sweep is told to leave by several, once each.
    """

    patient: bool = False
    requested: bool = False
    deferring: bool = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        def on_signal(number: int, _frame: FrameType | None) -> None:
            told_again, self.requested = self.requested, True
            if told_again and self.patient and number != signal.SIGINT:
                return
            if told_again or not self.deferring:
                raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, on_signal) for number in signals.heard()}
        try:
            yield
        finally:
            if not (self.patient and self.requested):
                for number, handler in before.items():
                    signal.signal(number, handler)

    def at_once(self) -> None:
        """From here on there is nothing to save first."""
        self.deferring = False
        if self.requested:
            raise KeyboardInterrupt


def _begin_session(held: run.Run, training: Training, device: torch.device, config: TrainConfig) -> dict[str, Any]:
    """Load the newest checkpoint, and keep where what is computed from here on comes from, which is returned."""
    latest = load_latest(held.path / "checkpoints", _warn)
    if latest is not None:
        file, state = latest
        with fitting(file):
            training.load_state_dict(state)
    made_by = provenance.provenance(device, config.device.precision)
    sessions = read_json(held.path / "provenance.json").get("sessions", [])
    held.write_json("provenance.json", {"sessions": [*sessions, {"from_step": training.step, **made_by}]})
    provenance.keep_patch(held.path)
    return made_by


def _train_to_the_end(
    config: TrainConfig, training: Training, data: DataSet, device: torch.device, held: run.Run, stop: Stop
) -> dict[str, Any]:
    """Go on from the newest checkpoint, score, and keep the results, which are returned."""
    made_by = _begin_session(held, training, device, config)
    with stop.listening():
        scores = _train_and_score(config, training, data, device, held, stop)
        stop.deferring = True  # what is left takes a moment, and then all is done
        summary = _summary(config, training, data, scores, made_by)
        results.record(held.path, summary, _evaluations(config, summary))
        held.set_status("finished", epoch=summary["epochs"], step=summary["steps"])
    return summary


def _train_and_score(
    config: TrainConfig, training: Training, data: DataSet, device: torch.device, held: run.Run, stop: Stop
) -> dict[str, Any]:
    """Train to the end of the epochs asked for; return the scores there."""
    length = steps_per_epoch(training.model, len(data.train), config.batch_size)
    epochs = max(config.epochs, -(-training.step // length))  # an epoch that was begun is ended before it is scored
    trained = training.step == epochs * length
    with Logs(held.path, training.step, scored_again=trained) as logs:
        scores = None
        if not trained:
            config = config.model_copy(update={"epochs": epochs})
            scores = _train(config, training, data, device, held, logs, stop)
        stop.at_once()
        return _conclude(config, training, data, logs, scores)


def _train(
    config: TrainConfig,
    training: Training,
    data: DataSet,
    device: torch.device,
    held: run.Run,
    logs: Logs,
    stop: Stop,
) -> dict[str, Any] | None:
    """Train, log, draw and save; return the scores, if the last epoch was scored on the way."""
    folder = held.path / "checkpoints"
    length, epochs = steps_per_epoch(training.model, len(data.train), config.batch_size), config.epochs
    begun = f"going on from epoch {training.step / length:.4g}" if training.step else "started"
    print(f"{begun}: {held.path}", flush=True)
    sizes = ", ".join(f"{len(getattr(data, split)):,} {split}" for split in ("train", "valid", "test"))
    print(
        f"{config.name} on {config.dataset['name']} ({sizes} images), {device.type}, {config.device.precision}",
        flush=True,
    )
    scores: dict[str, Any] | None = None
    best = _best_so_far(folder, config)
    every = math.inf if config.checkpoint.every_minutes is None else 60 * config.checkpoint.every_minutes
    due = time.monotonic() + every
    steps = epochs * length
    with Terminal(epochs, length, training.step) as terminal:
        held.set_status("running", epoch=training.step // length, epochs=epochs, step=training.step, steps=steps)
        for tick in ticks(config, training, data, device):
            if tick.ends_epoch:
                training.check_finite()  # before anything is made of such weights
            scored = tick.ends_epoch and _every(config.log.scores_every_epochs, tick.epoch)
            scores = _score(config, training.model, data) if scored else None
            if tick.values is not None:
                logs.scalars(tick, tick.values | _means(scores or {}))
            terminal.show(tick)
            if tick.ends_epoch and (_every(config.log.samples_every_epochs, tick.epoch) or tick.epoch == epochs):
                _show(logs, training.model, data, tick, config.seed)
            if tick.ends_epoch or stop.requested or time.monotonic() >= due:
                training.check_finite()
                logs.flush()
                # The best first: what lies before the state that is saved next is not done again.
                best = _keep_best(folder, training, config, scores or {}, best)
                save(folder, training.step, training.state_dict())
                held.set_status("running", epoch=tick.epoch, epochs=epochs, step=tick.step, steps=steps)
                due = time.monotonic() + every
            if stop.requested:
                raise KeyboardInterrupt
    return scores


def _best_so_far(folder: Path, config: TrainConfig) -> float:
    try:
        kept = load(folder / BEST) if (folder / BEST).exists() else {}
    except GenexpError as error:
        _warn(f"{error}; the best is chosen among the epochs to come")
        kept = {}
    name = kept.get("valid_of", "parzen")  # of states kept before other scores could choose
    return _goodness(config, name, kept["valid_mean"]) if kept and name in config.metrics else -math.inf


def _keep_best(folder: Path, training: Training, config: TrainConfig, scores: dict[str, Any], best: float) -> float:
    """Keep the state beside the newest ones if it is the best so far, by the first score on validation images."""
    for name, score in scores.items():
        value = results.on_valid(score)
        if value is not None:
            good = _goodness(config, name, value)
            if good > best:
                write(folder / BEST, training.state_dict() | {"valid_mean": value, "valid_of": name})
                return good
            break
    return best


def _goodness(config: TrainConfig, name: str, value: float) -> float:
    """Higher is better."""
    return -value if config.metrics[name]["name"] in results.LOWER_IS_BETTER else value


def _conclude(
    config: TrainConfig, training: Training, data: DataSet, logs: Logs, scores: dict[str, Any] | None
) -> dict[str, Any]:
    """Score, unless the last epoch was scored on the way, and log what is known only at the end."""
    if scores is None:
        print("scoring", flush=True)
        scores = _score(config, training.model, data)
        logs.points(_means(scores), training.step)
    logs.hparams(run.flat(config.identity()), _means(scores))
    if config.log.projector and isinstance(training.model, Autoencoder):
        shown = slice(0, PROJECTED)
        labels, images = data.labels["valid"][shown], data.images("valid", shown)
        logs.projector(codes(training.model, data), labels, images.cpu(), training.step)
    elif config.log.projector:
        _warn(f"log.projector=true: {config.model['name']} has no encoder, so it has no codes to show")
    return scores


def _show(logs: Logs, model: Model, data: DataSet, tick: Tick, seed: int) -> None:
    """The pictures and histograms of an epoch; from the same noise each time."""
    generator = rng.generator(data.train.device, seed, "picture")
    logs.picture("samples", pictures.of_samples(model, data, generator), tick)
    if data.mixture is None:
        for layer, picture in pictures.of_filters(model, data).items():
            logs.picture(f"filters/{layer}", picture, tick)
    if isinstance(model, Autoencoder):
        if data.mixture is None:
            logs.picture("reconstructions", pictures.of_reconstructions(model, data, generator), tick)
        logs.codes(codes(model, data), tick.step)


def codes(model: Autoencoder, data: DataSet) -> torch.Tensor:
    """The codes, (n, latent_dim), of the first validation images."""
    with evaluating(model):
        return model.encode(data.images("valid", slice(0, PROJECTED))).cpu()


def _score(config: TrainConfig, model: Model, data: DataSet) -> dict[str, Any]:
    return build.score(config.metrics, Subject(model, data, config.seed))


def _means(scores: dict[str, Any]) -> dict[str, float]:
    """The curves of scores: on the test images, and on the validation images where a score has such."""
    on_valid = {f"valid/{name}": results.on_valid(found) for name, found in scores.items()}
    known = {name: value for name, value in on_valid.items() if value is not None}
    return {f"score/{name}": found["mean"] for name, found in scores.items()} | known


def _every(period: int | None, epoch: int) -> bool:
    return period is not None and epoch % period == 0


def _ending(error: BaseException, held: run.Run, training: Training, config: TrainConfig) -> BaseException:
    """Say in the run's status why it ended; return the error to raise, which says what the user can go on from."""
    newest = next(iter(checkpoints(held.path / "checkpoints")), None)
    again = config.again()
    interrupted = isinstance(error, KeyboardInterrupt)
    with suppress(OSError):  # a full disk must not hide the error that it caused
        held.set_status("interrupted" if interrupted else "failed", step=training.step, error=_words(error))
        if not isinstance(error, KeyboardInterrupt | GenexpError):
            held.write_text("error.txt", "".join(traceback.format_exception(error)))
    if interrupted:
        kept = f"saved {newest}" if newest else "nothing was saved yet"
        return KeyboardInterrupt(f"interrupted at step {training.step}, {kept}; {again} goes on from there")
    if isinstance(error, DivergedError):
        kept = str(newest) if newest else "none, it happened in the first epoch"
        return DivergedError(
            f"{error}\nlast good checkpoint: {kept}\nTry a smaller optimizer.lr; that is another run, this one stays"
        )
    if isinstance(error, OSError):
        kept = f"{newest} is intact" if newest else "nothing was saved yet"
        return GenexpError(
            f"{error.filename or held.path} cannot be written: {error.strerror or error}\n"
            f"{kept}; once that is mended, {again} goes on from there"
        )
    return error


def _words(error: BaseException) -> str:
    if isinstance(error, GenexpError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _evaluations(config: TrainConfig, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores at the end of training, each under its key."""
    found: dict[str, dict[str, Any]] = {}
    for name, score in summary["scores"].items():
        found |= results.evaluation(
            config.metrics[name],
            score,
            sampling={},
            seed=config.seed,
            step=summary["steps"],
            epoch=summary["epochs"],
            train_seconds=summary["train_seconds"],
            provenance=summary["provenance"],
        )
    return found


def _summary(
    config: TrainConfig, training: Training, data: DataSet, scores: dict[str, Any], made_by: dict[str, Any]
) -> dict[str, Any]:
    length = steps_per_epoch(training.model, len(data.train), config.batch_size)
    images = training.step * images_per_step(training.model, config.batch_size)
    return {
        "status": "finished",
        "name": config.name,
        "model": config.model["name"],
        "dataset": config.dataset["name"],
        "seed": config.seed,
        "epochs": training.step // length,
        "steps": training.step,
        "train_seconds": round(training.seconds, 3),
        "images_per_second": round(images / training.seconds, 1),
        "scores": scores,
        "provenance": made_by,
    }


def _report(summary: dict[str, Any], path: Path, epochs: int) -> None:
    if summary["epochs"] > epochs:
        print(f"note: this run has {_epochs(summary)}, more than the {epochs} asked for now")
    for name, found in summary["scores"].items():
        if "warning" in found:
            _warn(found["warning"])
        print(f"{name}: {found['summary']}")
    picture = max((path / "samples").glob("*.png"), key=lambda file: (len(file.name), file.name), default=None)
    if picture is not None:
        print(f"samples: {picture}")
    took = f"{_epochs(summary)} in {duration(summary['train_seconds'])}"
    print(f"trained {took}, {summary['images_per_second']:,.0f} images/s")
    print(f"curves: tensorboard --logdir {path / 'tensorboard'}")
    print(f"run: {path}", flush=True)


def _epochs(summary: dict[str, Any]) -> str:
    return f"{summary['epochs']} epoch{'s' * (summary['epochs'] != 1)}"


def _warn(message: str) -> None:
    print(f"warning: {message}", flush=True)
