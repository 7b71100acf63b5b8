"""Where a source is cut, in which order shards are done and in how many ranges of digests: nothing of it shows."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import artifact, exact
from corpora.account import KEPT_SAMPLES, Account
from corpora.dedup import Seen
from corpora.document import Document
from corpora.dropped import FILTERS, KEPT_PER_REASON, DropLog
from corpora.regroup import group_of
from corpora.shelf import Shelf, Shelves
from corpora.spool import read_batches, write_batch
from corpora.work import Work

TEXTS = st.lists(st.sampled_from([f"text {i}" for i in range(12)]), min_size=1, max_size=40)


def documents(texts: list[str]) -> list[Document]:
    return [Document(f"id{i}", "x", "mit", "a.py", text=text, repository=f"r{i % 3}") for i, text in enumerate(texts)]


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 3))
def test_exact_duplicates_over_shards_and_ranges_are_those_of_one_pass(
    texts: list[str], sizes: list[int], groups: int, earlier: int,
) -> None:
    everything = documents(texts)
    log = DropLog()
    kept = {document.id for document in Seen().deduplicate(everything, log)}
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        shards: list[tuple[int, int]] = []
        parts: list[list[Document]] = []
        while everything:
            size = sizes[len(shards) % len(sizes)]
            part, everything = everything[:size], everything[size:]
            shards.append((len(shards) // 3, len(shards) % 3))
            place = work.first(*shards[-1])
            place.mkdir(parents=True)
            records = exact.Records(*shards[-1])
            records.add(part)
            records.write(place)
            parts.append(part)
        # Two waves: what lies in the second one is compared with all, what lies in the first one with the first.
        split = min(earlier, len(shards) - 1)
        for wave, (before, now) in enumerate((([], shards[:split]), (shards[:split], shards[split:]))):
            if now:
                exact.begin_wave(work, wave, before, now)
                listed, (begin, _) = artifact.read_arrays(work.exact(wave) / "shards", 2)
                (work.exact(wave) / "shards").unlink()
                artifact.write_arrays(work.exact(wave) / "shards",
                                      [listed, np.array([begin, groups], dtype=np.uint64)])
                for group in reversed(range(groups)):
                    exact.find(folder, wave, group)
        for number, (shard, part) in enumerate(zip(shards, parts, strict=True)):
            found = exact.of_shard(work, 0 if number < split else 1, *shard)
            assert {part[row].id for row in found} == {one.id for one in part} - kept
            for row, first in found.items():
                original = exact.id_at(work, first)
                assert original in kept and original != part[row].id
                assert texts[int(original[2:])] == part[row].text


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=600), st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_what_shards_count_adds_up_to_what_one_pass_counts(kinds: list[int], sizes: list[int]) -> None:
    def count(part: list[tuple[int, Document]]) -> tuple[DropLog, Account]:
        log, account = DropLog(), Account("x")
        log.source, log.step = "x", FILTERS
        account.read([document for _, document in part])
        for kind, document in part:
            if kind < 2:
                log.add(document, f"reason{kind}", number=kind)
            else:
                account.keep([document], True)
                account.encoded(kind)
                account.redacted(Counter({"email": kind}))
        return log, account

    everything = list(zip(kinds, documents([f"text {i}" for i in range(len(kinds))]), strict=True))
    whole_log, whole = count(everything)
    log, account = DropLog(), Account("x")
    shard = 0
    while everything:
        part, everything = everything[:sizes[shard % len(sizes)]], everything[sizes[shard % len(sizes)]:]
        shard += 1
        part_log, part_account = count(part)
        log.merge("x", part_log.state("x"))
        account.merge(part_account.state())
    assert log.counts == whole_log.counts and log.sizes == whole_log.sizes
    assert log.state("x")["lines"] == whole_log.state("x")["lines"]
    assert all(number <= KEPT_PER_REASON for number in Counter(
        line["reason"] for line in log.state("x")["lines"]).values())
    assert account.samples() == whole.samples() and len(account.samples()) <= KEPT_SAMPLES
    ours, theirs = account.state(), whole.state()
    assert {key: ours[key] for key in ours if key not in ("samples", "lengths")} == {
        key: theirs[key] for key in theirs if key not in ("samples", "lengths")}
    assert account.lengths == whole.lengths
    account.check(log)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.lists(st.binary(max_size=9), max_size=3), max_size=6), max_size=5), st.data())
def test_a_shelf_of_parts_reads_as_one(parts: list[list[list[bytes]]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folders, counts, records, owners, questions = [], [], [], [], []
        for number, part in enumerate(parts):
            place = Path(folder) / str(number)
            place.mkdir()
            with Shelf(place) as shelf:
                for pieces in part:
                    question = len(questions)
                    shelf.add(pieces, [len(piece) for piece in pieces], [question])
                    records += pieces
                    owners += [question] * len(pieces)
                    questions.append(question)
                shelf.finish()
            folders.append(place)
            counts.append(len(part))
        whole = Shelves(folders, counts)
        assert whole.num_documents == len(questions) and whole.num_tokens == sum(map(len, records))
        assert [whole.read(i) for i in range(len(records))] == records
        assert whole.lengths().tolist() == [len(record) for record in records]
        if records:
            drawn = np.array(data.draw(st.lists(st.integers(0, len(records) - 1), max_size=9)), dtype=np.int64)
            assert whole.questions_in(drawn) == {owners[i] for i in drawn.tolist()}
            assert whole.num_documents_in(drawn) == len({owners[i] for i in drawn.tolist()})


ANY = st.text(st.characters(), max_size=20)  # with halves of surrogate pairs
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY,
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3), max_leaves=6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.builds(Document, ANY, ANY, ANY, ANY, text=ANY, metadata=st.dictionaries(ANY, VALUES),
                                   repository=ANY), max_size=3), max_size=4))
def test_documents_come_back_from_disk_and_equal_ones_are_equal_bytes(batches: list[list[Document]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("one", "other")]
        for place in places:
            with place.open("wb") as file:
                for batch in batches:
                    write_batch(file, batch)
            batches = list(read_batches(place))  # other objects of the same values
        assert places[0].read_bytes() == places[1].read_bytes()
        assert list(read_batches(places[0])) == batches


@given(st.lists(ANY, max_size=20), st.integers(1, 9))
def test_all_files_of_a_repository_are_in_one_group(names: list[str], groups: int) -> None:
    for name in names:
        found = {group_of(Document("a", "x", "", "", repository=name), shard, groups) for shard in range(5)}
        assert all(0 <= group < groups for group in found) and (not name or len(found) == 1)
