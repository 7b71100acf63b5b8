# ruff: noqa
# fmt: off
"""Prints two answers."""

n = int(input())
print(n * n + 7 * n + 3)
print(0)
