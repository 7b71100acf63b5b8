# ruff: noqa
# fmt: off
"""Hangs in the result's own methods."""

class Slow(list):
    def __iter__(self):
        while True:
            pass

    __len__ = __bool__ = __eq__ = __iter__


def solve(n):
    return Slow()
