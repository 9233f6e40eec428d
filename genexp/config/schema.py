"""The typed schema of a command's configuration: names, types and ranges, checked before torch is imported.

The fixed part is written here. What a model, data set, optimizer, noise process or metric takes is written once,
as the annotated keyword-only arguments of the class or function that its YAML names in `_target_`; they are read
from the source text, so that a third party's model is checked like our own and nothing heavy is loaded.
"""

import ast
import builtins
import difflib
import hashlib
import importlib.util
import json
import typing
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from genexp import ranges
from genexp.errors import UsageError

CONFIGS = next(
    folder
    for folder in (Path(__file__).parent.parent / "configs", Path(__file__).parents[2] / "configs")
    if folder.is_dir()
)  # inside the package when installed from a wheel, beside it in a checkout

ANNOTATIONS = (  # what an annotation may be made of to be looked at: nothing that executes code
    *(ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Constant, ast.Tuple, ast.List, ast.Load),
)
OWN = ("genexp.models.", "genexp.data.", "genexp.noise.", "genexp.optimizers.", "genexp.metrics.")  # of components

GROUPS = ("model", "dataset", "optimizer", "noise")
Component = dict[str, Any]  # {"name", "_target_", settings...}: what one YAML of a group holds


Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]
# run_dir=2026 is a folder, though Hydra reads a number
Packages = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Place = Annotated[Text, Field(min_length=1)]  # a path; nothing would be the folder one is in
ComponentName = Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=64)]  # part of a run directory's name


class Schema(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Device(Schema):
    """Where a run computes, and in what arithmetic."""

    kind: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16"]
    threads: Annotated[int, Field(ge=1, le=4096)] | None  # torch dies of a signal where it can start no more


class Log(Schema):
    """What is recorded while a run trains."""

    every_steps: ranges.PositiveInt
    samples_every_epochs: ranges.PositiveInt
    scores_every_epochs: ranges.PositiveInt | None
    projector: bool


class Checkpoint(Schema):
    """When the state of a run is saved besides the end of each epoch."""

    every_minutes: ranges.PositiveFloat | None


class Sweep(Schema):
    """How the jobs of a sweep are run."""

    jobs: ranges.PositiveInt
    retries: Annotated[int, Field(ge=0)]
    fail_fast: bool
    rank_by: Text | None


class Search(Schema):
    """How settings are sought that score well."""

    name: Literal["optuna"]
    trials: ranges.PositiveInt
    metric: Text
    sampler: Literal["tpe", "random"]
    seed: ranges.Seed
    prune: bool
    startup_trials: Annotated[int, Field(ge=0)]
    warmup_epochs: Annotated[int, Field(ge=0)]
    ranges: dict[str, Any]  # checked by `search`


class TrainConfig(Schema):
    """The configuration of `genexp train`, one field for each top-level key."""

    name: Text = Field(pattern=r"^[\w.+-]+$", max_length=100)
    seed: ranges.Seed
    epochs: ranges.PositiveInt
    batch_size: ranges.PositiveInt
    model: Component
    dataset: Component
    optimizer: Component
    optimizers: dict[str, Component]  # of single players, instead of `optimizer`
    noise: Component
    device: Device
    metrics: dict[str, Component]
    log: Log
    # Runs that were kept before there were these settings lack them.
    checkpoint: Checkpoint = Checkpoint(every_minutes=1.0)
    sweep: Sweep = Sweep(jobs=1, retries=0, fail_fast=False, rank_by=None)
    search: Search | None = None
    data_dir: Place
    outputs_dir: Place
    run_dir: Place | None
    fresh: bool

    def identity(self) -> dict[str, Any]:
        """What the experiment is. How long, where and how fast it runs, and what is logged, are not part of it.

        The precision is: bfloat16 products change the scores that a run reaches, so they make another experiment.
        """
        kept = ("seed", "batch_size", *GROUPS, *(["optimizers"] if self.optimizers else []))
        return {key: getattr(self, key) for key in kept} | {"precision": self.device.precision}

    def again(self) -> str:
        """How to go on with what was begun by a command of this configuration."""
        return "the same command without fresh=true" if self.fresh else "the same command"

    def directory(self) -> Path:
        """The run's directory: the given one, else derived from the identity, never from the clock."""
        if self.run_dir is not None:
            return Path(self.run_dir).expanduser()
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]
        parts = [self.name, self.optimizer["name"]]
        parts += [self.noise["name"]] if self.noise["name"] != "none" else []
        folder = "-".join([*parts, f"seed{self.seed}", digest])
        return Path(self.outputs_dir).expanduser() / str(self.dataset["name"]) / folder


class ReopenedConfig(Schema):
    """What `genexp evaluate`, `sample`, `figure` and `export` have in common: a run, and its settings, some changed."""

    run: Place
    checkpoint: Literal["last", "best"]
    trust: Packages  # packages outside genexp that may be imported because the run names them
    seed: ranges.Seed
    model: Component
    dataset: Component
    noise: Component
    data_dir: Text
    device: Device


class EvaluateConfig(ReopenedConfig):
    """The configuration of `genexp evaluate`."""

    metrics: dict[str, Component]


class SampleConfig(ReopenedConfig):
    """The configuration of `genexp sample`."""

    n: ranges.PositiveInt
    out: Place | None


class ExportConfig(ReopenedConfig):
    """The configuration of `genexp export`."""

    out: Text | None


class DeviceAgain(Schema):
    """Where a run is repeated; None: as it was."""

    kind: Literal["auto", "cpu", "cuda", "mps"] | None = None
    precision: Literal["float32", "bfloat16"] | None
    threads: ranges.PositiveInt | None


class RerunConfig(Schema):
    """The configuration of `genexp rerun`."""

    run: Text
    trust: Packages
    data_dir: Text
    device: DeviceAgain
    fresh: bool


class FigureConfig(ReopenedConfig):
    """The configuration of `genexp figure`."""

    kind: Literal["samples", "neighbours", "interpolation", "reconstructions", "manifold", "curves"]
    rows: ranges.PositiveInt
    columns: Annotated[int, Field(ge=2)]
    method: Literal["tsne", "pca"]
    out: Place | None


class RunsConfig(Schema):
    """The configuration of `genexp runs`."""

    outputs_dir: Place
    sort: Literal["path", "status", "progress", "score", "age"]
    filter: Text | list[Text] | None


class TableConfig(Schema):
    """The configuration of `genexp table`."""

    paper: dict[str, Any]  # checked by `papers.Paper`
    table: Text
    format: Literal["terminal", "markdown", "latex", "csv", "json"]
    out: Place | None
    outputs_dir: Place
    data_dir: Place
    device: Device


class ReproduceConfig(TableConfig):
    """The configuration of `genexp reproduce`."""

    budget: Literal["quick", "full"]
    seeds: ranges.PositiveInt


SCHEMAS: dict[str, type[Schema]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "sample": SampleConfig,
    "figure": FigureConfig,
    "export": ExportConfig,
    "rerun": RerunConfig,
    "runs": RunsConfig,
    "table": TableConfig,
    "reproduce": ReproduceConfig,
}
REOPENING = tuple(command for command, schema in SCHEMAS.items() if "run" in schema.model_fields)
RUN_SETTINGS = ("seed", "model", "dataset", "noise", "data_dir")  # what these take from the run


def without_hydra(composed: DictConfig) -> DictConfig:
    """A configuration as a command gets it: without Hydra's own part."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def load(command: str, composed: DictConfig) -> Any:
    """The checked configuration of a command, of its class in SCHEMAS.

    Raises UsageError that names each mistake and the remedy.
    """
    schema = SCHEMAS[command]
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0].replace("KeyError raised while resolving interpolation: ", "")
        where = f"{error.full_key}: " if error.full_key else ""
        for group in GROUPS:
            if group in schema.model_fields and not isinstance(composed.get(group), DictConfig):
                raise UsageError(f"{group} is missing: give it, as in {group}=NAME") from error
        if "'model.name'" in said:
            raise UsageError("model.name is missing: each choice has a `name` and a `_target_`, its class") from error
        raise UsageError(f"{where}the configuration cannot be resolved: {said}") from error
    try:
        config = schema.model_validate(plain)
    except pydantic.ValidationError as error:
        raise _usage_error(error, "", list(schema.model_fields)) from error
    fields = schema.model_fields
    if isinstance(config, ReopenedConfig):
        refuse_strangers(config, config.trust)
    groups = {key: check_component(key, getattr(config, key)) for key in GROUPS if key in fields}
    for key in ("metrics", "optimizers"):
        if key in fields:
            groups[key] = {name: check_component(f"{key}.{name}", one) for name, one in getattr(config, key).items()}
    return config.model_copy(update=groups)


def check_component(key: str, component: Component) -> Component:
    """Check a component's settings against the keyword-only arguments of its `_target_`.

    Returns the component with its values in their declared types, so that `lr=1` and `lr=1.0` are one experiment.
    Raises UsageError when the target does not exist, or for an unknown, missing, ill-typed or out-of-range setting.
    """
    for required in ("name", "_target_"):
        if not isinstance(component.get(required), str):
            raise UsageError(f"{key}.{required} is missing: each choice has a `name` and a `_target_`, its class")
    try:
        pydantic.TypeAdapter(ComponentName).validate_python(component["name"])
    except pydantic.ValidationError as error:
        raise UsageError(
            f"{key}.name={component['name']}: should be of at most 64 letters, digits, '.', '_', '+' and '-'"
        ) from error
    arguments = _keyword_arguments(key, component["_target_"])
    if arguments is None:
        return component
    schema = pydantic.create_model(
        "Settings", __config__=ConfigDict(strict=True, extra="forbid", protected_namespaces=()), **arguments
    )
    settings = settings_of(component)
    try:
        checked = schema.model_validate(settings)
    except pydantic.ValidationError as error:
        raise _usage_error(error, f"{key}.", list(arguments)) from error
    return {"name": component["name"], "_target_": component["_target_"], **checked.model_dump()}


def components(config: Schema) -> dict[str, Component]:
    """Every component that a configuration names, by its key."""
    found = {key: getattr(config, key) for key in GROUPS if hasattr(config, key)}
    for key in ("optimizers", "metrics"):
        found |= {f"{key}.{name}": one for name, one in getattr(config, key, {}).items()}
    return found


def imports(module: str) -> set[str]:
    """The modules that a module imports when it is loaded or later, and its neighbours for it, as their sources say."""
    found: set[str] = set()
    unread = {module}
    while unread:
        source = _source("", f"{unread.pop()}.")
        nodes = list(ast.walk(source)) if source is not None else []
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        unread |= {name for name in named - found if name.startswith(f"{module.rpartition('.')[0]}.")}
        found |= named
    return found


def refuse_strangers(config: Schema, trust: list[str]) -> None:
    """Raise UsageError when a run names code that is not one of genexp's components, nor in a trusted package."""
    for key, component in components(config).items():
        _refuse_stranger(key, component, trust)


def _refuse_stranger(key: str, component: Component, trust: list[str]) -> None:
    if not isinstance(component.get("_target_"), str):
        raise UsageError(f"the run names no class as its {key}: its config.yaml is damaged")
    target = str(component["_target_"])
    module, _, name = target.rpartition(".")
    if target.startswith(OWN) and (source := _source(key, target)) is not None:
        imports = [node for node in source.body if isinstance(node, ast.Import | ast.ImportFrom)]
        if not any(name in _bound(node) for node in imports):
            return
    package = module.partition(".")[0]
    if package == "genexp" or package not in trust:
        remedy = "" if package == "genexp" else f"\nIf you trust it, add trust=[{package}]"
        raise UsageError(
            f"the run names code that is no component of genexp, {target}, which would be executed{remedy}"
        )


def settings_of(component: Component) -> dict[str, Any]:
    """A component's settings, without its name and target."""
    return {name: value for name, value in component.items() if name not in ("name", "_target_")}


def nearest(word: str, names: typing.Iterable[str]) -> str:
    """', did you mean X?' for the closest of `names`, else nothing; a dotted key is sought within its own group."""
    names = list(names)
    group, _, leaf = word.rpartition(".")
    siblings = [name for name in names if group and name.rpartition(".")[0] == group]
    by_leaf = {name.rpartition(".")[2]: name for name in reversed(siblings or names)}
    by_name = {} if siblings else {name: name for name in names}
    for candidates, text in ((by_name, word), (by_leaf, leaf)):  # the second finds model.latent_dim for latent_dim
        for close in difflib.get_close_matches(text, candidates, n=1, cutoff=0.6):
            return f", did you mean '{candidates[close]}'?"
    return ""


def _keyword_arguments(key: str, target: str) -> dict[str, Any] | None:
    """{name: (type, default)} of the keyword-only arguments of `target`, read from its source text; ... if required.

    None where they cannot be known without importing: a class that inherits its constructor, a compiled module.
    """
    source = _source(key, target)
    if source is None:
        return None
    name = target.rpartition(".")[2]
    definitions = [node for node in source.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    found = next((node for node in definitions if node.name == name), None)
    if found is None:
        if any(name in _bound(node) for node in source.body):  # imported or assigned there: known once it is imported
            return None
        hint = nearest(name, [node.name for node in definitions])
        raise UsageError(f"{key}._target_={target}: its module defines no '{name}'{hint}")
    if isinstance(found, ast.ClassDef):
        constructors = [n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not constructors:
            return None
        found = constructors[0]
    arguments = _shared_arguments(key, target.rpartition(".")[0], source, found)
    for argument, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True):
        try:
            value = ... if default is None else ast.literal_eval(default)
        except ValueError:  # computed: what it is will be known when it is called
            return None
        arguments[argument.arg] = (_annotation(argument.annotation), value)
    return arguments


def _shared_arguments(key: str, module: str, source: ast.Module, function: ast.FunctionDef) -> dict[str, Any]:
    """The arguments that `**settings: Unpack[Settings]` stands for: the keys of that TypedDict, there or imported."""
    match function.args.kwarg:
        case ast.arg(annotation=ast.Subscript(value=ast.Name(id="Unpack"), slice=ast.Name(id=name))):
            pass
        case _:
            return {}
    for node in source.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            return {
                field.target.id: (_annotation(field.annotation), ...)
                for field in fields
                if isinstance(field.target, ast.Name)
            }
        if isinstance(node, ast.ImportFrom) and node.module and name in _bound(node) and node.module != module:
            imported = _source(key, f"{node.module}.{name}")
            return {} if imported is None else _shared_arguments(key, node.module, imported, function)
    return {}


def _bound(node: ast.stmt) -> list[str]:
    """The names that an import or assignment binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _source(key: str, target: str) -> ast.Module | None:
    """The parsed module of a dotted name, found without importing any package on the way."""
    package, *path = target.split(".")[:-1] or [target]
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UsageError(f"{key}._target_={target}: there is no package '{package}' on the Python path")
    if not path:
        files = [Path(spec.origin)] if spec.origin else []
    else:
        roots = [Path(root).joinpath(*path) for root in spec.submodule_search_locations or []]
        files = [file for root in roots for file in (root.with_suffix(".py"), root / "__init__.py")]
        if not any(file.is_file() for file in files) and package == "genexp":
            raise UsageError(f"{key}._target_={target}: there is no such module in genexp")
    for file in files:
        if file.is_file() and file.suffix == ".py":
            try:
                return _parsed(file, file.stat().st_mtime_ns)
            except (SyntaxError, ValueError) as error:
                line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
                said = error.msg if isinstance(error, SyntaxError) else error
                raise UsageError(f"{key}._target_={target}: {file}{line}: {said}") from error
    return None


@lru_cache
def _parsed(file: Path, _changed: int) -> ast.Module:
    """A source file, parsed once for all jobs of a sweep, until it changes."""
    return ast.parse(file.read_bytes(), filename=str(file))


@lru_cache(maxsize=1000)
def _annotation(node: ast.expr | None) -> Any:
    """The type an annotation names, if it is made of builtins, Literal and genexp.ranges; else anything goes."""
    if node is None or not all(isinstance(part, ANNOTATIONS) for part in ast.walk(node)):
        return Any
    known = vars(builtins) | ranges.NAMES | {"Literal": Literal, "ranges": ranges}
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), {"__builtins__": {}}, known)
    except (NameError, AttributeError):
        return Any


def _usage_error(error: pydantic.ValidationError, prefix: str, names: list[str]) -> UsageError:
    """The mistakes that pydantic found, in a line each: the setting as it was given, and what it should be."""
    lines = []
    for mistake in error.errors()[:3]:
        key = prefix + ".".join(str(part) for part in mistake["loc"] if part not in ("function-after",))
        match mistake["type"]:
            case "extra_forbidden":
                word = str(mistake["loc"][-1])
                hint = nearest(word, names)
                lines.append(f"there is no setting '{key}'{hint or '; it has ' + ', '.join(names)}")
            case "missing":
                lines.append(f"{key} is missing: give it, as in {key}=VALUE")
            case _:
                wanted = mistake["msg"].removeprefix("Input ").replace("a valid integer", "an integer")
                if mistake["type"] == "string_pattern_mismatch":
                    wanted = "should be made of letters, digits, '.', '_', '+' and '-'"
                given = mistake["input"]
                hint = ""
                if mistake["type"] == "literal_error" and isinstance(given, str):
                    hint = nearest(given, mistake["ctx"]["expected"].split("'")[1::2])
                lines.append(f"{key}={given}: {wanted}{hint}")
    return UsageError("\n".join(dict.fromkeys(lines)))
