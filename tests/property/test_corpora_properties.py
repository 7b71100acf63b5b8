"""Corpora hold their promises on whatever is thrown at them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora.dedup import Seen
from corpora.document import Document, batches
from corpora.dropped import DropLog, drop_unusable
from corpora.mix import MAX_PASSES, interleave, parts_of_budget, select
from corpora.ngrams import NgramIndex, WordBatch, canonical, word_ngrams
from corpora.order import shuffled
from corpora.sources import open_source
from corpora.tokens import Encoder

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
FEW_WORDS = st.lists(st.sampled_from(["a", "bb", "c3", "é", "中文", "-", "\n", "\u00a0"]), max_size=30).map(" ".join)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from(["id", "text", "prompt", "completion", "messages", "answer", "verifier", "metadata", "role"])
ROWS = st.dictionaries(KEYS, JSON_VALUES | st.lists(st.fixed_dictionaries({"role": st.text(), "content": JSON_VALUES})))


def byte_encoder() -> Encoder:
    """One token a byte, end of text above them."""
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(ALPHABET)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return Encoder(tokenizer)


ENCODER = byte_encoder()


def read_bytes(content: bytes, output: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mine.jsonl"
        path.write_bytes(content)
        dropped = DropLog()
        with suppress(UserError):
            for batch in batches(open_source(CorpusSource(name=str(path)), output, dropped)):
                for document in drop_unusable(batch, output, dropped):
                    document.full_text().encode("utf-8")
                    json.dumps(document.metadata)
            dropped.write(Path(folder) / "dropped.jsonl")


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["tokens", "examples", "problems"]))
def test_no_bytes_make_the_reader_raise_anything_but_a_user_error(content: bytes, output: str) -> None:
    read_bytes(content, output)


@settings(deadline=None, max_examples=50)
@given(st.lists(ROWS, min_size=1, max_size=3), st.sampled_from(["tokens", "examples", "problems"]), st.integers(0, 40))
def test_no_json_makes_the_reader_raise_anything_but_a_user_error(rows: list[Any], output: str, cut: int) -> None:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    read_bytes(content, output)
    read_bytes(content[:len(content) - cut], output)


@given(st.text(max_size=300), st.integers(2, 40))
def test_splitting_and_ending_documents_loses_and_adds_no_token(text: str, sequence_length: int) -> None:
    [ids] = ENCODER.encode([text])
    pieces = ENCODER.pieces(ids, sequence_length)
    assert [token for piece in pieces for token in piece[:-1].tolist()] == ids.tolist()
    assert all(2 <= len(piece) <= sequence_length and piece[-1] == ENCODER.end_id for piece in pieces)
    assert ENCODER.end_id not in ids


@given(st.lists(st.text(alphabet="ab \n", max_size=5), max_size=12))
def test_deduplicating_twice_is_deduplicating_once(texts: list[str]) -> None:
    documents = [Document(str(i), "s", "", "f", text=text) for i, text in enumerate(texts)]
    once = Seen().deduplicate(documents, DropLog())
    assert Seen().deduplicate(once, DropLog()) == once
    assert {" ".join(one.text.split()) for one in once} == {" ".join(text.split()) for text in texts}


@given(st.lists(FEW_WORDS, max_size=6), st.lists(FEW_WORDS, max_size=6), st.integers(1, 5))
def test_ngrams_are_found_exactly_where_a_plain_search_finds_them(
    benchmark: list[str], texts: list[str], num_words: int,
) -> None:
    wanted = {ngram for one in benchmark for ngram in word_ngrams(canonical(one), num_words)}
    found = NgramIndex([(ngram, "b") for ngram in wanted], num_words).find(WordBatch([canonical(t) for t in texts]))
    for text, hit in zip(texts, found, strict=True):
        first = next((ngram for ngram in word_ngrams(canonical(text), num_words) if ngram in wanted), None)
        assert hit == (None if first is None else ("b", first))


@given(st.integers(1, 10**9), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_parts_of_a_budget_sum_to_it_and_lie_within_one_of_their_share(budget: int, weights: list[float]) -> None:
    parts = parts_of_budget(budget, weights)
    assert sum(parts) == budget
    assert all(abs(part - budget * weight / sum(weights)) <= 1 + budget * 1e-12
               for part, weight in zip(parts, weights, strict=True))


@given(st.lists(st.integers(2, 50), max_size=20), st.integers(1, 3000), st.integers(0, 3))
def test_a_selection_keeps_its_accounts(lengths: list[int], budget: int, seed: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    one, again = select(sizes, budget, seed, "s"), select(sizes, budget, seed, "s")
    assert one.records.tolist() == again.records.tolist()
    assert one.num_tokens == sizes[one.records].sum() <= budget
    assert one.num_passes <= MAX_PASSES and one.shortfall in (0, budget - one.num_tokens)
    assert one.shortfall or budget - one.num_tokens < max(lengths, default=0)
    counts = np.bincount(one.records, minlength=len(lengths)) if lengths else np.zeros(1)
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.lists(st.integers(1, 50), max_size=10), min_size=1, max_size=4))
def test_interleaving_writes_every_record_once_and_keeps_each_source_in_order(lengths: list[list[int]]) -> None:
    owners, positions = interleave([np.array(one, dtype=np.int64) for one in lengths])
    for i, one in enumerate(lengths):
        assert positions[owners == i].tolist() == list(range(len(one)))
    assert len(owners) == sum(map(len, lengths))


@given(st.integers(0, 200), st.integers(0, 2**63), st.text(max_size=5))
def test_an_order_is_a_permutation(num: int, seed: int, name: str) -> None:
    assert sorted(shuffled(num, seed, name).tolist()) == list(range(num))


@given(st.lists(st.text(max_size=20), max_size=30))
def test_batches_hold_every_document_once_in_order(texts: list[str]) -> None:
    documents = [Document(str(i), "s", "", "f", text=text) for i, text in enumerate(texts)]
    assert [one for batch in batches(documents) for one in batch] == documents
