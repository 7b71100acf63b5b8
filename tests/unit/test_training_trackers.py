"""Trackers get the lines of the log, and a broken one stops nothing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from configs.stage import StageFile, read_progress
from derivatives import sft
from tests.training_fixtures import sft_file, write_checkpoint, write_sums


def tracked(folder: Path, *trackers: str) -> StageFile:
    """Five steps of sums."""
    given = sft_file(write_checkpoint(folder / "base"), write_sums(folder / "sums.jsonl", 40))
    (folder / "out").mkdir()
    return given.model_copy(update={"machine": given.machine.model_copy(update={"trackers": trackers})})


class FakeRun:
    """What `wandb.init` gives back."""

    def __init__(self, fails_at: int | None) -> None:
        self.fails_at = fails_at
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server is gone\nfor good")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def fake_wandb(monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> tuple[FakeRun, dict[str, Any]]:
    run, given = FakeRun(fails_at), {}

    def init(**options: Any) -> FakeRun:
        given.update(options)
        return run

    settings: dict[str, Any] = {}
    config = types.SimpleNamespace(update=lambda values, allow_val_change: settings.update(values))
    module = types.ModuleType("wandb")
    module.init, module.config = init, config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    given["settings"] = settings
    return run, given


def test_a_tracker_gets_every_line_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, given = fake_wandb(monkeypatch)
    sft.run(tracked(tmp_path, "wandb"), tmp_path / "out")
    lines = read_progress(tmp_path / "out")
    assert [step for step, _ in run.logged] == [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for (_, values), line in zip(run.logged, lines, strict=True):
        assert values == {name: value for name, value in line.items() if name not in ("step", "total", "seconds")}
    assert (given["project"], given["name"], given["resume"]) == ("test", "trained", "allow")
    assert given["settings"]["learning_rate"] == 3e-3 and given["settings"]["spikes.action"] == "stop"
    assert run.finished


def test_one_that_fails_on_the_way_is_left_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = fake_wandb(monkeypatch, fails_at=3)
    sft.run(tracked(tmp_path, "wandb"), tmp_path / "out")
    assert len(read_progress(tmp_path / "out")) == 5 and len(run.logged) == 2
    said = [record.message for record in caplog.records if "tracker" in record.message]
    assert said == ["tracker wandb: the server is gone; going on without it"]


def test_one_that_is_not_installed_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite://")
    sft.run(tracked(tmp_path, "mlflow"), tmp_path / "out")
    assert len(read_progress(tmp_path / "out")) == 5
    assert "tracker mlflow: import of mlflow halted" in caplog.text and "going on without it" in caplog.text


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sft.run(tracked(tmp_path, "tensorboard"), tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    lines = read_progress(tmp_path / "out")
    for name in ("sft/loss", "sft/tokens_per_s"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [1, 2, 3, 4, 5]
        assert [value for _, value in found] == pytest.approx([line[name] for line in lines], rel=1e-6)
