# ruff: noqa
# fmt: off
"""Prints the right answer, then hangs."""

n = int(input())
print(n * n + 7 * n + 3, flush=True)
while True:
    pass
