"""A session of training: go on from the newest checkpoint to the last epoch, log, save, score, keep the results."""

import math
import time
import traceback
from contextlib import suppress
from typing import Any

import torch

from genexp import rng
from genexp.config.components import components, lower_is_better
from genexp.config.schema import TrainConfig, flat
from genexp.data import SPLITS, DataSet
from genexp.errors import DivergedError, GenexpError
from genexp.figures import pictures
from genexp.metrics import Subject
from genexp.models import Asking, Autoencoder, evaluating
from genexp.rundirs import results
from genexp.rundirs.directory import Run
from genexp.rundirs.provenance import keep_patch, provenance
from genexp.rundirs.results import RAW, Evaluation, Results
from genexp.score import Score, sort_key
from genexp.signals import Stop
from genexp.storage.checkpoint import checkpoints, fitting, load, load_latest, save, write
from genexp.text import count
from genexp.training.logs import Logs, warn
from genexp.training.loop import Tick, Training, train
from genexp.training.remarks import remarks
from genexp.training.scores import Scores, scores_at_the_end, scores_on_the_way
from genexp.training.terminal import Terminal

PROJECTED = 2500  # validation images whose codes are shown in histograms and in the projector


class Session:
    """One process's work on a run that it holds."""

    def __init__(self, run: Run, config: TrainConfig, training: Training, data: DataSet, stop: Stop) -> None:
        self.run, self.config, self.training, self.data, self.stop = run, config, training, data, stop
        self.device: torch.device = training.model.device
        self.best = math.inf  # sort key of the best score on validation images so far; the best is the lowest
        self.best_of = ""  # the score's name
        self.subject: Subject | None = None  # that was scored last
        self.remarks: list[str] = []

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
                config = self.config
                about = f"{config.name} on {config.dataset['name']}, seed {config.seed}"
                with Logs(self.run, self.training.step, config.model["name"], about) as logs:
                    scores = self._train(logs)
                    self.stop.at_once()
                    on_the_way = bool(scores.averaged)
                    if not on_the_way:
                        scores = self._score(made_by)
                    assert self.subject is not None
                    with self.training.averaged():
                        self.remarks = remarks(self.subject, self.run)
                    trained = self._record(scores, made_by)  # before anything that is optional
                    self._log_the_end(logs, scores, on_the_way)
                self.stop.deferring = True  # the rest takes a moment, and then all is done
                epochs = self.training.plan.last.first_epoch + trained.epochs  # of all stages
                self.run.set_status("finished", epoch=epochs, epochs=epochs, step=trained.steps)
                return trained
        except BaseException as error:
            self._say_how_to_go_on(error)
            raise

    def _train(self, logs: Logs) -> "Scores":
        """Train, log, draw and save; return the scores if the last epoch was scored on the way, or none."""
        training, config, plan = self.training, self.config, self.training.plan
        epochs = max(config.epochs, math.ceil(plan.epochs(training.step)))  # an epoch that was begun is ended
        last_step = plan.last_step(epochs)
        self._set_running(epochs)
        if training.step == last_step:
            return Scores()
        self._announce()
        self.best, self.best_of = self._best_so_far()
        every = math.inf if config.checkpoint.every_minutes is None else 60 * config.checkpoint.every_minutes
        due = time.monotonic() + every
        scores = Scores()
        terminal = Terminal(plan, epochs, training.step)
        with terminal.progress:
            for tick in train(config, training, self.data, epochs):
                if tick.ends_epoch:
                    training.check_finite()  # before pictures and scores of such weights
                due_now = tick.stage is plan.last and _is_due(config.log.scores_every_epochs, tick)
                scores = self._score() if due_now else Scores()
                if tick.values is not None:
                    logs.scalars(tick, tick.values | scores.curves())
                terminal.show(tick)
                if _is_due(config.log.samples_every_epochs, tick) or tick.ends_stage or tick.step == last_step:
                    self._draw(logs, tick, scores.averaged)
                if tick.ends_epoch or self.stop.requested or time.monotonic() >= due:
                    self._save(logs, scores.averaged)
                    self._set_running(epochs)
                    due = time.monotonic() + every
                if self.stop.requested:
                    raise KeyboardInterrupt
        return scores

    def _set_running(self, epochs: int) -> None:
        """Say in the status where training is: in which stage, if there are several, epoch and step of all stages."""
        step, plan = self.training.step, self.training.plan
        stage = plan.stage(step)
        place = {"stage": stage.name} if stage.name else {}
        epoch, last_epoch = stage.first_epoch + stage.epoch(step), plan.last.first_epoch + epochs
        self.run.set_status("running", **place, epoch=epoch, epochs=last_epoch, step=step, steps=plan.last_step(epochs))

    def _announce(self) -> None:
        training, data, config = self.training, self.data, self.config
        stage = training.stage
        epoch = (training.step - stage.first_step) / stage.steps_per_epoch
        place = f"{stage.name}, " if stage.name else ""
        begun = f"going on from {place}epoch {epoch:.4g}" if training.step else "started"
        if config.start is not None and not training.step:
            at = "" if config.start.step is None else f" after step {config.start.step:,}"
            begun = f"started from the weights of {config.start.run}{at}"
        print(f"{begun}: {self.run.path}", flush=True)
        sizes = ", ".join(f"{len(getattr(data, split)):,} {split}" for split in SPLITS)
        place = f"{self.device.type}, {config.device.precision}"
        print(f"{config.name} on {config.dataset['name']} ({sizes} images), {place}", flush=True)
        if data.second is not None and config.dataset_b is not None:
            sizes = ", ".join(f"{len(getattr(data.second, split)):,} {split}" for split in SPLITS)
            print(f"second data set: {config.dataset_b['name']} ({sizes} images)", flush=True)
        for key, each in components(config).items():
            if each.get("lr_stages") is not None and each.get("lr_epochs") is not None:
                falls = f"the factor of each stage, times a line that falls to 0 in {count(each['lr_epochs'], 'epoch')}"
                print(f"note: {key}.lr_stages and {key}.lr_epochs multiply: {falls}", flush=True)

    def _save(self, logs: Logs, scores: dict[str, Score]) -> None:
        """Save the state, and before it the best state: after a kill, training resumes behind what is saved last."""
        self.training.check_finite()
        logs.flush()
        wanted = self.config.checkpoint.keep_best
        choosing = [name for name in scores if scores[name].on_valid is not None and wanted in (None, name)]
        best = self.best if choosing[:1] == [self.best_of] else math.inf
        if choosing and (score := scores[choosing[0]]).sort_key() < best:
            state = self.training.state_dict() | {"valid_mean": score.on_valid, "valid_of": choosing[0]}
            write(self.run.best_file, state)
            self.best, self.best_of = score.sort_key(), choosing[0]
        save(self.run.checkpoints, self.training.step, self.training.state_dict())

    def _best_so_far(self) -> tuple[float, str]:
        """Return the sort key and the name of the score by which the best checkpoint was chosen."""
        try:
            best = load(self.run.best_file) if self.run.best_file.exists() else {}
        except GenexpError as error:
            warn(f"{error}; the best is chosen among the epochs to come")
            best = {}
        name = best.get("valid_of", "parzen")  # of states kept before other scores could choose
        if not best or name not in self.config.metrics:
            return math.inf, ""
        return sort_key(best["valid_mean"], lower_is_better(self.config.metrics[name])), name

    def _score(self, made_by: dict[str, Any] | None = None) -> "Scores":
        """Return the scores of the weights, and of the averaged weights if there are any.

        Those at the end are `made_by` a session: each is kept as soon as it is taken, and not taken again after an
        interruption.
        """
        if self.training.average is None:
            return Scores(self._scores({}, made_by))
        raw = self._scores(RAW, made_by)
        with self.training.averaged():
            return Scores(self._scores({}, made_by), raw)

    def _scores(self, sampling: dict[str, Any], made_by: dict[str, Any] | None) -> dict[str, Score]:
        """Return the scores of the model as it is now; `sampling` says which of its weights these are."""
        self.subject = Subject(self.training.model, self.data, self.config.seed)
        if made_by is None:
            return scores_on_the_way(self.config.metrics, self.subject)
        origin = self._origin(made_by) | {"sampling": sampling}
        return scores_at_the_end(self.run, self.config.metrics, self.subject, origin)

    def _origin(self, made_by: dict[str, Any]) -> dict[str, Any]:
        """Return what a score of this step follows from, beside its metric and its sampling."""
        step, seconds = self.training.step, round(self.training.seconds, 3)
        epoch = int(self.training.plan.epochs(step))
        origin = {"seed": self.config.seed, "step": step, "epoch": epoch, "train_seconds": seconds}
        return origin | {"provenance": made_by}

    def _draw(self, logs: Logs, tick: Tick, scores: dict[str, Score]) -> None:
        """Log the pictures and histograms of an epoch, from the same noise each time and from averaged weights."""
        model, data = self.training.model, self.data
        generator = rng.generator(self.device, self.config.seed, "picture")
        with self.training.averaged():
            for name, picture in pictures.of_model(model, data, generator):
                logs.picture(name, picture, tick, scores)
            if isinstance(model, Autoencoder):
                logs.tensorboard.histogram("codes", lambda: codes(model, data), tick.step)

    def _log_the_end(self, logs: Logs, scores: "Scores", on_the_way: bool) -> None:
        """Log what is known at the end only, and the scores unless they were logged on the way."""
        config, model, step = self.config, self.training.model, self.training.step
        curves = scores.curves()
        if not on_the_way:
            logs.tensorboard.points(curves, step, int(self.training.plan.epochs(step)))
        logs.tensorboard.hparams(flat(config.identity()), curves)
        if config.log.projector and isinstance(model, Autoencoder):
            images, labels = self.data.images("valid", slice(0, PROJECTED)), self.data.labels_of("valid")[:PROJECTED]
            with self.training.averaged():
                logs.tensorboard.projector(lambda: (codes(model, self.data), labels, images.cpu()))
        elif config.log.projector:
            warn(f"log.projector=true: {config.model['name']} has no encoder, so it has no codes to show")

    def _record(self, scores: "Scores", made_by: dict[str, Any]) -> Results:
        """Write the results and their evaluations to results.json; return the results."""
        training, config = self.training, self.config
        epochs = int(training.plan.epochs(training.step))
        trained = Results(
            epochs=epochs,
            steps=training.step,
            train_seconds=round(training.seconds, 3),
            images_per_second=round(training.plan.images(training.step) / training.seconds, 1),
            scores=scores.averaged,
            raw_scores=scores.raw,
            remarks=self.remarks,
            provenance=made_by,
        )
        origin = self._origin(made_by)
        evaluations: dict[str, Evaluation] = {}
        for sampling, taken in (({}, scores.averaged), (RAW, scores.raw)):
            for name, score in taken.items():
                evaluations |= results.evaluation(config.metrics[name], score, sampling=sampling, **origin)
        about = {"name": config.name, "model": config.model["name"], "dataset": config.dataset["name"]}
        summary = {"status": "finished", **about, "seed": config.seed, **trained.to_json()}
        results.record(self.run.results_file, summary, evaluations, self.run.refuse_if_moved)
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
        of_images: torch.Tensor = Asking(model.encode)(data.batch("valid", slice(0, PROJECTED)))
        return of_images.cpu()


def _is_due(period: int | None, tick: Tick) -> bool:
    return tick.ends_epoch and period is not None and tick.epoch % period == 0
