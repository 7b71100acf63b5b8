"""What a person sees in Prefect's UI: the form of a preset, the log of a run, its summary."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from prefect.exceptions import FailedRun
from prefect.utilities.callables import parameter_schema
from rich.console import Console

from configs.load import load_recipe, machine_names, preset_names
from flows.board import curve_svg, result_rows, summary_markdown
from flows.derive import AUTO, _tells_news, derive
from flows.serve import describe, server_environment
from flows.terminal import result_table

RESULTS: dict[str, Any] = {
    "models": {
        "base": {"pass@1": {"value": 0.2, "low": 0.1, "high": 0.3, "no_verdict": 0, "total": 40}, "pass@k": None},
        "rl": {
            "pass@1": {"value": 0.5, "low": 0.4, "high": 0.6, "no_verdict": 2, "total": 40},
            "pass@k": {"k": 4, "value": 0.75, "low": 0.5, "high": 0.9},
        },
    },
    "gains": {"rl": {"pass@1": {"value": 0.3, "low": 0.2, "high": 0.4}}},
    "confidence": 0.95,
}


def test_the_form_has_seven_titled_and_explained_fields_in_this_order_and_no_empty_choice() -> None:
    fields = parameter_schema(derive).properties
    ordered = sorted(fields.values(), key=lambda field: field["position"])
    titles = ["Preset", "Base", "Overrides", "Machine", "Stages", "Ask before release", "Dry run"]
    assert [field["title"] for field in ordered] == titles
    assert all(field["description"].endswith(".") for field in ordered)
    assert fields["preset"]["enum"] == preset_names()
    assert fields["machine"]["enum"] == [AUTO, *machine_names()] and fields["machine"]["default"] == AUTO


def test_the_page_asks_the_address_it_was_opened_at(monkeypatch: Any) -> None:
    monkeypatch.delenv("PREFECT_UI_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4321/api")
    environment = server_environment()
    assert environment["PREFECT_UI_API_URL"] == "/api" and "PREFECT_API_URL" not in environment
    monkeypatch.setenv("PREFECT_UI_API_URL", "https://derive.example/api")
    assert server_environment()["PREFECT_UI_API_URL"] == "https://derive.example/api"


def test_a_deployments_page_writes_settings_as_overrides_are_typed() -> None:
    page = describe(load_recipe("math/smoke"))
    assert "| rl | rl | problems |" in page and "steps=2, prompts_per_step=4" in page
    assert "| release | release | evaluate |" in page


def test_only_the_traceback_of_a_run_that_returned_a_failed_state_is_left_out() -> None:
    def record(*exc_info: Any) -> logging.LogRecord:
        return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "ended", (), exc_info or None)

    assert not _tells_news(record(FailedRun, FailedRun("rl.stpes is no field"), None))
    assert not _tells_news(record(None, None, None))  # `exc_info=True` where nothing was raised
    assert _tells_news(record(RuntimeError, RuntimeError("a bug"), None)) and _tells_news(record())


def test_the_result_table_has_intervals_gains_and_counts() -> None:
    base, rl = result_rows(RESULTS)
    assert list(base.values()) == ["base", "20.0% [10.0, 30.0]", "-", "-", "0 of 40"]
    assert list(rl.values()) == [
        "rl", "50.0% [40.0, 60.0]", "+30.0 points [+20.0, +40.0]", "75.0% [50.0, 90.0] (k = 4)", "2 of 40"
    ]  # fmt: skip


def test_the_result_table_says_what_a_constant_answer_reaches_or_why_there_is_none() -> None:
    none = {"best_constant": {"programs": {"answer": None, "value": None, "reason": "run, not [read]"}}, "value": None}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_table({**RESULTS, "floor": none}), result_table({**RESULTS, "floor": {"value": 0.0625}}))
    first, second = (line for line in console.export_text().splitlines() if "best constant answer" in line)
    assert re.search(r"none .* run, not \[read\]", first) and "6.2%" in second


def test_the_summary_shows_the_command_the_result_and_curves_that_need_no_style_sheet(tmp_path: Path) -> None:
    lines = [{"step": step, "total": 3, "seconds": 1.0, "rl/reward": step / 4} for step in (1, 2, 3)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = {"id": "rl", "kind": "rl", "digest": "a" * 64, "reused": False, "seconds": 61.0, "status": "completed"}
    record = {
        "recipe": "math/smoke", "base": "seedling", "status": "completed", "seconds": 61.0, "release": None,
        "command": "derive run math/smoke --set seed=3", "stages": [{**stage, "folder": str(tmp_path)}],
    }  # fmt: skip
    page = summary_markdown(record, RESULTS)
    assert "`derive run math/smoke --set seed=3`" in page and "95% intervals" in page
    assert "| model | pass@1 | gain over the first | pass@k | no verdict |\n|---|---|---|---|---|\n| base |" in page
    assert "rl/reward from 0.25 to 0.75 over 3 steps" in page
    image = re.search(r"data:image/svg\+xml;base64,([^)]+)\)", page)
    assert image is not None
    picture = ElementTree.fromstring(base64.b64decode(image.group(1)))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg" and "stroke" in (picture[0].text or "")
    assert curve_svg(tmp_path / "nowhere") is None
