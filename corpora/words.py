"""The ids that Qwen2.5's tokenizer gives, several times as fast on one core: each distinct word is looked up once.

Qwen2.5 parts a text into words with one regular expression and encodes each word by itself, so that the ids of a word
are the same wherever it stands. Texts repeat their words: here the ids of every word seen are kept, and only new ones
go through the tokenizer.

The words are found with the same expression, in the form that it has for ASCII; a line with any other character goes
through the tokenizer as it is. A text may be parted after a line feed that no white space follows, because no word
reaches over such a place. A tokenizer that is built otherwise is not touched (`WordEncoder.fits`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import numpy as np
from tokenizers import Tokenizer

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2.5 finds words."""
_WORD = re.compile(
    r"'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    re.ASCII,
)
_LINE_START = re.compile(r"(?<=\n)(?=[!-~])")
MAX_WORDS = 1_000_000
"""Words kept, at about 150 bytes each. When there are more all are forgotten, so that memory is bounded."""
MAX_IDS = 4_000_000
"""Ids kept of all words; long words have many."""
AT_ONCE = 4_000_000
"""Characters whose words are held in memory at once."""


class WordEncoder:
    """Encodes texts with a tokenizer of Qwen2.5's kind that has no added tokens."""

    def __init__(self, plain: Tokenizer, dtype: np.dtype) -> None:
        self._plain = plain
        self._dtype = dtype
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        """Word -> its number; the ids of word n are `_ids[_starts[n]:_starts[n + 1]]`."""
        self._ids = np.zeros(0, dtype=self._dtype)
        self._starts = np.zeros(1, dtype=np.int64)

    @staticmethod
    def fits(plain: Tokenizer) -> bool:
        """Whether a tokenizer parts and encodes texts in the way that this file relies on."""
        described = json.loads(plain.to_str())
        steps = (described["pre_tokenizer"] or {}).get("pretokenizers") or []
        return (
            [step["type"] for step in steps] == ["Split", "ByteLevel"]
            and steps[0]["pattern"] == {"Regex": PATTERN} and steps[0]["behavior"] == "Isolated"
            and not steps[0]["invert"] and not steps[1]["add_prefix_space"] and not steps[1]["use_regex"]
            and (described["normalizer"] or {"type": "NFC"}) == {"type": "NFC"}
            and described["model"]["type"] == "BPE" and not described["model"]["dropout"]
            and described["post_processor"] is None and not described["added_tokens"]
        )

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, those that the tokenizer gives."""
        found: list[np.ndarray] = []
        held: list[str] = []
        num_characters = 0
        for text in texts:
            held.append(text)
            num_characters += len(text)
            if num_characters >= AT_ONCE:
                found += self._encode(held)
                held, num_characters = [], 0
        return found + self._encode(held)

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        if len(self._numbers) > MAX_WORDS or len(self._ids) > MAX_IDS:
            self._forget()
        parts = [list(_parts(text)) for text in texts]
        words = [[_WORD.findall(part) if is_ascii else None for is_ascii, part in one] for one in parts]
        self._learn(set().union(*(found for one in words for found in one if found is not None)))
        others = iter(self._plain.encode_batch_fast(
            [part for one in parts for is_ascii, part in one if not is_ascii], add_special_tokens=False))
        empty = np.zeros(0, dtype=self._dtype)
        return [np.concatenate([empty, *(np.array(next(others).ids, dtype=self._dtype) if found is None else
                                         self._look_up(found) for found in one)]) for one in words]

    def _learn(self, words: set[str]) -> None:
        """Let the tokenizer encode those words that are not known yet."""
        new = [word for word in words if word not in self._numbers]
        if not new:
            return
        encoded = [one.ids for one in self._plain.encode_batch_fast(new, add_special_tokens=False)]
        first = len(self._numbers)
        self._numbers.update(zip(new, range(first, first + len(new)), strict=True))
        ends = self._starts[-1] + np.cumsum([len(ids) for ids in encoded])
        self._starts = np.concatenate([self._starts, ends])
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(encoded), dtype=self._dtype)])

    def _look_up(self, words: list[str]) -> np.ndarray:
        """The ids of known words, one after another."""
        numbers = np.fromiter(map(self._numbers.__getitem__, words), dtype=np.int64, count=len(words))
        starts = self._starts[numbers]
        lengths = self._starts[numbers + 1] - starts
        before = np.cumsum(lengths) - lengths
        return self._ids[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))]


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """A text in stretches of lines, each with whether it is ASCII; parted where no word can reach over."""
    if text.isascii():
        yield True, text
        return
    for is_ascii, lines in groupby(_LINE_START.split(text), key=str.isascii):
        yield is_ascii, "".join(lines)
