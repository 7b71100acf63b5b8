# ruff: noqa
# fmt: off
"""Ends with raise keyboard interrupt before any test."""

raise KeyboardInterrupt
