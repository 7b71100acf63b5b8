"""A dry run's page and the standing of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.stage import write_json_atomic
from flows import leaderboard
from flows.preview import differences, preview
from flows.session import Request, prepare
from flows.store import Store


def test_a_difference_is_named_as_an_override_is_typed() -> None:
    before = {"seed": 0, "stages": [{"id": "sft", "epochs": 2.0}, {"id": "rl", "steps": 40, "audit": None}]}
    after = {"seed": 0, "stages": [{"id": "sft", "epochs": 2.0}, {"id": "rl", "steps": 80, "audit": {"every": 5}}]}
    assert list(differences(before, after)) == [("rl.steps", 40, 80), ("rl.audit", None, {"every": 5})]
    assert list(differences(before, before)) == []
    added = {**before, "stages": [*before["stages"], {"id": "control", "epochs": 1.0}]}  # type: ignore[misc]
    assert list(differences(before, added)) == [("control", None, {"id": "control", "epochs": 1.0})]


@pytest.mark.slow
def test_the_page_of_a_dry_run_has_predictions_changes_and_commands_and_builds_nothing(tmp_path: Path) -> None:
    asked = Request("math/smoke", overrides=("rl.steps=7",), machine="cpu", store=str(tmp_path / "store"))
    page = preview(prepare(asked), asked)
    assert "| `rl.steps` | `2` | `7` |" in page
    assert "| rl | rl | to build | 7 | " in page and "All that is predicted: **" in page
    assert "derive run math/smoke --set rl.steps=7" in page
    assert "-m derivatives.rl stages/rl.json stages/rl" in page
    assert not (tmp_path / "store" / "runs").exists() and not list((tmp_path / "store").glob("*/*.partial"))


def completed(store: Store, name: str, value: float, release: bool = True, status: str = "completed") -> None:
    folder = store.root / "ev" / name
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
    gains = {"rl": {"pass@1": {"value": value - 0.2, "low": 0.0, "high": 0.3}}}
    base = {"value": 0.2, "low": 0.1, "high": 0.3}
    write_json_atomic(folder / "results.json", {
        "models": {"base": {"pass@1": base}, "rl": {"pass@1": figure, "pass@k": None}}, "gains": gains})  # fmt: skip
    write_json_atomic(folder / "stage.json", {"stage": {"models": ["base", "rl"]}})
    entry = {"id": "evaluate", "kind": "evaluate", "status": "completed", "reused": False, "folder": str(folder),
             "digest": "e" * 64}  # fmt: skip
    write_json_atomic(store.root / "runs" / f"{name}.json", {
        "id": name, "recipe": "math/tiny", "created": name, "status": status, "seconds": 61.0, "metrics": {},
        "process": {}, "release": "/store/ab/" + "a" * 64 + "/release" if release else None, "report": None,
        "error": None, "stages": [entry],
    })  # fmt: skip


def test_the_best_run_stands_first_and_only_completed_ones_stand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    completed(store, "one", 0.5)
    completed(store, "two", 0.7, release=False)
    completed(store, "three", 0.9, status="failed")
    (tmp_path / "runs" / "torn.json").write_text('{"id": ')
    found = leaderboard.rows(store)
    assert [row["run"] for row in found] == ["two", "one"]
    assert found[1] == {
        "recipe": "math/tiny", "model": "rl", "pass@1": "50.0% [40.0, 60.0]",
        "gain over base": "+30.0 points [+0.0, +30.0]", "base": "20.0% [10.0, 30.0]", "pass@k": "-",
        "evaluation": "e" * 12, "released": "a" * 12, "time": "1 min 01 s", "run": "one",
    }  # fmt: skip
    assert json.dumps(found)
    assert leaderboard.rows(Store(tmp_path / "nothing")) == []
    # Results of another version end no run that wants to show its standing.
    figures = {"pass@1": {"value": 0.5, "low": 0.4, "high": "?"}}
    for models in ({"base": 3}, [1], {"base": {"pass@1": 3}}, {"base": figures}, "base"):
        write_json_atomic(store.root / "ev" / "two" / "results.json", {"models": models})
        assert [row["run"] for row in leaderboard.rows(store)] == ["one"]
