# ruff: noqa
# fmt: off
"""Prints the right answer, then fails."""

n = int(input())
print(n * n + 7 * n + 3)
raise ValueError
