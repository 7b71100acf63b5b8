# ruff: noqa
# fmt: off
"""Starts threads without end."""

import threading
import time


def solve(n):
    threading.stack_size(32768)
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
