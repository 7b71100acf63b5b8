"""Checkpoints: whole or not there, checked, few."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import thread as futures_thread
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from derivatives.training import checkpoint
from derivatives.training.batch import Row
from derivatives.training.host_copies import HostCopies, free_memory, tensors_in
from derivatives.training.loop import Trainer
from tests.training_fixtures import sft_file, write_checkpoint


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


class SlowDisk:
    """Stands in for torch.save: waits to be let go before it reads the state, and may find the disk full."""

    def __init__(self) -> None:
        self.go, self.full = threading.Event(), False
        self.save = torch.save

    def __call__(self, state: object, path: Path) -> None:
        assert self.go.wait(60)
        if self.full:
            raise OSError(28, "No space left on device")
        self.save(state, path)


@contextmanager
def slow_disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", disk)
        try:
            yield disk
        finally:
            disk.go.set()


def test_a_run_goes_on_while_a_checkpoint_is_written_and_only_a_change_of_the_state_waits(tmp_path: Path) -> None:
    weights = torch.zeros(3)
    saver = checkpoint.Saver(tmp_path)
    with slow_disk() as disk:
        saver.save(1, {"weights": weights})
        saver.poll()  # not ready, and nothing waits
        assert checkpoint.steps(tmp_path) == []
        changed = threading.Thread(target=lambda: (saver.wait_until_read(), weights.fill_(7.0)))
        changed.start()
        changed.join(0.2)
        assert changed.is_alive()
        disk.go.set()
        changed.join(60)
        assert not changed.is_alive() and weights.tolist() == [7.0] * 3
        saver.save(2, {"weights": weights})  # waits for the first
        assert 1 in checkpoint.steps(tmp_path)
        saver.wait()
    step, state = checkpoint.load_latest(tmp_path) or (0, {})
    assert step == 2 and state["weights"].tolist() == [7.0] * 3
    (tmp_path / "checkpoints" / "step-000002" / "digest.json").unlink()
    step, state = checkpoint.load_latest(tmp_path) or (0, {})
    assert step == 1 and state["weights"].tolist() == [0.0] * 3  # as it was when the first was begun


def test_a_save_from_a_signals_handler_needs_no_lock_that_the_thread_below_it_may_hold(tmp_path: Path) -> None:
    """Held here as in the midst of handing work to any executor; `save` would hand on work of its own."""
    saver = checkpoint.Saver(tmp_path)
    weights = torch.zeros(3)
    with slow_disk() as disk:
        saver.save(1, {"weights": weights})  # one that is being written when the handler is called
        handler = threading.Thread(target=saver.save_here, args=(2, {"weights": weights + 7.0}), daemon=True)
        with futures_thread._global_shutdown_lock:  # type: ignore[attr-defined]
            handler.start()
            handler.join(0.2)
            assert handler.is_alive() and checkpoint.steps(tmp_path) == []
            disk.go.set()
            handler.join(60)
            assert not handler.is_alive()
    assert checkpoint.steps(tmp_path) == [1, 2]
    step, state = checkpoint.load_latest(tmp_path) or (0, {})
    assert step == 2 and state["weights"].tolist() == [7.0] * 3


def test_a_save_from_a_signals_handler_that_fails_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    saver = checkpoint.Saver(tmp_path)
    saver.save_here(1, {"step": 1})
    with slow_disk() as disk:
        disk.full = True
        disk.go.set()
        with pytest.raises(OSError, match="No space left"):
            saver.save_here(2, {"step": 2})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_a_full_disk_is_told_at_the_next_look_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    saver = checkpoint.Saver(tmp_path)
    saver.save(1, {"step": 1})
    saver.wait()
    with slow_disk() as disk:
        disk.full = True
        disk.go.set()
        saver.save(2, {"step": 2})
        saver.wait_until_read()  # a writer that has failed holds nobody up
        with pytest.raises(OSError, match="No space left"):
            saver.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    saver.save(3, {"step": 3})  # with room again
    saver.wait()
    assert checkpoint.steps(tmp_path) == [1, 3]


def trained(trainer: Trainer, total: int, fail_at: int = 0, disk: SlowDisk | None = None) -> None:
    for step in trainer.steps(total):
        if step == fail_at:
            if disk is not None:
                threading.Timer(0.2, disk.go.set).start()  # while the error is on its way
            raise KeyboardInterrupt
        trainer.train_step([Row([step, 2, 3, 4])])


def test_a_trainer_saves_beside_its_steps_and_leaves_whole_checkpoints_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = sft_file(write_checkpoint(tmp_path / "base"), tmp_path / "none.jsonl", checkpoint_every=2)
    for name in ("whole", "ended", "full"):
        (tmp_path / name).mkdir()
    states: dict[int, Any] = {}
    whole = Trainer(given, tmp_path / "whole")
    update = whole.optimizer.step

    def kept(lr: float, limit: float = float("inf")) -> float:
        """Takes what a checkpoint before this update has to hold."""
        states[whole.step - 1] = [master.detach().clone() for master in whole.optimizer.masters]
        return update(lr, limit)

    monkeypatch.setattr(whole.optimizer, "step", kept)
    trained(whole, 7)
    assert checkpoint.steps(tmp_path / "whole") == [4, 6]
    for step in (6, 4):
        found = checkpoint.load_latest(tmp_path / "whole")
        assert found is not None and found[0] == step
        for saved, master in zip(found[1]["optimizer"]["masters"], states[step], strict=True):
            assert torch.equal(saved, master)
        (tmp_path / "whole" / "checkpoints" / f"step-{step:06d}" / "digest.json").unlink()

    with pytest.raises(KeyboardInterrupt):
        trained(Trainer(given, tmp_path / "ended"), 7, fail_at=3)
    assert checkpoint.steps(tmp_path / "ended") == [2]
    with slow_disk() as disk:
        disk.full = True
        disk.go.set()
        with pytest.raises(OSError, match="No space left"):
            trained(Trainer(given, tmp_path / "full"), 7)
    with slow_disk() as disk:
        disk.full = True
        with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
            trained(Trainer(given, tmp_path / "ended"), 7, 5, disk)
    assert "the checkpoint after step 4 was not written" in caplog.text
    assert checkpoint.steps(tmp_path / "ended") == [2] and checkpoint.steps(tmp_path / "full") == []


def test_copies_of_a_state_are_its_own_and_lie_in_the_same_buffers_each_time() -> None:
    state = {"masters": [torch.ones(4), torch.ones(2, 3)], "adamw": {"lr": 0.5, "betas": (0.9, 0.95)}}
    copies = HostCopies(pinned=False)
    first = copies.take(state)
    assert first == {**first, "adamw": {"lr": 0.5, "betas": (0.9, 0.95)}}
    state["masters"][0].fill_(2.0)  # type: ignore[index]
    assert first["masters"][0].tolist() == [1.0] * 4
    second = copies.take(state)
    assert [one.data_ptr() for one in tensors_in(second)] == [one.data_ptr() for one in tensors_in(first)]
    assert second["masters"][0].tolist() == [2.0] * 4
    longer = copies.take({"masters": [torch.zeros(5)]})
    assert longer["masters"][0].tolist() == [0.0] * 5


def test_copies_are_made_only_where_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory() < 2**50
    huge = torch.empty(2**50, dtype=torch.uint8, device="meta")
    assert HostCopies(pinned=False).fit([torch.zeros(10)]) and not HostCopies(pinned=False).fit({"x": [huge]})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2**50))
    assert not HostCopies(pinned=False).fit([torch.zeros(10)])
