"""Shared fixtures: two torch threads, no hub, the data mirror when there is one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs start so, and the processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session")
def data_mirror() -> Path:
    """Folder of the local data mirror; the test is skipped with the reason where there is none."""
    folder = os.environ.get("DERIVE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DERIVE_DATA names no folder with the data mirror (see docs/presets.md)")
    return Path(folder)
