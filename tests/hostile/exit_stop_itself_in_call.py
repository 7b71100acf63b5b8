# ruff: noqa
# fmt: off
"""Ends with stop itself when it is called."""

import os
import signal


def solve(n):
    os.kill(os.getpid(), signal.SIGSTOP)
