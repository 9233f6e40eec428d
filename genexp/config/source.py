"""Source text of Python modules, parsed. Neither a module nor the packages that it is in are imported."""

import ast
import importlib.util
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from genexp.errors import UsageError


def source_of(key: str, target: str) -> ast.Module | None:
    """Return the parsed module of a dotted name; no package on the way is imported."""
    package, *path = target.split(".")[:-1] or [target]
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UsageError(f"{key}._target_={target}: there is no package '{package}' on the Python path")
    if not path:
        files = [spec.origin] if spec.origin else []
    else:  # many runs ask for the same modules: strings are faster than paths
        roots = [os.path.join(root, *path) for root in spec.submodule_search_locations or []]  # noqa: PTH118
        files = [file for root in roots for file in (f"{root}.py", os.path.join(root, "__init__.py"))]  # noqa: PTH118
    for file in files:
        with suppress(OSError):
            changed = os.stat(file).st_mtime_ns  # noqa: PTH116
            if not file.endswith(".py"):
                continue
            try:
                return _parsed(file, changed)
            except (SyntaxError, ValueError) as error:
                line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
                reason = error.msg if isinstance(error, SyntaxError) else error
                raise UsageError(f"{key}._target_={target}: {file}{line}: {reason}") from error
    if path and package == "genexp" and not any(map(os.path.isfile, files)):
        raise UsageError(f"{key}._target_={target}: there is no such module in genexp")
    return None


def bound_names(node: ast.stmt) -> list[str]:
    """Return the names that an import or assignment binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def imports(module: str) -> set[str]:
    """Return the modules that a module and its neighbours import, at any time, as their sources say."""
    named: set[str] = set()
    unread = {module}
    while unread:
        source = source_of("", f"{unread.pop()}.")
        nodes = list(ast.walk(source)) if source is not None else []
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        unread |= {name for name in modules - named if name.startswith(f"{module.rpartition('.')[0]}.")}
        named |= modules
    return named


@lru_cache
def _parsed(file: str, _changed: int) -> ast.Module:
    """Parse a source file, once until it changes."""
    return ast.parse(Path(file).read_bytes(), filename=file)
