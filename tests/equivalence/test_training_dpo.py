"""Preference optimization: packed is padded, resumed is uninterrupted, the reference is worked out once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file

from configs.errors import UserError
from configs.stage import StageFile, read_progress
from derivatives import dpo
from derivatives.training import preference
from derivatives.training.batch import Row, pack_groups
from derivatives.training.forward import hidden_states
from derivatives.training.loop import Trainer
from derivatives.training.model import head_weight, load_model
from derivatives.training.ranks import ALONE
from tests.training_fixtures import stage_file, write_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base")


def write_pairs(path: Path, count: int, first: int = 0) -> Path:
    """Sums with the right answer and one that is off by one or far too long."""
    lines = []
    for number in range(first, first + count):
        terms = [(number * 7 + place * 11) % 50 for place in range(2 + number % 3)]
        wrong = str(sum(terms) + 1) if number % 2 else str(sum(terms)) * 6
        line = {"prompt": " + ".join(map(str, terms)) + " =", "chosen": str(sum(terms)), "rejected": wrong}
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def dpo_file(base: Path, data: Path, **stage: Any) -> StageFile:
    return stage_file(base, kind="dpo", data=[str(data)], **{"batch_pairs": 6, "learning_rate": 1e-3, **stage})


def padded_log_probs(model: Any, rows: list[Row]) -> torch.Tensor:
    """Summed log-probabilities of completions by transformers itself: one padded batch, full logits."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    trained = torch.tensor([[row.trained_from <= place < len(row.ids) for place in range(longest)] for row in rows])
    log_probs = F.log_softmax(model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float(), dim=-1)
    picked = log_probs[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2)
    return (picked * trained[:, 1:]).sum(1)


@pytest.mark.parametrize("normalize", [False, True])
def test_packed_log_probabilities_and_gradients_are_the_padded_ones(
    tmp_path: Path, base: Path, normalize: bool
) -> None:
    model, tokenizer = load_model(base, "fp32")
    given = dpo_file(base, write_pairs(tmp_path / "pairs.jsonl", 5))
    pairs, _ = dpo.read_pairs(given.stage, "data", [tmp_path / "pairs.jsonl"], tokenizer)  # type: ignore[arg-type]
    rows = [row for pair in pairs for row in pair.rows]
    weights = torch.linspace(-1, 1, len(rows))
    found = torch.zeros(len(rows))
    for batch in pack_groups([pair.rows for pair in pairs], 150):  # three batches
        values_N = preference.row_log_probs(hidden_states(model, batch), head_weight(model), batch, normalize)
        places = list(batch.row_indices)
        (values_N * weights[places]).sum().backward()
        found[places] = values_N.detach()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    wanted = padded_log_probs(model, rows)
    if normalize:
        wanted = wanted / torch.tensor([len(row.ids) - row.trained_from for row in rows])
    (wanted * weights).sum().backward()
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-4)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=2e-3, atol=1e-3)


def test_the_two_of_a_pair_lie_side_by_side_and_none_is_lost() -> None:
    groups = [[Row([number] * (3 + number)), Row([number] * 2)] for number in range(1, 9)]
    for num_ranks in (1, 3):
        seen: list[int] = []
        for rank in range(num_ranks):
            for batch in pack_groups(groups, 20, rank, num_ranks):
                assert batch.num_tokens <= 20
                places = list(batch.row_indices)
                assert all(
                    right == left + 1 and left % 2 == 0 for left, right in zip(places[::2], places[1::2], strict=True)
                )
                for place, length in zip(places, batch.lengths, strict=bool(places)):
                    assert length == len(groups[place // 2][place % 2].ids)
                seen += places
        assert sorted(seen) == list(range(16))


def curve(out: Path) -> list[tuple[float, ...]]:
    names = ("loss", "grad_norm", "margin", "accuracy", "chosen_reward", "rejected_reward")
    return [(line["step"], *(line[f"dpo/{name}"] for name in names)) for line in read_progress(out)]


@pytest.mark.parametrize("options", [{}, {"loss": "ipo", "normalize_length": True, "lora": {"rank": 4}}], ids=str)
def test_a_killed_run_ends_in_the_same_bytes(tmp_path: Path, base: Path, options: dict[str, Any]) -> None:
    if "lora" in options:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    data, heldout = write_pairs(tmp_path / "pairs.jsonl", 24), write_pairs(tmp_path / "held.jsonl", 6, first=50)
    given = dpo_file(base, data, epochs=1.5, evaluate_every=2, heldout_pairs=[str(heldout)], **options)
    (tmp_path / "straight").mkdir()
    dpo.run(given, tmp_path / "straight")
    out = tmp_path / "killed"
    out.mkdir()
    save, count = Trainer.save_checkpoint, 0

    def stop(trainer: Trainer) -> None:
        nonlocal count
        save(trainer)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "save_checkpoint", stop)
        dpo.run(given, out)
    before = os.stat(out / preference.REFERENCE_FILE).st_mtime_ns
    dpo.run(given, out)
    assert os.stat(out / preference.REFERENCE_FILE).st_mtime_ns == before
    assert len(curve(out)) == 6 and curve(out) == curve(tmp_path / "straight")
    measured = [line["step"] for line in read_progress(out) if "dpo/heldout_margin" in line]
    assert measured == [2, 4, 6]
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "killed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_first_step_has_no_margin_and_training_makes_one(tmp_path: Path, base: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", 24)
    (tmp_path / "out").mkdir()
    dpo.run(dpo_file(base, data, epochs=10.0, learning_rate=3e-3), tmp_path / "out")
    lines = curve(tmp_path / "out")
    assert lines[0][1] == pytest.approx(0.6931472, abs=1e-4) and lines[0][3] == pytest.approx(0.0, abs=1e-3)
    assert lines[-1][1] < 0.3 and lines[-1][3] > 1.0 and lines[-1][4] == 1.0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (found["dpo/pairs"], found["dpo/dropped_equal"], found["dpo/steps"]) == (24, 0, 40)
    assert "<svg" in (tmp_path / "out" / "plots" / "margin.svg").read_text()


@pytest.mark.parametrize("normalize", [False, True])
def test_the_likelihood_term_is_the_chosen_completions_cross_entropy(
    tmp_path: Path, base: Path, normalize: bool
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", 9)
    model, tokenizer = load_model(base, "fp32")
    given = {"batch_pairs": 9, "precision": "fp32", "normalize_length": normalize}
    pairs, _ = dpo.read_pairs(dpo_file(base, data).stage, "data", [data], tokenizer)  # type: ignore[arg-type]
    rows = [pair.rows[0] for pair in pairs]
    with torch.no_grad():
        sums = padded_log_probs(model, rows)
    wanted = -(sums / torch.tensor([len(row.ids) - row.trained_from for row in rows])).mean().item()
    losses = []
    for weight in (0.0, 0.5):
        out = tmp_path / str(weight)
        out.mkdir()
        dpo.run(dpo_file(base, data, nll_weight=weight, micro_batch_tokens=150, **given), out)
        losses.append(curve(out)[0][1])
    assert losses[0] == pytest.approx(0.6931472, abs=1e-5)
    assert losses[1] - losses[0] == pytest.approx(0.5 * wanted, rel=1e-4)


def test_with_the_likelihood_term_the_chosen_completions_gain(tmp_path: Path, base: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", 24)
    gained = []
    for weight in (0.0, 1.0):
        out = tmp_path / str(weight)
        out.mkdir()
        dpo.run(dpo_file(base, data, epochs=5.0, nll_weight=weight), out)
        gained.append(curve(out)[-1][5])
    assert gained[1] > gained[0] + 0.1


def test_one_large_batch_and_many_small_ones_are_the_same_step(tmp_path: Path, base: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", 24)
    curves = []
    for micro_batch_tokens in (100_000, 100):
        out = tmp_path / str(micro_batch_tokens)
        out.mkdir()
        dpo.run(dpo_file(base, data, micro_batch_tokens=micro_batch_tokens), out)
        curves.append(curve(out))
    for one, other in zip(*curves, strict=True):
        assert one[:4] == pytest.approx(other[:4], rel=1e-2, abs=1e-3)
        if one[0] > 1:  # before, margins are 0 but for rounding, whose sign means nothing
            assert one[4] == other[4]


def test_a_spoilt_or_foreign_reference_is_worked_out_again(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = dpo_file(base, write_pairs(tmp_path / "pairs.jsonl", 8))
    _, tokenizer = load_model(base, "fp32")
    pairs, _ = dpo.read_pairs(given.stage, "data", [tmp_path / "pairs.jsonl"], tokenizer)  # type: ignore[arg-type]
    values = preference.reference_log_probs(given, pairs, tmp_path, ALONE, "a")
    path = tmp_path / preference.REFERENCE_FILE
    written = path.read_bytes()
    assert torch.equal(values, preference.reference_log_probs(given, pairs, tmp_path, ALONE, "a"))
    for spoilt, said in ((written[:-5], "cannot be read"), (written[:-1] + bytes([written[-1] ^ 1]), "another digest")):
        path.write_bytes(spoilt)
        assert torch.equal(values, preference.reference_log_probs(given, pairs, tmp_path, ALONE, "a"))
        assert said in caplog.text and path.read_bytes() == written
    preference.reference_log_probs(given, pairs, tmp_path, ALONE, "b")
    assert path.read_bytes() != written


GOOD = {"prompt": "1 + 1 =", "chosen": "2", "rejected": "3"}


@pytest.mark.parametrize(
    ("lines", "stage", "named"),
    [
        ([GOOD, {**GOOD, "rejected": None}], {}, r"pairs\.jsonl:2: rejected: 'None' is no text"),
        ([{**GOOD, "rejected": "2"}], {}, r"holds no pair .* \(0 are longer, 1 are equal\)"),
        ([{**GOOD, "rejected": "3" * 99}], {"max_length": 60}, r"1 are longer"),
        ([GOOD], {"micro_batch_tokens": 40}, r"stage\.micro_batch_tokens: 40 is less than the longest pair"),
    ],
)
def test_data_that_is_no_pair_is_named(
    tmp_path: Path, base: Path, lines: list[object], stage: dict[str, Any], named: str
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=named):
        dpo.run(dpo_file(base, data, **stage), tmp_path / "out")


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"data": ["corpus"]}, r"prefer\.data: 'corpus' names no earlier sample stage and no path ending in \.jsonl"),
        ({"loss": "ipo", "label_smoothing": 0.1}, r"prefer\.label_smoothing: 0\.1 was given with loss ipo"),
        ({"heldout_pairs": ["pairs.jsonl"]}, r"prefer\.heldout_pairs: 'pairs\.jsonl' is trained on as well"),
    ],
)
def test_settings_that_do_not_fit_are_named(stage: dict[str, Any], named: str) -> None:
    from configs.schema import Recipe

    prefer = {"id": "prefer", "kind": "dpo", "learning_rate": 1e-5, "data": ["pairs.jsonl"], **stage}
    with pytest.raises(ValidationError, match=named):
        Recipe.model_validate({"name": "x", "title": "x", "status": "validated only", "stages": [prefer]})
