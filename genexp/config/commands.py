"""The typed schema of each command but `train`: names, types and ranges. It does not import torch."""

from typing import Any, Literal

from genexp import ranges
from genexp.config.components import Component
from genexp.config.schema import Device, Packages, Place, Schema, Sweep, Text, Threads, TrainConfig


class ReopenedConfig(Schema):
    """The common part of `genexp evaluate`, `sample`, `figure` and `export`: a run, and its settings, some changed."""

    run: Place
    checkpoint: Literal["last", "best"]
    trust: Packages  # packages outside genexp that may be imported because the run names them
    seed: ranges.Seed
    weights: Literal["averaged", "raw"] = "averaged"  # of a run with `ema`
    model: Component
    dataset: Component
    dataset_b: Component | None = None
    noise: Component
    data_dir: Text
    device: Device


class OwnImagesConfig(ReopenedConfig):
    """The settings of `genexp encode` and `reconstruct`, and of what takes a user's own images, too."""

    images: Place | None = None
    white: ranges.PositiveInt | None = None
    invert: bool = False
    label: Text | None = None
    out: Place | None = None


class DenoiseConfig(OwnImagesConfig):
    corrupt: bool


class EvaluateConfig(OwnImagesConfig):
    metrics: dict[str, Component]


class EvaluateSamplesConfig(Schema):
    samples: Place
    white: ranges.PositiveInt | None
    invert: bool
    dataset: Component
    metrics: dict[str, Component]
    seed: ranges.Seed
    out: Place | None
    data_dir: Place
    device: Device


class SampleConfig(ReopenedConfig):
    n: ranges.PositiveInt
    label: Text | None = None
    out: Place | None


class ExportConfig(ReopenedConfig):
    out: Text | None


class DeviceAgain(Schema):
    """The device on which a run is repeated; None stands for the run's own."""

    kind: Literal["auto", "cpu", "cuda", "mps"] | None = None
    precision: Literal["float32", "bfloat16"] | None
    threads: Threads | None
    capture: bool | None = None


class RerunConfig(Schema):
    run: Text
    trust: Packages
    dataset: Component
    dataset_b: Component | None = None
    data_dir: Text
    device: DeviceAgain
    fresh: bool


class FigureConfig(ReopenedConfig):
    kind: Literal[
        "samples", "neighbours", "interpolation", "reconstructions", "manifold", "chains", "translations", "curves"
    ]
    rows: ranges.PositiveInt
    columns: ranges.AtLeastTwo
    method: Literal["tsne", "pca"]
    label: Text | None = None
    out: Place | None


class RunsConfig(Schema):
    outputs_dir: Place
    sort: Literal["path", "status", "progress", "score", "age"]
    filter: Text | list[Text] | None
    format: Literal["terminal", "markdown", "latex", "csv", "json"]


class CacheConfig(Schema):
    clear: Literal["folders", "classifiers", "yardsticks", "recipes"] | None


class PaperConfig(Schema):
    """The settings that `genexp table` and `genexp report` have in common."""

    paper: dict[str, Any]  # checked by `papers.Paper`
    out: Place | None
    outputs_dir: Place
    data_dir: Place
    device: Device


class TableConfig(PaperConfig):
    table: Text
    format: Literal["terminal", "markdown", "latex", "csv", "json"]


class ReportConfig(PaperConfig):
    table: Text | None


class ReproduceConfig(TableConfig):
    report: bool
    budget: Literal["quick", "full"]
    seeds: ranges.PositiveInt
    sweep: Sweep
    dry_run: bool


SCHEMAS: dict[str, type[Schema]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "evaluate_samples": EvaluateSamplesConfig,  # evaluate with samples=
    "sample": SampleConfig,
    "encode": OwnImagesConfig,
    "reconstruct": OwnImagesConfig,
    "denoise": DenoiseConfig,
    "figure": FigureConfig,
    "export": ExportConfig,
    "rerun": RerunConfig,
    "runs": RunsConfig,
    "cache": CacheConfig,
    "table": TableConfig,
    "report": ReportConfig,
    "reproduce": ReproduceConfig,
}
REOPENING = tuple(command for command, schema in SCHEMAS.items() if "run" in schema.model_fields)
NAMING_RUNS = (*REOPENING, "report")  # commands whose bare words are runs
RUN_SETTINGS = ("seed", "model", "dataset", "dataset_b", "noise", "data_dir")  # of a run that a command opens
