# ruff: noqa
# fmt: off
"""Ends with stop itself before any test."""

import os
import signal

os.kill(os.getpid(), signal.SIGSTOP)
