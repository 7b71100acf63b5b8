# ruff: noqa
# fmt: off
"""Prints the right answer, then ends with a status of its own."""

import sys

n = int(input())
print(n * n + 7 * n + 3)
sys.exit(3)
