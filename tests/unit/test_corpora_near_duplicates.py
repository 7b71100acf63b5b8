"""Near-duplicates: what is found, what is kept, and that neither order, shards, workers nor a kill change a byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from corpora.near_duplicates import NearDuplicateSettings, dropped_rows, plan, read_jsonl, run, spill, store
from corpora.near_duplicates.candidates import WINDOW, exact_jaccard
from corpora.near_duplicates.clusters import components
from corpora.near_duplicates.shingles import Words, hash_shingles
from corpora.near_duplicates.signatures import NO_SHINGLE, MinHasher, estimated_jaccard
from corpora.ngrams import canonical, word_ngrams

ROOT = Path(__file__).parents[2]
VOCABULARY = [f"{start}{end}" for start in ("ba", "ko", "lu", "mi", "se", "tra") for end in ("da", "fen", "gol", "ris")]


def story(seed: int, num_words: int = 200) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.choice(VOCABULARY)}{draw.randrange(50)}" for _ in range(num_words)]


def with_changed_words(words: list[str], num_changed: int) -> list[str]:
    """The last words replaced: of n - 4 shingles so many are lost."""
    return words[:len(words) - num_changed] + [f"changed{i}" for i in range(num_changed)]


def small_corpus() -> dict[str, str]:
    """Twenty stories; of the first eight also a copy that shares 186 of 196 shingles."""
    stories = {f"story-{i:02d}": " ".join(story(i)) for i in range(20)}
    copies = {f"copy-{i:02d}": " ".join(with_changed_words(story(i), 10)) for i in range(8)}
    return {**stories, **copies}


def write_shards(folder: Path, documents: Mapping[str, str], num_shards: int = 1) -> list[str]:
    folder.mkdir()
    names = list(documents)
    for i in range(num_shards):
        lines = [json.dumps({"id": name, "text": documents[name]}) + "\n" for name in names[i::num_shards]]
        (folder / f"{i}.jsonl").write_text("".join(lines), encoding="utf-8")
    return [str(folder / f"{i}.jsonl") for i in range(num_shards)]


def search(folder: Path, documents: Mapping[str, str], settings: NearDuplicateSettings | None = None,
           num_shards: int = 1, num_workers: int = 1) -> tuple[dict[str, Any], dict[str, str]]:
    """The report, and dropped id -> kept id."""
    folder.mkdir()
    plan(write_shards(folder / "in", documents, num_shards), folder / "out", settings)
    report = run(folder / "out", num_workers)
    drops = [drop for i in range(num_shards) for _, drop in dropped_rows(folder / "out", i)]
    return report, {drop["id"]: drop["duplicate_of"] for drop in drops}


def chain(num_links: int) -> dict[str, str]:
    """Documents of 1,000 words, each 100 words further on in one row of words: of the 1,996 shingles of neighbours 896
    are common ones (0.81), of those two apart 796 (0.67), three apart 696 (0.54); the first is the longest."""
    words = [f"word{i:04d}" for i in range(900 + 100 * num_links)]
    return {f"link-{i}": " ".join([*words[100 * i:100 * i + 1000], *["more"] * (num_links - i)])
            for i in range(num_links)}


@pytest.mark.parametrize("threshold", [None, 0.75])
def test_nothing_is_dropped_for_a_document_that_only_a_chain_leads_to(tmp_path: Path, threshold: float | None) -> None:
    documents = chain(7)
    sets = {name: set(word_ngrams(canonical(text), 5)) for name, text in documents.items()}
    settings = NearDuplicateSettings(threshold=threshold)
    report, drops = search(tmp_path / "a", documents, settings)
    # One of three links at least is kept, and for the others a neighbour or one two apart: ends of no chain.
    assert 7 / 3 <= 7 - len(drops) < 7 and report["clusters"] == len(set(drops.values()))
    for dropped, kept in drops.items():
        common, every = sets[dropped] & sets[kept], sets[dropped] | sets[kept]
        assert kept not in drops and len(common) / len(every) > (0.6 if threshold is None else threshold)
    again, same = search(tmp_path / "again", dict(reversed(documents.items())), settings, 2)
    assert (again["digest"], same) == (report["digest"], drops)


def test_what_is_kept_shares_no_band_with_another_that_is_kept(tmp_path: Path) -> None:
    documents = {f"{name}-{i}": " ".join([text, *story(i, 20)]) for i in range(6) for name, text in chain(5).items()}
    _, drops = search(tmp_path / "a", documents)
    hasher = MinHasher(NearDuplicateSettings())
    keys = hasher.band_keys(hasher.signatures(hash_shingles(list(documents.values()), 5))).tolist()
    bands = {name: set(own) for name, own in zip(documents, keys, strict=True)}
    kept = [bands[name] for name in documents if name not in drops]
    assert len(set.union(*kept)) == sum(map(len, kept)) and len(drops) > 12
    for dropped, of in drops.items():
        # It goes for the one that it shares the most bands with.
        assert len(bands[dropped] & bands[of]) == max(len(bands[dropped] & one) for one in kept) > 0


def test_of_a_family_the_one_is_kept_that_the_others_are_like(tmp_path: Path) -> None:
    # Three copies of a story, each with another twentieth of it changed: nine tenths like it, four fifths one another.
    words = story(3, 400)
    family = {f"longer-{i}": " ".join([*words[:100 * i], *[f"changed{i}{j}" for j in range(25)], *words[100 * i + 20:]])
              for i in range(1, 4)}
    _, drops = search(tmp_path / "a", {**family, "middle": " ".join(words)})
    assert drops == dict.fromkeys(family, "middle")


# --- shingles and signatures --------------------------------------------------------------------------------------

def test_shingles_are_the_word_ngrams_and_no_two_of_them_share_a_hash() -> None:
    texts = ["", "one", "one two three four", "one two three four five", "... !", "One-Two_three four\nfive six", "",
             "x" * 300 + " y z w v", "x" * 300 + "k y z w v", "ninebytes tenletters a b c d",
             "caf\u00e9 au lait \u00e0 la carte"]
    shingles = hash_shingles(texts, 5)
    hash_of: dict[bytes, int] = {}
    for i, text in enumerate(texts):
        plain = canonical(text)
        expected = word_ngrams(plain, 5) or ([plain] if plain else [])
        hashes = shingles.hashes[shingles.bounds[i]:shingles.bounds[i + 1]].tolist()
        assert len(hashes) == len(expected)
        for ngram, value in zip(expected, hashes, strict=True):
            assert hash_of.setdefault(ngram, value) == value
    assert len(set(hash_of.values())) == len(hash_of)


def test_a_text_hashes_alike_alone_and_among_others() -> None:
    texts = [" ".join(story(i, 30)) for i in range(5)]
    together = hash_shingles(texts, 5)
    alone = [hash_shingles([text], 5).hashes for text in texts]
    assert np.array_equal(together.hashes, np.concatenate(alone))


def test_writing_without_spaces_is_taken_character_by_character() -> None:
    seven = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u554a"
    shingles = hash_shingles([seven, seven[1:]], 5)
    assert shingles.bounds.tolist() == [0, 7 - 4, 7 - 4 + 6 - 4]
    assert np.array_equal(shingles.hashes[1:3], shingles.hashes[3:])


@pytest.mark.parametrize("num_shingles", [20, 300])
@pytest.mark.parametrize("num_common", [0.5, 0.8])
def test_estimates_are_as_good_as_ideal_random_orders_would_give(num_shingles: int, num_common: float) -> None:
    settings = NearDuplicateSettings()
    draw = np.random.default_rng(1)
    common = int(num_common * num_shingles)
    jaccard = common / (2 * num_shingles - common)
    num_pairs = 400
    sets, bounds = [], [0]
    for _ in range(num_pairs):
        union = draw.integers(0, 2**64, 2 * num_shingles - common, dtype=np.uint64)
        sets += [union[:num_shingles], union[num_shingles - common:]]
        bounds += [bounds[-1] + num_shingles, bounds[-1] + 2 * num_shingles]
    signatures = MinHasher(settings).signatures(Words(np.concatenate(sets), np.array(bounds)))
    estimates = [estimated_jaccard(signatures[2 * i], signatures[2 * i + 1]) for i in range(num_pairs)]
    deviation = (jaccard * (1 - jaccard) / settings.num_hashes) ** 0.5
    # The mean of 400 within four of its standard errors, the spread within a fifth of the binomial's.
    assert abs(np.mean(estimates) - jaccard) < 4 * deviation / num_pairs**0.5
    assert 0.8 < np.std(estimates) / deviation < 1.2


def test_a_band_key_is_shared_exactly_when_the_band_is() -> None:
    hasher = MinHasher(NearDuplicateSettings(num_bands=3, num_rows=2))
    signatures = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 6, 5], [3, 4, 1, 2, 5, 6]], dtype=np.uint32)
    keys = hasher.band_keys(signatures)
    same = [[bool(keys[i, b] == keys[j, b]) for b in range(3)] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert same == [[True, False, False], [False, False, True], [False, False, False]]
    assert len(np.unique(keys)) == 7


def test_a_text_without_words_has_no_signature_and_is_nobodys_duplicate(tmp_path: Path) -> None:
    assert (MinHasher(NearDuplicateSettings()).signatures(hash_shingles(["...", ""], 5)) == NO_SHINGLE).all()
    report, dropped = search(tmp_path / "a", {"dots": "...", "nothing": "", "dots-too": "..."})
    assert (report["documents"], dropped) == (3, {})


# --- links and clusters -------------------------------------------------------------------------------------------

def test_exact_jaccard() -> None:
    one, other = np.array([1, 2, 3, 5], dtype=np.uint64), np.array([2, 3, 4], dtype=np.uint64)
    assert exact_jaccard(one, other) == 2 / 5
    assert exact_jaccard(one, one) == 1
    assert exact_jaccard(one, other[:0]) == 0


def test_components_join_over_files_and_long_chains(tmp_path: Path) -> None:
    chain = np.array([[i, i + 1] for i in range(100, 160)], dtype=np.uint64)[::-1]
    np.save(tmp_path / "0.npy", np.concatenate((chain[::2], [[7, 8]])).astype(np.uint64))
    np.save(tmp_path / "1.npy", np.concatenate((chain[1::2], [[3, 8]])).astype(np.uint64))
    documents, labels = components([tmp_path / "0.npy", tmp_path / "1.npy"])
    assert documents.tolist() == [3, 7, 8, *range(100, 161)]
    assert labels.tolist() == [0] * 3 + [3] * 61


def test_of_a_cluster_the_longest_is_kept_and_of_equally_long_ones_the_least_id(tmp_path: Path) -> None:
    words = story(1)
    documents = {"b": " ".join(words), "a": " ".join(words), "longest": " ".join([*words, "end"]), "z": "else"}
    report, dropped = search(tmp_path / "a", documents)
    assert dropped == {"a": "longest", "b": "longest"}
    assert report["clusters"] == 1
    _, dropped = search(tmp_path / "b", {name: documents[name] for name in ("b", "a", "z")})
    assert dropped == {"b": "a"}


def test_clusters_are_written_with_their_members_and_how_similar_they_are(tmp_path: Path) -> None:
    words = story(1)
    documents = {"original": " ".join(words), "copy": " ".join(with_changed_words(words, 10)), "other": "no words here"}
    search(tmp_path / "a", documents, NearDuplicateSettings(threshold=0.8))
    cluster = json.loads((tmp_path / "a/out/clusters.jsonl").read_text())
    assert (cluster["kept"], cluster["size"]) == ("copy" if len(documents["copy"]) > len(documents["original"])
                                                  else "original", 2)
    # 200 words have 196 shingles; ten changed at the end leave 186 of them.
    assert cluster["members"][1]["jaccard"] == round(186 / (196 + 10), 4)
    assert abs(cluster["members"][1]["estimated_jaccard"] - 186 / 206) < 0.15


def test_a_threshold_keeps_pairs_below_it(tmp_path: Path) -> None:
    words = story(1)
    # 186 shingles in common of 206: 0.903.
    documents = {"original": " ".join(words), "copy": " ".join(with_changed_words(words, 10))}
    assert len(search(tmp_path / "a", documents, NearDuplicateSettings(threshold=0.89))[1]) == 1
    assert len(search(tmp_path / "b", documents, NearDuplicateSettings(threshold=0.91))[1]) == 0


def test_a_bucket_larger_than_the_window_is_one_cluster(tmp_path: Path) -> None:
    documents = {f"{i:03d}": " ".join([*story(1), f"number{i}"]) for i in range(3 * WINDOW)}
    for name, threshold in (("bands", None), ("exact", 0.9)):
        report, dropped = search(tmp_path / name, documents, NearDuplicateSettings(threshold=threshold))
        assert (report["clusters"], report["largest_cluster"], len(dropped)) == (1, 3 * WINDOW, 3 * WINDOW - 1)


# --- the same for any order, number of shards, of workers, of spills ----------------------------------------------

@pytest.mark.parametrize("threshold", [None, 0.8])
def test_the_result_depends_on_the_documents_alone(
    tmp_path: Path, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = NearDuplicateSettings(threshold=threshold)
    documents = small_corpus()
    first, dropped = search(tmp_path / "first", documents, settings)
    assert {frozenset(pair) for pair in dropped.items()} == {
        frozenset((f"story-{i:02d}", f"copy-{i:02d}")) for i in range(8)}
    names = list(documents)
    random.Random(1).shuffle(names)
    shuffled = {name: documents[name] for name in names}
    assert search(tmp_path / "shuffled", shuffled, settings, num_shards=3) == (first, dropped)
    monkeypatch.setattr(spill, "RUN_RECORDS", 20)
    monkeypatch.setattr(spill, "GROUP_RECORDS", 50)
    monkeypatch.setattr(spill, "SORTED_LINES", 3)
    monkeypatch.setattr(store, "BATCH_DOCUMENTS", 2)
    assert search(tmp_path / "spilled", shuffled, settings, num_shards=2) == (first, dropped)
    spilled, unspilled = (tmp_path / name / "out/clusters.jsonl" for name in ("spilled", "first"))
    assert spilled.read_bytes() == unspilled.read_bytes()


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    documents = small_corpus()
    alone = search(tmp_path / "alone", documents, num_shards=4)
    assert search(tmp_path / "two", documents, num_shards=4, num_workers=2) == alone


def test_a_long_document_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PIECE", 700)
    words = story(1, 2000)
    _, dropped = search(tmp_path / "a", {"long": " ".join(words), "longer": " ".join([*words, "end"]), "short": "one"},
                        NearDuplicateSettings(threshold=0.99))
    assert dropped == {"long": "longer"}


KILLER = """
import os, signal
from pathlib import Path
from corpora.near_duplicates.search import read_jsonl

def read(shard):
    with open(Path(shard).with_suffix(".read"), "a") as file:
        file.write("x")
    fuse = Path(shard).with_suffix(".fuse")
    for i, row in enumerate(read_jsonl(shard)):
        if i == 3 and fuse.exists():
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        yield row
"""


def run_in_process(folder: Path, num_workers: int) -> int:
    code = ("import sys; from pathlib import Path; from corpora.near_duplicates import run\n"
            "if __name__ == '__main__': run(Path(sys.argv[1]), int(sys.argv[2]))")
    (folder / "main.py").write_text(code)
    paths = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run([sys.executable, str(folder / "main.py"), str(folder / "out"), str(num_workers)],
                          env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_search_goes_on_and_gives_the_same_bytes(tmp_path: Path, num_workers: int) -> None:
    expected, _ = search(tmp_path / "expected", small_corpus(), num_shards=4)
    shards = write_shards(tmp_path / "in", small_corpus(), 4)
    (tmp_path / "killer.py").write_text(KILLER)
    Path(shards[2]).with_suffix(".fuse").touch()
    plan(shards, tmp_path / "out", reader="killer:read")
    code = run_in_process(tmp_path, num_workers)
    if num_workers == 1:
        assert code == -signal.SIGKILL
        assert not (tmp_path / "out/report.json").exists()
        code = run_in_process(tmp_path, num_workers)
    # With two workers the dead one's task is handed out again at once.
    assert code == 0
    assert json.loads((tmp_path / "out/report.json").read_text()) == expected
    assert (tmp_path / "out/clusters.jsonl").read_bytes() == (tmp_path / "expected/out/clusters.jsonl").read_bytes()
    times_read = [Path(shard).with_suffix(".read").read_text() for shard in shards]
    assert times_read[2] == "xx"
    if num_workers == 1:
        assert times_read == ["x", "x", "xx", "x"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clusters.jsonl", "dropped", "plan.json",
                                                                         "report.json"]


def test_another_plan_in_the_same_folder_starts_over(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", small_corpus())
    plan(shards, tmp_path / "out")
    assert run(tmp_path / "out")["dropped"] == 8
    plan(shards, tmp_path / "out", NearDuplicateSettings(threshold=0.99))
    assert run(tmp_path / "out")["dropped"] == 0
    lines = Path(shards[0]).read_text().splitlines(keepends=True)
    Path(shards[0]).write_text("".join(lines[:20]))
    plan(shards, tmp_path / "out", NearDuplicateSettings(threshold=0.99))
    assert run(tmp_path / "out")["documents"] == 20


# --- errors -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [{"num_bands": 0}, {"num_words": 100}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_settings_out_of_range_name_the_field_and_the_remedy(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"near_duplicates\.{next(iter(wrong))}: .*; allowed: .*; "):
        NearDuplicateSettings(**wrong)


@pytest.mark.parametrize("line", ['{"id": "a"}', '{"id": 1, "text": "b"}', "[]", "{", "null"])
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: .*; allowed: .*; mend the line"):
        list(read_jsonl(str(tmp_path / "a.jsonl")))


def test_shards_are_named_once(tmp_path: Path) -> None:
    for shards in ([], ["a", "a"]):
        with pytest.raises(UserError, match="allowed: one or more, each once"):
            plan(shards, tmp_path)
