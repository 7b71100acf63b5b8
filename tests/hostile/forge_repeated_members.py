# ruff: noqa
# fmt: off
"""Sends a set that has every member twice."""

import os


def solve(n):
    os.write(4, b"\0\0\0\x0cV\0\0\0\1S\0\0\0\2NN")
    os._exit(0)
