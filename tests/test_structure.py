"""The order of the modules: imports go to the same line of it or to a lower one, without cycles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import charrnn

PACKAGE = Path(charrnn.__file__).parent
LAYERS = """
    errors version config formatting arrays blas
    affine attention vectors loss optim text cells counts
    mixture network workers cluster
    attentive conditional captioner
    regions sequences
    bidirectional
    adaptive sampling scoring storage
    analysis
    drawing
    tasks
    training
    model
    trainer
    cli
    __main__
"""
ORDER = {name: i for i, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
WITHOUT_NUMPY = ("errors", "version", "config", "formatting")
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def top_level_name(module: str) -> str:
    """Return the module or folder at the top of the package that a dotted name belongs to."""
    return module.split(".")[1]


def imported_modules(path: Path) -> set[str]:
    """Return the names of all modules that a file imports, inside functions too."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module
            members = {f"{node.module}.{name.name}" for name in node.names}
            modules |= (members & NAMES) or {node.module}
    return modules


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent != PACKAGE or p.stem != "__init__"]
)
def test_imports_follow_the_order(path: Path) -> None:
    module = module_name(path)
    for other in imported_modules(path) & NAMES - {"charrnn"}:
        assert ORDER[top_level_name(other)] <= ORDER[top_level_name(module)], (
            f"{module} imports {other}"
        )


def test_no_module_is_on_an_import_cycle() -> None:
    graph = {module_name(path): imported_modules(path) & NAMES - {"charrnn"} for path in MODULES}
    del graph["charrnn"]  # it imports its names late
    graph = {module: others - {module} for module, others in graph.items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", WITHOUT_NUMPY)
def test_bottom_modules_need_only_the_standard_library(name: str) -> None:
    others = {module.split(".")[0] for module in imported_modules(PACKAGE / f"{name}.py")}
    assert not others & {"numpy", "click", "tqdm"}


def test_every_module_has_a_place_in_the_order() -> None:
    assert {top_level_name(name) for name in NAMES - {"charrnn"}} == ORDER.keys()
