"""`genexp train`: train what the configuration names, score it, and keep it in a run directory."""

import sys
from contextlib import suppress

import torch

import genexp
from genexp.commands import report
from genexp.config.check import low_learning_rate
from genexp.config.command_line import CommandLine
from genexp.config.components import data_sets
from genexp.config.schema import TrainConfig, flat
from genexp.data import DataSet
from genexp.data.remarks import remarks
from genexp.device import select
from genexp.errors import DivergedError, UsageError
from genexp.ranks import size
from genexp.rundirs.directory import Run
from genexp.rundirs.find import same_but_path
from genexp.rundirs.names import pictures_by_epoch
from genexp.rundirs.results import Results
from genexp.signals import Stop
from genexp.text import count, duration, first_line
from genexp.training import build
from genexp.training.logs import warn
from genexp.training.loop import Training, train
from genexp.training.measure import bfloat16_against_float32
from genexp.training.session import Session
from genexp.training.start import weights_of
from genexp.training.world import Ended, World, joined

SLOWER = 1.1  # times as long; less is within what timing a few steps tells


def main(config: TrainConfig, line: CommandLine, patient: bool = False) -> None:
    """Train, or go on training, or report what is finished; print the scores and the run's directory.

    A job of a sweep is `patient`, see `signals.Stop`. Of several processes that torchrun started, one does all this,
    and the others help it.
    """
    with joined() as world:
        if world is None or world.leads:
            _train(config, line, patient, world)
        else:
            _help(config, world)


def _train(config: TrainConfig, line: CommandLine, patient: bool, world: World | None) -> None:
    run = Run(config.directory())
    results = run.finished(config)
    has_path = "path" in config.dataset or "path" in (config.dataset_b or {})  # where images may have changed since
    if results is not None and not has_path:
        _report_finished(config, run, results, str(line))
        return
    if (low := low_learning_rate(config)) is not None:  # of a run that was begun before this was refused
        warn(f"{first_line(low)}: it is taken in its place, as when this run began")
    threads = None if config.fresh else run.threads()  # to end where an uninterrupted run does
    device = select(config.device.kind, config.device.threads or threads)
    data = build.data_set(config.dataset, config.data_dir, config.dataset_b)
    digest = data.digest()
    for remark in remarks(data, "white" in config.dataset):
        warn(remark)
    if config.run_dir is None and has_path and not run.path.exists():
        _name_runs_of_these_images(config, digest)
    data = data.to(device)
    begins = config.fresh or not any(run.checkpoints.glob("step-*.pt"))
    weights = weights_of(config.start) if begins and config.start is not None else None
    begun_for = 0 if config.begins() else run.config.epochs
    training = build.training(config, data, device, weights, begun_for)
    build.check_metrics(config.metrics, training.model, data)
    if world is not None:
        _share(config, training, digest, world)
    with run.held(config):
        if not config.fresh:
            again = "set fresh=true to start over (the old run is moved aside)"
            if config.dataset.get("splits") == "auto":
                again += ", or dataset.splits=exact, which reads subfolders val, Train ... as version 0.1.0 did"
            run.refuse_other_images(digest, data_sets(config), again)
        results = run.finished(config)  # another process may have finished it meanwhile
        if results is not None:
            _report_finished(config, run, results, str(line))
            return
        if begins and config.device.precision == "bfloat16":
            _compare_precisions(config, data, device)
        if not begins and run.processes() not in (None, size()):
            what = f"this run was trained by {run.processes()} at once so far, and goes on with {size()}"
            warn(f"number of processes: {what}; its random draws are no longer those of an uninterrupted run")
        run.begin(config, digest, str(line))
        stop = Stop(patient) if world is None else world.stop
        results = Session(run, config, training, data, stop).train(str(line))
    _report(config, run, results, "" if patient else str(line))


def _help(config: TrainConfig, world: World) -> None:
    """Train on a share of each minibatch for as long as the leader does; write nothing."""
    device = select(config.device.kind, config.device.threads)
    data = build.data_set(config.dataset, config.data_dir, config.dataset_b)
    digest = data.digest()
    data = data.to(device)
    training = build.training(config, data, device, begun_for=config.epochs)
    with suppress(Ended, DivergedError, UsageError), world.stop.listening():  # the leader tells of its errors
        _share(config, training, digest, world)
        for _ in train(config, training, data, sys.maxsize):
            pass


def _share(config: TrainConfig, training: Training, digest: str, world: World) -> None:
    """Have training be shared with the other processes. Raises UsageError if that is not possible."""
    device, versions = training.model.device.type, {"genexp": genexp.__version__, "torch": torch.__version__}
    world.agree(flat(config.identity()) | {"images": digest, "device": device} | versions)
    if config.batch_size % world.size:
        raise UsageError(f"batch_size={config.batch_size} cannot be divided among {world.size} processes")
    if device != "cpu":
        raise UsageError(f"several processes train on the CPU only so far, not on {device}: set device=cpu")
    if not training.model.shareable:
        kept = "something of single images from step to step (persistent chains, a pool of images)"
        raise UsageError(f"model={config.model['name']} keeps {kept}, so it is trained by one process")
    training.world = world


def _compare_precisions(config: TrainConfig, data: DataSet, device: torch.device) -> None:
    """Warn if bfloat16 makes steps slower, as it does where it is emulated, and of many convolutions on a CPU."""
    ratio = bfloat16_against_float32(config, data, device)
    if ratio > SLOWER:
        warn(
            f"a step takes {ratio:.1f} times as long in bfloat16 as in float32; device.precision=float32 is faster here"
        )


def _name_runs_of_these_images(config: TrainConfig, digest: str) -> None:
    """Print which run differs from the one that begins only in where its images lie."""
    for run in same_but_path(config, digest)[:1]:
        path = run.config.dataset.get("known_as") or run.config.dataset["path"]
        print(f"note: {run.path} has the same settings and the same images, from {path}")
        if "known_as" in config.dataset:
            print(f"dataset.known_as={path} says so, and goes on with that run")


def _report_finished(config: TrainConfig, run: Run, results: Results, command: str) -> None:
    print(f"already finished, {_epochs(run, results)}; epochs=N goes on from there, fresh=true starts over")
    _report(config, run, results, "" if (run.path / report.NAME).exists() else command)


def _epochs(run: Run, results: Results) -> str:
    """Return the epochs of all stages, and those of the last one, which `epochs` sets, if there are others."""
    of_all = run.epochs(results)
    last = f" ({results.epochs} of the last stage)" if of_all > results.epochs else ""
    return f"{count(of_all, 'epoch')}{last}"


def _report(config: TrainConfig, run: Run, results: Results, command: str) -> None:
    """Print the results, and write the page of a run that was made by a `command` of its own."""
    if results.epochs > config.epochs:
        print(f"note: this run has {_epochs(run, results)}, more than the {config.epochs} asked for now")
    for name, score in results.scores.items():
        if score.warning is not None:
            warn(score.warning)
        print(f"{name}: {score.summary}")
        if name in results.raw_scores:
            print(f"{name} of the raw weights: {results.raw_scores[name].summary}")
    for remark in results.remarks:
        warn(remark)
    for picture in pictures_by_epoch(run.samples)[-1:]:
        print(f"samples: {picture.file}")
    pace = f"{duration(results.train_seconds)}, {results.images_per_second:,.0f} images/s"
    print(f"trained {_epochs(run, results)} in {pace}")
    print(f"curves: tensorboard --logdir {run.tensorboard}", flush=True)
    if config.report and command:
        report.at_the_end([run], run.path / report.NAME, command)
    print(f"run: {run.path}", flush=True)
