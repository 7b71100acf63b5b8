# ruff: noqa
# fmt: off
"""Ends with raise base exception when it is called."""

class Done(BaseException):
    pass




def solve(n):
    raise Done
