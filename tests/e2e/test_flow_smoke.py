"""math/smoke from base to release through the real command line, stages and store; then again, with nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def derive(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DERIVE_STORE": str(store), "DERIVE_MACHINE": "cpu"}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_smoke_preset_is_released_and_a_second_run_reuses_all_of_it_in_20_seconds(tmp_path: Path) -> None:
    done = derive(tmp_path / "store", "run", "math/smoke", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)
    assert [stage["status"] for stage in record["stages"]] == ["completed"] * len(record["stages"])
    assert set(record["metrics"]["pass@1"]) == {"base", "sft", "rl"}
    assert record["metrics"]["overlap"]["shared"] == 0
    release = Path(record["release"])
    assert {"config.json", "model.safetensors", "README.md", "lineage.json"} <= {
        path.name for path in release.iterdir()
    }
    lineage = json.loads((release / "lineage.json").read_text())
    assert [stage["id"] for stage in lineage["stages"]] == [stage["id"] for stage in record["stages"][:-1]]
    assert Path(record["report"]).stat().st_size > 10_000

    began = time.monotonic()
    again = derive(tmp_path / "store", "run", "math/smoke", "--json")
    assert time.monotonic() - began < 20
    assert all(stage["reused"] for stage in json.loads(again.stdout)["stages"])
    assert json.loads(derive(tmp_path / "store", "verify", "--json").stdout)["problems"] == []
