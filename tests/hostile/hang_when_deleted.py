# ruff: noqa
# fmt: off
"""Returns at once, but hangs when its result is let go."""

class Slow:
    def __del__(self):
        while True:
            pass


def solve(n):
    return Slow()
