"""What a person sees in Prefect's UI: the form of a preset, the log of a run, its summary."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

from prefect.exceptions import FailedRun
from rich.console import Console

from configs.load import load_recipe
from flows.board import result_rows
from flows.catalogue import describe
from flows.derive import _tells_news
from flows.serve import server_environment
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


def test_votes_and_kept_problems_stand_in_the_result_table_where_they_were_asked() -> None:
    half = {"value": 0.5, "low": 0.4, "high": 0.6}
    models = {name: {**one, "maj@k": {"k": 4, **half}, "kept_all": half} for name, one in RESULTS["models"].items()}
    gains = {"rl": {**RESULTS["gains"]["rl"], "kept": {"value": -0.1, "low": -0.2, "high": 0.0}}}
    base, rl = result_rows({"models": models, "gains": gains})
    assert (base["maj@k"], base["kept"]) == ("50.0% [40.0, 60.0]", "50.0% [40.0, 60.0]")
    assert rl["kept"] == "-10.0 points [-20.0, +0.0]"
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(result_table({**RESULTS, "models": models, "gains": gains, "floor": {"value": 0.0625}}))
    assert "maj@k" in (said := console.export_text()) and re.search(r"-10.0 points\s+\[-20.0, \+0.0\]", said)


def test_the_result_table_says_what_a_constant_answer_reaches_or_why_there_is_none() -> None:
    none = {"best_constant": {"programs": {"answer": None, "value": None, "reason": "run, not [read]"}}, "value": None}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_table({**RESULTS, "floor": none}), result_table({**RESULTS, "floor": {"value": 0.0625}}))
    first, second = (line for line in console.export_text().splitlines() if "best constant answer" in line)
    assert re.search(r"none .* run, not \[read\]", first) and "6.2%" in second
