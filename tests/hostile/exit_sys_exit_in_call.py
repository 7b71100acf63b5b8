# ruff: noqa
# fmt: off
"""Ends with sys exit when it is called."""

import sys


def solve(n):
    sys.exit(0)
