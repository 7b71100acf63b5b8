"""A reward model as a verifier: a sequence classifier with one output, from a folder, on the CPU.

    def preferred():
        return RewardModelVerifier("preferred", "/models/reward", zero_at=-4.0, correct_at=3.5)

The reward reads the question and what follows the last `</think>`, in the folder's own chat template. An answer is
correct from the reward `correct_at` on; below, partial credit falls in a line to 0 at `zero_at`. Where these stand is
the author's to measure: rewards have no scale of their own.

No text of a completion becomes a token of the chat template: its special tokens are read as the letters they are made
of. An answer that is too long for the model is over budget; nothing is cut. A reward that is no number is the answer's
doing, since the model has given one for a harmless answer before it was used.

What this does not do: no GPU and no batches over a pool's workers, each of which loads the model. A large reward model
belongs behind an address, with a verifier of a few lines that asks it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.judge.folders import folder_digest, open_folder
from verifiers.judge.verifier import CONTROL, SHOWN
from verifiers.structured.blocks import answer_part

SECONDS = 120.0
"""For one reward."""
_PLACES = ("place-of-the-question", "place-of-the-answer")


class RewardModelVerifier:
    """Correct if a reward model's score is high enough.

    Args:
        name: Registry name.
        folder: A sequence classifier with one output, in Hugging Face layout, with a chat template.
        zero_at: Reward at which, and below, an answer earns nothing.
        correct_at: Reward at which, and above, an answer is correct.
        max_tokens: Tokens of question and answer with the template; None for the model's own limit.
    """

    deadline_s = SECONDS

    def __init__(
        self, name: str, folder: str | Path, zero_at: float, correct_at: float, max_tokens: int | None = None
    ) -> None:
        if not -math.inf < zero_at < correct_at < math.inf:
            raise ValueError(f"{name}: zero_at {zero_at!r}, correct_at {correct_at!r}; allowed: two numbers that rise")
        self.name, self.folder, self.zero_at, self.correct_at = name, Path(folder), zero_at, correct_at
        self.max_tokens = max_tokens
        self.version = f"1+{self.folder.name}-{folder_digest(self.folder)}+from-{zero_at:g}-to-{correct_at:g}" + (
            f"+max_tokens-{max_tokens}" if max_tokens else ""
        )
        self._loaded: tuple[Any, Any] | None = None

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its reward."""
        answer = answer_part(completion)
        shown = answer.strip()[:SHOWN]
        if not shown:
            return incorrect("no_answer")
        if self._tokens(task.prompt, CONTROL) is None:
            return no_verdict("task_too_long")
        if self._tokens(task.prompt, answer) is None:
            return incorrect(OVER_BUDGET, shown)
        (reward,) = self.rewards([(task.prompt, answer)])
        if not math.isfinite(reward):
            return incorrect("reward_is_no_number", shown)
        if reward >= self.correct_at:
            return correct(shown, "reward_high")
        share = (reward - self.zero_at) / (self.correct_at - self.zero_at)
        return incorrect("reward_low", shown, min(max(share, 0.0), math.nextafter(1.0, 0.0)))

    def warm_up(self) -> None:
        """Load the model."""
        self._open()

    def rewards(self, pairs: Sequence[tuple[str, str]], batch_size: int = 16) -> list[float]:
        """The raw reward of each question and answer, in order; NaN for what is too long.

        Batches are of like lengths; a reward may differ from that of a batch of one in its last digits.
        """
        rows = [self._tokens(*pair) for pair in pairs]
        order = sorted((place for place, row in enumerate(rows) if row), key=lambda place: len(rows[place] or ()))
        found = [math.nan] * len(rows)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for place, reward in zip(batch, self._forward([rows[place] or [] for place in batch]), strict=True):
                found[place] = reward
        return found

    def _forward(self, rows: list[list[int]]) -> Iterator[float]:
        import torch

        model, _ = self._open()
        longest, pad = max(map(len, rows)), model.config.pad_token_id
        if pad is None and any(len(row) < longest for row in rows):  # transformers cannot tell padding then
            yield from (reward for row in rows for reward in self._forward([row]))
            return
        tokens = torch.tensor([row + [pad or 0] * (longest - len(row)) for row in rows])
        seen = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        with torch.inference_mode():
            yield from model(input_ids=tokens, attention_mask=seen.long()).logits[:, 0].float().tolist()

    def _tokens(self, question: str, answer: str) -> list[int] | None:
        """The row for the model; None where it is too long."""
        model, tokenizer = self._open()
        most = self.max_tokens or model.config.max_position_embeddings
        if len(question) + len(answer) > 100 * most:  # next to no text has tokens that long; spare the tokenizer
            return None
        before, between, after = self._frame(tokenizer)
        row: list[int] = []
        for text, is_data in ((before, 0), (question, 1), (between, 0), (answer, 1), (after, 0)):
            row += tokenizer(text, add_special_tokens=False, split_special_tokens=bool(is_data))["input_ids"]
            if len(row) > most:
                return None
        return row

    def _frame(self, tokenizer: Any) -> tuple[str, str, str]:
        """What the chat template writes before, between and after question and answer."""
        talk = [{"role": role, "content": place} for role, place in zip(("user", "assistant"), _PLACES, strict=True)]
        text = tokenizer.apply_chat_template(talk, tokenize=False)
        before, _, rest = text.partition(_PLACES[0])
        between, _, after = rest.partition(_PLACES[1])
        return before, between, after

    def _open(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModelForSequenceClassification

            model, tokenizer = open_folder(self.folder, AutoModelForSequenceClassification)
            if model.config.pad_token_id is None:
                model.config.pad_token_id = tokenizer.pad_token_id
            if model.config.num_labels != 1:
                raise UserError(f"folder: {self.folder} has {model.config.num_labels} outputs; allowed: 1, the reward")
            self._loaded = model, tokenizer
            (reward,) = self.rewards([("", CONTROL)])
            if not math.isfinite(reward):
                self._loaded = None
                raise UserError(f"folder: {self.folder} gives the reward {reward} to {CONTROL!r}; mend its weights")
        return self._loaded
