# ruff: noqa
# fmt: off
"""Closes standard output."""

import os

os.close(1)
