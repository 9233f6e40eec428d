"""`genexp reproduce`: run the experiments that a table of a paper still lacks, then print the table."""

import time

from genexp.commands import evaluate, table, train
from genexp.config.command_line import CommandLine
from genexp.config.schema import EvaluateConfig, ReproduceConfig, TrainConfig
from genexp.errors import DataError, GenexpError, UsageError
from genexp.papers import published
from genexp.papers.answers import experiment
from genexp.papers.published import Experiment, ScoresTable, TextTable, experiments
from genexp.runs.directory import Run
from genexp.text import duration


def main(config: ReproduceConfig, line: CommandLine) -> None:
    """Train and score what is not there yet, experiment by experiment; print the table.

    An experiment that fails does not keep the others from running. Raises GenexpError at the end if one did, but not
    for a missing data set that is given on request only.
    """
    chosen = published.read(config.paper).table(config.table)
    if isinstance(chosen, TextTable):
        raise UsageError(
            f"table={config.table} holds no numbers to reproduce; `genexp table table={config.table}` prints it"
        )
    table.refuse_out(config)
    started = time.perf_counter()
    metrics = chosen.metrics if isinstance(chosen, ScoresTable) else []
    wanted = list(experiments(chosen, config.budget))
    seeds = f", each with {config.seeds} seeds" if config.seeds > 1 else ""
    print(f"{len(wanted)} experiments{seeds}; runs in {config.outputs_dir}", flush=True)
    names = {each.name for each in wanted}
    for name in (each.name for each in experiments(chosen, "full") if each.name not in names):
        print(f"left out: {name}, which has no short form; budget=full runs it", flush=True)
    failures: list[str] = []
    for number, each in enumerate(wanted, 1):
        for seed in range(config.seeds):
            print(f"\n{number}/{len(wanted)}: ", end="")
            if not _run(config, line, each, seed, metrics, failures):
                break
    print(f"\n{config.budget} budget, {duration(time.perf_counter() - started)}\n", flush=True)
    table.main(config, line)
    if failures:
        raise GenexpError("not everything could be run:\n" + "\n".join(failures))


def _run(
    config: ReproduceConfig, line: CommandLine, wanted: Experiment, seed: int, metrics: list[str], failures: list[str]
) -> bool:
    """Train and score an experiment with one seed; note a failure. Return False if its data set is missing."""
    settings = (*wanted.train, f"seed={seed}")
    command = CommandLine("train", (*settings, f"outputs_dir={config.outputs_dir}"), line.folder)
    print(f"{wanted.name}, seed {seed}: {command}", flush=True)
    try:
        recipe = experiment(list(settings), line.folder)
        device = config.device.model_copy(update={"precision": recipe.device.precision})
        places = {"data_dir": config.data_dir, "outputs_dir": config.outputs_dir}
        trained = recipe.model_copy(update={**places, "device": device})
        train.main(trained, command)
        if metrics:
            _score(config, line, trained, metrics)
    except Exception as error:  # the other experiments run all the same
        is_missing = isinstance(error, DataError)
        is_skipped = is_missing and wanted.on_request
        reason = str(error) if isinstance(error, GenexpError) else f"{type(error).__name__}: {error}"
        if not is_skipped:
            failures.append(f"{wanted.name}, seed {seed}: {reason}")
        print(f"{'skipped' if is_skipped else 'failed'}: {reason}", flush=True)
        return not is_missing
    return True


def _score(config: ReproduceConfig, line: CommandLine, trained: TrainConfig, metrics: list[str]) -> None:
    """Take the scores of a run that it has not yet."""
    settings = [f"metric@metrics.{name}={name}" for name in metrics]
    run = Run(trained.directory())
    evaluate_config = EvaluateConfig(
        run=str(run.path),
        checkpoint="last",
        trust=[],
        seed=trained.seed,
        model=trained.model,
        dataset=trained.dataset,
        dataset_b=trained.dataset_b,
        noise=trained.noise,
        data_dir=config.data_dir,
        device=trained.device.model_copy(update={"precision": "float32"}),
        metrics={name: experiment(settings, line.folder).metrics[name] for name in metrics},
    )
    evaluate.main(evaluate_config, line, run)
