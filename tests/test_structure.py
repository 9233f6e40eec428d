"""The rooms of the package: what each may import."""

import ast
from pathlib import Path

import genexp

PACKAGE = Path(genexp.__file__).parent
FLOORS = [  # each imports only from those behind it
    *(
        "__init__",
        "__main__",
        "cli",
        "api",
        "arrays",
        "sweeps",
        "commands",
        "report",
        "papers",
        "training",
        "figures",
        "metrics",
        "models",
    ),
    *("data", "rundirs", "config", "storage"),
]
WITHOUT_TORCH = ("config", "rundirs", "papers", "sweeps", "commands", "report", "training", "figures", "storage")
HYDRA = ("config/compose.py", "config/many.py", "config/mistakes.py", "sweeps/elsewhere.py")


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports, at any time."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def floor(module: str) -> int:
    """Return the number of a module's floor, from the top; single files at the bottom share the last one."""
    room = module.split(".")[1] if "." in module else ""
    return FLOORS.index(room) if room in FLOORS else len(FLOORS)


def own_modules(file: Path) -> set[str]:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return imports(file) & names


def test_no_import_points_up():
    for file in PACKAGE.rglob("*.py"):
        here = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        for module in own_modules(file):
            assert floor(here) <= floor(module), f"{here} imports {module}"


def test_rooms_that_are_read_without_torch_are_empty_at_the_door():
    for room in WITHOUT_TORCH:
        assert (PACKAGE / room / "__init__.py").read_text() == "", room


def test_hydra_is_known_where_it_is_said_to_be():
    knowing = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(module.partition(".")[0] == "hydra" for module in imports(file))
    }
    assert knowing == set(HYDRA)


def test_no_file_is_over_300_lines():
    assert {file.name: n for file in PACKAGE.rglob("*.py") if (n := len(file.read_text().splitlines())) > 300} == {}
