# ruff: noqa
# fmt: off
"""Ends with raise generator exit before any test."""

raise GeneratorExit
