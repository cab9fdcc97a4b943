"""The layers hold: imports point down, never round, and torch stays where it belongs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import credibly

SOURCE = Path(credibly.__file__).parent
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

LAYERS = [
    {"errors", "locks", "parted", "records", "settings", "runs", "assets", "progress"},
    {"data", "encoding", "tokens", "reading", "runtime"},
    {"backbones", "batching", "parallel", "training", "tuning"},
    {"members", "passes", "ensemble"},
    {"uncertainty"},
    {"distil"},
    {"report", "export", "serve"},
    {"engines", "estimators", "workflows"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

FOLDERS = {
    "report": [{"figures"}, {"words"}, {"tables"}, {"page", "terminal", "card"}, {"build", "candidates"}],
    "workflows": [
        {"common"},
        {"steps"},
        {"answering", "planning"},
        {"labelling"},
        {"evaluating"},
        {"fitting", "publishing"},
        {"distilling"},
        {"comparing", "checkup"},
    ],
}
"""What lies in a part's folders and beside them: each may import those before it, and none beside it."""

ANSWERING = [
    "credibly.workflows.answering.loading",
    "credibly.workflows.answering.serving",
    "credibly.workflows.evaluating.predictions",
    "credibly.workflows.publishing.layout",
]
"""What of the workflows works without torch, with all that it imports."""

TORCH_FREE = {
    "errors",
    "locks",
    "parted",
    "records",
    "settings",
    "runs",
    "assets",
    "progress",
    "data",
    "encoding",
    "tokens",
    "reading",
    "runtime",
    "uncertainty",
    "report",
    "serve",
    "cli",
}
FORBIDDEN = {
    ("distil", "members"),
    ("distil", "ensemble"),
    ("serve", "training"),
    ("serve", "members"),
    ("serve", "distil"),
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ["credibly", *file.relative_to(SOURCE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = modules()


def imported(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written out in full"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def part(module: str) -> str:
    """Return the package's part that a module belongs to, for example ``uncertainty``."""
    return module.split(".")[1]


OWN = {
    name: sorted({other for other in imported(file) if other in MODULES}) for name, file in MODULES.items()
}
EDGES = [(name, other) for name, others in OWN.items() for other in others if name != "credibly"]


def test_every_part_of_the_package_stands_in_the_table() -> None:
    assert {part(name) for name in MODULES if name != "credibly"} <= set(LEVEL)


def test_imports_point_down() -> None:
    edges = [(one, other) for one, other in EDGES if other != "credibly"]
    upward = [edge for edge in edges if LEVEL[part(edge[0])] < LEVEL[part(edge[1])]]
    forbidden = [edge for edge in edges if (part(edge[0]), part(edge[1])) in FORBIDDEN]
    assert len(edges) > 50
    assert upward == []
    assert forbidden == []


@pytest.mark.parametrize("whole", FOLDERS)
def test_the_folders_of_a_part_import_one_way(whole: str) -> None:
    levels = {name: level for level, names in enumerate(FOLDERS[whole]) for name in names}
    inner = {name: name.split(".")[2] for name in MODULES if name.startswith(f"credibly.{whole}.")}
    edges = [(one, other) for one, other in EDGES if one in inner and other in inner]
    wrong = [
        (one, other)
        for one, other in edges
        if inner[one] != inner[other] and levels[inner[one]] <= levels[inner[other]]
    ]
    assert set(inner.values()) == set(levels)
    assert len(edges) > 50
    assert wrong == []


def test_imports_have_no_cycle() -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name not in finished:
            for other in OWN[name]:
                if other not in (name, "credibly"):
                    visit(other, (*path, name))
            finished.add(name)

    for name in MODULES:
        visit(name, ())


def test_torch_is_not_imported_on_the_numpy_side() -> None:
    files = {name: file for name, file in MODULES.items() if name == "credibly" or part(name) in TORCH_FREE}
    heavy = {"torch", "transformers", "peft", "accelerate"}
    assert {
        name for name, file in files.items() if heavy & {other.split(".")[0] for other in imported(file)}
    } == set()


def test_the_numpy_side_and_the_command_line_import_without_torch() -> None:
    names = [name for name in MODULES if name == "credibly" or part(name) in TORCH_FREE] + ANSWERING
    program = "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n" + "".join(
        f"import {name}\n" for name in names if not name.endswith("__main__")
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(credibly.__all__) == [
        "CrediblyError", "EnsembleClassifier", "Examples", "Predictions", "Recipe", "Run",
        "combine", "decompose", "evaluate", "fit", "load",
    ]  # fmt: skip
    for name in credibly.__all__:
        assert getattr(credibly, name).__name__ == name


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.py")), ids=lambda file: file.stem)
def test_benchmarks_import_what_is_there(file):
    """Also inside functions, which run only where somebody measures."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("credibly"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
