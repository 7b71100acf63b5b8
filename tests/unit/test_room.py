"""A stage that would fill the disk is refused before it starts, with the amounts and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from flows import room
from tests.training_fixtures import sft_file, write_checkpoint, write_sums


@pytest.fixture
def given(tmp_path: Path) -> Any:
    return sft_file(write_checkpoint(tmp_path / "base"), write_sums(tmp_path / "sums.jsonl", 8), epochs=1.0)


def free(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    usage = shutil.disk_usage("/")._replace(free=int(amount))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_training_needs_three_checkpoints_and_a_model_and_is_refused_where_they_do_not_fit(
    tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = room.needed(given)
    weights = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert set(parts) == {"checkpoints", "models"} and parts["models"] == pytest.approx(weights, rel=0.6)
    assert parts["checkpoints"] == pytest.approx(3 * 6 * parts["models"])  # masters and two moments in FP32
    total = sum(parts.values())
    folder = tmp_path / "store" / "ab" / "ab.partial"
    folder.mkdir(parents=True)
    free(monkeypatch, total + 1)
    room.check_room(given, folder)
    free(monkeypatch, total - 1)
    said = (
        r"trained: disk: it will write .* GB more \(checkpoints .*, models .*\), and .* GB are free in .*store; free "
        r"space there \(`derive gc` shows what may go\)"
    )
    with pytest.raises(UserError, match=said):
        room.check_room(given, folder)
    (folder / "checkpoint").write_bytes(b"x" * 65536)  # an interrupted stage has some of it already
    room.check_room(given, folder)


def test_what_cannot_be_foreseen_is_not_refused(tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0)
    (tmp_path / "base" / "config.json").write_text("no JSON")
    assert room.needed(given) == {}
    room.check_room(given, tmp_path)
