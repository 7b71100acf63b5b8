"""Rewrites of a completion's program that leave what it does as it is: comments, layout, names of local variables.

Names are only changed in functions that have no functions, classes or lambdas inside, and only those that the function
assigns itself, so that no scope can be mistaken. A program that looks at its own names or source is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from verifiers.certify import texts

SUFFIX = "_renamed"
_SEES_NAMES = frozenset(("locals", "vars", "eval", "exec", "globals", "dir", "inspect", "__code__"))


def commented(completion: str) -> str | None:
    """A comment before and after the program."""
    return _with_program(completion, lambda source: f"# First the program.\n{source.rstrip()}\n# That is all.\n")


def laid_out(completion: str) -> str | None:
    """The program as `ast.unparse` writes it."""

    def unparsed(source: str) -> str | None:
        tree = texts.tree_of(source)
        return None if tree is None else ast.unparse(tree)

    return _with_program(completion, unparsed)


def renamed(completion: str) -> str | None:
    """Other names for the local variables of plain functions."""

    def with_other_names(source: str) -> str | None:
        tree = texts.tree_of(source)
        if tree is None or _SEES_NAMES & {name for node in ast.walk(tree) for name in _names(node)}:
            return None
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        changed = [_rename_locals(function) for function in functions]
        return ast.unparse(tree) if any(changed) else None

    return _with_program(completion, with_other_names)


def local_names(function: ast.FunctionDef) -> set[str]:
    """Names that a function assigns and that nothing else can mean; empty for a function with scopes inside."""
    inside = [node for part in function.body for node in ast.walk(part)]
    if any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)) for node in inside):
        return set()
    stored = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    other: set[str] = set()
    for node in inside:
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            other |= set(node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            other.add(node.name)
        elif isinstance(node, ast.alias):
            other.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
            other.add(node.name)
    return stored - arguments - other


def _rename_locals(function: ast.FunctionDef) -> bool:
    names = local_names(function)
    for part in function.body:
        for node in ast.walk(part):
            if isinstance(node, ast.Name) and node.id in names:
                node.id += SUFFIX
    return bool(names)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []


def _with_program(completion: str, change: Callable[[str], str | None]) -> str | None:
    span = texts.program(completion)
    new = None if span is None else change(completion[slice(*span)])
    return None if span is None or new is None else texts.put(completion, span, new)
