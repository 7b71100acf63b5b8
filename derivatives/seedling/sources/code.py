"""Python sources and docstrings as installed: the standard library and permissively licensed packages.

Files are read where the interpreter and the packages are installed. Test folders and very long lines are
left out. A document is a window of one file, cut at line ends; one in four is a docstring alone.
"""

import ast
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

# Package -> licence. Sources are read as installed; what is not installed is passed over.
PACKAGES = {
    "sympy": "BSD-3-Clause", "mpmath": "BSD-3-Clause", "numpy": "BSD-3-Clause", "torch": "BSD-3-Clause",
    "networkx": "BSD-3-Clause", "jinja2": "BSD-3-Clause", "fsspec": "BSD-3-Clause", "click": "BSD-3-Clause",
    "rich": "MIT", "pydantic": "MIT", "attr": "MIT",
}  # fmt: skip
SKIPPED_FOLDERS = {
    "tests",
    "test",
    "testing",
    "_vendor",
    "site-packages",
    "idlelib",
    "lib2to3",
    "_inductor",
    "rules",
}
MAX_LINE_CHARS = 200
MIN_CHARS, MAX_CHARS = 300, 2400


def roots() -> list[Path]:
    found = [Path(sysconfig.get_paths()["stdlib"])]
    for package in PACKAGES:
        spec = find_spec(package)
        if spec and spec.submodule_search_locations:
            found.append(Path(spec.submodule_search_locations[0]))
    return found


@cache
def files() -> tuple[tuple[Path, ...], ...]:
    """Python files of each root, in a stable order."""
    listing = []
    for root in roots():
        paths = (p for p in sorted(root.rglob("*.py")) if not SKIPPED_FOLDERS & set(p.relative_to(root).parts))
        listing.append(tuple(path for path in paths if MIN_CHARS < path.stat().st_size < 400_000))
    return tuple(listing)


@cache
def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def docstrings(path: Path) -> tuple[str, ...]:
    try:
        tree = ast.parse(text_of(path))
    except (SyntaxError, ValueError):
        return ()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return tuple(text[:MAX_CHARS] for text in found if text and len(text) >= MIN_CHARS)


def document(rng: Random) -> str:
    """A window of a source file, or a docstring."""
    while True:
        path = rng.choice(rng.choice(files()))
        if rng.random() < 0.25 and docstrings(path):
            return rng.choice(docstrings(path))
        lines = text_of(path).splitlines(keepends=True)
        start = rng.randrange(max(1, len(lines) - 8)) if rng.random() < 0.8 else 0
        window, num_chars, limit = [], 0, rng.randint(MIN_CHARS, MAX_CHARS)
        for line in lines[start:]:
            num_chars += len(line)
            if num_chars > limit:
                break
            window.append(line)
        if window and max(map(len, window)) <= MAX_LINE_CHARS and sum(map(len, window)) >= MIN_CHARS:
            return "".join(window).rstrip()
