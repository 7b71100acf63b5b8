"""Each folder imports only from those to its left, and heavy libraries stay in their place. Read from syntax trees."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.source import PACKAGES, imports_of

ROOT = Path(__file__).parents[2]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top_names(tree: ast.AST, path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(tree, module_of(path), path.name == "__init__.py")}


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not inside functions, not only for type checkers."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            pending += getattr(node, field, [])
        for handler in getattr(node, "handlers", []):
            pending += handler.body


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def files_of(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_imports_only_from_itself_and_those_to_its_left(package: str) -> None:
    to_the_right = set(PACKAGES[PACKAGES.index(package) + 1 :])
    wrong = {module_of(path): top_names(tree_of(path), path) & to_the_right for path in files_of(package)}
    assert {module: names for module, names in wrong.items() if names} == {}


def test_prefect_stays_in_flows() -> None:
    files = files_of(*PACKAGES[:4])
    assert [module_of(path) for path in files if "prefect" in top_names(tree_of(path), path)] == []


def test_configs_verifiers_and_corpora_import_no_torch_and_no_transformers_at_import() -> None:
    wrong = [
        module_of(path)
        for path in files_of(*PACKAGES[:3])
        for node in at_import(tree_of(path))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and top_names(node, path) & {"torch", "transformers"}
    ]
    assert wrong == []


def test_a_flow_process_loads_no_torch() -> None:
    heavy = {"torch", "transformers"}
    for path in sorted((ROOT / "flows").glob("*.py")):
        for node in at_import(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert top_names(node, path) & (heavy | {"derivatives"}) == set(), path


def test_the_test_sees_a_wrong_import() -> None:
    tree = ast.parse("if True:\n    from derivatives.training import model")
    assert top_names(tree, ROOT / "configs" / "schema.py") == {"derivatives"}
    assert [type(node) for node in at_import(tree)] == [ast.If, ast.ImportFrom]
