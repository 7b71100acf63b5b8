"""The ids that Qwen2.5's tokenizer gives, many times as fast on one core: each distinct word is encoded once.

Qwen2.5 parts a text into words with one regular expression and encodes each word by itself, so that the ids of a word
are the same wherever it stands. Texts repeat their words: here the ids of every word seen are kept, and only new ones
go through the tokenizer. No Python object is made per word: a batch of texts is parted with a few passes of numpy over
its bytes (`word_starts`), and its words are looked up in arrays (`corpora/word_memory.py`).

The passes know the letters of ASCII; a stretch with any other character counts as one word. Such a stretch begins and
ends where a word does whatever stands on its other side: at a line, or at a blank between a visible character and a
letter of ASCII. No word reaches over such a place, and nothing composes with a blank or a line feed (NFC). Very long
words and stretches are not kept. A tokenizer that is built otherwise is not touched (`WordEncoder.fits`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE

from corpora.word_memory import LONGEST, PADDING, UNKNOWN, WordMemory

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2.5 finds words."""
MAX_WORDS = 1_000_000
"""Words kept, at about 60 bytes each. When there are more all are forgotten, so that memory is bounded."""
MAX_IDS = 4_000_000
"""Ids kept of all words; long words have many."""
AT_ONCE = 500_000
"""Characters whose words are looked up at once: few enough for their arrays to stay in a core's cache."""

_END = b"\xff"
"""Stands between two texts; no byte of UTF-8."""
_LETTER, _DIGIT, _SIGN, _SPACE, _LINE_END, _TEXT_END = range(6)
_WHITE = (9, 11, 12, 32)


def _kind(byte: int) -> int:
    if byte == _END[0]:
        return _TEXT_END
    if byte >= 128:  # such stretches are not looked up
        return _SIGN
    character = chr(byte)
    if byte in _WHITE or byte in (10, 13):
        return _SPACE if byte in _WHITE else _LINE_END
    return _LETTER if character.isalpha() else _DIGIT if character.isdigit() else _SIGN


_KINDS = bytes(map(_kind, range(256)))
_CONTRACTED = np.zeros(1 << 16, dtype=np.int8)
"""By the two bytes behind an apostrophe: letters that belong to it."""
for _first in range(256):
    for _second in range(256):
        _both = bytes((_first, _second)).lower()
        _CONTRACTED[_first | _second << 8] = 1 if _both[:1] in b"stmd" else 2 if _both in (b"re", b"ve", b"ll") else 0


class WordEncoder:
    """Encodes texts with a tokenizer of Qwen2.5's kind that has no added tokens."""

    def __init__(self, plain: Tokenizer, dtype: np.dtype) -> None:
        self._plain = plain
        self._dtype = dtype
        # How the vocabulary spells the characters of ASCII, as the tokenizer itself says it.
        steps = plain.pre_tokenizer
        self._spelled = {i: steps.pre_tokenize_str(chr(i))[0][0] for i in range(128)} if steps else {}
        self._forget()

    def _forget(self) -> None:
        self._memory = WordMemory()
        self._ids = np.zeros(1, dtype=self._dtype)
        """The ids of word n are `_ids[_bounds[n]:_bounds[n + 1]]`; the first one stands for nothing."""
        # Number 0 stands for no word, and number 1 for the end of a text, a word without ids.
        self._memory.learn(_END + b" " * PADDING, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))
        self._bounds = np.ones(3, dtype=np.int64)

    @staticmethod
    def fits(plain: Tokenizer) -> bool:
        """Whether a tokenizer parts and encodes texts in the way that this file relies on."""
        parting = Tokenizer(BPE())  # described without the vocabulary, which takes a quarter of a second
        if plain.pre_tokenizer is not None:
            parting.pre_tokenizer = plain.pre_tokenizer
        if plain.normalizer is not None:
            parting.normalizer = plain.normalizer
        described = json.loads(parting.to_str())
        steps = (described["pre_tokenizer"] or {}).get("pretokenizers") or []
        return (
            [step["type"] for step in steps] == ["Split", "ByteLevel"]
            and steps[0]["pattern"] == {"Regex": PATTERN} and steps[0]["behavior"] == "Isolated"
            and not steps[0]["invert"] and not steps[1]["add_prefix_space"] and not steps[1]["use_regex"]
            and (described["normalizer"] or {"type": "NFC"}) == {"type": "NFC"}
            and isinstance(plain.model, BPE) and not plain.model.dropout
            and plain.post_processor is None and not plain.get_added_tokens_decoder()
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
        if self._memory.num_words > MAX_WORDS or self._bounds[-1] > MAX_IDS:
            self._forget()
        content = _END + b"".join([part for text in texts for part in (text.encode("utf-8"), _END)]) + b" " * PADDING
        is_start = word_starts(content)
        is_start[-PADDING:] = False
        starts = np.flatnonzero(is_start)
        if not all(map(str.isascii, texts)):
            starts = _join_foreign(content, starts)
        sizes = np.diff(starts, append=len(content) - PADDING)
        ends = np.searchsorted(starts, np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == _END[0]))
        long = np.flatnonzero(sizes >= LONGEST)
        encoded = self._ids_of(_cut(content, starts[long], sizes[long]))
        starts[long], sizes[long] = 0, 1  # looked up as the end of a text, which has no ids
        numbers = self._numbers(content, starts, sizes)
        first = self._bounds[numbers]
        lengths = self._bounds[numbers + 1] - first
        lengths[long] = list(map(len, encoded))
        before = np.cumsum(lengths) - lengths
        places = np.repeat(first - before, lengths) + np.arange(int(lengths.sum()))
        ids = self._ids.take(places, mode="clip")  # those of long words follow
        for row, found in zip(long.tolist(), encoded, strict=True):
            ids[before[row] : before[row] + lengths[row]] = found
        return [ids[begin:end] for begin, end in pairwise(before[ends].tolist())]

    def _numbers(self, content: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The numbers of all words; those that are new are encoded and learnt."""
        numbers = self._memory.look_up(content, starts, sizes)
        while len(rows := np.flatnonzero(numbers == UNKNOWN)):
            new = rows[self._memory.learn(content, starts[rows], sizes[rows])]
            encoded = self._ids_of(_cut(content, starts[new], sizes[new]))
            self._bounds = np.append(self._bounds, self._bounds[-1] + np.cumsum([len(ids) for ids in encoded]))
            self._ids = np.append(self._ids, np.fromiter(chain.from_iterable(encoded), dtype=self._dtype))
            numbers[rows] = self._memory.look_up(content, starts[rows], sizes[rows])
        return numbers

    def _ids_of(self, words: list[str]) -> list[list[int]]:
        """The tokenizer's ids of each word, or of each stretch of words that is not ASCII."""
        foreign = iter(self._plain.encode_batch_fast([word for word in words if not word.isascii()],
                                                     add_special_tokens=False))
        # Asked for the ids of one word, the model takes half the time of the whole tokenizer.
        model, spelled = self._plain.model, self._spelled
        return [[token.id for token in model.tokenize(word.translate(spelled))] if word.isascii() else next(foreign).ids
                for word in words]


def _cut(content: bytes, starts: np.ndarray, sizes: np.ndarray) -> list[str]:
    return [content[start : start + size].decode("utf-8")
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]


def word_starts(content: bytes) -> np.ndarray:
    """Where words begin, as booleans: the places at which the pattern's matches do, in ASCII.

    Every byte belongs to a word. Texts stand between bytes 255, each of which is a word of its own. What the pattern
    says, by the kinds of characters: a digit is a word. Signs take one blank before them and all line ends behind. A
    letter takes the letters behind it and one sign before it, if that stands alone and without a blank, or one white
    character; an apostrophe takes no more than the letters of a contraction. White space reaches to its last line end;
    what is left of it before a character is one word, but for its last character, which is a word or joins the next.
    """
    raw = np.frombuffer(content, dtype=np.uint8)
    kinds = np.frombuffer(content.translate(_KINDS), dtype=np.uint8)
    previous = np.concatenate(([np.uint8(_TEXT_END)], kinds[:-1]))
    following = np.concatenate((kinds[1:], [np.uint8(_TEXT_END)]))
    changes = kinds != previous
    is_start: np.ndarray = (kinds == _DIGIT) | (kinds == _TEXT_END)

    signs = (kinds == _SIGN) & changes
    signs[1:] &= raw[:-1] != 32
    is_start |= signs
    lone_signs = signs & (following == _LETTER)
    letters = (kinds == _LETTER) & changes & (previous != _SPACE)
    letters[1:] &= ~lone_signs[:-1]
    is_start |= letters
    apostrophes = np.flatnonzero(lone_signs & (raw == ord("'")))
    contracted = _CONTRACTED[raw[apostrophes + 1] | raw[apostrophes + 2].astype(np.uint16) << 8]
    behind = (apostrophes + 1 + contracted)[contracted > 0]
    is_start[behind[kinds[behind] == _LETTER]] = True

    is_start |= (kinds == _LINE_END) & changes & (previous != _SPACE) & (previous != _SIGN)
    spaces = kinds == _SPACE
    is_start |= spaces & (following < _SPACE)  # a letter, a digit or a sign
    runs = np.flatnonzero(spaces & changes)
    before, after = previous[runs], following[np.flatnonzero(spaces & (following != _SPACE))]
    is_start[runs[(before != _LINE_END) | (after != _LINE_END)]] = True
    within = runs[(before == _LINE_END) & (after == _LINE_END)]
    if len(within):  # blanks between line ends begin a word only if signs took the line ends before them
        line_ends = np.flatnonzero((kinds == _LINE_END) & changes)
        opened = line_ends[np.searchsorted(line_ends, within) - 1]
        is_start[within[previous[opened] == _SIGN]] = True
    return is_start


def _join_foreign(content: bytes, starts: np.ndarray) -> np.ndarray:
    """The words' beginnings without those inside of stretches that have characters beyond ASCII."""
    raw = np.frombuffer(content, dtype=np.uint8)
    is_end = raw == _END[0]
    is_visible = (raw > 32) & (raw < 127)
    is_cut = is_end.copy()
    is_cut[1:] |= is_end[:-1] | (raw[:-1] == 10) & is_visible[1:]
    kinds = np.frombuffer(content.translate(_KINDS), dtype=np.uint8)
    is_cut[1:-1] |= (raw[1:-1] == 32) & is_visible[:-2] & (kinds[2:] == _LETTER)
    # The blanks that indent a line belong to what follows them.
    blanks = kinds == _SPACE
    begins, last = np.flatnonzero(blanks[1:] & ~blanks[:-1]) + 1, np.flatnonzero(blanks[:-1] & ~blanks[1:])
    is_cut[begins[:len(last)][(raw[begins[:len(last)] - 1] == 10) & is_visible[last + 1]]] = True
    cuts = np.flatnonzero(is_cut)
    is_foreign = np.zeros(len(cuts), dtype=bool)
    is_foreign[np.searchsorted(cuts, np.flatnonzero((raw >= 128) & ~is_end), side="right") - 1] = True
    owners = np.searchsorted(cuts, starts, side="right") - 1
    return starts[~is_foreign[owners] | (cuts[owners] == starts)]
