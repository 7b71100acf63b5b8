"""The longest-common-subsequence rule, as published for Qwen2.5 (arXiv 2412.15115, Evaluation).

A text is contaminated when it and a benchmark question have a common subsequence of at least 13 tokens that is at
least 0.6 of the shorter one. Unlike an n-gram rule it finds a question whose numbers or names were changed.

Departures. Tokens are words (`corpora/near_duplicates/shingles.py`), so that neither spacing, case nor punctuation
counts and no tokenizer is needed; 13 words ask for more than 13 tokens of a tokenizer would. A text of more than twice
the question's words is compared by windows of so many: in a long text every question is a subsequence sooner or
later. And only places that share `ANCHOR_WORDS` words in a row with the question are looked at, which a question
loses when every run of so many words was touched; `self_test.py` measures how often. A run of numbers alone is no such
place: 1 to 12 stand in a row in many texts.

The subsequence's length is computed with one addition of a number of as many bits as the question has words for every
word of the text that is in the question (Hyyro 2004, Bit-parallel LCS-length computation revisited).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from corpora.near_duplicates.shingles import hash_shingles, hash_words
from corpora.ngrams import canonical

MIN_TOKENS = 13
MIN_FRACTION = 0.6
ANCHOR_WORDS = 5
_TABLE_BITS_PER_ANCHOR = 16
"""Table entries per anchor: one place of a text in so many passes the table by chance."""


@dataclass(frozen=True)
class SubsequenceHit:
    """Why a text counts as contaminated.

    Attributes:
        name: Name that the question was given with.
        question: The question.
        common: Words of the longest common subsequence.
        shorter: Words of the shorter of the two: the question, or the text.
        first_word: The word of the text at which the window begins.
    """

    name: str
    question: str
    common: int
    shorter: int
    first_word: int


class SubsequenceIndex:
    """Questions, ready to be looked for by the rule."""

    def __init__(self, questions: Iterable[tuple[str, str]], min_tokens: int = MIN_TOKENS,
                 min_fraction: float = MIN_FRACTION) -> None:
        """Args: questions: (name, text) each. Those too short for the rule, or all digits, end in `exact_only`."""
        if min_tokens < ANCHOR_WORDS or not 0 < min_fraction <= 1:
            raise UserError(f"decontaminate: min_tokens {min_tokens}, min_fraction {min_fraction}; allowed: at least "
                            f"{ANCHOR_WORDS}, and above 0 up to 1; the published rule has {MIN_TOKENS}, {MIN_FRACTION}")
        self.min_tokens, self.min_fraction = min_tokens, min_fraction
        self.questions: list[tuple[str, str]] = []
        self.exact_only: list[tuple[str, str]] = []
        self._words: list[list[int]] = []
        self._masks: dict[int, dict[int, int]] = {}
        anchors, owners, offsets = [], [], []
        for name, text in questions:
            words = hash_words([text]).hashes
            shingles = hash_shingles([text], ANCHOR_WORDS).hashes
            places = np.flatnonzero(_has_letters(text, words)) if len(words) >= min_tokens else shingles[:0]
            if not len(places):
                self.exact_only.append((name, text))
                continue
            anchors.append(shingles[places])
            offsets.append(places)
            owners.append(np.full(len(places), len(self.questions)))
            self.questions.append((name, text))
            self._words.append(words.tolist())
        flat = np.concatenate([np.zeros(0, dtype=np.uint64), *anchors])
        by_hash = np.argsort(flat, kind="stable")
        self._anchors, first = np.unique(flat[by_hash], return_index=True)
        self._bounds = np.append(first, len(flat))
        self._owners = np.concatenate([np.zeros(0, dtype=np.int64), *owners])[by_hash]
        self._offsets = np.concatenate([np.zeros(0, dtype=np.int64), *offsets])[by_hash]
        self._shift = np.uint64(64 - max(18, (_TABLE_BITS_PER_ANCHOR * len(flat)).bit_length()))
        self._table = np.zeros(1 << (64 - int(self._shift)), dtype=bool)
        self._table[self._anchors >> self._shift] = True

    def find(self, texts: Sequence[str]) -> list[SubsequenceHit | None]:
        """For every text the first question found in it, or None."""
        found: list[SubsequenceHit | None] = [None] * len(texts)
        if not len(self._anchors):
            return found
        shingles = hash_shingles(texts, ANCHOR_WORDS)
        places = np.flatnonzero(self._table[shingles.hashes >> self._shift])
        slots = np.searchsorted(self._anchors, shingles.hashes[places])
        real = self._anchors[np.minimum(slots, len(self._anchors) - 1)] == shingles.hashes[places]
        places, slots = places[real], slots[real]
        hits: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        owners = np.searchsorted(shingles.bounds, places, side="right") - 1
        for text, place, slot in zip(owners.tolist(), places.tolist(), slots.tolist(), strict=True):
            hits[text].append((place - int(shingles.bounds[text]), slot))
        for text, own in hits.items():
            found[text] = self._check(hash_words([texts[text]]).hashes.tolist(), own)
        return found

    def _check(self, words: list[int], hits: list[tuple[int, int]]) -> SubsequenceHit | None:
        """Compare a text, given as its words, around each hit (place in the text, number of the anchor)."""
        last: dict[int, int] = {}
        for place, slot in hits:
            for i in range(int(self._bounds[slot]), int(self._bounds[slot + 1])):
                question, offset = int(self._owners[i]), int(self._offsets[i])
                size = len(self._words[question])
                begin = place - offset
                # A window reaches half the question to both sides: one that begins near the last adds nothing.
                if question in last and abs(begin - last[question]) <= size // 4:
                    continue
                last[question] = begin
                first = max(begin - size // 2, 0) if len(words) > 2 * size else 0
                window = words[first:first + 2 * size]
                shorter = min(size, len(window))
                common = _common(window, self._masks_of(question), size)
                if common >= max(self.min_tokens, self.min_fraction * shorter):
                    return SubsequenceHit(*self.questions[question], common, shorter, first)
        return None

    def _masks_of(self, question: int) -> dict[int, int]:
        if question not in self._masks:
            self._masks[question] = _masks(self._words[question])
        return self._masks[question]


def common_subsequence(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common subsequence.

    >>> common_subsequence([1, 2, 3, 4], [2, 9, 4, 1])
    2
    """
    return _common(other, _masks(one), len(one))


def _masks(words: Sequence[int]) -> dict[int, int]:
    """For each word the places where it stands, as bits."""
    masks: dict[int, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    return masks


def _common(words: Sequence[int], masks: dict[int, int], size: int) -> int:
    """LCS length of `words` and the sequence of `size` elements whose masks these are."""
    everything = (1 << size) - 1
    state = everything
    for word in words:
        mask = masks.get(word)
        if mask is not None:
            shared = state & mask
            state = ((state + shared) | (state - shared)) & everything
    return size - state.bit_count()


def _has_letters(text: str, words: np.ndarray) -> np.ndarray:
    """For every place where an anchor begins, whether it holds a word that is no number: 1 to 12 stand everywhere."""
    numbers = " ".join(word for word in canonical(text).decode("utf-8").split() if word.isdigit())
    is_word = ~np.isin(words, hash_words([numbers]).hashes)
    has_letters: np.ndarray = np.convolve(is_word, np.ones(ANCHOR_WORDS, dtype=np.int64), mode="valid") > 0
    return has_letters
