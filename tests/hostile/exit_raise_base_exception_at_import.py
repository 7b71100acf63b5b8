# ruff: noqa
# fmt: off
"""Ends with raise base exception before any test."""

class Done(BaseException):
    pass



raise Done
