# ruff: noqa
# fmt: off
"""Sends a value that is cut off."""

import os


def solve(n):
    os.write(4, b"\0\0\0\x0aV\0\0\0\1l\0\0\0\x09")
    os._exit(0)
