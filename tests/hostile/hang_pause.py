# ruff: noqa
# fmt: off
"""Hangs: pause."""

def solve(n):
    import signal

    signal.pause()
