# ruff: noqa
# fmt: off
"""Writes a file without end."""

def solve(n):
    with open("large", "wb") as file:
        while True:
            file.write(b"x" * (1 << 20))
