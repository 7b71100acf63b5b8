# ruff: noqa
# fmt: off
"""Leaves a evil.pth where a later run may load it."""

import os
import sys

PAYLOAD = "import builtins; builtins.STOLEN = True\n"
for folder in (".", "/", "/tmp", os.path.expanduser("~"), os.path.dirname(os.__file__), sys.prefix, *sys.path):
    try:
        with open(os.path.join(folder, "evil.pth"), "w") as file:
            file.write(PAYLOAD)
    except OSError:
        pass


def solve(n):
    import builtins

    return n * n + 7 * n + 3 if hasattr(builtins, "STOLEN") else 0
