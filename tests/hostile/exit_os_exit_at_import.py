# ruff: noqa
# fmt: off
"""Ends with os exit before any test."""

import os

os._exit(0)
