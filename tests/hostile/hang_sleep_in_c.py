# ruff: noqa
# fmt: off
"""Hangs: sleep in c."""

def solve(n):
    import ctypes

    ctypes.CDLL(None).sleep(600)
