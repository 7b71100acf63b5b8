"""Near-duplicates and the subsequence rule hold their promises on whatever is thrown at them."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.contamination.subsequence import common_subsequence
from corpora.near_duplicates import NearDuplicateSettings, dropped_rows, plan, run
from corpora.near_duplicates.shingles import hash_shingles
from corpora.near_duplicates.signatures import MinHasher
from corpora.near_duplicates.spill import RunWriter, groups, read_group, sorted_lines
from corpora.ngrams import canonical, word_ngrams

WORDS = st.lists(st.sampled_from(["a", "bb", "C3", "\u00e9", "-", "\n", "\u00a0", "x" * 9, "y" * 300]), max_size=20)
TEXTS = st.lists(st.text(max_size=30) | WORDS.map(" ".join), max_size=8)
RECORD = np.dtype([("key", "<u8"), ("value", "<u8")])


@settings(deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_every_text_has_its_word_ngrams_as_shingles(texts: list[str], num_words: int) -> None:
    shingles = hash_shingles(texts, num_words)
    assert len(shingles.bounds) == len(texts) + 1 and shingles.bounds[-1] == len(shingles.hashes)
    for i, text in enumerate(texts):
        if text.isascii():
            plain = canonical(text)
            expected = word_ngrams(plain, num_words) or ([plain] if plain else [])
            found = shingles.hashes[shingles.bounds[i]:shingles.bounds[i + 1]].tolist()
            assert len(found) == len(expected)
            assert len(set(found)) == len(set(expected))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=70), st.lists(st.integers(0, 5), max_size=70))
def test_the_common_subsequence_is_that_of_the_textbook(one: list[int], other: list[int]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(one, other) == table[-1][-1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), min_size=1, max_size=4))
def test_every_record_is_in_one_group(keys: list[list[int]]) -> None:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(i) for i in range(len(keys))]
        for path, own in zip(paths, keys, strict=True):
            with RunWriter(path, RECORD) as writer:
                writer.add(np.array([(key, i) for i, key in enumerate(own)], dtype=RECORD))
        read = [read_group(paths, RECORD, first, last)["key"].tolist() for first, last in groups(paths)]
        assert sorted(sum(read, [])) == sorted(sum(keys, []))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=4).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=30))
def test_lines_come_out_sorted(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        assert list(sorted_lines(lines, Path(folder) / "sorting")) == sorted(lines)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=10) | WORDS.map(" ".join), min_size=1, max_size=12), st.randoms(),
       st.sampled_from([None, 0.5]))
def test_order_and_shards_do_not_count_and_every_cluster_keeps_one(texts: list[str], draw, threshold) -> None:  # type: ignore[no-untyped-def]
    documents = [(f"{i}\u00e9", text) for i, text in enumerate(texts)]
    results = []
    for num_shards in (1, 2):
        with TemporaryDirectory() as folder:
            shards = [Path(folder) / f"{i}.jsonl" for i in range(num_shards)]
            for i, shard in enumerate(shards):
                shard.write_text("".join(json.dumps({"id": name, "text": text}) + "\n"
                                         for name, text in documents[i::num_shards]))
            plan(list(map(str, shards)), Path(folder) / "out", NearDuplicateSettings(threshold=threshold))
            report = run(Path(folder) / "out")
            drops = [drop for i in range(num_shards) for _, drop in dropped_rows(Path(folder) / "out", i)]
            assert len(drops) == report["dropped"] <= max(len(texts) - 1, 0)
            assert not {drop["id"] for drop in drops} & {drop["duplicate_of"] for drop in drops}
            results.append(report)
        draw.shuffle(documents)
    assert results[0] == results[1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=14, unique=True))
def test_every_drop_shares_a_band_with_what_is_kept_for_it_and_no_two_kept_ones_share_any(
    spans: list[tuple[int, int]]
) -> None:
    # Windows of one row of words: every degree of likeness, in chains and families.
    words = [f"word{i}" for i in range(300)]
    documents = {f"{i}": " ".join(words[10 * begin:10 * (begin + size) + 5]) for i, (begin, size) in enumerate(spans)}
    how = NearDuplicateSettings(num_bands=6, num_rows=2)
    hasher = MinHasher(how)
    keys = hasher.band_keys(hasher.signatures(hash_shingles(list(documents.values()), how.num_words))).tolist()
    bands = {name: set(own) for name, own in zip(documents, keys, strict=True)}
    with TemporaryDirectory() as folder:
        shard = Path(folder) / "rows.jsonl"
        shard.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in documents.items()))
        plan([str(shard)], Path(folder) / "out", how)
        report = run(Path(folder) / "out")
        drops = {drop["id"]: drop["duplicate_of"] for _, drop in dropped_rows(Path(folder) / "out", 0)}
        clusters = [json.loads(line) for line in (Path(folder) / "out" / "clusters.jsonl").read_text().splitlines()]
    kept = [bands[name] for name in documents if name not in drops]
    assert len(set.union(*kept)) == sum(map(len, kept))
    assert all(bands[dropped] & bands[of] and of not in drops for dropped, of in drops.items())
    assert {(one["kept"], one["size"]) for one in clusters} == {
        (of, 1 + list(drops.values()).count(of)) for of in drops.values()}
    assert report["dropped"] == len(drops) and all(one["members"][0]["id"] == one["kept"] for one in clusters)
