"""What a zygote imports before it forks, so that programs need not each time. Loaded first of all, and only there.

Handlers of forks are left out. `random` would draw a fresh seed in each child and `threading` make its locks anew, a
third of a millisecond together; here every child begins with the same seed, and there is no thread or lock to mend.
"""

from __future__ import annotations

import os

MODULES = (
    "array", "base64", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "queue", "random",
    "re", "statistics", "string", "struct", "textwrap", "threading", "time", "traceback", "typing", "unicodedata",
)  # fmt: skip


def up() -> None:
    """Import them. Never to be called in a process that does anything else."""
    register, os.register_at_fork = os.register_at_fork, lambda **_: None  # type: ignore[assignment]
    try:
        found = {name: __import__(name) for name in MODULES}
    finally:
        os.register_at_fork = register
    found["random"].seed(0)
