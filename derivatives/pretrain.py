"""Continued pretraining on packed documents; every token is trained on.

    python -m derivatives.pretrain STAGE.json OUT/

Reads `tokens.bin` and `documents.npy` of its corpus stages; writes `model/`, `metrics.json`, `progress.jsonl` and
`plots/`. A killed run goes on with the same command. Every step takes whole documents, in an order drawn anew for each
epoch, until `batch_tokens` are reached.

Source: Qwen2.5 (arXiv:2412.15115), section 3. Departure: documents of one packed row never see one another. Not done:
streaming of data larger than the address space. Several processes, adapters, held-out measures: `docs/training.md`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.settings.training import PretrainStage
from configs.stage import StageFile, run_command
from derivatives.training.batch import Row
from derivatives.training.context import extend
from derivatives.training.loop import Trainer, finished
from derivatives.training.measured import measured
from derivatives.training.order import TokenStream
from derivatives.training.ranks import joined


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: documents, steps, model."""
    stage = stage_file.stage
    assert isinstance(stage, PretrainStage)
    with joined(stage_file.machine, out) as ranks:
        if finished(stage_file, out):
            return
        trainer = Trainer(stage_file, out, ranks)
        extend(trainer.model, trainer.tokenizer, stage.context)
        corpora = [read_corpus(stage_file.data_folder(name)) for name in stage.data]
        lengths = np.concatenate([corpus.lengths for corpus in corpora])
        check_corpora(stage, corpora, lengths, trainer.model.config.vocab_size)

        stream = TokenStream(lengths, stage_file.seed)
        total = math.ceil(stage.num_tokens / stage.batch_tokens)
        with measured(trainer) as in_loop:
            for step in trainer.steps(total):
                first, last = (step - 1) * stage.batch_tokens, min(step * stage.batch_tokens, stage.num_tokens)
                trainer.train_step([document_row(corpora, number) for number in stream.documents_between(first, last)])
                in_loop.require_remembered()
        trainer.finish(epochs=round(stage.num_tokens / stream.epoch_tokens, 4), documents=len(lengths))


@dataclass(frozen=True)
class Corpus:
    """Packed documents of one corpus stage, without empty ones; tokens stay on disk until they are used."""

    folder: Path
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def document_row(corpora: list[Corpus], number: int) -> Row:
    """Document `number`, counted through all corpora; all of it is trained on."""
    for corpus in corpora:
        if number < len(corpus.lengths):
            start = int(corpus.starts[number])
            ids = corpus.tokens[start : start + int(corpus.lengths[number])].astype(np.int64)
            return Row(ids, key=f"{corpus.folder} from token {start}")  # type: ignore[arg-type]
        number -= len(corpus.lengths)
    raise IndexError(number)


def read_corpus(folder: Path) -> Corpus:
    """Open a corpus stage's packed tokens. Raises UserError if they are not there or do not fit together."""
    try:
        offsets = np.load(folder / "documents.npy")
        tokens = np.memmap(folder / "tokens.bin", dtype="<u4", mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"data: {folder} holds no packed tokens ({error}); build it with a corpus stage of output tokens"
        ) from error
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
        raise UserError(
            f"data: {folder}/documents.npy does not fit tokens.bin ({len(tokens)} tokens); build the corpus again"
        )
    lengths = np.diff(offsets)
    return Corpus(folder, tokens, offsets[:-1][lengths > 0], lengths[lengths > 0])


def check_corpora(stage: PretrainStage, corpora: list[Corpus], lengths: np.ndarray, vocab_size: int) -> None:
    """There is something to train on, it fits into a micro-batch, and into the vocabulary. Raises UserError."""
    if not (lengths > 1).any():
        raise UserError(
            f"data: {', '.join(stage.data)} holds no document of two tokens or more; read the corpus's report.json"
        )
    if lengths.max() > stage.micro_batch_tokens:
        raise UserError(
            f"stage.micro_batch_tokens: {stage.micro_batch_tokens} is less than the longest document "
            f"({lengths.max()} tokens); raise it, or lower the corpus's sequence_length"
        )
    for corpus in corpora:
        largest = int(corpus.tokens.max())
        if largest >= vocab_size:
            raise UserError(
                f"data: {corpus.folder} holds the token id {largest}, the model has {vocab_size}; it was packed with "
                "another tokenizer; build the corpus again from this base"
            )


if __name__ == "__main__":
    sys.exit(run_command("pretrain", run, __doc__))
