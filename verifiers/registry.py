"""Which verifiers there are: the entry-point group `derivative_factory.verifiers`, and the ones built in.

A plugin is any installed distribution with an entry point in that group, whose value names a class that is
constructed without arguments (see `verifiers/README.md`). The built-in ones are known here too, so that a plain
checkout on PYTHONPATH works without installation.

`identity(name)` is what a run's lineage records of a verifier: name, version, and a digest of its source. The digest
covers the syntax trees of its module and of everything it imports from the same top-level package, without docstrings
and comments, so that it changes when judging may change and not when a comment does. Third-party libraries are not
covered; a verifier whose judgement depends on one names that library's version in its own `version`.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path

from configs.errors import UserError
from verifiers.api import Verifier

GROUP = "derivative_factory.verifiers"
BUILT_IN = {
    "math": "verifiers.math:MathVerifier",
    "format": "verifiers.format:FormatVerifier",
    "choice": "verifiers.choice:ChoiceVerifier",
    "code": "verifiers.code:CodeVerifier",
    "code_hidden": "verifiers.code_hidden:CodeHiddenVerifier",
    "exact": "verifiers.exact:ExactVerifier",
    "instructions": "verifiers.instructions:StrictInstructions",
    "instructions_loose": "verifiers.instructions:LooseInstructions",
    "puzzles": "verifiers.puzzles:PuzzleVerifier",
    "think_math": "verifiers.think_math:think_math",
    "think_puzzles": "verifiers.think_puzzles:think_puzzles",
}


def names() -> list[str]:
    """Names of all verifiers that can be loaded, sorted."""
    return sorted(_targets())


def check_name(name: str) -> None:
    """Raises UserError with the nearest name when there is no such verifier. Imports nothing."""
    _target(name)


@functools.cache
def load_verifier(name: str) -> Verifier:
    """The verifier with this name. Raises UserError when there is none, or when it cannot be imported."""
    target = _target(name)
    module_name, _, attribute = target.partition(":")
    try:
        verifier = getattr(importlib.import_module(module_name), attribute)()
    except Exception as error:
        raise UserError(f"verifier: {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}; "
                        "mend or uninstall the distribution that offers it") from error
    if not isinstance(verifier, Verifier):
        raise UserError(f"verifier: {name!r} ({target}) has no name, version or judge(task, completion); "
                        "see verifiers/README.md")
    return verifier


@functools.cache
def identity(name: str) -> dict[str, str]:
    """Name, version and source digest of a verifier, for the lineage of whatever it judged."""
    verifier = load_verifier(name)
    module_name = _target(name).partition(":")[0]
    return {"name": name, "version": str(verifier.version), "source": source_digest(module_name)}


def source_digest(module_name: str) -> str:
    """Digest of a module's meaning: its syntax tree and those of its package's modules that it imports, in turn."""
    package = module_name.partition(".")[0]
    pending, trees = [module_name], {}
    while pending:
        current = pending.pop()
        path = None if current in trees else _source_path(current)
        if path is None:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        pending += [found for found in _imports(tree, current) if found.partition(".")[0] == package]
        trees[current] = ast.dump(_without_docstrings(tree))
    digest = hashlib.sha256()
    for current in sorted(trees):
        digest.update(f"{current}\0{trees[current]}\0".encode())
    return digest.hexdigest()


def _targets() -> dict[str, str]:
    targets = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        if targets.setdefault(point.name, point.value) != point.value:
            raise UserError(f"verifier: the name {point.name!r} is offered by both {targets[point.name]} and "
                            f"{point.value}; rename the entry point of one, or uninstall it")
    return targets


def _target(name: str) -> str:
    targets = _targets()
    if name not in targets:
        near = difflib.get_close_matches(name, targets, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"verifier: {name!r} is not known; allowed: {', '.join(sorted(targets))}{hint}")
    return targets[name]


def _source_path(module_name: str) -> Path | None:
    """Where a module's source lies; None for what is not a module (an imported name) or has no source."""
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _imports(tree: ast.Module, module_name: str) -> list[str]:
    """Absolute names that a module may import; `from a import b` gives both `a` and `a.b`."""
    found: list[str] = []
    path = _source_path(module_name)
    is_package = path is not None and path.name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module_name.split(".")
                parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            found.append(base)
            found += [f"{base}.{alias.name}" for alias in node.names]
    return [name for name in found if name]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(part: ast.stmt) -> bool:
    """A string that stands alone: a docstring, of a constant too."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
