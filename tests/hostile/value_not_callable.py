# ruff: noqa
# fmt: off
"""Has a constant in the function's place."""

solve = True
