# ruff: noqa
# fmt: off
"""Sends noise."""

import os


def solve(n):
    os.write(4, bytes(range(256)) * 100)
    os._exit(0)
