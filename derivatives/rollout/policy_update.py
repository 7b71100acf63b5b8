"""One step's optimizer updates from judged groups: advantages, packed rows, policy loss.

Token ids go from the sampler to the loss untouched. The trainer's log-probabilities are taken at the sampling
temperature with the vocabulary's padding left out, as the sampler drew.

Where attention can do it (`documents`: on CPU), the completions of a group stand behind one copy of their prompt in the
packed row. Ratios stay exact, as the old log-probabilities are of the same rows; gradients differ by rounding from
those of rows that each hold their prompt.

Shape letters: T tokens in the packed row, E hidden size, P prompts, G completions per prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from types import ModuleType

import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.settings.reinforcement import RlStage
from configs.stage import StageFile
from derivatives.losses import cispo, dapo, dr_grpo, grpo, gspo, rloo
from derivatives.losses.advantages import has_spread
from derivatives.losses.clipping import Clip
from derivatives.losses.cross_entropy import chunked_log_probs
from derivatives.losses.importance import truncated_weights
from derivatives.losses.kl import divergence
from derivatives.losses.overlong import overlong_penalty
from derivatives.losses.policy import PolicyTokens
from derivatives.rollout.entropy_control import EntropyControl
from derivatives.rollout.judged import Group, Judged
from derivatives.training import attention
from derivatives.training.batch import PackedBatch, Row, pack, pack_share, pack_shared
from derivatives.training.forward import hidden_states
from derivatives.training.loop import Trainer
from derivatives.training.lora import adapters_off
from derivatives.training.model import head_weight, load_model, num_real_tokens
from derivatives.training.preference import open_frozen
from derivatives.training.ranks import Ranks
from derivatives.training.sharding import LossOf
from derivatives.training.tensor_parallel import share_loss

LOSSES: dict[str, ModuleType] = {
    "grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo, "cispo": cispo, "rloo": rloo,
}  # fmt: skip
OVERLONG_SHARE = 5
"""By default the last fifth of the limit costs reward, as DAPO's 4,096 of 20,480 tokens."""


@dataclass
class Totals:
    """Sums over the tokens of a step that were computed."""

    num_tokens: float = 0.0
    entropy: float = 0.0
    mismatch: float = 0.0
    largest_mismatch: float = 0.0
    clipped: float = 0.0
    divergence: float = 0.0
    mismatch_kl: float = 0.0
    importance: float = 0.0
    capped: float = 0.0
    losses: list[dict[str, float]] = field(default_factory=list)

    def over(self, ranks: Ranks) -> Totals:
        """Those of all ranks; the losses are that already."""
        names = [one.name for one in fields(self) if one.name != "losses"]
        by_rank = ranks.gather_shares([getattr(self, name) for name in names])
        columns = dict(zip(names, zip(*by_rank, strict=True), strict=True))
        largest = max(columns.pop("largest_mismatch"))
        sums = {name: sum(column) for name, column in columns.items()}
        return Totals(**sums, largest_mismatch=largest, losses=self.losses)


class PolicyUpdate:
    """Updates the trainer's policy; holds the frozen reference where there is a KL term.

    With adapters that is the policy itself, with them off.
    """

    def __init__(self, trainer: Trainer, stage: RlStage, stage_file: StageFile) -> None:
        self.trainer, self.stage = trainer, stage
        self.loss = LOSSES[stage.loss]
        own: Clip = self.loss.DEFAULT_CLIP
        self.clip = Clip(
            own.low if stage.clip_low is None else stage.clip_low,
            own.high if stage.clip_high is None else stage.clip_high,
        )
        self.limit = stage.sampling.max_new_tokens
        """`max_new_tokens` of the step at hand; a stage with growing lengths sets it."""
        self.importance_cap: float | None = None
        """Largest weight of a token for the mismatch of sampler and trainer; None where they are one, and no token
        is weighted."""
        self.weights = [reward.weight for reward in stage.more_rewards]
        self.entropy = EntropyControl(stage.entropy_coefficient, stage.entropy_target)
        self.num_real_tokens = num_real_tokens(trainer.tokenizer)
        self.reference: PreTrainedModel | None = None
        self.frozen: LossOf | None = None
        """The reference spread over several ranks, where it is a model of its own."""
        self.has_reference = stage.kl_coefficient > 0
        if self.has_reference and stage.lora is not None:
            self.reference = trainer.model
        elif self.has_reference and trainer.ranks.alone:
            self.reference, _ = load_model(stage_file.model_folder(), stage.precision, trainer.device)
            self.reference.requires_grad_(False)
        elif self.has_reference:
            self.frozen = open_frozen(stage_file.model_folder(), stage.precision, trainer.device, trainer.ranks)

    def step(self, prompts: Sequence[list[int]], groups: Sequence[Group]) -> dict[str, float]:
        """Update on a step's groups; returns what the progress log says of it."""
        rewards_PG, known_PG = self.rewards(groups)
        advantages_PG = self.loss.advantages(rewards_PG, known_PG, self.stage.scale_advantages)
        totals, used_coefficient = Totals(), self.entropy.coefficient
        parts = self._parts(len(groups))
        packed = [self._pack(prompts, groups, advantages_PG, known_PG, part) for part in parts]
        if len(parts) > 1:
            packed = [
                ([self._with_old(batch) for batch in batches], divisor, keys) for batches, divisor, keys in packed
            ]
        if self.has_reference and not self.trainer.ranks.alone:
            packed = [
                ([self._with_reference(batch) for batch in batches], divisor, keys) for batches, divisor, keys in packed
            ]
        for batches, divisor, keys in packed:
            if batches:
                losses = self.trainer.update(
                    batches, lambda hidden, batch: self._loss(hidden, batch, totals), divisor, keys
                )
                totals.losses.append(losses)
        totals = totals.over(self.trainer.ranks)
        num = max(totals.num_tokens, 1.0)
        if totals.num_tokens:
            self.entropy.note(totals.entropy / num)
        return {
            "loss": sum(one["loss"] for one in totals.losses) / max(len(totals.losses), 1),
            "grad_norm": max((one["grad_norm"] for one in totals.losses), default=0.0),
            "lr": totals.losses[-1]["lr"] if totals.losses else 0.0,
            "entropy": totals.entropy / num,
            "mismatch": totals.mismatch / num,
            "largest_mismatch": totals.largest_mismatch,
            "clipped": totals.clipped / num,
            "divergence": totals.divergence / num,
            "groups_without_spread": 1.0 - float(has_spread(rewards_PG, known_PG).double().mean()),
            "entropy_coefficient": used_coefficient,
            "trained_tokens": totals.num_tokens,
            **(self._importance_figures(totals, num) if self.importance_cap is not None else {}),
        }

    @staticmethod
    def _importance_figures(totals: Totals, num: float) -> dict[str, float]:
        """How far two engines are apart: KL(sampler || trainer) in nats a token, the mean weight, the share capped."""
        return {
            "mismatch_kl": totals.mismatch_kl / num,
            "importance": totals.importance / num if totals.num_tokens else 1.0,
            "importance_capped": totals.capped / num,
        }

    @property
    def overlong_buffer(self) -> int:
        """Tokens before the limit over which reward is taken away where `truncated` is shaped."""
        return min(self.limit, self.stage.overlong_buffer or max(1, self.limit // OVERLONG_SHARE))

    def has_spread(self, group: Group) -> bool:
        """Whether the group's rewards differ, so that it gives a gradient."""
        return bool(has_spread(*self.rewards([group])))

    def rewards(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """Rewards [P, G], which are combined scores less what nearing the limit costs, and whether each counts."""
        masks_truncated = self.stage.truncated == "mask"

        def counts(one: Judged) -> bool:
            return not one.missing and not (masks_truncated and one.truncated)

        rewards = [[self._reward(one) for one in group] for group in groups]
        known = [[counts(one) for one in group] for group in groups]
        return torch.tensor(rewards, dtype=torch.float64), torch.tensor(known)

    def _reward(self, one: Judged) -> float:
        combined = one.reward(self.weights, self.stage.partial_credit)
        if self.stage.truncated != "shaped":
            return combined
        length = len(one.completion.token_ids)
        penalty = overlong_penalty(length, self.limit, self.overlong_buffer, one.truncated)
        return (0.0 if one.truncated else combined) + penalty

    def _parts(self, num_groups: int) -> list[range]:
        """Groups of each update: as equal as they come, in the drawn order."""
        num = min(self.stage.updates_per_step, num_groups)
        return [range(num_groups * part // num, num_groups * (part + 1) // num) for part in range(num)]

    def _pack(
        self,
        prompts: Sequence[list[int]],
        groups: Sequence[Group],
        advantages_PG: Tensor,
        known_PG: Tensor,
        part: range,
    ) -> tuple[list[PackedBatch], float, list[str]]:
        """Rows that have a gradient, packed; the normaliser over all that count; and the rows' names."""
        families: list[list[Row]] = []
        lengths = []
        for p in part:
            families.append([])
            for g, one in enumerate(groups[p]):
                if not known_PG[p, g] or one.completion.num_drawn == 0:
                    continue
                lengths.append(one.completion.num_drawn)
                advantage = float(advantages_PG[p, g])
                if advantage != 0.0 or self.has_reference or self.entropy.coefficient > 0:
                    families[-1].append(self._row(prompts[p], one, advantage, f"prompt {p} sample {g}"))
        rows, limit = [row for family in families for row in family], self.stage.micro_batch_tokens
        ranks = self.trainer.ranks
        if not ranks.alone:
            batches = pack_share(rows, limit, ranks.data_rank, ranks.num_data) if rows else []
        elif attention.method_of(self.trainer.model) == "documents":
            batches = pack_shared(families, [len(prompts[p]) for p in part], limit)
        else:
            batches = pack(rows, limit) if rows else []
        return batches, self.loss.divisor(lengths, self.limit), [row.key for row in rows]

    def _row(self, prompt: list[int], one: Judged, advantage: float, key: str) -> Row:
        ids = one.completion.token_ids
        before = [0.0] * len(prompt)
        weight = self.loss.token_weight(one.completion.num_drawn, self.limit)
        return Row(
            ids=[*prompt, *ids],
            loss_weights=[*before, *(weight if drawn else 0.0 for drawn in one.completion.drawn)],
            extras={
                "advantages": [*before, *[advantage] * len(ids)],
                "sampled_log_probs": [*before, *one.completion.log_probs],
            },
            key=key,
        )

    def _with_old(self, batch: PackedBatch) -> PackedBatch:
        """The batch with the log-probabilities of the policy before the step's first update."""
        placed = batch.to(self.trainer.device)
        log_probs_T = self.trainer.look(placed, self._only_log_probs)
        return replace(placed, extras={**placed.extras, "old_log_probs": log_probs_T})

    def _with_reference(self, batch: PackedBatch) -> PackedBatch:
        """The batch with the reference's log-probabilities, where no forward pass can be within another's."""
        placed = batch.to(self.trainer.device)
        if self.frozen is None:
            with adapters_off(self.trainer.model):
                log_probs_T = self.trainer.look(placed, self._only_log_probs)
        else:
            model = self.frozen.model
            with torch.no_grad():
                log_probs_T = self.frozen(placed, lambda hidden, own: self._log_probs(model, hidden, own)[0])
        return replace(placed, extras={**placed.extras, "reference_log_probs": log_probs_T})

    def _only_log_probs(self, hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        return self._log_probs(self.trainer.model, hidden_TE, batch)[0]

    def _log_probs(self, model: PreTrainedModel, hidden_TE: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy of each token that is trained on, FP32 [T], 0 elsewhere.

        Ranks that share layers share out the tokens; each gets the result of all.
        """
        trained_T, ranks, temperature = batch.weights_T > 0, self.trainer.ranks, self.stage.sampling.temperature

        def of(hidden_TE: Tensor, head_VE: Tensor, own_T: Tensor) -> Tensor:
            targets_T = torch.where(own_T, batch.targets_T, -100)
            return torch.stack(chunked_log_probs(hidden_TE, head_VE, targets_T, temperature, self.num_real_tokens))

        if ranks.tensor > 1:
            log_probs_T, entropy_T = share_loss(of, hidden_TE, head_weight(model), trained_T, ranks)
            return log_probs_T, entropy_T
        targets_T = torch.where(trained_T, batch.targets_T, -100)
        return chunked_log_probs(hidden_TE, head_weight(model), targets_T, temperature, self.num_real_tokens)

    def _loss(self, hidden_TE: Tensor, batch: PackedBatch, totals: Totals) -> Tensor:
        log_probs_T, entropy_T = self._log_probs(self.trainer.model, hidden_TE, batch)
        old_T = batch.extras["old_log_probs"] if "old_log_probs" in batch.extras else log_probs_T.detach()
        tokens = PolicyTokens(
            log_probs_T, old_T, batch.advantages_T, batch.weights_T > 0, completions(batch), len(batch.lengths)
        )
        losses_T = self.loss.token_losses(tokens, self.clip)
        if self.importance_cap is not None:
            losses_T = losses_T * self._importance(batch, old_T, self.importance_cap, totals)
        divergence_T = torch.zeros_like(losses_T)
        if self.has_reference:
            if "reference_log_probs" in batch.extras:
                reference_T = batch.extras["reference_log_probs"]
            else:
                assert self.reference is not None
                with torch.no_grad(), adapters_off(self.reference):
                    reference_T, _ = self._log_probs(self.reference, hidden_states(self.reference, batch), batch)
            divergence_T = divergence(log_probs_T, reference_T, self.stage.kl_estimator)
            losses_T = losses_T + self.stage.kl_coefficient * divergence_T
        if self.entropy.coefficient > 0:
            losses_T = losses_T - self.entropy.coefficient * entropy_T
        self._count(batch, (log_probs_T.detach(), old_T, entropy_T.detach(), divergence_T.detach()), totals)
        return (losses_T * batch.weights_T).sum()

    def _importance(self, batch: PackedBatch, old_T: Tensor, cap: float, totals: Totals) -> Tensor:
        """The weight of each token, counted."""
        sampled_T, trained_T = batch.extras["sampled_log_probs"], batch.weights_T > 0
        weights_T = truncated_weights(old_T, sampled_T, cap)
        totals.mismatch_kl += float((divergence(sampled_T, old_T, "k3") * trained_T).sum())
        totals.importance += float((weights_T * trained_T).sum())
        totals.capped += float(((old_T - sampled_T > math.log(cap)) & trained_T).sum())
        return weights_T

    def _count(self, batch: PackedBatch, values: tuple[Tensor, Tensor, Tensor, Tensor], totals: Totals) -> None:
        log_probs_T, old_T, entropy_T, divergence_T = values
        trained_T = batch.weights_T > 0
        # The sampler drew before the step's first update, so it is compared with the policy of that time.
        distance_T = (old_T - batch.extras["sampled_log_probs"]).abs() * trained_T
        ratio_T = (log_probs_T - old_T).exp()
        outside_T = ((ratio_T < 1.0 - self.clip.low) | (ratio_T > 1.0 + self.clip.high)) & trained_T
        totals.num_tokens += float(trained_T.sum())
        totals.entropy += float((entropy_T * trained_T).sum())
        totals.mismatch += float(distance_T.sum())
        totals.largest_mismatch = max(totals.largest_mismatch, float(distance_T.max()))
        totals.clipped += float(outside_T.sum())
        totals.divergence += float((divergence_T * trained_T).sum())


def completions(batch: PackedBatch) -> Tensor:
    """Number of the packed completion that each token belongs to, int64 [T]."""
    lengths_N = torch.tensor(batch.lengths, device=batch.input_ids_T.device)
    numbers_N = torch.arange(len(batch.lengths), device=batch.input_ids_T.device)
    return numbers_N.repeat_interleave(lengths_N, output_size=batch.num_tokens)
