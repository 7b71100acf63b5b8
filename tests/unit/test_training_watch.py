"""Steps that stand out: limits by hand, the row that did it, and a run that leaves them out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.errors import UserError
from configs.settings.training import Spikes
from configs.stage import read_progress
from derivatives import sft
from derivatives.training.batch import Row, pack
from derivatives.training.loop import Trainer
from derivatives.training.sharding import Loss
from derivatives.training.watch import MIN_STEPS, WINDOW, Watch, blame_each, worst, worst_rows
from tests.training_fixtures import sft_file, write_checkpoint, write_sums


def watch_after(losses: list[float], norms: list[float], has_level: bool = True, **spikes: object) -> Watch:
    watch = Watch(Spikes.model_validate(spikes), max_grad_norm=1.0, has_level=has_level)
    for loss, norm in zip(losses, norms, strict=True):
        watch.note(loss, norm)
    return watch


def test_limits_by_hand() -> None:
    even = watch_after([2.0, 4.0] * 10, [1.0] * 20)  # mean 3; each step is 2 from the one before it
    assert even.loss_limit() == pytest.approx(3.0 + 8.0 * (2.0**2 / 2) ** 0.5)
    assert even.norm_limit() == pytest.approx(50.0)
    falling = watch_after([4.0 - 0.1 * step for step in range(20)], [1.0] * 20)  # mean 3.05, from 4 down to 2.1
    assert falling.loss_limit() == pytest.approx(3.05 + 8.0 * (0.1**2 / 2) ** 0.5)
    flat = watch_after([3.0] * 20, [0.01] * 20)  # no deviation: 0.5 nats; 50 times 0.01 is less than 10 times the clip
    assert flat.loss_limit() == pytest.approx(3.5)
    assert flat.norm_limit() == pytest.approx(10.0)
    other = watch_after([3.0] * 20, [1.0] * 20, nats=0.1, grad_ratio=20.0)
    assert (other.loss_limit(), other.norm_limit()) == pytest.approx((3.1, 20.0))


def test_nothing_is_judged_too_early_or_where_it_has_no_level_or_when_told_not_to() -> None:
    few = watch_after([3.0] * (MIN_STEPS - 1), [1.0] * (MIN_STEPS - 1))
    assert few.loss_limit() == few.norm_limit() == math.inf
    policy = watch_after([0.0] * MIN_STEPS, [1.0] * MIN_STEPS, has_level=False)
    assert policy.loss_limit() == math.inf and policy.norm_limit() == 50.0
    ignored = watch_after([3.0] * MIN_STEPS, [1.0] * MIN_STEPS, action="ignore")
    assert ignored.loss_limit() == ignored.norm_limit() == math.inf


def test_only_the_last_steps_count_and_come_back_from_a_checkpoint() -> None:
    watch = watch_after([100.0] * 10 + [1.0] * WINDOW, [5.0] * 10 + [1.0] * WINDOW)
    assert watch.loss_limit() == pytest.approx(1.5)
    again = Watch(Spikes(), 1.0, has_level=True)
    again.restore(json.loads(json.dumps(watch.state())))
    assert (again.loss_limit(), again.norm_limit()) == (watch.loss_limit(), watch.norm_limit())


def test_the_worst_rows_are_named_first() -> None:
    assert worst([1.0, math.nan, 3.0]) == [1, 2, 0]
    assert worst_rows(["a", "b", "c", "d"], [1.0, 2.0, math.inf, 0.5]) == (
        "c with loss inf, b with loss 2, a with loss 1 and 1 more"
    )
    assert worst_rows(["a", "", "c"], None) == "a, c"


def test_each_document_gets_its_own_mean() -> None:
    (batch,) = pack([Row([1, 2, 3, 4], loss_weights=[0, 1, 2, 1]), Row([5, 6, 7], loss_weights=[0, 0, 1])], 7)
    hidden_TE = torch.tensor([[10.0], [20.0], [40.0], [0.0], [7.0], [9.0], [0.0]])
    blame = blame_each(lambda hidden, part: (hidden[:, 0] * part.weights_T).sum())
    assert blame(hidden_TE, batch).tolist() == pytest.approx([(10 + 2 * 20 + 40) / 4, 9.0])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def test_a_spike_stops_before_the_update_and_names_the_row(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    trainer = Trainer(sft_file(base, write_sums(tmp_path / "sums.jsonl", 8), checkpoint_every=100), out)
    even = [Row([65, 66, 67, 68] * 4, key=f"even:{number}") for number in range(4)]
    noise = Row([(number * 37) % 200 for number in range(30)], key="noise:1")
    for step in trainer.steps(100):  # learnt after 10 steps, forgotten by the window after 64 more
        if step > 80:
            break
        trainer.train_step(even)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    named = r"step 81: the loss .* is a spike .*\(rows: noise:1 with loss .*spikes\.action"
    with pytest.raises(UserError, match=named):
        trainer.train_step([*even, noise])
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))
    kept = json.loads((out / "anomaly.json").read_text())
    found = {row["key"]: float(row["loss"]) for row in kept["rows"]}
    assert max(found, key=found.__getitem__) == "noise:1" and found["noise:1"] > 2 * found["even:0"]
    assert float(kept["step_loss"]) > float(kept["loss_limit"])
    assert next(row for row in kept["rows"] if row["key"] == "noise:1")["ids"] == list(noise.ids)


def run_with_noise(base: Path, data: Path, out: Path, stop_after: int | None = None) -> None:
    """Even steps but for a noisy one, 82, with the updates of spikes left out."""
    out.mkdir(exist_ok=True)
    trainer = Trainer(sft_file(base, data, spikes={"action": "skip"}, checkpoint_every=40), out)
    even = [Row([65, 66, 67, 68] * 4, key="even")]
    noise = Row([(number * 37) % 200 for number in range(30)], key="noise")
    for step in trainer.steps(85):
        if stop_after is not None and step > stop_after:
            return
        trainer.train_step([*even, noise] if step == 82 else even)
    trainer.finish()


def test_a_skipped_spike_is_counted_and_a_resumed_run_skips_the_same(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_sums(tmp_path / "sums.jsonl", 8)
    run_with_noise(base, data, tmp_path / "straight")
    assert "step 82: the loss" in caplog.text and "noise with loss" in caplog.text and "left out" in caplog.text
    lines = read_progress(tmp_path / "straight")
    assert [line["step"] for line in lines if line.get("sft/skipped")] == [82]
    assert lines[82]["sft/loss"] < 1.1 * lines[80]["sft/loss"]
    run_with_noise(base, data, tmp_path / "resumed", stop_after=81)  # its last checkpoint is of step 80
    run_with_noise(base, data, tmp_path / "resumed")
    assert [line["sft/loss"] for line in read_progress(tmp_path / "resumed")] == [line["sft/loss"] for line in lines]
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "resumed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_gradient_that_explodes_stops_before_the_update(tmp_path: Path, base: Path) -> None:
    trainer = Trainer(sft_file(base, write_sums(tmp_path / "sums.jsonl", 8)), tmp_path)
    trainer.total = 40
    batches = pack([Row([65, 66, 67])], 8)

    def losses(factor: float) -> Loss:
        """A loss of 0 with a gradient of this size."""
        return lambda hidden_TE, batch: factor * (hidden_TE - hidden_TE.detach()).sum()

    for trainer.step in range(1, 26):
        trainer.update(batches, losses(0.01), 1.0, keys=["row:1"])
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    with pytest.raises(UserError, match=r"the gradient norm .* is a spike .* \(rows: row:1\)"):
        trainer.update(batches, losses(1e5), 1.0, keys=["row:1"])
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True))


def test_a_healthy_run_with_a_high_rate_is_left_alone(tmp_path: Path, base: Path) -> None:
    """Loss falls from 5 nats to a tenth of one and rises by parts of it on the way."""
    (tmp_path / "out").mkdir()
    given = sft_file(base, write_sums(tmp_path / "sums.jsonl", 40), epochs=16.0, learning_rate=6e-3)
    sft.run(given, tmp_path / "out")
    lines = read_progress(tmp_path / "out")
    assert len(lines) == 80 and not any("sft/skipped" in line for line in lines)
    assert not (tmp_path / "out" / "anomaly.json").exists()
