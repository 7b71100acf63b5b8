# ruff: noqa
# fmt: off
"""Ends with kill itself before any test."""

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
