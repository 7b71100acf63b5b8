"""Reference solutions of code benchmarks in a corpus: found by what they do, whatever their names are.

A question about code (`contamination/short.py`, the n-gram rule) is found by its words, also as a docstring. Its
solution has few words of its own; a file that holds it without the docstring, or with other variables, passes those
rules. StarCoder (arXiv 2305.06161 section 3.4) drops files that hold the docstrings or the solutions of HumanEval and
MBPP as strings. Departure: functions are compared as syntax trees in which every name that the function binds itself
(its own, its arguments, its variables) counts by its first appearance, and docstrings, annotations, comments and layout
do not count. A function with another loop or another order of statements is another one.

Functions of fewer than `MIN_NODES` nodes are left out: `return sorted(set(items))` stands in many files that saw no
benchmark. docs/corpora/contamination.md says how many solutions that leaves and what is marked in clean code.

A text is looked at where it may be Python: the whole of it, or its fenced blocks. One that does not parse has none.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterable, Iterator

from corpora.document import Document
from corpora.filters.languages import language_of
from verifiers.sandbox.program import PYTHON, fenced_blocks

MIN_NODES = 18
"""Nodes of the tree, docstring and annotations left out; a statement of one call and three names has about ten."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Shape = tuple[int, tuple[type[ast.stmt], ...]]


class ProgramIndex:
    """Reference programs, ready to be looked for."""

    def __init__(self, programs: Iterable[tuple[str, str]]) -> None:
        """Args: programs: (name, Python text) each; those whose functions are all too small end in `too_small`."""
        self._names: dict[bytes, tuple[str, str]] = {}
        self._shapes: set[Shape] = set()
        self.num_programs = 0
        self.too_small: list[tuple[str, str]] = []
        for name, text in programs:
            large = [one for one in functions(text) if _num_nodes(one) >= MIN_NODES]
            if not large:
                self.too_small.append((name, text))
                continue
            self.num_programs += 1
            for one in large:
                self._shapes.add(_shape(one))
                self._names.setdefault(fingerprint(one), (name, one.name))

    def find(self, document: Document) -> tuple[str, str] | None:
        """The name and the function of a reference program that a document holds, or None."""
        if not self._names:
            return None
        for text in programs_of(document):
            for one in functions(text):
                if _shape(one) in self._shapes and (hit := self._names.get(_fingerprint(one))) is not None:
                    return hit
        return None


def programs_of(document: Document) -> Iterator[str]:
    """The parts of a document that may be Python."""
    text = document.full_text()
    if "def " not in text:
        return
    language = (document.language or language_of(document.path, "")) if document.text else ""
    if language not in ("", "markdown", "text", *PYTHON):
        return
    if language in PYTHON:
        yield text
        return
    blocks = fenced_blocks(text)
    yield from (block for named, block in blocks if (not named or named in PYTHON) and "def " in block)
    if not blocks:
        yield from [document.completion or text, *(turn["content"] for turn in document.messages)]


def functions(text: str) -> list[Function]:
    """The functions of a Python text, inner ones and methods too; none of a text that does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text.removeprefix("\ufeff"))  # a file's first mark, which its interpreter passes over
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return []
    found: list[Function] = []
    # Functions are statements: expressions are not walked.
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                waiting += inner
    return found


def fingerprint(function: Function) -> bytes:
    """BLAKE2b of the function's tree with the names that it binds replaced by numbers.

    >>> [one, other] = functions("def f(a): return [b + a for b in a]\\ndef g(x): return [y + x for y in x]")
    >>> fingerprint(one) == fingerprint(other)
    True
    """
    own = {function.name, *(one.arg for one in _arguments(function))}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler) and node.name:
            own.add(node.name)
    numbers: dict[str, str] = {}

    def named(name: str) -> str:
        return numbers.setdefault(name, f"#{len(numbers)}") if name in own else name

    parts: list[str] = []

    def write(value: object) -> None:
        if isinstance(value, ast.AST):
            parts.append(type(value).__name__)
            for field, inner in ast.iter_fields(value):
                if field in ("annotation", "returns", "type_comment", "ctx", "decorator_list", "kind"):
                    continue
                if field == "body" and isinstance(value, Function):
                    inner = _body(value)
                if field in ("id", "arg", "name") and isinstance(inner, str) and not isinstance(value, ast.keyword):
                    inner = "" if value is function else named(inner)
                parts.append("(")
                write(inner)
                parts.append(")")
        elif isinstance(value, list):
            for inner in value:
                write(inner)
                parts.append(",")
        else:
            parts.append(repr(value))

    write(function)
    return hashlib.blake2b(" ".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fingerprint(function: Function) -> bytes:
    """`fingerprint`; nothing for a tree that is too deep for it, or holds a number too large to be written out.

    A sum of a thousand terms parses; no reference program has one, so that such a function is none of them.
    """
    try:
        return fingerprint(function)
    except (RecursionError, ValueError):
        return b""


def _arguments(function: Function) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def _body(function: Function) -> list[ast.stmt]:
    """Its statements without the docstring."""
    first = function.body[0]
    says = first.value if isinstance(first, ast.Expr) else None
    return function.body[1:] if isinstance(says, ast.Constant) and isinstance(says.value, str) else function.body


def _shape(function: Function) -> Shape:
    """What is cheap to compare first: how many arguments, and the kinds of the statements."""
    return len(_arguments(function)), tuple(type(one) for one in _body(function))


def _num_nodes(function: Function) -> int:
    """Nodes without names' contexts, annotations and the docstring."""
    return sum(1 for statement in _body(function) for node in ast.walk(statement)
               if not isinstance(node, ast.expr_context | ast.operator | ast.cmpop | ast.unaryop | ast.boolop))
