"""The quick encoder gives the tokenizer's own ids, whatever the text; pieces put together are the text."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import derivatives
from corpora import word_memory, words
from corpora.tokens import TOKEN_DTYPE, Encoder, _without_added_tokens, load_encoder
from corpora.word_memory import PADDING, WordMemory
from corpora.words import WordEncoder

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"
ENCODER = load_encoder(SEEDLING, 1)
PLAIN = _without_added_tokens(Tokenizer.from_file(str(SEEDLING / "tokenizer.json")))
PIECES = st.sampled_from([
    "a", "Z", "7", "10", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x00", "\x7f",
    "'s", "'S", "'LL", "'re", "'v", "' ", "\"", "(", "),", "->", "_", "def f", "return", " x", "é", "e\u0301", "\u0301",
    " été", "a é b ", "=" * 130, " " * 140, "ab" * 70, "é" * 70, "\n  ", "characteristically", " unmistakably",
    "ſ", "\u212a", "漢字", "\u3000", "\u2028", "\x85", "\xa0", "🙂", "٣", "½", "#", "    ", "<|endoftext|>", "\ufeff",
])  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=30).map("".join))


def expected(texts: list[str]) -> list[list[int]]:
    return [one.ids for one in PLAIN.encode_batch(texts, add_special_tokens=False)]


def test_the_seedlings_and_qwens_tokenizers_are_of_the_kind() -> None:
    assert WordEncoder.fits(PLAIN)
    described = json.loads(PLAIN.to_str())
    for change in ({"normalizer": None}, {"pre_tokenizer": None}):
        other = Tokenizer.from_str(json.dumps({**described, **change}))
        assert WordEncoder.fits(other) == (change == {"normalizer": None})
    described["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] += "|x"
    assert not WordEncoder.fits(Tokenizer.from_str(json.dumps(described)))


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_the_ids_are_the_tokenizers(texts: list[str]) -> None:
    assert [ids.tolist() for ids in ENCODER.encode(texts)] == expected(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(2, 12))
def test_pieces_put_together_are_the_text_and_its_ids(texts: list[str], length: int) -> None:
    for text, pieces, ids in zip(texts, ENCODER.with_pieces(texts, length), expected(texts), strict=True):
        assert "".join(part for part, _ in pieces) == text
        assert [one for _, part in pieces for one in part.tolist()] == ids
        assert all(0 < len(part) <= length for _, part in pieces)


def test_modules_of_the_library_have_the_same_ids() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    texts = [path.read_text(encoding="utf-8") for path in sorted(root.glob("[m-s]*.py"))]
    assert len(texts) > 50
    assert [ids.tolist() for ids in ENCODER.encode(texts)] == expected(texts)


def test_a_full_memory_of_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MAX_WORDS", 5)
    monkeypatch.setattr(words, "MAX_IDS", 30)
    monkeypatch.setattr(words, "AT_ONCE", 20)
    encoder = WordEncoder(PLAIN, TOKEN_DTYPE)
    texts = ["one two three", "characteristically long words stay out", "four five six seven eight nine", "one two", ""]
    for _ in range(3):
        assert [ids.tolist() for ids in encoder.encode(texts)] == expected(texts)
    assert len(encoder._bounds) <= 3 + 5 + 20


def test_words_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(content: bytes, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return (sizes % 3).astype(np.uint64) << np.uint64(62)

    # Equal hashes of equal sizes promise equal first bytes, so that words differ from the ninth byte on here.
    monkeypatch.setattr(word_memory, "_hash", poor)
    encoder = WordEncoder(PLAIN, TOKEN_DTYPE)
    texts = [" ".join(f"abcdefgh{a}{b}{c}" for c in "xyz") for a in "uvw" for b in "rst"]
    for _ in range(2):
        assert [ids.tolist() for ids in encoder.encode(texts)] == expected(texts)


def test_words_have_one_number_each_through_all_sizes_of_the_table() -> None:
    memory = WordMemory()
    words = [f"word {i:x}".encode() + b"." * (i % 40) for i in range(40_000)]
    seen: dict[bytes, int] = {}
    for begin in range(0, len(words), 7_000):
        content = b"".join(words[begin : begin + 7_000] * 2) + b" " * PADDING
        sizes = np.array(list(map(len, words[begin : begin + 7_000] * 2)))
        starts = np.cumsum(sizes) - sizes
        assert not memory.look_up(content, starts, sizes).any()
        rows = memory.learn(content, starts, sizes)
        assert len(rows) == len(sizes) // 2
        numbers = memory.look_up(content, starts, sizes).tolist()
        assert numbers[: len(rows)] == numbers[len(rows) :] == list(range(len(seen) + 1, len(seen) + len(rows) + 1))
        seen.update(zip(words[begin : begin + 7_000], numbers, strict=False))
    content, sizes = b"".join(words) + b" " * PADDING, np.array(list(map(len, words)))
    assert memory.look_up(content, np.cumsum(sizes) - sizes, sizes).tolist() == [seen[word] for word in words]


def test_the_mirrors_tokenizer_of_qwen_has_the_same_ids(data_mirror: Path) -> None:
    folder = data_mirror / "qwen2.5-tokenizer"
    encoder = load_encoder(folder, 1)
    assert encoder._words is not None
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-b]*.py"))]
    plain = encoder._plain.encode_batch(texts, add_special_tokens=False)
    assert [ids.tolist() for ids in encoder.encode(texts)] == [one.ids for one in plain]


def test_a_tokenizer_of_another_kind_goes_its_own_way() -> None:
    described = json.loads(PLAIN.to_str())
    described["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                                  "use_regex": True}
    described["added_tokens"] = json.loads((SEEDLING / "tokenizer.json").read_text())["added_tokens"]
    encoder = Encoder(Tokenizer.from_str(json.dumps(described)))
    assert encoder._words is None
    [ids] = encoder.encode(["def f(x):\n    return x"])
    assert isinstance(ids, np.ndarray) and len(ids)
