"""What became of the documents of one source: sizes, licences, languages, redactions, cuts, and a sample of the kept.

The drops are in `corpora/dropped.py`; together they account for every document that was read (`check`).
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from typing import Any

from corpora.document import Document, num_bytes
from corpora.dropped import READING, STEPS, DropLog
from corpora.filters.languages import language_of

KEPT_SAMPLES = 50
"""Kept documents of each source that a reader can look at: those with the least hash, an even draw."""
KEPT_CHARS = 2000
_COUNTERS = ("redactions", "licences", "languages", "cuts")


class Account:
    """Counts for one source."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.yielded: list[int] = [0, 0]
        """Documents and bytes that the source gave; those that it dropped itself are in the log."""
        self.clean: list[int] = [0, 0]
        """Documents and bytes that were left."""
        self.redactions: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        """Clean documents of each licence."""
        self.languages: Counter[str] = Counter()
        """Bytes of the clean documents of each language; output tokens only."""
        self.lengths: Counter[int] = Counter()
        """Written documents by the binary logarithm of their tokens, rounded down."""
        self.cuts: Counter[str] = Counter()
        """What the encoder did: `cut_for_fim`, `too_long_for_fim`, `repositories`, `split`, `pieces`, ..."""
        self._samples: list[tuple[int, int, dict[str, Any]]] = []
        """A heap: the negated hash, the negated number of the draw, the line."""
        self._num_drawn = 0

    def read(self, batch: list[Document]) -> None:
        """Count documents that the source gave."""
        self.yielded[0] += len(batch)
        self.yielded[1] += sum(num_bytes(document.full_text()) for document in batch)

    def redacted(self, counts: Counter[str]) -> None:
        """Count placeholders that were put into one document."""
        self.redactions["documents"] += 1
        self.redactions.update(counts)

    def keep(self, batch: list[Document], has_language: bool) -> None:
        """Count documents that are clean, and draw the sample."""
        for document in batch:
            text = document.full_text()
            size = num_bytes(text)
            self.clean[0] += 1
            self.clean[1] += size
            self.licences[document.licence] += 1
            if has_language:
                self.languages[document.language or language_of(document.path, text) or "unknown"] += size
            self._draw(document, text)

    def encoded(self, num_tokens: int) -> None:
        """Count one document that was written to the shelf."""
        self.lengths[num_tokens.bit_length() - 1 if num_tokens else 0] += 1

    def samples(self) -> list[dict[str, Any]]:
        """The sample of kept documents, by id."""
        return [line for _, _, line in sorted(self._samples, key=lambda entry: (entry[2]["id"], -entry[1]))]

    def state(self) -> dict[str, Any]:
        """What was counted, as plain data for `merge`."""
        counters = {name: dict(getattr(self, name)) for name in _COUNTERS}
        lengths = [[power, number] for power, number in self.lengths.items()]  # a key of JSON is no number
        samples = [[rank, line] for rank, number, line in sorted(self._samples, key=lambda entry: -entry[1])]
        return {"yielded": self.yielded, "clean": self.clean, **counters, "lengths": lengths, "samples": samples}

    def merge(self, state: dict[str, Any]) -> None:
        """Add what was counted elsewhere, for documents that come after all that are counted here."""
        for name in _COUNTERS:
            getattr(self, name).update(state[name])
        for power, number in state["lengths"]:
            self.lengths[power] += number
        self.yielded = [mine + other for mine, other in zip(self.yielded, state["yielded"], strict=True)]
        for rank, line in state["samples"]:
            self._sample(rank, line)
        self.clean = [mine + other for mine, other in zip(self.clean, state["clean"], strict=True)]

    def funnel(self, dropped: DropLog) -> list[dict[str, Any]]:
        """For every step at which something was dropped: what it dropped, and what was left after it."""
        read_drops = sum(dropped.by_reason(self.name, READING).values())
        documents, size = self.yielded[0] + read_drops, self.yielded[1] + dropped.num_bytes(self.name, READING)
        found = [{"step": "read", "documents": documents, "bytes": size, "dropped": {}}]
        for step in STEPS:
            drops = dropped.by_reason(self.name, step)
            if drops:
                documents -= sum(drops.values())
                size -= dropped.num_bytes(self.name, step)
                found.append({"step": step, "documents": documents, "bytes": size, "dropped": drops})
        return found

    def check(self, dropped: DropLog) -> None:
        """No document may be lost without a reason."""
        left = self.funnel(dropped)[-1]["documents"]
        assert left == self.clean[0], f"{self.name}: {left} documents should be clean, {self.clean[0]} are"

    def _draw(self, document: Document, text: str) -> None:
        digest = hashlib.blake2b(document.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        rank = -int.from_bytes(digest, "big")
        if len(self._samples) < KEPT_SAMPLES or rank > self._samples[0][0]:
            self._sample(rank, {"id": document.id, "source": self.name, "path": document.path,
                                "licence": document.licence, "characters": len(text), "text": text[:KEPT_CHARS]})

    def _sample(self, rank: int, line: dict[str, Any]) -> None:
        """Take a document into the sample, if it belongs there; of those with one id the first ones stay."""
        self._num_drawn += 1
        entry = (rank, -self._num_drawn, line)
        if len(self._samples) < KEPT_SAMPLES:
            heapq.heappush(self._samples, entry)
        elif rank > self._samples[0][0]:
            heapq.heapreplace(self._samples, entry)
