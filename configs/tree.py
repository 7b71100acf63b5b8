"""Refuses to start when the five packages do not come from one folder.

`verifiers` is also the name of a package on PyPI, and `configs` of many a folder: with one of them earlier on the
path, the factory would run half its own code and half a stranger's. The packages are only looked up, not imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from configs.errors import UserError

PACKAGES = ("configs", "verifiers", "corpora", "derivatives", "flows")


def check_one_tree(packages: tuple[str, ...] = PACKAGES) -> Path:
    """The folder that holds all five packages.

    Raises:
        UserError: One is missing or lies elsewhere; names it and both places.
    """
    home = Path(__file__).resolve().parent.parent
    for package in packages:
        folder = _folder_of(package)
        if folder is None:
            raise UserError(f"package {package}: not found beside {home / 'configs'}; all of {', '.join(packages)} "
                            "must come from one folder; install the project again")
        if folder.parent != home:
            raise UserError(f"package {package}: found in {folder}, but configs in {home / 'configs'}; all of "
                            f"{', '.join(packages)} must come from one folder; uninstall the other {package!r} "
                            f"(pip uninstall {package}) or put {home} first on PYTHONPATH")
    return home


def _folder_of(package: str) -> Path | None:
    loaded = sys.modules.get(package)
    spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(package)
    if spec is None:
        return None
    places = [str(Path(spec.origin).parent)] if spec.origin else list(spec.submodule_search_locations or [])
    return Path(places[0]).resolve() if places else None
