# ruff: noqa
# fmt: off
"""Hangs in an exit handler."""

import atexit
import time

atexit.register(time.sleep, 600)
