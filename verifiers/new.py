"""`derive verifiers new NAME`: the package of a new verifier, ready to be installed and changed.

    NAME/
      pyproject.toml              names the verifier to the factory
      README.md                   what to do next
      NAME_verifier/__init__.py   the function `verify`
      NAME_verifier/cases.jsonl   completions whose verdict is known
      tests/test_cases.py         runs them

The package is not called NAME itself: an `import` from the folder above would find the folder instead.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from configs.errors import UserError
from verifiers import registry

TEMPLATES = Path(__file__).resolve().parent / "templates"
FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "__PACKAGE__/__init__.py": "verifier.py.txt",
    "__PACKAGE__/cases.jsonl": "cases.jsonl.txt",
    "tests/test_cases.py": "test_cases.py.txt",
}
"""Files of the package, with their templates."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def write_package(name: str, folder: Path | None = None) -> Path:
    """Write the package of a verifier; its folder appears when it is whole.

    Args:
        name: Name of the verifier.
        folder: The package's folder, which must not exist; by default one called as the verifier.

    Raises:
        UserError: for a name that cannot be used, or a folder that exists or cannot be made.
    """
    check_new_name(name)
    target = folder or Path(name)
    if os.path.lexists(target):
        raise UserError(f"--folder: {target} exists; give a new folder, or remove it")
    words = {
        "__NAME__": name,
        "__PACKAGE__": package_of(name),
        "__DISTRIBUTION__": package_of(name).replace("_", "-"),
        "__FOLDER__": shlex.quote(str(target)),
    }
    draft = target.absolute().parent / f".{name}.partial-{os.getpid()}"
    try:
        draft.mkdir()
    except OSError as error:
        raise UserError(f"--folder: {target}: {error.strerror}; make {target.absolute().parent}, or give another "
                        "folder") from error
    try:
        for path, template in FILES.items():
            made = draft / _filled(path, words)
            made.parent.mkdir(exist_ok=True)
            made.write_text(_filled((TEMPLATES / template).read_text(encoding="utf-8"), words), encoding="utf-8")
        os.rename(draft, target)
    except OSError as error:
        raise UserError(f"--folder: {target}: {error.strerror}; give another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def package_of(name: str) -> str:
    """Name of the Python package of a verifier."""
    return f"{name}_verifier"


def check_new_name(name: str) -> None:
    """Raises UserError when no verifier may be given this name; says why."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UserError(f"NAME: {name!r} is no name; allowed: up to 40 of a-z, 0-9 and _, a letter first, and no word "
                        "of Python")
    if name in registry.names():
        raise UserError(f"NAME: {name!r} is taken by a verifier ({registry.origins(name)}); choose another, or "
                        "uninstall it")
    for each in (name, package_of(name)):
        where = "Python itself" if each in sys.stdlib_module_names else _found(each)
        if where:
            raise UserError(f"NAME: {each!r} is the name of a module already ({where}); choose another")


def _found(module: str) -> str:
    """Where a top-level module is installed; empty for none. A mere folder is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return spec.origin or "" if spec is not None else ""


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text

