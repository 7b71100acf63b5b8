# ruff: noqa
# fmt: off
"""Prints every number there is."""

for number in range(1000):
    print(number)
