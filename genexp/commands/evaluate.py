"""`genexp evaluate`: score a run again, under other settings or at another checkpoint, and keep every score."""

import time
from typing import Any

from genexp.config.schema import EvaluateConfig
from genexp.metrics import Subject
from genexp.metrics.features import extractor
from genexp.runs import results
from genexp.runs.provenance import provenance
from genexp.training import build
from genexp.training.reopen import reopen


def main(config: EvaluateConfig) -> dict[str, Any]:
    """Score what is not scored yet under these settings; print all scores asked for, and where they are kept.

    Returns the scores by name, and under "run" the directory.
    """
    trained = reopen(config)
    print(f"{trained}, {config.checkpoint} checkpoint, seed {config.seed}", flush=True)
    build.check_metrics(config.metrics, trained.model, trained.data)
    known = results.evaluations(trained.path)
    made_by = provenance(trained.data.train.device, config.device.precision)
    subject = Subject(trained.model, trained.data, config.seed)
    scores: dict[str, Any] = {}
    for name, metric in config.metrics.items():
        started = time.perf_counter()
        seen = extractor(subject, metric["features"], metric["weights"]).name if "features" in metric else None
        key = results.key(metric, trained.sampling, config.seed, trained.step, seen)
        kept = key in known
        if kept:
            scores[name] = known[key]["score"]
        else:
            scores[name] = build.take(name, metric, subject).to_json()
            added = results.evaluation(
                metric,
                scores[name],
                sampling=trained.sampling,
                seed=config.seed,
                step=trained.step,
                epoch=trained.epoch,
                train_seconds=trained.seconds,
                provenance=made_by,
            )
        if "warning" in scores[name]:
            print(f"warning: {scores[name]['warning']}")
        took = "scored before" if kept else f"{time.perf_counter() - started:.1f} s"
        print(f"{name}: {scores[name]['summary']}, {took}", flush=True)
        if not kept:
            results.record(trained.path, {}, added, trained.place)
    print(f"scores: {trained.path / results.FILE}")
    print(f"run: {trained.path}", flush=True)
    return {"scores": scores, "run": str(trained.path)}
