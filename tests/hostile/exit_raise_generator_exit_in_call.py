# ruff: noqa
# fmt: off
"""Ends with raise generator exit when it is called."""

def solve(n):
    raise GeneratorExit
