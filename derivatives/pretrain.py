"""Continued pretraining on packed documents; every token is trained on.

    python -m derivatives.pretrain STAGE.json OUT/

Reads `tokens.bin` and `documents.npy` of its corpus stages; writes `model/`, `metrics.json`, `progress.jsonl` and
`plots/`. A killed run goes on with the same command. Every step takes whole documents, in an order drawn anew for each
epoch, until `batch_tokens` are reached; of packed corpora (`sequences.npy`) whole sequences. Where a corpus holds
several sources, the loss on each is recorded too (`training/domains.py`).

Source: Qwen2.5 (arXiv:2412.15115), section 3. Departure: documents of one packed row never see one another. Not done:
streaming of data larger than the address space. Several processes, adapters, held-out measures: `docs/training.md`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.settings.training import PretrainStage
from configs.stage import StageFile, run_command
from derivatives.training.batch import Row
from derivatives.training.context import extend
from derivatives.training.domains import measure_sources
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
        check_corpora(stage.data, stage.micro_batch_tokens, corpora, lengths, trainer.model.config.vocab_size)

        stream = Stream(corpora, lengths, stage_file.seed)
        source_of, num_sources = sources_of(stage.data, corpora)
        if num_sources > 1:
            trainer.measures.append(lambda: measure_sources(
                trainer, lambda: stream.documents_between(trainer.step * stage.batch_tokens,
                                                          (trainer.step + 1) * stage.batch_tokens),
                lambda number: document_row(corpora, number), source_of))
        total = num_steps(stage, stream)
        with measured(trainer):
            for step in trainer.steps(total):
                first, last = (step - 1) * stage.batch_tokens, min(step * stage.batch_tokens, stage.num_tokens)
                trainer.train_step([document_row(corpora, number) for number in stream.documents_between(first, last)])
        trainer.finish(epochs=round(stage.num_tokens / stream.epoch_tokens, 4), documents=len(lengths))


class Stream:
    """The documents of all corpora in the order of training: one by one, or by whole sequences where all have some.

    Documents of one sequence fill a micro-batch of its length better than drawn ones do (docs/corpora/packing.md).
    """

    def __init__(self, corpora: Sequence[Corpus], lengths: np.ndarray, seed: int) -> None:
        starts = np.cumsum([0, *(len(corpus.lengths) for corpus in corpora)])
        bounds = [first + corpus.sequences[:-1] for first, corpus in zip(starts, corpora, strict=False)
                  if corpus.sequences is not None]
        self._bounds = np.arange(len(lengths) + 1)
        if len(bounds) == len(corpora):
            self._bounds = np.unique(np.concatenate([*bounds, starts[-1:]]))
        self._stream = TokenStream(np.add.reduceat(lengths, self._bounds[:-1]), seed)
        self.epoch_tokens = self._stream.epoch_tokens
        self.longest = int(self._stream.lengths.max())
        """Tokens of the longest sequence, or document."""

    def documents_between(self, first: int, last: int) -> list[int]:
        """Documents of those sequences, or those documents, that begin at tokens `first` to `last` (left out)."""
        found = self._stream.documents_between(first, last)
        return [number for one in found for number in range(int(self._bounds[one]), int(self._bounds[one + 1]))]


def num_steps(stage: PretrainStage, stream: Stream) -> int:
    """Steps until `num_tokens`; none for a rest in which no document begins, which would train on nothing.

    Raises:
        UserError: A document or sequence is longer than a step, so that steps inside it would train on nothing.
    """
    if stream.longest > stage.batch_tokens:
        raise UserError(
            f"stage.batch_tokens: {stage.batch_tokens} is less than the longest document or packed sequence "
            f"({stream.longest} tokens), which one step takes whole; raise it, or lower the corpus's sequence_length"
        )
    total = math.ceil(stage.num_tokens / stage.batch_tokens)
    rest = stream.documents_between((total - 1) * stage.batch_tokens, stage.num_tokens)
    return total if rest or total == 1 else total - 1


@dataclass(frozen=True)
class Corpus:
    """Packed documents of one corpus stage, without empty ones; tokens stay on disk until they are used."""

    folder: Path
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    """The source of each document, as a place in `names`."""
    names: tuple[str, ...]
    sequences: np.ndarray | None = None
    """The documents at which packed sequences begin, and their number; none where it was not packed."""


def document_row(corpora: list[Corpus], number: int) -> Row:
    """Document `number`, counted through all corpora; all of it is trained on."""
    for corpus in corpora:
        if number < len(corpus.lengths):
            start = int(corpus.starts[number])
            ids = corpus.tokens[start : start + int(corpus.lengths[number])].astype(np.int64)
            return Row(ids, key=f"{corpus.folder} from token {start}")  # type: ignore[arg-type]
        number -= len(corpus.lengths)
    raise IndexError(number)


def sources_of(stages: Sequence[str], corpora: list[Corpus]) -> tuple[Callable[[int], str], int]:
    """What names the source of a document, counted through all corpora, and how many sources there are.

    With several corpora the stage that made a corpus goes before the source's name.
    """
    names = [[f"{stage}.{name}" if len(corpora) > 1 else name for name in corpus.names]
             for stage, corpus in zip(stages, corpora, strict=True)]

    def source_of(number: int) -> str:
        for own, corpus in zip(names, corpora, strict=True):
            if number < len(corpus.labels):
                return own[int(corpus.labels[number])].replace("/", ".")
            number -= len(corpus.labels)
        raise IndexError(number)

    return source_of, len({name for own in names for name in own})


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
    labels, names = read_labels(folder, len(lengths))
    is_some = lengths > 0
    sequences = None
    if (folder / "sequences.npy").exists():
        begins = np.load(folder / "sequences.npy")
        if begins[0] != 0 or begins[-1] != len(lengths) or (np.diff(begins) < 0).any():
            raise UserError(f"data: {folder}/sequences.npy does not fit documents.npy ({len(lengths)} documents); "
                            "build the corpus again")
        sequences = np.concatenate(([0], np.cumsum(is_some)))[begins]
    return Corpus(folder, tokens, offsets[:-1][is_some], lengths[is_some], labels[is_some], names, sequences)


def read_labels(folder: Path, num_documents: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The source of each document and the sources' names; one source for packed tokens that do not say.

    Raises:
        UserError: They do not fit the documents.
    """
    if not (folder / "sources.npy").exists() or not (folder / "report.json").exists():
        return np.zeros(num_documents, dtype=np.int16), ("all",)
    labels = np.load(folder / "sources.npy")
    names = tuple(json.loads((folder / "report.json").read_text(encoding="utf-8"))["source_names"])
    if len(labels) != num_documents or (num_documents and not 0 <= labels.min() <= labels.max() < len(names)):
        raise UserError(
            f"data: {folder}/sources.npy does not fit documents.npy ({num_documents} documents) and the {len(names)} "
            "sources of report.json; build the corpus again"
        )
    return labels, names


def check_corpora(
    names: Sequence[str], micro_batch_tokens: int, corpora: list[Corpus], lengths: np.ndarray, vocab_size: int
) -> None:
    """There is something to train on, it fits into a micro-batch, and into the vocabulary. Raises UserError."""
    if not (lengths > 1).any():
        raise UserError(
            f"data: {', '.join(names)} holds no document of two tokens or more; read the corpus's report.json"
        )
    if lengths.max() > micro_batch_tokens:
        raise UserError(
            f"stage.micro_batch_tokens: {micro_batch_tokens} is less than the longest document "
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
