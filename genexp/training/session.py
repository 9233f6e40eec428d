"""A session of training: go on from the newest checkpoint to the last epoch, log, save, score, keep the results."""

import math
import time
import traceback
from contextlib import suppress
from typing import Any

import torch

from genexp import rng
from genexp.config.components import lower_is_better
from genexp.config.schema import TrainConfig, flat
from genexp.data import DataSet
from genexp.errors import DivergedError, GenexpError
from genexp.figures import pictures
from genexp.metrics import Subject
from genexp.models import Autoencoder, evaluating
from genexp.runs import results
from genexp.runs.directory import Run
from genexp.runs.provenance import keep_patch, provenance
from genexp.runs.results import Evaluation, Results
from genexp.score import Score, sort_key
from genexp.signals import Stop
from genexp.storage.checkpoint import checkpoints, fitting, load, load_latest, save, write
from genexp.training import build
from genexp.training.logs import Logs, Terminal
from genexp.training.loop import Tick, Training, train

PROJECTED = 2500  # validation images whose codes are shown in histograms and in the projector


class Session:
    """One process's work on a run that it holds."""

    def __init__(self, run: Run, config: TrainConfig, training: Training, data: DataSet, stop: Stop) -> None:
        self.run, self.config, self.training, self.data, self.stop = run, config, training, data, stop
        self.device: torch.device = training.model.device
        self.best = math.inf  # sort key of the best score on validation images so far; the best is the lowest

    def train(self, command: str) -> Results:
        """Train to the end of the epochs, score, and write results.json; return the results.

        After an error or an interruption the run's status says why it ended, and the error says how to go on.
        """
        try:
            latest = load_latest(self.run.checkpoints, warn)
            if latest is not None:
                file, state = latest
                with fitting(file):
                    self.training.load_state_dict(state)
            made_by = provenance(self.device, self.config.device.precision, command)
            self.run.add_session(self.training.step, made_by)
            keep_patch(self.run.path)
            with self.stop.listening():
                with Logs(self.run, self.training.step) as logs:
                    scores = self._train(logs)
                    self.stop.at_once()
                    scores = self._conclude(logs, scores)
                self.stop.deferring = True  # the rest takes a moment, and then all is done
                return self._finish(scores, made_by)
        except BaseException as error:
            self._say_how_to_go_on(error)
            raise

    def _train(self, logs: Logs) -> dict[str, Score]:
        """Train, log, draw and save; return the scores if the last epoch was scored on the way, or none."""
        training, config, length = self.training, self.config, self.training.plan.steps_per_epoch
        epochs = max(config.epochs, -(-training.step // length))  # an epoch that was begun is ended
        if training.step == epochs * length:
            return {}
        self._announce()
        self.best = self._best_so_far()
        every = math.inf if config.checkpoint.every_minutes is None else 60 * config.checkpoint.every_minutes
        due = time.monotonic() + every
        end = {"epochs": epochs, "steps": epochs * length}
        scores: dict[str, Score] = {}
        terminal = Terminal(epochs, length, training.step)
        with terminal.progress:
            self.run.set_status("running", epoch=training.epoch, step=training.step, **end)
            for tick in train(config, training, self.data, epochs):
                if tick.ends_epoch:
                    training.check_finite()  # before pictures and scores of such weights
                scores = self._score() if _is_due(config.log.scores_every_epochs, tick) else {}
                if tick.values is not None:
                    logs.scalars(tick, tick.values | _curves(scores))
                terminal.show(tick)
                if _is_due(config.log.samples_every_epochs, tick) or tick.epoch == epochs:
                    self._draw(logs, tick)
                if tick.ends_epoch or self.stop.requested or time.monotonic() >= due:
                    self._save(logs, scores)
                    self.run.set_status("running", epoch=tick.epoch, step=tick.step, **end)
                    due = time.monotonic() + every
                if self.stop.requested:
                    raise KeyboardInterrupt
        return scores

    def _announce(self) -> None:
        training, data, config = self.training, self.data, self.config
        epoch = training.step / training.plan.steps_per_epoch
        begun = f"going on from epoch {epoch:.4g}" if training.step else "started"
        print(f"{begun}: {self.run.path}", flush=True)
        sizes = ", ".join(f"{len(getattr(data, split)):,} {split}" for split in ("train", "valid", "test"))
        place = f"{self.device.type}, {config.device.precision}"
        print(f"{config.name} on {config.dataset['name']} ({sizes} images), {place}", flush=True)

    def _save(self, logs: Logs, scores: dict[str, Score]) -> None:
        """Save the state, and before it the best state: after a kill, training resumes behind what is saved last."""
        self.training.check_finite()
        logs.flush()
        name, score = next(((name, score) for name, score in scores.items() if score.on_valid is not None), ("", None))
        if score is not None and score.sort_key() < self.best:
            state = self.training.state_dict() | {"valid_mean": score.on_valid, "valid_of": name}
            write(self.run.best_file, state)
            self.best = score.sort_key()
        save(self.run.checkpoints, self.training.step, self.training.state_dict())

    def _best_so_far(self) -> float:
        """Return the sort key of the score by which the best checkpoint was chosen."""
        try:
            best = load(self.run.best_file) if self.run.best_file.exists() else {}
        except GenexpError as error:
            warn(f"{error}; the best is chosen among the epochs to come")
            best = {}
        name = best.get("valid_of", "parzen")  # of states kept before other scores could choose
        if not best or name not in self.config.metrics:
            return math.inf
        return sort_key(best["valid_mean"], lower_is_better(self.config.metrics[name]))

    def _score(self) -> dict[str, Score]:
        return build.scores(self.config.metrics, Subject(self.training.model, self.data, self.config.seed))

    def _draw(self, logs: Logs, tick: Tick) -> None:
        """Log the pictures and histograms of an epoch, from the same noise each time."""
        model, data = self.training.model, self.data
        generator = rng.generator(self.device, self.config.seed, "picture")
        logs.picture("samples", pictures.of_samples(model, data, generator), tick)
        if data.mixture is None:
            for layer, picture in pictures.of_filters(model, data).items():
                logs.picture(f"filters/{layer}", picture, tick)
        if isinstance(model, Autoencoder):
            if data.mixture is None:
                logs.picture("reconstructions", pictures.of_reconstructions(model, data, generator), tick)
            logs.tensorboard.add_histogram("codes", codes(model, data), tick.step)

    def _conclude(self, logs: Logs, scores: dict[str, Score]) -> dict[str, Score]:
        """Score, unless the last epoch was scored on the way, and log what is known at the end only."""
        config, model, step = self.config, self.training.model, self.training.step
        if not scores:
            print("scoring", flush=True)
            scores = self._score()
            logs.points(_curves(scores), step)
        logs.hparams(flat(config.identity()), _curves(scores))
        if config.log.projector and isinstance(model, Autoencoder):
            labels, images = self.data.labels["valid"][:PROJECTED], self.data.images("valid", slice(0, PROJECTED))
            logs.projector(codes(model, self.data), labels, images.cpu(), step)
        elif config.log.projector:
            warn(f"log.projector=true: {config.model['name']} has no encoder, so it has no codes to show")
        return scores

    def _finish(self, scores: dict[str, Score], made_by: dict[str, Any]) -> Results:
        """Write the results and their evaluations to results.json, and set the status to finished."""
        training, config = self.training, self.config
        trained = Results(
            epochs=training.epoch,
            steps=training.step,
            train_seconds=round(training.seconds, 3),
            images_per_second=round(training.step * training.plan.images_per_step / training.seconds, 1),
            scores=scores,
            provenance=made_by,
        )
        evaluations: dict[str, Evaluation] = {}
        for name, score in scores.items():
            evaluations |= results.evaluation(
                config.metrics[name],
                score,
                sampling={},
                seed=config.seed,
                step=trained.steps,
                epoch=trained.epochs,
                train_seconds=trained.train_seconds,
                provenance=made_by,
            )
        about = {"name": config.name, "model": config.model["name"], "dataset": config.dataset["name"]}
        summary = {"status": "finished", **about, "seed": config.seed, **trained.to_json()}
        results.record(self.run.results_file, summary, evaluations, self.run.refuse_if_moved)
        self.run.set_status("finished", epoch=trained.epochs, step=trained.steps)
        return trained

    def _say_how_to_go_on(self, error: BaseException) -> None:
        """Say in the run's status why it ended; raise an error that says how to go on, if it can go on."""
        newest = next(iter(checkpoints(self.run.checkpoints)), None)
        goes_on = f"{self.config.again()} goes on from there"
        interrupted = isinstance(error, KeyboardInterrupt)
        with suppress(OSError):  # a full disk must not hide the error that it caused
            reason = str(error) if isinstance(error, GenexpError) else f"{type(error).__name__}: {error}".rstrip(": ")
            self.run.set_status("interrupted" if interrupted else "failed", step=self.training.step, error=reason)
            if not isinstance(error, KeyboardInterrupt | GenexpError):
                self.run.write_text(self.run.error_file, "".join(traceback.format_exception(error)))
        if interrupted:
            saved = f"saved {newest}" if newest else "nothing was saved yet"
            raise KeyboardInterrupt(f"interrupted at step {self.training.step}, {saved}; {goes_on}") from error
        if isinstance(error, DivergedError):
            raise DivergedError(
                f"{error}\nlast good checkpoint: {newest or 'none, it happened in the first epoch'}\n"
                "Try a smaller optimizer.lr; that is another run, this one stays"
            ) from error
        if isinstance(error, OSError):
            saved = f"{newest} is intact" if newest else "nothing was saved yet"
            raise GenexpError(
                f"{error.filename or self.run.path} cannot be written: {error.strerror or error}\n"
                f"{saved}; once that is mended, {goes_on}"
            ) from error


def codes(model: Autoencoder, data: DataSet) -> torch.Tensor:
    """Return the codes, (n, latent_dim), of the first PROJECTED validation images."""
    with evaluating(model):
        return model.encode(data.images("valid", slice(0, PROJECTED))).cpu()


def _curves(scores: dict[str, Score]) -> dict[str, float]:
    """Return the points of the scores' curves: score/NAME, and valid/NAME if it has a mean on validation images."""
    on_valid = {f"valid/{name}": score.on_valid for name, score in scores.items() if score.on_valid is not None}
    return {f"score/{name}": score.mean for name, score in scores.items()} | on_valid


def _is_due(period: int | None, tick: Tick) -> bool:
    return tick.ends_epoch and period is not None and tick.epoch % period == 0


def warn(message: str) -> None:
    print(f"warning: {message}", flush=True)
