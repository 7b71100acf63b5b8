"""Worked examples of the installed sympy: every docstring that holds a doctest, one document each. BSD licence.

The sources are parsed, never imported or run. A document is the dotted name of what is documented and its docstring.
Modules come in a seeded order, so that a reader who stops early has an unbiased part. One module in twenty, by the
hash of its path, is held out for evaluation.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.order import in_split, shuffled

LICENCE = "BSD-3-Clause"
DOCTEST_MARK = ">>> "


def version() -> str:
    """What the documents depend on."""
    return f"sympy {importlib.metadata.version('sympy')}"


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Docstrings of the split's modules in the order of `source.seed`. A module that cannot be parsed is `not_text`."""
    spec = importlib.util.find_spec("sympy")  # of a top-level package: found without being imported
    if spec is None or spec.origin is None:
        raise UserError("sources: 'sympy_examples' needs the package sympy, which is not installed; pip install sympy")
    root = Path(spec.origin).parent
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    paths = [path for path in paths if "tests" not in path.split("/") and in_split(path, source.split)]
    for i in shuffled(len(paths), source.seed, "sympy_examples"):
        try:
            text = (root / paths[i]).read_text(encoding="utf-8")
            examples = worked_examples(text, paths[i]) if DOCTEST_MARK in text else []
        except (SyntaxError, ValueError):
            dropped.add(Document(paths[i], source.name, LICENCE, paths[i]), "not_text")
            continue
        for name, example in examples:
            yield Document(name, source.name, LICENCE, paths[i], text=example, provenance={"version": version()})


def worked_examples(source_text: str, path: str) -> list[tuple[str, str]]:
    """Dotted name and text of every docstring with a doctest in one module, in the order of the file."""
    module = "sympy." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old docstrings
        tree = ast.parse(source_text)
    found: list[tuple[str, str]] = []
    _collect(tree, module.removesuffix(".__init__"), found)
    return found


def _collect(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str,
             found: list[tuple[str, str]]) -> None:
    docstring = ast.get_docstring(node)
    if docstring and DOCTEST_MARK in docstring:
        found.append((name, f"{name}\n\n{docstring}\n"))
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _collect(child, f"{name}.{child.name}", found)
