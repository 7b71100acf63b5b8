# ruff: noqa
# fmt: off
"""Ends with abort when it is called."""

import os


def solve(n):
    os.abort()
