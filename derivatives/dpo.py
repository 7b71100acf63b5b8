"""Direct preference optimization on pairs of a better and a worse completion of one prompt.

    python -m derivatives.dpo STAGE.json OUT/

Reads JSONL of `{"prompt", "chosen", "rejected"}`, from sample stages or files; writes `model/`, `metrics.json`,
`progress.jsonl`, `plots/` and `reference.safetensors`, the log-probabilities of the starting model, which are worked
out once before the first step. A killed run goes on with the same command, to the same bytes.

Sources: DPO (arXiv:2305.18290), IPO (arXiv:2310.12036), the likelihood term of iterative RPO (arXiv:2404.19733), see
`losses/dpo.py`. Both completions of a pair lie side by side in the packed rows of sft, documents that never see one
another; the prompt is computed for each. The loss is averaged over the pairs of a whole step. A pair of two equal
completions, or with one that is too long, is dropped and counted.

Progress says `margin` (beta times how much more the policy prefers the chosen completion than the starting model does),
`accuracy` (share of pairs where it is above 0), `chosen_reward` and `rejected_reward` (its two halves); the same of
`heldout_pairs` under `heldout_`. Not done: several turns, references other than the starting model.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.training import DpoStage
from configs.stage import StageFile, run_command
from derivatives.losses import dpo as objective
from derivatives.sft import read_jsonl
from derivatives.training import metrics
from derivatives.training.batch import PackedBatch, answer_row, num_trained, pack_groups
from derivatives.training.chat import encode_example
from derivatives.training.loop import Trainer, fingerprint, finished, set_up
from derivatives.training.measured import measured
from derivatives.training.model import head_weight, load_tokenizer
from derivatives.training.order import items_between
from derivatives.training.preference import SIDES, Pair, num_trained_tokens, reference_log_probs, row_log_probs
from derivatives.training.ranks import joined

MEASURES = ("loss", "margin", "accuracy", "chosen_reward", "rejected_reward")


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: pairs, reference, steps, model."""
    stage = stage_file.stage
    assert isinstance(stage, DpoStage)
    with joined(stage_file.machine, out) as ranks:
        if finished(stage_file, out):
            return
        set_up(stage_file.machine, stage_file.seed, ranks)
        tokenizer = load_tokenizer(stage_file.model_folder())
        files = [
            Path(name) if name.endswith(".jsonl") else stage_file.data_folder(name) / "pairs.jsonl"
            for name in stage.data
        ]
        pairs, dropped = read_pairs(stage, "data", files, tokenizer)
        heldout: list[Pair] = []
        if stage.heldout_pairs:
            heldout, _ = read_pairs(stage, "heldout_pairs", list(map(Path, stage.heldout_pairs)), tokenizer)
        reference_P2 = reference_log_probs(stage_file, [*pairs, *heldout], out, ranks, fingerprint(stage_file))
        trainer = Trainer(stage_file, out, ranks)
        preference = Preference(trainer, stage)
        if heldout:
            trainer.measures.append(lambda: preference.measure(heldout, reference_P2[len(pairs) :]))

        num_pairs = max(1, round(stage.epochs * len(pairs)))
        with measured(trainer):
            for step in trainer.steps(math.ceil(num_pairs / stage.batch_pairs)):
                first, last = (step - 1) * stage.batch_pairs, min(step * stage.batch_pairs, num_pairs)
                items = items_between(first, last, len(pairs), stage_file.seed)
                preference.train_step([pairs[item] for item in items], reference_P2[items])
        if ranks.first:
            metrics.plot_curves(out, [f"dpo/{name}" for name in ("margin", "accuracy")])
        trainer.finish(pairs=len(pairs), **dropped, heldout_pairs=len(heldout))


class Preference:
    """The loss of packed pairs, for training and for measuring."""

    def __init__(self, trainer: Trainer, stage: DpoStage) -> None:
        self.trainer, self.stage = trainer, stage

    def train_step(self, pairs: Sequence[Pair], reference_P2: Tensor) -> None:
        """One update on these pairs, then the log."""
        rows = [row for pair in pairs for row in pair.rows]
        totals: list[Tensor] = []

        def loss(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
            return self._losses(hidden_TE, batch, reference_P2, totals).sum()

        def blame(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
            return self._losses(hidden_TE, batch, reference_P2, []).repeat_interleave(len(SIDES))

        keys = [row.key for row in rows]
        quantities = self.trainer.update(self._pack(pairs), loss, len(pairs), keys, blame)
        trained = round(num_trained(rows))
        self.trainer.record_rows(rows, trained, **{**self._summed_up(totals, len(pairs)), **quantities})

    def measure(self, pairs: Sequence[Pair], reference_P2: Tensor) -> dict[str, float]:
        """The same measures of pairs that are not trained on, named `heldout_...`; every rank must call it."""
        totals: list[Tensor] = []
        for batch in self._pack(pairs):
            self.trainer.look(batch, lambda hidden, placed: self._losses(hidden, placed, reference_P2, totals).sum())
        found = self._summed_up(totals, len(pairs))
        return {f"heldout_{name}": value for name, value in found.items()}

    def _pack(self, pairs: Sequence[Pair]) -> list[PackedBatch]:
        ranks, limit = self.trainer.ranks, self.stage.micro_batch_tokens
        return pack_groups([pair.rows for pair in pairs], limit, ranks.data_rank, ranks.num_data)

    def _losses(self, hidden_TE: Tensor, batch: PackedBatch, reference_P2: Tensor, totals: list[Tensor]) -> Tensor:
        """The loss of each pair of a batch; adds the sums of `MEASURES` over them to `totals`."""
        stage = self.stage
        head_VE, ranks = head_weight(self.trainer.model), self.trainer.ranks
        policy_N = row_log_probs(hidden_TE, head_VE, batch, stage.normalize_length, ranks)
        num_pairs = len(batch.row_indices) // len(SIDES)
        if num_pairs == 0:  # a rank for which nothing was left
            return policy_N * 0.0
        policy_P2 = policy_N.view(num_pairs, len(SIDES))
        places = [index // len(SIDES) for index in batch.row_indices[:: len(SIDES)]]
        known_P2 = reference_P2[places].to(policy_P2.device)
        margins_P = objective.margins(policy_P2, known_P2)
        losses_P = objective.losses(margins_P, stage.loss, stage.beta, stage.label_smoothing)
        if stage.nll_weight:
            chosen_P = policy_P2[:, 0]
            if not stage.normalize_length:
                chosen_P = chosen_P / num_trained_tokens(batch)[:: len(SIDES)]
            losses_P = losses_P - stage.nll_weight * chosen_P
        with torch.no_grad():
            rewards_P2 = stage.beta * (policy_P2 - known_P2)
            measured = (losses_P, stage.beta * margins_P, (margins_P > 0).float(), rewards_P2[:, 0], rewards_P2[:, 1])
            totals.append(torch.stack([values_P.sum() for values_P in measured]))
        return losses_P

    def _summed_up(self, totals: Sequence[Tensor], num_pairs: int) -> dict[str, float]:
        """Means over all pairs of all ranks."""
        own = torch.stack(list(totals)).double().sum(0).tolist() if totals else [0.0] * len(MEASURES)
        by_rank = self.trainer.ranks.gather_shares(own)
        return {
            name: sum(column) / num_pairs for name, column in zip(MEASURES, zip(*by_rank, strict=True), strict=True)
        }


def read_pairs(
    stage: DpoStage, field: str, files: Sequence[Path], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Pair], dict[str, int]]:
    """All usable pairs of the files that `field` names, in order, and how many were dropped, by reason.

    Raises:
        UserError: A line that is no pair (file and line are named), nothing to train on, or a micro-batch that is
            smaller than a pair.
    """
    pairs: list[Pair] = []
    dropped = {"dropped_too_long": 0, "dropped_equal": 0}
    for path in files:
        for where, line in read_jsonl(path):
            pair = encode_pair(where, line, stage.system, tokenizer)
            if max(len(row.ids) for row in pair.rows) > stage.max_length:
                dropped["dropped_too_long"] += 1
            elif list(pair.rows[0].ids) == list(pair.rows[1].ids):
                dropped["dropped_equal"] += 1
            else:
                pairs.append(pair)
    if not pairs:
        raise UserError(
            f"{field}: {', '.join(getattr(stage, field))} holds no pair of two different completions of at most "
            f"stage.max_length = {stage.max_length} tokens ({dropped['dropped_too_long']} are longer, "
            f"{dropped['dropped_equal']} are equal); raise it or check the files"
        )
    longest = max(pair.num_tokens for pair in pairs)
    if longest > stage.micro_batch_tokens:
        raise UserError(
            f"stage.micro_batch_tokens: {stage.micro_batch_tokens} is less than the longest pair ({longest} tokens, "
            "both completions with their prompt); raise it, or lower stage.max_length"
        )
    return pairs, dropped


def encode_pair(where: str, line: dict[str, Any], system: str | None, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """One line as a pair of rows; what an interpreter said counts in neither. Raises UserError that names the line."""
    for name in ("prompt", *SIDES):
        if not isinstance(line.get(name), str):
            found = str(line.get(name))[:80]
            raise UserError(f"{where}: {name}: {found!r} is no text; give prompt, chosen and rejected")
    rows = []
    for side in SIDES:
        ids, trained = encode_example(tokenizer, line["prompt"], line[side], system)
        rows.append(answer_row(ids, trained, f"{where} {side}"))
    return Pair((rows[0], rows[1]), where)


if __name__ == "__main__":
    sys.exit(run_command("dpo", run, __doc__ or ""))
