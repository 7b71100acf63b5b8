"""Repositories that are copies of others go as a whole; the same ones for any order, shards and workers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from configs.errors import UserError
from corpora.near_duplicates.repositories import Copy, search

Files = list[tuple[str, str]]


def module(seed: int, lines: int = 60) -> str:
    """A file unlike that of any other seed."""
    draw = random.Random(seed)
    return "".join(f"def work_{seed}_{i}(a): return a * {draw.randrange(10**9)} + {draw.randrange(10**9)}\n"
                   for i in range(lines))


def repository(name: str, *texts: str) -> Files:
    return [(name, text) for text in texts]


def found(
    folder: Path, files: Files, num_shards: int = 1, threshold: float = 0.7, num_workers: int = 1
) -> dict[str, Copy]:
    shards = [folder / f"shard{i}" for i in range(num_shards)]
    for i, shard in enumerate(shards):
        shard.write_text("".join(json.dumps({"repository": name, "text": text}) + "\n"
                                 for name, text in files[i::num_shards]))
    return search([str(shard) for shard in shards], folder / "work", threshold, workers=num_workers)


def edited(text: str, every: int) -> str:
    """The text with one line in so many replaced."""
    lines = text.splitlines(keepends=True)
    return "".join(f"# altered line number {i} of {hash_of(text)}\n" if i % every == 0 else line
                   for i, line in enumerate(lines))


def hash_of(text: str) -> int:
    return sum(map(ord, text)) % 10_007


ORIGIN = [module(i) for i in range(10)]
OTHERS = [(f"other/{k:02d}", module(100 + 10 * k + i)) for k in range(20) for i in range(6)]


def test_a_fork_a_mirror_and_a_vendored_copy_go_and_the_others_stay(tmp_path: Path) -> None:
    files = [*OTHERS, *repository("a/mirror", *ORIGIN), *repository("origin/it", *ORIGIN),
             *repository("fork/it", *(edited(text, 12) for text in ORIGIN[:9])),
             *repository("vendor/part", *ORIGIN[:3], module(900, 30))]
    copies = found(tmp_path, files)
    # Of equally large ones the first by name is kept.
    assert set(copies) == {"origin/it", "fork/it", "vendor/part"}
    assert {copy.of for copy in copies.values()} == {"a/mirror"} and copies["origin/it"].share == 1.0
    assert 0.75 < copies["fork/it"].share < 0.95
    assert copies["vendor/part"].share == pytest.approx(3 / 3.5, abs=0.05)
    [line] = [json.loads(line) for line in (tmp_path / "work" / "clusters.jsonl").read_text().splitlines()]
    assert (line["repository"], line["files"], len(line["copies"])) == ("a/mirror", 10, 3)
    assert line["bytes"] == sum(map(len, ORIGIN))


def test_below_the_threshold_a_repository_stays_and_so_does_the_larger_one(tmp_path: Path) -> None:
    half = repository("half/own", *ORIGIN[:4], *(module(800 + i) for i in range(4)))
    files = [*half, *repository("origin/it", *ORIGIN)]
    assert found(tmp_path, files) == {}
    [(name, copy)] = found(tmp_path, files, threshold=0.45).items()
    assert (name, copy.of) == ("half/own", "origin/it") and copy.share == pytest.approx(0.5, abs=0.03)
    with pytest.raises(UserError, match="above 0, at most 1"):
        found(tmp_path, files, threshold=1.5)


def test_files_of_no_repository_and_small_files_do_not_make_a_copy(tmp_path: Path) -> None:
    initial = "# SPDX-License-Identifier: MIT\n"
    files = [("", text) for text in ORIGIN]
    files += [entry for k in range(12) for entry in repository(f"own/{k}", initial, initial, module(700 + k))]
    assert found(tmp_path, files) == {}
    assert set(found(tmp_path, [*repository("b", initial), *repository("a", initial)])) == {"b"}


def test_a_copy_is_measured_against_one_that_is_kept(tmp_path: Path) -> None:
    # b holds three quarters of a and some more; c three quarters of b, but only half of a.
    a = [module(i) for i in range(12)]
    b = [*a[:9], *(module(300 + i) for i in range(2))]
    c = [*a[:4], *b[9:11], *(module(400 + i) for i in range(2))]
    copies = found(tmp_path, [*repository("a", *a), *repository("b", *b), *repository("c", *c)])
    assert set(copies) == {"b"} and copies["b"].of == "a"


def test_many_forks_of_one_repository_all_go(tmp_path: Path) -> None:
    files = repository("origin/it", *ORIGIN, module(50))
    files += [entry for k in range(40) for entry in repository(f"fork/{k}", *ORIGIN, f"# fork number {k}\n")]
    copies = found(tmp_path, files)
    assert len(copies) == 40 and {copy.of for copy in copies.values()} == {"origin/it"}


def test_the_result_is_the_same_for_any_order_shards_and_workers_and_is_not_made_twice(
    tmp_path: Path,
) -> None:
    files = [*OTHERS[:12], *repository("origin/it", *ORIGIN), *repository("fork/it", *(edited(t, 9) for t in ORIGIN))]
    results = []
    for number, (shards, workers) in enumerate([(1, 1), (3, 1), (3, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        random.Random(number).shuffle(files)
        results.append((found(folder, files, shards, num_workers=workers),
                        (folder / "work" / "clusters.jsonl").read_bytes()))
    assert results[0] == results[1] == results[2] and set(results[0][0]) == {"fork/it"}
    made = (folder / "work" / "result.json").stat().st_mtime_ns
    again = search([str(folder / f"shard{i}") for i in range(3)], folder / "work")
    assert again == results[0][0] and (folder / "work" / "result.json").stat().st_mtime_ns == made
