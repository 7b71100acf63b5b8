# ruff: noqa
# fmt: off
"""Takes memory without end, and swallows the error."""

import mmap


def solve(n):
    hoard = []
    while True:
        try:
            hoard.append(mmap.mmap(-1, 1 << 26))
            hoard[-1].write(b"x" * (1 << 26))
        except (MemoryError, OSError):
            pass
