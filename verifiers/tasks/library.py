"""Files of the running interpreter's standard library, and which of them are held out.

One file in `HELD_OUT_ONE_IN`, by the hash of its path, is kept for evaluation: corpora leave it out
(`corpora/sources/python_stdlib.py`), and fill-in-the-middle tasks are cut from it (`verifiers/tasks/fim.py`).
Tests, generated build settings and bundled wheels are left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

HELD_OUT_ONE_IN = 20
"""Share of a text source that is kept for evaluation."""
LEFT_OUT_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled"})
LEFT_OUT_PREFIXES = ("_sysconfigdata", "config-")
"""The build settings of this very machine, with its paths."""


def in_split(name: str, split: str) -> bool:
    """Whether a named part of a text source (a file's relative path) belongs to the split: train, heldout or all."""
    if split == "all":
        return True
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    held_out = int.from_bytes(digest, "little") % HELD_OUT_ONE_IN == 0
    return held_out == (split != "train")


def source_files(root: Path) -> list[str]:
    """Paths of the library's own modules below `root`, sorted, with forward slashes."""
    found = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        generated = any(part.startswith(LEFT_OUT_PREFIXES) for part in relative.parts)
        if LEFT_OUT_FOLDERS.isdisjoint(relative.parts) and not generated:
            found.append(relative.as_posix())
    return sorted(found)
