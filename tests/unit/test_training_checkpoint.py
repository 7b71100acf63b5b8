"""Checkpoints: whole or not there, checked, few."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from derivatives.training import checkpoint


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"step": 3, "names": ["a", None], "nested": {"x": torch.arange(5.0)}, "fraction": 0.1}
    checkpoint.save(tmp_path, 3, state)
    step, found = checkpoint.load_latest(tmp_path) or (0, {})
    assert step == 3
    assert torch.equal(found["nested"].pop("x"), torch.arange(5.0))
    assert found == {"step": 3, "names": ["a", None], "nested": {}, "fraction": 0.1}


def test_only_the_last_two_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1_000_000):
        checkpoint.save(tmp_path, step, {"step": step})
    assert checkpoint.steps(tmp_path) == [10, 1_000_000]


def test_a_save_that_fails_leaves_the_old_checkpoint_and_none_of_its_own_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    checkpoint.save(tmp_path, 1, {"step": 1})
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, {"step": 2})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.load_latest(tmp_path) is None


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_a_byte(folder / "state.pt"),
        lambda folder: (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:100]),
        lambda folder: (folder / "state.pt").unlink(),
        lambda folder: (folder / "digest.json").unlink(),
        lambda folder: (folder / "digest.json").write_text("[]"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    damage(tmp_path / "checkpoints" / "step-000002")  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load_latest(tmp_path) == (1, {"step": 1})
    assert "step-000002 cannot be read" in caplog.text
    checkpoint.save(tmp_path, 2, {"step": "again"})
    assert checkpoint.load_latest(tmp_path) == (2, {"step": "again"})


def test_what_a_killed_process_left_half_written_is_ignored_and_cleared_away(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    partial = tmp_path / "checkpoints" / ".step-000002.partial"
    partial.mkdir()
    (partial / "state.pt").write_bytes(b"half")
    assert checkpoint.load_latest(tmp_path) == (1, {"step": 1})
    checkpoint.save(tmp_path, 2, {"step": 2})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000002"]


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("ran",)

    checkpoint.save(tmp_path, 1, {"trap": Trap()})
    assert checkpoint.load_latest(tmp_path) is None
