"""Documents as records of the product: token pieces, or JSON lines.

| output | record |
|---|---|
| tokens | little-endian uint32 ids of one piece, ending with the end-of-text id |
| examples | `{"id", "source", "prompt", "completion"}`, or `messages` instead of the two |
| problems | `{"id", "source", "prompt", "answer", "verifier", "metadata"}` |

With `fim` a document may be cut (`corpora/fim.py`); one that is longer than the sequence length is split first, and its
pieces may be cut. With level repository the files of one repository are one document (`corpora/repository.py`), or
several where they are too long; one that is too long with its last file cut is written uncut, in pieces, and counted as
`too_long_for_fim`.

An example whose prompt and completion have more tokens than the sequence length is dropped as `too_long`; the few
tokens that a chat template adds are not counted here (`sft.max_length` counts them).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from configs.settings.corpus import CorpusSource, CorpusStage, FillInTheMiddle
from corpora import fim, repository
from corpora.account import Account
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.fim import Mark, Segment
from corpora.shelf import Shelf
from corpora.tokens import TOKEN_DTYPE, Encoder
from verifiers.tasks import normalise_question

HASH_BYTES = 8
ROOM = 0.85
"""Share of the sequence length that a repository's document is planned to fill: its tokens are known only later."""
FIM_SLACK = 16
"""Tokens left free in a piece that may be cut, for the three marks and for words that the cuts part."""
MEASURED_FILES, MEASURED_CHARACTERS = 64, 10_000
"""Files, and characters of each, on which a source's characters per token are measured."""
REPOSITORY_DOCUMENTS = 256
"""Documents of one repository that are tokenised at once."""


def question_hash(question: str) -> int:
    """BLAKE2b of the normalised question, 8 bytes, as a number."""
    key = normalise_question(question).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=HASH_BYTES).digest(), "big")


class Shelver:
    """Turns the clean documents of one source into records of one output and puts them on its shelf."""

    def __init__(self, stage: CorpusStage, source: CorpusSource, encoder: Encoder | None, seed: int, shelf: Shelf,
                 dropped: DropLog, account: Account) -> None:
        assert encoder is not None or stage.output == "problems"
        self._shelve = {"tokens": self._tokens, "examples": self._examples, "problems": self._problems}[stage.output]
        self._encoder = encoder
        self._sequence_length = stage.sequence_length
        self._source = source
        self._seed = seed
        self._shelf, self._dropped, self._account = shelf, dropped, account
        self._marks: dict[Mark, int] = {}
        if source.fim is not None or source.level == "repository":
            assert encoder is not None
            self._marks = {mark: encoder.added_id(mark.value) for mark in Mark}
        self._open: list[Document] = []
        """Files of the repository that is being read."""
        self._max_characters = 0

    def shelve(self, batch: list[Document]) -> list[Document]:
        """Put a batch on the shelf; what is too long is dropped (examples) or split (tokens). Returns what was kept."""
        return self._shelve(batch)

    def finish(self) -> None:
        """Write the last repository."""
        self._close_repository()

    def _tokens(self, batch: list[Document]) -> list[Document]:
        if self._source.level == "repository":
            files = [document for document in batch if not document.repository]
            for document in batch:
                if document.repository:
                    self._add_to_repository(document)
        else:
            files = batch
        if self._source.fim is None:
            self._write([[document.text] for document in files], [_hashes(document) for document in files])
        else:
            self._write_cut(files, self._source.fim)
        return batch

    def _write_cut(self, files: list[Document], settings: FillInTheMiddle) -> None:
        """Cut documents that fit, and of a longer one each piece by a draw of its own: no piece lacks its marks.

        Cutting after splitting is what Bavarian et al. 2022 (arXiv 2207.14255) found to be the better of the two.
        """
        assert self._encoder is not None
        room = self._sequence_length - 1
        ids: list[list[np.ndarray]] = []
        cut: list[tuple[int, int, list[Segment]]] = []
        all_pieces = self._encoder.with_pieces([one.text for one in files], max(room - FIM_SLACK, 1))
        for i, (document, pieces) in enumerate(zip(files, all_pieces, strict=True)):
            ids.append([encoded for _, encoded in pieces])
            for k, (text, _) in enumerate(pieces):
                one = document
                if len(pieces) > 1:
                    one = dataclasses.replace(document, id=f"{document.id}#{k}", text=text)
                segments = fim.transform(one, settings, self._seed)
                if Mark.PREFIX in segments:
                    cut.append((i, k, segments))
        encoded_cuts = fim.encode([segments for _, _, segments in cut], self._encoder.encode, self._marks)
        for (i, k, _), encoded in zip(cut, encoded_cuts, strict=True):
            fits = len(encoded) <= room
            self._account.cuts["cut_for_fim" if fits else "too_long_for_fim"] += 1
            if fits:
                ids[i][k] = encoded
        for document, parts in zip(files, ids, strict=True):
            ended = [np.append(part, TOKEN_DTYPE.type(self._encoder.end_id)) for part in parts]
            self._shelve_pieces(ended, _hashes(document))

    def _shelve_pieces(self, pieces: list[np.ndarray], hashes: list[int]) -> None:
        self._shelf.add([piece.tobytes() for piece in pieces], [len(piece) for piece in pieces], hashes)
        self._account.encoded(sum(map(len, pieces)))
        self._account.cuts["split"] += len(pieces) > 1
        self._account.cuts["pieces"] += len(pieces) if len(pieces) > 1 else 0
        self._account.cuts["split_tokens"] += sum(map(len, pieces)) - len(pieces) if len(pieces) > 1 else 0

    def _add_to_repository(self, document: Document) -> None:
        """Documents come repository by repository (`regroup.py`)."""
        if self._open and self._open[-1].repository != document.repository:
            self._close_repository()
        self._open.append(document)

    def _close_repository(self) -> None:
        if not self._open:
            return
        files, self._open = with_distinct_paths(self._open), []
        if not self._max_characters:
            self._max_characters = self._room(files)
        found = repository.assemble(files[0].repository, files, self._source.fim, self._seed, self._max_characters)
        self._account.cuts["repositories"] += 1
        self._account.cuts["repository_documents"] += len(found)
        for first in range(0, len(found), REPOSITORY_DOCUMENTS):
            part = found[first : first + REPOSITORY_DOCUMENTS]
            self._write(part, [[] for _ in part])

    def _room(self, files: list[Document]) -> int:
        """Characters that will nearly always fit into the sequence length, measured on the first files."""
        assert self._encoder is not None
        texts = [document.text[:MEASURED_CHARACTERS] for document in files[:MEASURED_FILES]]
        num_tokens = sum(map(len, self._encoder.encode(texts)))
        return max(int(ROOM * self._sequence_length * sum(map(len, texts)) / max(num_tokens, 1)), 1)

    def _write(self, documents: list[list[Segment]], hashes: list[list[int]]) -> None:
        assert self._encoder is not None
        room = self._sequence_length - 1
        ids = fim.encode(documents, self._encoder.encode, self._marks)
        cut = [i for i, segments in enumerate(documents) if Mark.PREFIX in segments]
        # A piece of a cut document without its marks would be broken, so that a long one is left whole and split.
        long = [i for i in cut if len(ids[i]) > room]
        whole = fim.encode([fim.uncut(documents[i]) for i in long], self._encoder.encode, self._marks)
        for i, encoded in zip(long, whole, strict=True):
            ids[i] = encoded
        cuts = self._account.cuts
        cuts["cut_for_fim"] += len(cut) - len(long)
        cuts["too_long_for_fim"] += len(long)
        for one, found in zip(ids, hashes, strict=True):
            self._shelve_pieces(self._encoder.pieces(one, self._sequence_length), found)

    def _examples(self, batch: list[Document]) -> list[Document]:
        assert self._encoder is not None
        kept = []
        parts = [[turn["content"] for turn in one.messages] or [one.prompt, one.completion] for one in batch]
        lengths = iter([len(ids) for ids in self._encoder.encode([part for one in parts for part in one])])
        for document, one in zip(batch, parts, strict=True):
            num_tokens = sum(next(lengths) for _ in one)
            if num_tokens > self._sequence_length:
                self._dropped.add(document, "too_long", tokens=num_tokens)
                continue
            content: dict[str, Any] = {"messages": list(document.messages)} if document.messages else \
                {"prompt": document.prompt, "completion": document.completion}
            self._shelf.add([_line(document, content)], [num_tokens], _hashes(document))
            self._account.encoded(num_tokens)
            kept.append(document)
        return kept

    def _problems(self, batch: list[Document]) -> list[Document]:
        for document in batch:
            content = {"prompt": document.prompt, "answer": document.answer, "verifier": document.verifier,
                       "metadata": document.metadata}
            self._shelf.add([_line(document, content)], [0], _hashes(document))
        return batch


def with_distinct_paths(files: list[Document]) -> list[Document]:
    """The files of a repository; where several have one path, or none, the later ones' paths get a number."""
    seen: set[str] = set()
    found = []
    for document in files:
        path, number = document.path or "file", 1
        while path in seen:
            number += 1
            path = f"{document.path or 'file'}#{number}"
        seen.add(path)
        found.append(document if path == document.path else dataclasses.replace(document, path=path))
    return found


def _line(document: Document, content: dict[str, Any]) -> bytes:
    line = {"id": document.id, "source": document.source, **content}
    # A lone surrogate in an id or in metadata comes out as the JSON escape that it was.
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _hashes(document: Document) -> list[int]:
    return [question_hash(question) for question in document.questions()]
