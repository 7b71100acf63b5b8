"""Run records as they are read back."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from flows import runs
from flows.store import Store


def saved(store: Store) -> dict[str, Any]:
    record = runs.new_record(load_recipe("math/smoke"), [], "cpu")
    runs.save(store, record)
    return record


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"id": 1, "created": 2, "status": "running", "stages": 5}',
        '{"id": "x", "created": null, "status": "completed", "stages": []}',
        '{"id": "x", "created": "2026", "status": "completed", "stages": [7]}',
    ],
)
def test_a_file_that_is_no_record_is_left_out(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    record = saved(store)
    (tmp_path / "runs" / "foreign.json").write_text(text)
    assert [found["id"] for found in runs.all_runs(store)] == [record["id"]]


def test_a_record_of_a_process_that_is_gone_reads_as_interrupted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert saved(store)["status"] == "running" == runs.all_runs(store)[0]["status"]
    for pid in (os.getpid(), "none", 2**31):  # another start time; no number; no such process
        record = {**saved(store), "process": {"host": socket.gethostname(), "pid": pid, "started": 1}}
        path = tmp_path / "runs" / f"{record['id']}.json"
        path.write_text(json.dumps(record))
        assert runs.find_run(store, record["id"])["status"] == "interrupted"


def test_a_record_that_cannot_be_written_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = Store(tmp_path / "store")
    monkeypatch.setattr(runs, "write_json_atomic", full)
    with pytest.raises(UserError, match=f"--store: {store.root}: the disk is full; free space there and run"):
        runs.save(store, {"id": "a"})
