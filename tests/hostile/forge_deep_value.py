# ruff: noqa
# fmt: off
"""Sends a value of a hundred thousand nested lists."""

import os


def solve(n):
    content = b"V" + (1).to_bytes(4, "big") + b"l\0\0\0\1" * 100_000 + b"N"
    data = len(content).to_bytes(4, "big") + content
    while data:
        data = data[os.write(4, data) :]
    os._exit(0)
