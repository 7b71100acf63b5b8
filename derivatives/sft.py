"""Supervised fine-tuning on conversations; the loss is on what the assistant says.

    python -m derivatives.sft STAGE.json OUT/

Reads JSONL of `{"prompt", "completion"}` or `{"messages": [{"role", "content"}, ...]}` from corpus stages or files;
writes `model/`, `metrics.json`, `progress.jsonl` and `plots/`. A killed run goes on with the same command. Trained are
the assistant turns' contents and the token that ends each of them, but not what an interpreter said in between
(a block of output right after one of Python, as `verifiers/tool_text.py` has it), unless `learn_outputs` is on. With
`replay`, every step also trains on documents of token corpora, as pretraining does: a share of old data keeps what a
model knew (arXiv:2403.08763 for pretraining; measured here in docs/experiments.md).

Source: Qwen2.5 (arXiv:2412.15115), section 4. Departure: the loss is averaged over the trained tokens of a whole step.
Not done: tools called by name, images. Longer examples are dropped and counted, never cut. Several processes, adapters,
held-out measures: `docs/training.md`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.training import Replay, SftStage
from configs.stage import StageFile, run_command
from derivatives.pretrain import Stream, check_corpora, document_row, read_corpus
from derivatives.training.batch import Row, answer_row
from derivatives.training.chat import encode_example, encode_messages
from derivatives.training.context import extend
from derivatives.training.loop import Trainer, finished
from derivatives.training.measured import measured
from derivatives.training.order import items_between
from derivatives.training.ranks import joined


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: examples, steps, model."""
    stage = stage_file.stage
    assert isinstance(stage, SftStage)
    with joined(stage_file.machine, out) as ranks:
        if finished(stage_file, out):
            return
        trainer = Trainer(stage_file, out, ranks)
        extend(trainer.model, trainer.tokenizer, stage.context)
        rows, num_too_long = read_rows(stage_file, stage, trainer.tokenizer)
        replayed = Replayed(stage_file, stage, stage.replay, trainer.model.config.vocab_size) if stage.replay else None

        num_examples = max(1, round(stage.epochs * len(rows)))
        total = math.ceil(num_examples / stage.batch_examples)
        with measured(trainer):
            for step in trainer.steps(total):
                first, last = (step - 1) * stage.batch_examples, min(step * stage.batch_examples, num_examples)
                examples = [rows[item] for item in items_between(first, last, len(rows), stage_file.seed)]
                trainer.train_step([*examples, *(replayed.rows(step) if replayed is not None else [])])
        trainer.finish(examples=len(rows), dropped_too_long=num_too_long)


class Replayed:
    """Documents of token corpora, as many in each step as `replay.batch_tokens` says.

    Raises:
        UserError: There are none, or one is longer than a micro-batch.
    """

    def __init__(self, stage_file: StageFile, stage: SftStage, replay: Replay, vocab_size: int) -> None:
        self.corpora = [read_corpus(stage_file.data_folder(name)) for name in replay.data]
        lengths = np.concatenate([corpus.lengths for corpus in self.corpora])
        check_corpora(replay.data, stage.micro_batch_tokens, self.corpora, lengths, vocab_size)
        self.stream, self.batch_tokens = Stream(self.corpora, lengths, stage_file.seed), replay.batch_tokens
        self.weight = replay.weight

    def rows(self, step: int) -> list[Row]:
        """Those that begin in the tokens of this step; a document longer than a step leaves the next ones empty."""
        found = self.stream.documents_between((step - 1) * self.batch_tokens, step * self.batch_tokens)
        rows = [document_row(self.corpora, number) for number in found]
        return [replace(row, loss_weights=[self.weight] * len(row.ids)) for row in rows]


def read_rows(stage_file: StageFile, stage: SftStage, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Row], int]:
    """All examples that fit into `max_length`, in the order of the data, and how many do not.

    Raises:
        UserError: A line that is no example (file and line are named), nothing to train on, or a micro-batch that is
            smaller than an example.
    """
    rows: list[Row] = []
    num_too_long = 0
    for path in data_files(stage_file, stage):
        for where, example in read_jsonl(path):
            row = encode_row(where, example, stage.system, tokenizer, stage.learn_outputs)
            if len(row.ids) > stage.max_length:
                num_too_long += 1
            else:
                rows.append(row)
    if not rows:
        raise UserError(
            f"data: {', '.join(stage.data)} holds no example of at most stage.max_length = {stage.max_length} tokens "
            f"({num_too_long} are longer); raise it or check the files"
        )
    longest = max(len(row.ids) for row in rows)
    if longest > stage.micro_batch_tokens:
        raise UserError(
            f"stage.micro_batch_tokens: {stage.micro_batch_tokens} is less than the longest example "
            f"({longest} tokens); raise it, or lower stage.max_length"
        )
    return rows, num_too_long


def data_files(stage_file: StageFile, stage: SftStage) -> list[Path]:
    """The JSONL files of the stage: the user's own, or those of corpus stages."""
    return [
        Path(name) if name.endswith(".jsonl") else stage_file.data_folder(name) / "examples.jsonl"
        for name in stage.data
    ]


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, each with its `file:line`. Raises UserError that names the line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise UserError(f"{path}:{number}: {line.strip()[:80]!r} is no object; give one example a line")
                yield f"{path}:{number}", value
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number}: not JSON ({error}); mend or remove the line") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"data: {path} is no file; give JSONL, or a corpus stage with output examples") from error
    except UnicodeDecodeError as error:
        raise UserError(f"data: {path} is not a UTF-8 text file; convert it") from error


def encode_row(
    where: str,
    example: dict[str, Any],
    system: str | None,
    tokenizer: PreTrainedTokenizerBase,
    learn_outputs: bool = False,
) -> Row:
    """One example as a row. Raises UserError that names the line."""
    if "messages" in example:
        try:
            ids, trained = encode_messages(tokenizer, example["messages"], system, learn_outputs)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return answer_row(ids, trained, where)
    for field in ("prompt", "completion"):
        if not isinstance(example.get(field), str):
            found = str(example.get(field))[:80]
            raise UserError(f"{where}: {field}: {found!r} is no text; give prompt and completion, or messages")
    ids, trained = encode_example(tokenizer, example["prompt"], example["completion"], system, learn_outputs)
    return answer_row(ids, trained, where)


if __name__ == "__main__":
    sys.exit(run_command("sft", run, __doc__))
