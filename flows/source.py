"""What a stage's code is: the modules of this project that its command imports, reduced to their meaning.

The closure is read from syntax trees, without importing anything: a flow process never loads torch. Imports
inside functions count too. Each module's tree counts without docstrings, comments, and the `description` of
configuration fields, so that explaining better rebuilds nothing, and neither does another version of Python.

Not covered: code that is found by a name at run time (verifiers are, and have an identity of their own), and
third-party packages (their versions are in every manifest).
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from configs.errors import UserError
from configs.syntax import canonical, imports_of, parse

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("configs", "verifiers", "corpora", "derivatives", "flows")


def closure(module: str) -> dict[str, str]:
    """Module name -> sha256 of its meaning, for `module` and all that it imports from this project, in turn.

    Raises:
        UserError: when the project has no such module.
    """
    if module_path(module) is None:
        raise UserError(f"stage command: the module {module} is not in {ROOT}; install the project completely")
    found: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = None if name in found else module_path(name)
        if path is None:
            continue
        facts = path.stat()
        found[name], imported = _read(path, name, facts.st_mtime_ns, facts.st_size)
        parents = [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
        pending += [each for each in (*parents, *imported) if each.partition(".")[0] in PACKAGES]
    return dict(sorted(found.items()))


def module_path(module: str) -> Path | None:
    """The file of a module below the project's root; None for what is none."""
    stem = ROOT.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


def meaning(text: str) -> str:
    """Python source without what does not change what it does: comments, layout, docstrings, field descriptions.

    The text is no source any more, and is the same under every Python (`configs/syntax.py`).
    """
    tree = parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [word for word in node.keywords if word.arg != "description"]
    return canonical(tree)


@functools.cache
def _read(path: Path, module: str, _changed_ns: int, _size: int) -> tuple[str, tuple[str, ...]]:
    """Meaning and imports of one module; the last two arguments only tell the cache that the file changed."""
    text = path.read_text(encoding="utf-8")
    imported = imports_of(parse(text), module, path.name == "__init__.py")
    return hashlib.sha256(meaning(text).encode()).hexdigest(), tuple(sorted(imported))
