# ruff: noqa
# fmt: off
"""Hangs: lock."""

def solve(n):
    import threading

    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
