"""Metrics that a model is suited for, and files that settings name: checked by the sources, without torch.

What depends on the images is checked by `training.build` once they are read.
"""

import ast
from functools import lru_cache

from genexp.config.components import Component, definition_of, marks_of
from genexp.config.source import bound_names, source_of
from genexp.errors import UsageError
from genexp.ranges import AtMost, FileFor

BASES_OF_LIBRARIES = ("ABC", "Generic", "Module", "Protocol")  # they bring no method that a metric asks for


def refuse_unsuited(metrics: dict[str, Component], model: Component) -> None:
    """Raise UsageError for a metric that is not of such a model, or whose settings do not go together.

    What models it is of is read from its decorator `of_models`, and what settings go together from their marks.
    """
    for name, metric in metrics.items():
        reason = _why_not(metric["_target_"], model["_target_"])
        if reason is not None:
            raise unusable(name, reason)
        for setting, marks in marks_of(metric).items():
            for mark in marks:
                reason = mark.mistake(setting, metric) if isinstance(mark, AtMost | FileFor) else None
                if reason is not None:
                    raise unusable(name, reason)


def missing_file(metrics: dict[str, Component]) -> UsageError | None:
    """Return the error for a metric's setting that names a file which cannot be read; None if there is none."""
    for name, metric in metrics.items():
        for setting, marks in marks_of(metric).items():
            for mark in marks:
                reason = mark.unreadable(setting, metric) if isinstance(mark, FileFor) else None
                if reason is not None:
                    return unusable(name, reason)
    return None


def unusable(name: str, reason: str) -> UsageError:
    """Return the error for a metric, by its name in the configuration, that cannot be taken."""
    return UsageError(f"metrics.{name}: {reason}\nSet metrics.{name} otherwise, or leave it out with ~metrics.{name}")


def _why_not(metric: str, model: str) -> str | None:
    """Return why a metric is not of a model; None if it is, or if that is not known before they are imported."""
    try:
        definition, source = definition_of("", metric), source_of("", metric)
        if definition is None or source is None:
            return None
        for decorator in definition.decorator_list:
            match _assigned(decorator, source):
                case ast.Call(func=ast.Name(id="of_models"), args=[ast.Name(id=kind), ast.Constant(value=str(reason))]):
                    wanted = _class(_split(metric)[0], kind)
                    names = _members(*_split(model))
                    if wanted is not None and names is not None and not _wanted_names(*wanted) <= names:
                        return reason
    except UsageError:  # said where the component is checked
        return None
    return None


def _assigned(decorator: ast.expr, source: ast.Module) -> ast.expr:
    """Return what a decorator is, if the module gives it a name: has_posterior = of_models(...)."""
    if not isinstance(decorator, ast.Name):
        return decorator
    values = [node.value for node in source.body if isinstance(node, ast.Assign) and decorator.id in bound_names(node)]
    return values[-1] if values else decorator


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return a class that a module defines or imports, with the module that defines it; None if that is not known."""
    source = source_of("", f"{module}.{name}")
    for node in source.body if source is not None else []:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level and name in bound_names(node):
            original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
            return None if node.module == module else _class(node.module, original)
    return None


def _wanted_names(module: str, wanted: ast.ClassDef) -> set[str]:
    """Return the methods that a protocol asks for, or for another class its name, which models have from `_members`."""
    if any(ast.unparse(base).rpartition(".")[2] == "Protocol" for base in wanted.bases):
        return {node.name for node in wanted.body if isinstance(node, ast.FunctionDef)}
    return {f"{module}.{wanted.name}"}


def _members(module: str, name: str) -> set[str] | None:
    """Return the names that a class and its bases bind, in the class or as self.NAME, and the classes' own names.

    Returns None if a base is not found, or the class answers for names that it does not bind.
    """
    found = _class(module, name)
    if found is None:
        return None
    module, definition = found
    names = {f"{module}.{definition.name}", *_bound_in(definition)}
    if "__getattr__" in names or "setattr" in names:
        return None
    for base in definition.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        if ast.unparse(base).rpartition(".")[2] in BASES_OF_LIBRARIES:
            continue
        inherited = _members(module, base.id) if isinstance(base, ast.Name) else None
        if inherited is None:
            return None
        names |= inherited
    return names


@lru_cache(maxsize=200)
def _bound_in(definition: ast.ClassDef) -> frozenset[str]:
    """Return the names that are bound anywhere in a class, and "setattr" if it binds some by that."""
    names = {node.name for node in definition.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(definition):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Name(id="setattr"):
                names.add("setattr")
    return frozenset(names)
