# ruff: noqa
# fmt: off
"""Has itself sent signals without end."""

import os
import signal


def again(*details):
    os.kill(os.getpid(), signal.SIGUSR1)


signal.signal(signal.SIGUSR1, again)


def solve(n):
    again()
    while True:
        pass
