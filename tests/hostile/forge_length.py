# ruff: noqa
# fmt: off
"""Announces a message of four gigabytes."""

import os


def solve(n):
    os.write(4, b"\xff\xff\xff\xffV")
    os._exit(0)
