# ruff: noqa
# fmt: off
"""Takes memory without end."""

def solve(n):
    hoard = []
    while True:
        hoard.append(bytearray(1 << 24))
