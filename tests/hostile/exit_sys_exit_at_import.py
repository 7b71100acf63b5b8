# ruff: noqa
# fmt: off
"""Ends with sys exit before any test."""

import sys

sys.exit(0)
