# ruff: noqa
# fmt: off
"""Announces a message shorter than its head."""

import os


def solve(n):
    os.write(4, b"\0\0\0\0V\0\0\0\1")
    os._exit(0)
