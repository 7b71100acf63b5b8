"""What the run board reads of a stage's folder while others write there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flows.board_facts import MAX_METRICS, MAX_POINTS, TAIL_BYTES, Curves, Rollouts


def progress(path: Path, steps: range, **more: Any) -> None:
    with path.open("a") as file:
        for step in steps:
            line = {"step": step, "total": 10**6, "seconds": 1.0, "rl/reward": step * 0.5, **more}
            file.write(json.dumps(line) + "\n")


def test_a_curve_is_read_on_and_begins_anew_where_a_resumed_stage_wrote_the_log_anew(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    curves = Curves(path)
    assert not curves.look()
    progress(path, range(1, 4))
    with path.open("a") as file:
        file.write('{"step": 4, "rl/rew')  # being written
    assert curves.look() and not curves.look()
    assert curves.drawn(9) == [("reward", [(1.0, 0.5), (2.0, 1.0), (3.0, 1.5)])]
    with path.open("a") as file:
        file.write('ard": 2.0}\n')
    assert curves.look() and curves.drawn(9)[0][1][-1] == (4.0, 2.0)
    other = tmp_path / "other"
    progress(other, range(1, 3))
    os.replace(other, path)
    assert curves.look() and [x for x, _ in curves.drawn(9)[0][1]] == [1.0, 2.0]


def test_a_long_log_is_taken_in_piece_by_piece_and_thinned_evenly_with_its_end(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    progress(path, range(20_001))
    curves = Curves(path)
    looks = 0
    while curves.look():
        looks += 1
    assert looks == -(-path.stat().st_size // (1 << 20))
    ((_, line),) = curves.drawn(9)
    steps = [x for x, _ in line]
    assert MAX_POINTS / 2 <= len(line) <= MAX_POINTS + 1 and (steps[0], steps[-1]) == (0.0, 20_000.0)
    gaps = {b - a for a, b in zip(steps, steps[1:-1], strict=False)}
    assert gaps == {64.0}  # 20,001 lines over at most 512 points: every 64th
    assert curves.figures["rl/reward"] == 10_000.0


def test_whatever_stands_in_a_log_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text('[]\nnull\n{"step": "x", "rl/reward": 1}\n{"step": 1, "rl/reward": NaN}\n' + "[" * 10_000 + "\n")
    curves = Curves(path)
    assert curves.look() and curves.drawn(9) == [] and curves.figures == {}
    path.unlink()
    path.write_text("".join(json.dumps({"step": 1, **{f"rl/x{n}": n for n in range(500)}}) + "\n" for _ in range(2)))
    curves = Curves(path)
    curves.look()
    assert len(curves.figures) == MAX_METRICS


def test_a_reward_that_is_the_pass_rate_is_drawn_once_and_figures_that_are_no_curves_are_not(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    for step in (1, 2, 3):
        reward = step / 3
        more = {"rl/loss_of/code": 1.0 / step, "rl/mfu": step, "rl/clipped": 0.0, "rl/divergence": 0.0}
        progress(path, range(step, step + 1), **{"rl/reward": reward, "rl/solved_fraction": reward, **more})
    curves = Curves(path)
    curves.look()
    assert [name for name, _ in curves.drawn(9)] == ["reward", "loss of/code"]


def sample(step: int, task: str, outcome: str, completion: str = "c") -> str:
    return json.dumps({"step": step, "task": task, "prompt": "p", "answer": "5", "completion": completion,
                       "outcome": outcome, "reason": None, "extracted": "5"}) + "\n"  # fmt: skip


def test_the_latest_rollouts_are_of_the_last_step_and_of_different_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    rollouts = Rollouts(path)
    assert not rollouts.look() and rollouts.latest == ()
    lines = [sample(1, "old", "correct")]
    lines += [sample(2, "a", "incorrect", f"{n}") for n in range(6)] + [sample(2, "b", "no_verdict")]
    lines += [sample(2, "b", "correct")]
    path.write_text("".join(lines) + '{"step": 3, "completion": "being wri')
    assert rollouts.look() and not rollouts.look()
    assert [(one.step, one.task, one.outcome) for one in rollouts.latest] == [
        ("2", "a", "incorrect"), ("2", "a", "incorrect"), ("2", "b", "no_verdict"), ("2", "b", "correct")
    ]  # fmt: skip
    assert rollouts.latest[0].reason == ""


def test_only_the_end_of_the_rollouts_is_read_and_completions_that_fill_it_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(sample(1, "a", "correct", "x" * TAIL_BYTES) + sample(2, "a", "correct", "short"))
    rollouts = Rollouts(path)
    assert rollouts.look() and [one.completion for one in rollouts.latest] == ["short"]
    path.write_text(sample(3, "a", "correct", "x" * 2 * TAIL_BYTES))
    assert rollouts.look() and rollouts.latest == () and rollouts.too_long
