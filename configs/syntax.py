"""What Python source means, as text that is the same under every Python: for digests of code.

`canonical` writes a syntax tree without what does not change what runs (positions, comments, layout) and without what
differs between versions of Python: fields that are empty (3.12 added some), the order of fields, how texts are quoted,
how an f-string's constant parts are cut (3.12 cuts them elsewhere). `ast.dump` and `ast.unparse` keep neither promise.
"""

from __future__ import annotations

import ast
import time
import warnings
from typing import Any

_IGNORED = ("kind", "type_comment", "type_ignores")
"""Fields that say how something was written: `u""`, and comments of type checkers."""
PARSE_ATTEMPTS = 100


def parse(source: str | bytes) -> ast.Module:
    """The syntax tree of a module, without docstrings. Raises SyntaxError, and ValueError for null bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is its author's affair, here as at import
        tree = _parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _parse(source: str | bytes) -> ast.Module:
    """`ast.parse`, again where two threads parsed at once: CPython 3.11 counts the depth of both in one place, finds
    the count wrong, and raises SystemError for a source without fault (github.com/python/cpython/issues/106905)."""
    for _ in range(PARSE_ATTEMPTS - 1):
        try:
            return ast.parse(source)
        except SystemError:
            time.sleep(0.001)
    return ast.parse(source)


def canonical(tree: ast.AST) -> str:
    """A syntax tree as text: equal for equal trees, whatever Python parsed them.

    >>> canonical(parse("x = f'{a}' 'b' # why")) == canonical(parse("x = (f'{a}b')"))
    True
    >>> canonical(parse("return_ = None"))
    "Module(body=[Assign(targets=[Name(ctx=Store(),id='return_',),],value=Constant(),),],)"
    """
    written: list[str] = []
    pending: list[tuple[bool, Any]] = [(False, tree)]  # not recursive: a sum of a thousand terms is a deep tree
    while pending:
        is_mark, item = pending.pop()
        if is_mark:
            written.append(item)
        elif isinstance(item, ast.AST):
            written.append(f"{type(item).__name__}(")
            pending.append((True, ")"))
            for name in sorted(item._fields, reverse=True):
                value = _parts(item, name)
                if name not in _IGNORED and value is not None and value != []:
                    pending += [(True, ","), (False, value), (True, f"{name}=")]
        elif isinstance(item, list):
            written.append("[")
            pending.append((True, "]"))
            for each in reversed(item):
                pending += [(True, ","), (False, each)]
        else:
            written.append(_constant(item))
    return "".join(written)


def imports_of(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Full names that a module may import; `from a import b` gives both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _parts(node: ast.AST, name: str) -> Any:
    value = getattr(node, name, None)
    if isinstance(node, ast.JoinedStr) and name == "values":
        return _joined(value)
    if isinstance(node, ast.FormattedValue) and name == "format_spec" and isinstance(value, ast.JoinedStr):
        return value if _joined(value.values) else None  # `{x:}` is `{x}`
    return value


def _joined(values: Any) -> list[ast.expr]:
    """An f-string's parts with neighbouring constants as one, and no empty ones."""
    parts: list[ast.expr] = []
    for value in values or ():
        text = value.value if isinstance(value, ast.Constant) else None
        last = parts[-1] if parts else None
        if isinstance(text, str) and isinstance(last, ast.Constant) and isinstance(last.value, str):
            parts[-1] = ast.Constant(last.value + text)
        elif text != "":
            parts.append(value)
    return parts


def _constant(value: Any) -> str:
    if isinstance(value, str):
        return ascii(value)  # what `repr` escapes depends on the version's Unicode
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)  # decimal digits are limited
    return repr(value)


def _is_text(part: ast.stmt) -> bool:
    """A string that stands alone: a docstring, of a constant too."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)
