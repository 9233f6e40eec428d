"""The components of a configuration: a model, a data set, an optimizer, a noise process, metrics.

A component's settings are the annotated keyword-only arguments of the class or function that its `_target_` names.
They are read from the source text: a component from outside genexp is checked like our own, and torch is not loaded.
"""

import ast
import builtins
from functools import lru_cache
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field

from genexp import ranges
from genexp.config.mistyped import usage_error
from genexp.config.source import bound_names, source_of
from genexp.errors import UsageError
from genexp.text import nearest

Component = dict[str, Any]  # {"name", "_target_", settings...}: the content of one YAML of a group
Settings = dict[str, tuple[Any, Any]]  # the type and default of each setting that a component declares
GROUPS = ("model", "dataset", "optimizer", "noise")
OPTIONAL = ("dataset_b",)  # keys of components that a run may be without
COLLECTIONS = ("optimizers", "metrics")  # keys that hold several components by name
OWN = ("genexp.models.", "genexp.data.", "genexp.noise.", "genexp.optimizers.", "genexp.metrics.")

ComponentName = Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=64)]  # part of a run directory's name
# An annotation made of these, and of marks such as AsBefore(...), can be evaluated: it executes no other code.
NAMES_OF_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Load, ast.keyword)
LITERALS = (ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.USub)
NAMES_IN_ANNOTATIONS = vars(builtins) | ranges.NAMES
NAMES_IN_ANNOTATIONS |= {"Annotated": Annotated, "Literal": Literal, "ranges": ranges, **ranges.MARKS}
NAMES_IN_ANNOTATIONS["int"] = ranges.Int


def groups(config: Any) -> dict[str, Component]:
    """Return the components of which a configuration has one each, by key."""
    return {key: each for key in (*GROUPS, *OPTIONAL) if (each := getattr(config, key, None)) is not None}


def components(config: Any) -> dict[str, Component]:
    """Return every component of a configuration by its key, as in "model" or "metrics.parzen"."""
    several = {key: getattr(config, key, {}).items() for key in COLLECTIONS}
    return groups(config) | {f"{key}.{name}": each for key, items in several.items() for name, each in items}


def settings_of(component: Component) -> dict[str, Any]:
    """Return a component's settings, without its name and target."""
    return {name: value for name, value in component.items() if name not in ("name", "_target_")}


def check_component(key: str, component: Component) -> Component:
    """Return the component with its values in their declared types, so that `lr=1` and `lr=1.0` are one experiment.

    Raises UsageError if the target does not exist, and for an unknown, missing, ill-typed or out-of-range setting.
    """
    for required in ("name", "_target_"):
        if not isinstance(component.get(required), str):
            raise UsageError(f"{key}.{required} is missing: each choice has a `name` and a `_target_`, its class")
    try:
        pydantic.TypeAdapter(ComponentName).validate_python(component["name"])
    except pydantic.ValidationError as error:
        raise usage_error(error, f"{key}.name", []) from error
    declared = declared_settings(key, component["_target_"])
    if declared is None:
        return component
    rules = ConfigDict(strict=True, extra="forbid", protected_namespaces=())
    schema: Any = pydantic.create_model("Settings", __config__=rules, **declared)  # type: ignore[call-overload]
    try:
        checked = schema.model_validate(settings_of(component))
    except pydantic.ValidationError as error:
        raise usage_error(error, f"{key}.", list(declared)) from error
    return {"name": component["name"], "_target_": component["_target_"], **checked.model_dump()}


def defining(component: Component, as_typed: bool = False) -> Component:
    """Return the component's part in a run's identity.

    Settings that it got later and that have their value as before, or no effect, do not move the runs made before them.
    Where data lie, and what makes no other data of the same files, has one value for all runs, see `ranges.Beside`;
    `as_typed` is as it was before that.
    """
    try:
        of_settings = marks_of(component)
    except UsageError:  # its code is not here; the component is taken as it was kept
        return component
    part = dict(component)
    for name, marks in of_settings.items():
        for mark in marks:
            if isinstance(mark, ranges.Beside | ranges.DataPath):
                later = any(isinstance(other, ranges.AsBefore) for other in marks)
                part[name] = mark.in_identity(name, component, as_typed and not later)
        if any(isinstance(mark, ranges.AsBefore) and mark.is_as_before(name, part) for mark in marks):
            del part[name]
    return part


def movable(component: Component) -> list[str]:
    """Return the settings that may change where the same files give the same images: where they lie, and the like."""
    try:
        of_settings = marks_of(component)
    except UsageError:
        of_settings = {}
    kinds = ranges.Beside | ranges.DataPath
    marked = {name for name, marks in of_settings.items() if any(isinstance(mark, kinds) for mark in marks)}
    return sorted((marked | {"path"}) & component.keys())


def marks_of(component: Component) -> dict[str, tuple[Any, ...]]:
    """Return what `Annotated` says beside the types of a component's settings, for those that it has."""
    target = str(component.get("_target_"))
    source = source_of("", target)
    marks = {} if source is None else _marks_in(source, target)
    return {name: of_setting for name, of_setting in marks.items() if name in component}


def lower_is_better(metric: Component) -> bool:
    """Return True if the metric is declared with the decorator `lower_is_better`."""
    return _is_declared(metric, "lower_is_better")


def is_diagnosis(metric: Component | None) -> bool:
    """Return True if the metric is no score of quality, by its decorator `diagnosis`, so that it ranks nothing."""
    return metric is not None and _is_declared(metric, "diagnosis")


def _is_declared(metric: Component, decorator: str) -> bool:
    """Return True if the metric's definition has this decorator; its code is not imported."""
    try:
        definition, source = definition_of("", metric["_target_"]), source_of("", metric["_target_"])
    except UsageError:
        return False
    if definition is not None:
        return any(ast.unparse(each).rpartition(".")[2] == decorator for each in definition.decorator_list)
    name = metric["_target_"].rpartition(".")[2]
    imports = [node for node in source.body if isinstance(node, ast.ImportFrom)] if source is not None else []
    aliases = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    return name in aliases and _is_declared({"_target_": aliases[name]}, decorator)


def refuse_strangers(config: Any, trust: list[str]) -> None:
    """Raise UsageError if a kept configuration names code that is no component of genexp nor in a trusted package."""
    for key, component in components(config).items():
        if not isinstance(component.get("_target_"), str):
            raise UsageError(f"the run names no class as its {key}: its config.yaml is damaged")
        target = component["_target_"]
        package = target.partition(".")[0]
        if _is_own(key, target) or (package in trust and package != "genexp"):
            continue
        remedy = "" if package == "genexp" else f"\nIf you trust it, add trust=[{package}]"
        raise UsageError(
            f"the run names code that is no component of genexp, {target}, which would be executed{remedy}"
        )


def _is_own(key: str, target: str) -> bool:
    """Return True if genexp defines the target in one of the packages of its components, and does not import it."""
    if not target.startswith(OWN) or (source := source_of(key, target)) is None:
        return False
    imported = (bound_names(node) for node in source.body if isinstance(node, ast.Import | ast.ImportFrom))
    return not any(target.rpartition(".")[2] in names for names in imported)


def declared_settings(key: str, target: str) -> Settings | None:
    """Return type and default of each keyword-only argument of `target`, read from its source text.

    The default is ... for an argument that has to be given. Returns None if they cannot be known without importing: an
    inherited constructor, a compiled module. Raises UsageError if there is no such module, or no target in it.
    """
    source = source_of(key, target)
    return None if source is None else _declared_in(source, key, target)


@lru_cache(maxsize=1000)
def _declared_in(source: ast.Module, key: str, target: str) -> Settings | None:
    """Return the settings that a target of this parsed module declares. They are read once until its file changes."""
    definition = definition_of(key, target)
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        definition = next((method for method in methods if method.name == "__init__"), None)
    if definition is None:
        return None
    declared: Settings = {}
    match definition.args.kwarg:
        case ast.arg(annotation=ast.Subscript(value=ast.Name(id="Unpack"), slice=ast.Name(id=name))):
            declared = _shared_settings(key, target.rpartition(".")[0], source, name)
    for argument, default in zip(definition.args.kwonlyargs, definition.args.kw_defaults, strict=True):
        try:
            value = ... if default is None else ast.literal_eval(default)
        except ValueError:  # a computed default is known only when it is called
            return None
        declared[argument.arg] = _typed(argument.annotation, value)
    return declared


@lru_cache(maxsize=1000)
def _marks_in(source: ast.Module, target: str) -> dict[str, tuple[Any, ...]]:
    """Return the marks of each setting that a target of this parsed module declares, of those that have some."""
    declared = _declared_in(source, "", target) or {}
    return {name: marks for name, (kind, _) in declared.items() if (marks := getattr(kind, "__metadata__", ()))}


def definition_of(key: str, target: str) -> ast.ClassDef | ast.FunctionDef | None:
    """Return the class or function that a target names; None if it is defined elsewhere or not in Python.

    Raises UsageError if its module does not have the name.
    """
    source = source_of(key, target)
    if source is None:
        return None
    name = target.rpartition(".")[2]
    definitions = {node.name: node for node in source.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name in definitions:
        return definitions[name]
    if any(name in bound_names(node) for node in source.body):  # imported or assigned there: known once it is imported
        return None
    raise UsageError(f"{key}._target_={target}: its module defines no '{name}'{nearest(name, definitions)}")


def _shared_settings(key: str, module: str, source: ast.Module, name: str) -> Settings:
    """Return the keys of a TypedDict that this module defines or imports, behind those of one that it extends."""
    for node in source.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id != "TypedDict"]
            keys = {each: kind for base in bases for each, kind in _shared_settings(key, module, source, base).items()}
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            named = [(field.target.id, field) for field in fields if isinstance(field.target, ast.Name)]
            return keys | {field_name: _typed(field.annotation, ...) for field_name, field in named}
        if isinstance(node, ast.ImportFrom) and node.module and name in bound_names(node) and node.module != module:
            imported = source_of(key, f"{node.module}.{name}")
            return {} if imported is None else _shared_settings(key, node.module, imported, name)
    return {}


def _typed(annotation: ast.expr | None, default: Any) -> tuple[Any, Any]:
    """Return the type of a setting, and its default; of a setting that came later, that is its value as before."""
    kind = _annotation(annotation)
    mark = _as_before(kind)
    return kind, default if mark is None else mark.value


def _as_before(kind: Any) -> ranges.AsBefore | None:
    return next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, ranges.AsBefore)), None)


@lru_cache(maxsize=1000)
def _annotation(node: ast.expr | None) -> Any:
    """Return the type that an annotation names, if it is made of builtins, typing and genexp.ranges; Any if not."""
    if node is None or not all(_is_safe(part) for part in ast.walk(node)):
        return Any
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), {"__builtins__": {}}, NAMES_IN_ANNOTATIONS)
    except (NameError, AttributeError):
        return Any


def _is_safe(node: ast.AST) -> bool:
    """Return True if evaluating the node executes no code of others."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ranges.MARKS
    return isinstance(node, NAMES_OF_TYPES + LITERALS)


def data_sets(config: Any) -> str:
    """Return the data sets of a configuration, as they are chosen: dataset=NAME, dataset_b=NAME."""
    return ", ".join(f"{key}={each['name']}" for key, each in groups(config).items() if key.startswith("dataset"))
