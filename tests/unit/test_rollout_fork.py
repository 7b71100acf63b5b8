"""Going on from a kept checkpoint: with nothing changed to the same bytes, else with the change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import ForkPoint, RlStage
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl
from derivatives.rollout import fork
from derivatives.rollout.fork_points import INPUT, available
from derivatives.training.model import load_tokenizer, save_model
from flows.charts import overlay_chart
from tests.unit.test_rl_stage import CHECKPOINT, tiny_model

CLOCKS = {"seconds", "rl/tokens_per_s", "rl/rollout_tokens_per_s", "rl/eta_s", "rl/mfu", "rl/peak_memory_gb"}
DIGEST = "a" * 64


def train(tmp_path: Path, name: str, origin: str = "", step: int = 0, **given: Any) -> Path:
    """Run six steps of a tiny model, or go on from a step of such a run."""
    if not (tmp_path / "model").exists():
        save_model(tiny_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
        lines = [{"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = {
        "id": "rl", "data": (str(tmp_path / "p.jsonl"),), "steps": 6, "prompts_per_step": 2, "group_size": 4,
        "learning_rate": 1e-2, "sampling": Sampling(max_new_tokens=8), "checkpoint_every": 2, "fork_every": 2,
        "entropy_coefficient": 0.1, "weight_decay": 0.1,
    }  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(tmp_path / "model"))}
    if origin:
        given["fork"] = ForkPoint(artifact=DIGEST, step=step)
        inputs[INPUT] = StageInput(kind="rl", path=str(tmp_path / origin), digest=DIGEST)
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    stage = RlStage(**{**plain, **given})
    out = tmp_path / name
    out.mkdir(exist_ok=True)
    rl.run(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine), out)
    return out


def log(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in read_progress(out)]


def test_a_fork_with_nothing_changed_ends_with_the_same_bytes_and_one_that_changes_parts_there(
    tmp_path: Path,
) -> None:
    whole = train(tmp_path, "whole")
    assert available(whole) == [2, 4] and not (whole / "checkpoints").exists()
    same = train(tmp_path, "same", "whole", 4)
    assert log(same) == log(whole)
    assert (same / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
    assert (same / "rollouts.jsonl").read_bytes() == (whole / "rollouts.jsonl").read_bytes()
    assert sorted(path.name for path in (same / "rollouts").glob("*.npz")) == [
        "step-000005.npz", "step-000006.npz",
    ]  # fmt: skip
    other = train(tmp_path, "other", "whole", 2, loss="dapo", learning_rate=2e-2)
    assert log(other)[:2] == log(whole)[:2] and log(other)[3:] != log(whole)[3:]
    assert [line["rl/lr"] for line in log(other)[2:]] == [2 * line["rl/lr"] for line in log(whole)[2:]]
    assert not (other / ".fork").exists()


def test_what_adamw_and_the_entropy_bonus_are_told_anew_acts_in_the_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, "whole")
    seen: list[Any] = []
    real = fork.checkpoint.save
    monkeypatch.setattr(fork.checkpoint, "save", lambda out, step, state, *more: (
        seen.append(state["optimizer"]["adamw"]["param_groups"]), real(out, step, state, *more))[1])  # fmt: skip
    changed = train(tmp_path, "changed", "whole", 4, weight_decay=0.5, beta1=0.5, entropy_coefficient=0.7)
    assert [group["weight_decay"] for group in seen[0]] == [0.5, 0.0] and seen[0][0]["betas"] == (0.5, 0.95)
    assert [line["rl/entropy_coefficient"] for line in log(changed)] == [0.1] * 4 + [0.7] * 2


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(tmp_path: Path) -> None:
    train(tmp_path, "whole")
    with pytest.raises(UserError, match="stage.fork.step: .* no whole checkpoint of step 3; allowed: 2, 4; set fork_e"):
        train(tmp_path, "odd", "whole", 3)
    with pytest.raises(UserError, match="stage.fork.step: 4 of 4 steps leaves nothing to do"):
        train(tmp_path, "short", "whole", 4, steps=4)
    damaged = tmp_path / "whole/fork_points/000002/checkpoints/step-000002/state.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match="no whole checkpoint of step 2"):
        train(tmp_path, "damaged", "whole", 2)


def test_a_fork_may_begin_from_a_run_that_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path, "whole")
    real = rl.Steps.update_on

    def power_cut(self: rl.Steps, step: int, rolled: Any) -> dict[str, float]:
        if step == 6:
            raise KeyboardInterrupt
        return real(self, step, rolled)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(rl.Steps, "update_on", power_cut)
        train(tmp_path, "halted", fork_every=None)
    halted = tmp_path / "halted"
    (halted / "checkpoints" / ".step-000006.partial").mkdir()
    (halted / "fork_points" / "000006").mkdir(parents=True)
    assert available(halted) == [2, 4]  # whole ones only
    for step in (2, 4):
        assert log(train(tmp_path, f"from{step}", "halted", step)) == log(whole)


def test_two_curves_are_drawn_over_each_other_with_the_place_where_they_part() -> None:
    svg = overlay_chart("rl/reward", [("old", [(1, 0.1), (2, 0.2), (3, 0.3)]), ("new", [(1, 0.1), (3, 0.9)])], 2)
    assert svg.count("<polyline") == 2 and svg.count("line faint") == 1
    assert "parted after step 2" in svg and "new, step 3: 0.9" in svg and "old 0.3 at last; new 0.9 at last" in svg
    assert overlay_chart("rl/reward", [("old", []), ("new", [(1, 1.0)])]) == ""
