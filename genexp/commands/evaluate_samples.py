"""`genexp evaluate samples=FILE dataset=NAME`: scores of samples that no run of genexp need have made."""

from pathlib import Path

from genexp.config.command_line import CommandLine
from genexp.config.commands import EvaluateSamplesConfig
from genexp.device import select
from genexp.errors import UsageError
from genexp.metrics import GivenSamples, Subject
from genexp.rundirs.provenance import provenance
from genexp.score import Score
from genexp.storage.files import write_json, writing
from genexp.training import build
from genexp.training.given import given_images


def main(config: EvaluateSamplesConfig, line: CommandLine) -> dict[str, Score]:
    """Print and return every score of the samples; with `out` they are written there, too.

    A score of more samples than there are takes all, and that is said. Raises UsageError for a score that needs a
    model, such as a bound of log p(x).
    """
    if config.out is not None and Path(config.out).suffix != ".json":
        raise UsageError(f"out={config.out}: the scores of samples are written as FILE.json")
    device = select(config.device.kind, config.device.threads)
    data = build.data_set(config.dataset, config.data_dir).to(device)
    _, images = given_images("samples", config.samples, data, config.white, config.invert)
    given = GivenSamples(images.to(device), "draw")
    metrics = dict(config.metrics)
    for name, metric in metrics.items():
        if metric.get("n_samples", 0) > len(images):
            print(f"note: {name} is of all {len(images):,} samples, not of {metric['n_samples']:,}", flush=True)
            metrics[name] = metric | {"n_samples": len(images)}
    build.check_metrics(metrics, given, data)
    subject = Subject(given, data, config.seed)
    scores: dict[str, Score] = {}
    for name, metric in metrics.items():
        score = scores[name] = build.score(name, metric, subject)
        if score.warning is not None:
            print(f"warning: {score.warning}")
        print(f"{name}: {score.summary}", flush=True)
    if config.out is not None:
        content = {
            "samples": config.samples,
            "dataset": config.dataset,
            "images": data.digest(),
            "metrics": metrics,
            "scores": {name: score.to_json() for name, score in scores.items()},
            "provenance": provenance(device, config.device.precision, str(line)),
        }
        out = Path(config.out).expanduser()
        with writing(out, "Set out=FILE.json to another place"):
            write_json(out, content)
        print(f"scores: {out}")
    return scores
