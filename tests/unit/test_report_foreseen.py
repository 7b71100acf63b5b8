"""The report's comparison of what was planned with what a stage that really ran took."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from derivatives import sft
from flows.report import Stage as ReportedStage
from flows.report import foreseen_row, write_report
from tests.training_fixtures import sft_file, write_checkpoint, write_sums


def test_planned_and_measured_stand_side_by_side(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    described = sft_file(base, write_sums(tmp_path / "sums.jsonl", 8), epochs=1.0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "stage.json").write_text(described.model_dump_json())
    sft.run(described, out)
    entry = {"id": "trained", "kind": "sft", "folder": str(out)}
    measured = json.loads((out / "metrics.json").read_text())["sft/peak_memory_gb"]
    row = foreseen_row(ReportedStage(entry))
    planned, shown, error = row["memory"]
    assert shown == measured
    # Three steps of a model of 20 thousand parameters: hardly more than the libraries.
    assert 0.5 < planned < 0.7 and error == planned / measured - 1
    assert row["speed"][0] is None and row["speed"][1] > 0  # a report times nothing
    page = write_report({"stages": [entry]}, tmp_path).read_text()
    assert "Planned and measured" in page and f"{planned:.2f}" in page and f"{measured:.2f}" in page

    shutil.rmtree(base)  # then its shape is not known any more
    assert foreseen_row(ReportedStage(entry)) == {}
    assert "Planned and measured" not in write_report({"stages": [entry]}, tmp_path).read_text()
