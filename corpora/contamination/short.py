"""Short questions, and those of procedural sets: found by their exact normalised text.

Such a question is looked for as a document's own question, as its whole text, and as one of its lines, or a few lines
in a row; also without labels before it (`Problem 12.`, `Q:`, `3)`, a bullet) and without the signs of a comment. It is
not looked for inside a line: what a few words share is not evidence.

Lines are compared only in texts that hold the first words of a question, which is found at tens of megabytes a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from corpora.document import Document
from corpora.near_duplicates.shingles import hash_shingles, hash_words
from verifiers.tasks import normalise_question

SHORTEST_LINE = 16
"""Characters below which a line is not compared: `2 + 2` stands everywhere. A whole text may be shorter."""
OPENING_WORDS = 4
JOINED_LINES = 4
"""Lines at most over which a question may be spread."""
_OPENING_CHARACTERS = 8
_MOST_LABELS = 3
_LABEL = re.compile(r"\s*(?:[#>*\u2022/-]+|(?:problem|question|exercise|example|task|q)\s*(?:\d+(?:\.\d+)*)?"
                    r"|\d+(?:\.\d+)*)\s*[.):]?(?:\s+|$)", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(?:#+|//+|>+|\*+)(?=\s)")



class ShortQuestions:
    """Questions, ready to be looked for."""

    def __init__(self, questions: Iterable[tuple[str, str]]) -> None:
        """Args: questions: (name, text) each; those without any letter or digit are left out."""
        self._names: dict[str, str] = {}
        openings: dict[int, list[int]] = {}
        for name, text in questions:
            words = hash_words([text]).hashes
            if len(words):
                self._names.setdefault(normalise_question(text), name)
                size = min(len(words), OPENING_WORDS)
                openings.setdefault(size, []).append(int(hash_shingles([text], size).hashes[0]))
        self._beginnings = {question[:size] for question in self._names for size in range(1, _OPENING_CHARACTERS + 1)}
        self._openings = {size: np.unique(np.array(hashes, dtype=np.uint64)) for size, hashes in openings.items()}

    def __len__(self) -> int:
        return len(self._names)

    def find(self, documents: Sequence[Document]) -> list[tuple[str, str] | None]:
        """For every document the name and normalised text of a question in it, or None."""
        texts = [document.full_text() for document in documents]
        return [self._match(document, text) if possible else None
                for document, text, possible in zip(documents, texts, self._possible(texts), strict=True)]

    def _possible(self, texts: list[str]) -> np.ndarray:
        possible = np.zeros(len(texts), dtype=bool)
        for size, openings in self._openings.items():
            shingles = hash_shingles(texts, size)
            slots = np.minimum(np.searchsorted(openings, shingles.hashes), len(openings) - 1)
            places = np.flatnonzero(openings[slots] == shingles.hashes)
            possible[np.searchsorted(shingles.bounds, places, side="right") - 1] = True
        return possible

    def _match(self, document: Document, text: str) -> tuple[str, str] | None:
        for whole in [*document.questions(), text]:
            for spelling in map(normalise_question, _spellings(whole)):
                if spelling in self._names:
                    return self._names[spelling], spelling
        lines = [_COMMENT.sub("", line) for line in text.splitlines()]
        for i, line in enumerate(lines):
            for unlabelled in _spellings(line):
                spelling = normalise_question(unlabelled)
                if spelling[:_OPENING_CHARACTERS] not in self._beginnings:
                    continue
                if spelling in self._names and len(line) >= SHORTEST_LINE:
                    return self._names[spelling], spelling
                for more in range(1, JOINED_LINES):
                    # Not the spelling: that lacks the full stop with which a first line may end.
                    joined = normalise_question(" ".join([unlabelled, *lines[i + 1:i + 1 + more]]))
                    if joined in self._names and len(joined) >= SHORTEST_LINE:
                        return self._names[joined], joined
        return None


def _spellings(text: str) -> Iterator[str]:
    """The text, then without one label before it, without two, and so on."""
    yield text
    begin = 0
    for _ in range(_MOST_LABELS):
        label = _LABEL.match(text, begin)
        if not label or label.end() == len(text):
            return
        begin = label.end()
        yield text[begin:]
