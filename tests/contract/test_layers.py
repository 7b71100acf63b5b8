"""Each folder imports only from those to its left, and heavy libraries stay in their place. Read from syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.source import PACKAGES, imports_of

ROOT = Path(__file__).parents[2]
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


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


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_from_its_own_folder_and_those_to_its_left(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    to_the_right = set(PACKAGES[PACKAGES.index(package) + 1 :])
    assert top_names(ast.parse(path.read_text()), path) & to_the_right == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.relative_to(ROOT).parts[0] != "flows"], ids=module_of)
def test_prefect_stays_in_flows(path: Path) -> None:
    assert "prefect" not in top_names(ast.parse(path.read_text()), path)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.relative_to(ROOT).parts[0] in PACKAGES[:3]], ids=module_of
)
def test_configs_verifiers_and_corpora_import_no_torch_and_no_transformers_at_import(path: Path) -> None:
    for node in at_import(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert top_names(node, path) & {"torch", "transformers"} == set()


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
