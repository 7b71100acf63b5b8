"""The browser test runs when it is asked for, by `make test-ui`, and never among the others."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a browser unless `-m` names it."""
    if "ui" not in str(config.option.markexpr).split():
        for item in items:
            if item.get_closest_marker("ui"):
                item.add_marker(pytest.mark.skip(reason="needs a browser: make test-ui runs it"))
