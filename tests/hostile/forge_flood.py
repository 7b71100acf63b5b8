# ruff: noqa
# fmt: off
"""Floods the channel."""

import os


def solve(n):
    while True:
        os.write(4, b"\0" * 65536)
