# ruff: noqa
# fmt: off
"""Hangs before any test."""

import time

time.sleep(600)


def solve(n):
    return 0
