"""`genexp evaluate`: score a run again, under other settings or at another checkpoint, and keep every score."""

import time

from genexp.config.command_line import CommandLine
from genexp.config.commands import RUN_SETTINGS, EvaluateConfig
from genexp.config.components import Component
from genexp.config.schema import TrainConfig
from genexp.errors import UsageError
from genexp.metrics import Subject
from genexp.rundirs import results
from genexp.rundirs.directory import Run
from genexp.rundirs.provenance import provenance
from genexp.score import Score
from genexp.training import build
from genexp.training.reopen import reopen


def main(config: EvaluateConfig, line: CommandLine, run: Run) -> dict[str, Score]:
    """Take the scores that results.json lacks under these settings; print and return all that are asked for.

    With `images` each of these is scored instead, see `own_images.score_each`.
    """
    if config.images is not None:
        from genexp.commands.own_images import score_each

        score_each(config, run)
        return {}
    if config.out is not None or config.label is not None:
        raise UsageError("out= and label= go with images=FOLDER, your own images; the scores of a run are kept in it")
    trained = reopen(run, config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    build.check_metrics(config.metrics, trained.model, trained.data)
    kept = run.evaluations()
    subject = Subject(trained.model, trained.data, config.seed)
    origin = {
        "sampling": trained.sampling,
        "seed": config.seed,
        "step": trained.step,
        "epoch": trained.epoch,
        "train_seconds": round(trained.seconds, 3),
        "provenance": provenance(trained.model.device, config.device.precision, str(line)),
    }
    scores: dict[str, Score] = {}
    for name, metric in config.metrics.items():
        started = time.perf_counter()
        extractor = build.extractor_of(metric, subject)
        key = results.key(metric, trained.sampling, config.seed, trained.step, extractor)
        score = scores[name] = kept[key].score if key in kept else build.score(name, metric, subject)
        if score.warning is not None:
            print(f"warning: {score.warning}")
        took = "scored before" if key in kept else f"{time.perf_counter() - started:.1f} s"
        print(f"{name}: {score.summary}, {took}", flush=True)
        if key not in kept:
            results.record(run.results_file, {}, results.evaluation(metric, score, **origin), run.refuse_if_moved)
    print(f"scores: {run.results_file}")
    print(f"run: {run.path}", flush=True)
    return scores


def after_training(config: TrainConfig, metrics: dict[str, Component], folder: str | None) -> None:
    """Take the scores by `metrics` that a run lacks which this configuration trained, with its own seed."""
    run = Run(config.directory())
    settings = {name: getattr(config, name) for name in RUN_SETTINGS}
    evaluate_config = EvaluateConfig(
        run=str(run.path),
        checkpoint="last",
        trust=[],
        device=config.device.model_copy(update={"precision": "float32"}),  # as every score
        metrics=metrics,
        **settings,
    )
    words = tuple(f"metric@metrics.{name}={metric['name']}" for name, metric in metrics.items())
    main(evaluate_config, CommandLine("evaluate", words, folder, run=run.path), run)
