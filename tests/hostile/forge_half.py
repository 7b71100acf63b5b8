# ruff: noqa
# fmt: off
"""Sends half a message and waits."""

import os
import time


def solve(n):
    os.write(4, b"\0\0\0\x20V\0\0\0\1i")
    time.sleep(60)
