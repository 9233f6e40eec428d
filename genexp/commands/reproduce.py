"""`genexp reproduce`: run the experiments that a table of a paper still lacks, then print the table."""

import time
from typing import Any

from genexp.commands import table
from genexp.commands.evaluate import main as evaluate
from genexp.commands.train import main as train
from genexp.config.schema import EvaluateConfig, ReproduceConfig, TrainConfig
from genexp.errors import DataError, GenexpError, UsageError
from genexp.papers import answers
from genexp.papers import published as papers
from genexp.papers.published import ScoresTable, TextTable
from genexp.text import duration


def main(config: ReproduceConfig) -> None:
    """Train and score what is not there yet, cell by cell; print the table.

    An experiment that fails does not keep the others from running. Raises GenexpError at the end if one did, but not
    for a data set that is given on request only, and is not here.
    """
    chosen = papers.read(config.paper).table(config.table)
    if isinstance(chosen, TextTable):
        raise UsageError(
            f"table={config.table} holds no numbers to reproduce; `genexp table table={config.table}` prints it"
        )
    table.refuse_out(config)
    started = time.perf_counter()
    failed, skipped = [], set()
    wanted = list(papers.experiments(chosen, config.budget))
    repeated = f", each with {config.seeds} seeds" if config.seeds > 1 else ""
    print(f"{len(wanted)} experiments{repeated}; runs in {config.outputs_dir}", flush=True)
    for number, (name, words, on_request) in enumerate(wanted, 1):
        for seed in range(config.seeds):
            if name in skipped:
                continue
            command = " ".join(["genexp train", *words, f"seed={seed}", f"outputs_dir={config.outputs_dir}"])
            print(f"\n{number}/{len(wanted)}: {name}, seed {seed}: {command}", flush=True)
            try:
                settings = _settings(config, [*words, f"seed={seed}"])
                run = train(settings)["run"]
                if isinstance(chosen, ScoresTable):
                    _score(config, settings, run, chosen.metrics)
            except DataError as error:
                if not on_request:
                    failed.append(f"{name}, seed {seed}: {error}")
                print(f"{'skipped' if on_request else 'failed'}: {error}", flush=True)
                skipped.add(name)
            except Exception as error:  # whatever it is, the other experiments do not suffer from it
                said = str(error) if isinstance(error, GenexpError) else f"{type(error).__name__}: {error}"
                failed.append(f"{name}, seed {seed}: {said}")
                print(f"failed: {said}", flush=True)
    print(f"\n{config.budget} budget, {duration(time.perf_counter() - started)}\n", flush=True)
    table.main(config)
    if failed:
        raise GenexpError("not everything could be run:\n" + "\n".join(failed))


def _settings(config: ReproduceConfig, words: list[str]) -> TrainConfig:
    """The configuration of an experiment, in the folders and on the device of this command."""
    experiment = answers.experiment(words)
    changed: dict[str, Any] = {"data_dir": config.data_dir, "outputs_dir": config.outputs_dir}
    device = config.device.model_copy(update={"precision": experiment.device.precision})
    return experiment.model_copy(update=changed | {"device": device})


def _score(config: ReproduceConfig, trained: TrainConfig, run: str, metrics: list[str]) -> None:
    """Take the scores of a run that it has not yet."""
    words = [f"metric@metrics.{name}={name}" for name in metrics]
    evaluate(
        EvaluateConfig(
            run=run,
            checkpoint="last",
            trust=[],
            seed=trained.seed,
            model=trained.model,
            dataset=trained.dataset,
            noise=trained.noise,
            data_dir=config.data_dir,
            device=trained.device.model_copy(update={"precision": "float32"}),
            metrics={name: answers.experiment(words).metrics[name] for name in metrics},
        )
    )
