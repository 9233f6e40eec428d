"""The components of a configuration: a model, a data set, an optimizer, a noise process, metrics.

A component's settings are the annotated keyword-only arguments of the class or function that its `_target_` names.
They are read from the source text: a component from outside genexp is checked like our own, and torch is not loaded.
"""

import ast
import builtins
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field

from genexp import ranges
from genexp.errors import UsageError
from genexp.text import nearest

Component = dict[str, Any]  # {"name", "_target_", settings...}: the content of one YAML of a group
Settings = dict[str, tuple[Any, Any]]  # the type and default of each setting that a component declares
GROUPS = ("model", "dataset", "optimizer", "noise")
OPTIONAL = ("dataset_b",)  # keys of components that a run may be without
COLLECTIONS = ("optimizers", "metrics")  # keys that hold several components by name
OWN = ("genexp.models.", "genexp.data.", "genexp.noise.", "genexp.optimizers.", "genexp.metrics.")

ComponentName = Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=64)]  # part of a run directory's name
# An annotation made of these, and of AsBefore(...), can be evaluated: it executes no other code.
NAMES_OF_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Load)
LITERALS = (ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.USub)
NAMES_IN_ANNOTATIONS = vars(builtins) | ranges.NAMES
NAMES_IN_ANNOTATIONS |= {"Annotated": Annotated, "AsBefore": ranges.AsBefore, "Literal": Literal, "ranges": ranges}
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


def defining(component: Component) -> Component:
    """Return the component's part in a run's identity.

    Settings that it got later and that have their value as before, or no effect, do not move the runs made before them.
    """
    try:
        declared = declared_settings("", str(component.get("_target_"))) or {}
    except UsageError:  # its code is not here; the component is taken as it was kept
        return component
    marks = {name: mark for name, (kind, _) in declared.items() if (mark := _as_before(kind)) is not None}
    as_before = {name for name, mark in marks.items() if name in component and mark.is_as_before(name, component)}
    return {name: value for name, value in component.items() if name not in as_before}


def lower_is_better(metric: Component) -> bool:
    """Return True if the metric is declared with the decorator `lower_is_better`; its code is not imported."""
    try:
        definition, source = _definition("", metric["_target_"]), _source("", metric["_target_"])
    except UsageError:
        return False
    if definition is not None:
        decorators = [ast.unparse(decorator) for decorator in definition.decorator_list]
        return any(decorator.rpartition(".")[2] == "lower_is_better" for decorator in decorators)
    name = metric["_target_"].rpartition(".")[2]
    imports = [node for node in source.body if isinstance(node, ast.ImportFrom)] if source is not None else []
    aliases = [(node.module, alias) for node in imports for alias in node.names if name == (alias.asname or alias.name)]
    return any(lower_is_better({"_target_": f"{module}.{alias.name}"}) for module, alias in aliases)


def why_not_on_valid(name: str, metric: Component) -> str | None:
    """Return why the metric is not taken on validation images, and what to do; None if it is, or from outside."""
    is_own = metric["_target_"].startswith("genexp.")
    if not is_own or metric["name"] in ("parzen", "parzen_folds") or metric.get("split") == "valid":
        return None
    return f"{name} is not taken on validation images, so set metrics.{name}.split=valid"


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
    if not target.startswith(OWN) or (source := _source(key, target)) is None:
        return False
    imported = (_bound(node) for node in source.body if isinstance(node, ast.Import | ast.ImportFrom))
    return not any(target.rpartition(".")[2] in names for names in imported)


def imports(module: str) -> set[str]:
    """Return the modules that a module and its neighbours import, at any time, as their sources say."""
    named: set[str] = set()
    unread = {module}
    while unread:
        source = _source("", f"{unread.pop()}.")
        nodes = list(ast.walk(source)) if source is not None else []
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        unread |= {name for name in modules - named if name.startswith(f"{module.rpartition('.')[0]}.")}
        named |= modules
    return named


def declared_settings(key: str, target: str) -> Settings | None:
    """Return type and default of each keyword-only argument of `target`, read from its source text.

    The default is ... for an argument that has to be given. Returns None if they cannot be known without importing: an
    inherited constructor, a compiled module. Raises UsageError if there is no such module, or no target in it.
    """
    definition = _definition(key, target)
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        definition = next((method for method in methods if method.name == "__init__"), None)
    source = _source(key, target)
    if definition is None or source is None:
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


def _definition(key: str, target: str) -> ast.ClassDef | ast.FunctionDef | None:
    """Return the class or function that a target names; None if it is defined elsewhere or not in Python.

    Raises UsageError if its module does not have the name.
    """
    source = _source(key, target)
    if source is None:
        return None
    name = target.rpartition(".")[2]
    definitions = {node.name: node for node in source.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name in definitions:
        return definitions[name]
    if any(name in _bound(node) for node in source.body):  # imported or assigned there: known once it is imported
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
        if isinstance(node, ast.ImportFrom) and node.module and name in _bound(node) and node.module != module:
            imported = _source(key, f"{node.module}.{name}")
            return {} if imported is None else _shared_settings(key, node.module, imported, name)
    return {}


def _typed(annotation: ast.expr | None, default: Any) -> tuple[Any, Any]:
    """Return the type of a setting, and its default; of a setting that came later, that is its value as before."""
    kind = _annotation(annotation)
    mark = _as_before(kind)
    return kind, default if mark is None else mark.value


def _as_before(kind: Any) -> ranges.AsBefore | None:
    return next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, ranges.AsBefore)), None)


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that an import or assignment binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _source(key: str, target: str) -> ast.Module | None:
    """Return the parsed module of a dotted name; no package on the way is imported."""
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
                reason = error.msg if isinstance(error, SyntaxError) else error
                raise UsageError(f"{key}._target_={target}: {file}{line}: {reason}") from error
    return None


@lru_cache
def _parsed(file: Path, _changed: int) -> ast.Module:
    """Parse a source file, once until it changes."""
    return ast.parse(file.read_bytes(), filename=str(file))


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
        return isinstance(node.func, ast.Name) and node.func.id == "AsBefore"
    return isinstance(node, NAMES_OF_TYPES + LITERALS)


def usage_error(error: pydantic.ValidationError, prefix: str, names: list[str]) -> UsageError:
    """Return a UsageError with a line for each wrong setting: its value, and what it should be."""
    lines = [_mistake(mistake, prefix, names) for mistake in error.errors()[:3]]
    return UsageError("\n".join(dict.fromkeys(lines)))


def _mistake(mistake: Any, prefix: str, names: list[str]) -> str:
    key = prefix + ".".join(str(part) for part in mistake["loc"] if part != "function-after")
    match mistake["type"]:
        case "extra_forbidden":
            hint = nearest(str(mistake["loc"][-1]), names)
            return f"there is no setting '{key}'{hint or '; it has ' + ', '.join(names)}"
        case "missing":
            return f"{key} is missing: give it, as in {key}=VALUE"
        case "string_pattern_mismatch":
            return f"{key}={mistake['input']}: should be made of letters, digits, '.', '_', '+' and '-'"
    wanted = mistake["msg"].removeprefix("Input ").replace("a valid integer", "an integer")
    hint = ""
    if mistake["type"] == "literal_error" and isinstance(mistake["input"], str):
        hint = nearest(mistake["input"], mistake["ctx"]["expected"].split("'")[1::2])
    return f"{key}={mistake['input']}: {wanted}{hint}"
