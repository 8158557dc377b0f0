"""Imports point down only, and the modules of floor 1 know nothing of each other."""

import ast
from pathlib import Path

import pytest

import charrnn

PACKAGE = Path(charrnn.__file__).parent
FLOORS = [
    {"arrays", "config", "errors", "formatting", "header", "shades", "units", "version", "vocabulary"},
    {"affine", "cells", "checkpoint", "corpus", "lock", "loss", "ngram", "optim", "windows"},
    {"stack"},
    {"copied", "plots", "probing", "sampling", "scoring", "surprise", "team", "training"},
    {"", "__main__", "cli", "model", "report"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """Return the module or folder of the package that a dotted name lies in."""
    return [*module.split("."), ""][1].replace("__init__", "")


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= names if node.module == "charrnn" else {node.module}
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    me = ".".join(["charrnn", *path.relative_to(PACKAGE).with_suffix("").parts])
    for other in imports(path):
        if other.split(".")[0] != "charrnn":
            continue
        assert floor(other) <= floor(me), f"{me} imports {other}"
        if floor(me) == 1 and room(me) != room(other):
            assert floor(other) == 0, f"{me} imports {other}, of its own floor"
        if room(me) == room(other) == "cells":
            assert me == "charrnn.cells.__init__", f"{me} imports {other}"


def test_floor_0_is_numpy_and_the_standard_library() -> None:
    for name in FLOORS[0]:
        others = {i.split(".")[0] for i in imports(PACKAGE / f"{name}.py")}
        assert not others & {"click", "tqdm"}


def test_every_module_stands_on_a_floor() -> None:
    rooms = {room(".".join(["charrnn", *p.relative_to(PACKAGE).with_suffix("").parts])) for p in MODULES}
    assert rooms == set().union(*FLOORS)
