"""Repositories that are copies of others: forks, mirrors, vendored libraries. They go as a whole, not file by file.

    found = search(["a.jsonl", "b.jsonl"], folder)           # rows of {"repository": ..., "text": ...}, or any reader
    found["fork/of-it"]                        # Copy(of="origin/it", share=0.93)

Published: repository-level duplicates keep what belongs together together; DeepSeek-Coder (arXiv 2401.14196 section
2.3) takes the concatenated repository as one sample of its near-duplicate search; OpenCoder (arXiv 2411.04905) compares
that with files and takes files. Departure: similarity of sets does not find a small repository inside of a
large one, so that containment is asked instead, in bytes, exactly but for the sampling.

A repository is dropped when at least `threshold` of its bytes stand in one other, larger one that is kept. Of each file
one in `SAMPLED` of its distinct word 5-grams is drawn by its hash, the same ones wherever the file stands, and each
stands for its part of the file's bytes; a file of so few that none is drawn stands for itself. What two repositories
share is the bytes of the drawn 5-grams that both hold: a file that was edited in places still counts for most of its
bytes. Repositories are asked from the largest to the smallest (of equally large ones by name): one is compared with
kept ones only, so that no chain of copies drops what no kept one holds.

Written to the folder: `clusters.jsonl` (a line for each repository that has copies: its name, files, bytes, and each
copy with the share of its bytes that it has in common). The result depends on the documents alone, not on their order,
on the shards or on the number of workers; a repository may be spread over shards. After a kill, shards that were
finished are left alone.

Memory: about 200 bytes a repository, 24 bytes for each pair that has anything in common, and the bound of `spill.py`.
Disk while it runs: 16 bytes for each drawn 5-gram, a tenth of the text.

Not covered: of more than `MOST_OTHERS` larger repositories that hold a 5-gram only so many are compared by it, so that
a repository whose text stands in many unrelated larger ones is found by the largest of them alone; and a repository
that is made of several others together, each below the threshold, stays (its files are near-duplicates by themselves).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.stage import write_json_atomic, write_text_atomic
from corpora import artifact
from corpora.document import num_bytes
from corpora.executors import Executor
from corpora.near_duplicates.search import run_tasks
from corpora.near_duplicates.shingles import hash_shingles
from corpora.near_duplicates.spill import RunWriter, groups, read_group

JSONL_READER = "corpora.near_duplicates.repositories:read_jsonl"
THRESHOLD = 0.7
NUM_WORDS = 5
SAMPLED = 16
MOST_OTHERS = 8
BATCH_CHARACTERS = 1_000_000
RECORD = np.dtype([("key", "<u8"), ("repository", "<u4"), ("bytes", "<u4")])
Reader = Callable[[str], Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class Copy:
    """Why a repository goes: the larger one that is kept, and the share of its own bytes that stands in that one."""

    of: str
    share: float


def search(shards: Sequence[str], folder: Path, threshold: float = THRESHOLD, reader: str = JSONL_READER,
           workers: int | Executor = 1) -> dict[str, Copy]:
    """The repositories to drop, by name.

    Args:
        shards: Names, each read as a whole by one task.
        folder: Where everything is written; work of another search that lies there is removed.
        threshold: Share of a repository's bytes, above 0 and at most 1.
        reader: `module:function`; called with a shard's name it yields (repository, text) of every file. Files of none
            (an empty name) do not count.
        workers: Processes of this machine, or who else does the tasks.

    Raises:
        UserError: A threshold or a list of shards that makes no sense.
    """
    if not 0 < threshold <= 1 or len(set(shards)) < len(shards):
        raise UserError(f"duplicate_repositories: {threshold}, {len(shards)} shards, {len(set(shards))} different; "
                        "allowed: above 0, at most 1, and each shard once; the usual share is 0.7")
    files = [[Path(shard).stat().st_size, Path(shard).stat().st_mtime_ns] if Path(shard).is_file() else None
             for shard in shards]
    wanted = {"shards": list(shards), "files": files, "reader": reader, "threshold": threshold}
    plan = folder / "plan.json"
    if not plan.exists() or json.loads(plan.read_text(encoding="utf-8")) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("signed", "pairs"):
            (folder / part).mkdir(parents=True)
        write_json_atomic(plan, wanted)
    if not (folder / "result.json").exists():
        run_tasks([(sign_shard, (folder, i)) for i in range(len(shards))], workers)
        signed = _signed(folder)
        ranges = groups([path / "records" for path in signed])
        run_tasks([(pair_group, (folder, *one)) for one in ranges], workers)
        _write_result(folder, _Names.of(signed), threshold)
    for part in ("signed", "pairs"):
        shutil.rmtree(folder / part, ignore_errors=True)
    held = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {name: Copy(**entry) for name, entry in held.items()}


def sign_shard(folder: Path, shard: int) -> None:
    """Draw the 5-grams of every file of one shard."""
    held = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    module, _, function = held["reader"].partition(":")
    reader: Reader = getattr(importlib.import_module(module), function)

    def write(partial: Path) -> None:
        partial.mkdir()
        sizes: dict[str, list[int]] = {}
        with RunWriter(partial / "records", RECORD) as writer:
            for batch in _batches((name, text) for name, text in reader(held["shards"][shard]) if name):
                for name, text in batch:
                    size = sizes.setdefault(name, [len(sizes), 0, 0])
                    size[1] += 1
                    size[2] += num_bytes(text)
                writer.add(_records(batch, [sizes[name][0] for name, _ in batch]))
        lines = [json.dumps([name, *size[1:]]) + "\n" for name, size in sizes.items()]
        (partial / "repositories.jsonl").write_text("".join(lines), encoding="utf-8")

    artifact.make(folder / "signed" / f"{shard:06d}", write)


def pair_group(folder: Path, first: int, last: int) -> None:
    """What pairs of repositories share, by the 5-grams whose hash begins with one of these prefixes."""
    signed = _signed(folder)
    names = _Names.of(signed)

    def write(partial: Path) -> None:
        artifact.write_arrays(partial, [_pairs(signed, names, first, last)])

    artifact.make(folder / "pairs" / f"{first:04d}-{last:04d}.npy", write)


def _pairs(signed: Sequence[Path], names: _Names, first: int, last: int) -> np.ndarray:
    """Place of a repository, place of a larger one, and the bytes of the first that stand in the second."""
    parts = []
    for shard, path in enumerate(signed):
        records = read_group([path / "records"], RECORD, first, last)
        parts.append((records["key"], names.places[shard][records["repository"]], records["bytes"].astype(np.int64)))
    keys, places, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((places, keys))
    keys, places, sizes = keys[order], places[order], sizes[order]
    # A 5-gram that a repository holds in several files stands for its part of each.
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]) | (places[1:] != places[:-1])
    starts = np.flatnonzero(is_first)
    sizes = np.add.reduceat(sizes, starts) if len(starts) else sizes
    keys, places = keys[starts], places[starts]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else starts
    group = np.repeat(begins, np.diff(np.append(begins, len(keys))))
    found = [np.zeros((0, 3), dtype=np.int64)]
    for k in range(MOST_OTHERS):
        rows = np.flatnonzero(np.arange(len(keys)) - group > k)
        found.append(_summed(np.stack((places[rows], places[group[rows] + k], sizes[rows]), axis=1)))
    return _summed(np.concatenate(found))


def read_jsonl(shard: str) -> Iterator[tuple[str, str]]:
    """(repository, text) of a JSON lines file with these two columns. Raises UserError for a line that lacks one."""
    with Path(shard).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                name, text = row["repository"], row["text"]
                if not isinstance(name, str) or not isinstance(text, str):
                    raise TypeError
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{Path(shard).name}, line {number}: {line[:60]!r}; allowed: one JSON object with the "
                                "strings repository and text; mend the line") from error
            yield name, text


class _Names:
    """All repositories from the largest to the smallest, and the place in that order of each shard's own ones."""

    def __init__(self, names: list[str], files: list[int], sizes: list[int], places: list[np.ndarray]) -> None:
        self.names, self.files, self.sizes, self.places = names, files, sizes, places

    @staticmethod
    def of(signed: Sequence[Path]) -> _Names:
        listed = [[json.loads(line) for line in (path / "repositories.jsonl").read_text(encoding="utf-8").splitlines()]
                  for path in signed]
        sums: dict[str, list[int]] = {}
        for name, num_files, size in (entry for own in listed for entry in own):
            held = sums.setdefault(name, [0, 0])
            held[0] += num_files
            held[1] += size
        names = sorted(sums, key=lambda name: (-sums[name][1], name))
        place = {name: i for i, name in enumerate(names)}
        places = [np.array([place[name] for name, _, _ in own], dtype=np.int64) for own in listed]
        return _Names(names, [sums[name][0] for name in names], [sums[name][1] for name in names], places)


def _write_result(folder: Path, names: _Names, threshold: float) -> None:
    parts = [artifact.read_arrays(path, 1)[0] for path in sorted((folder / "pairs").glob("[0-9]*.npy"))]
    pairs = _summed(np.concatenate([np.zeros((0, 3), dtype=np.int64), *parts]))
    needed = threshold * np.array([*names.sizes, 1])[pairs[:, 0]]
    copies: dict[int, tuple[int, int]] = {}
    close = pairs[pairs[:, 2] >= needed]
    # By the copy from the largest on; of several others the one that holds most of it, then the largest.
    for own, other, shared in close[np.lexsort((close[:, 1], -close[:, 2], close[:, 0]))].tolist():
        if own not in copies and other not in copies:
            copies[own] = (other, shared)
    found = {names.names[own]: {"of": names.names[other], "share": round(min(shared / names.sizes[own], 1.0), 4)}
             for own, (other, shared) in copies.items()}
    members: dict[int, list[int]] = {}
    for own, (other, _) in copies.items():
        members.setdefault(other, []).append(own)

    def described(place: int) -> dict[str, object]:
        return {"repository": names.names[place], "files": names.files[place], "bytes": names.sizes[place]}

    lines = [json.dumps({**described(other), "copies": [
        {**described(own), "share": found[names.names[own]]["share"]} for own in sorted(owned)]}) + "\n"
        for other, owned in sorted(members.items(), key=lambda entry: names.names[entry[0]])]
    write_text_atomic(folder / "clusters.jsonl", "".join(lines))
    write_json_atomic(folder / "result.json", found)


def _records(batch: list[tuple[str, str]], owners: list[int]) -> np.ndarray:
    shingles = hash_shingles([text for _, text in batch], NUM_WORDS)
    parts = []
    for i, (_, text) in enumerate(batch):
        own = np.unique(shingles.hashes[shingles.bounds[i]:shingles.bounds[i + 1]])
        drawn = own[own % np.uint64(SAMPLED) == 0]
        if not len(drawn):
            digest = hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            drawn = np.array([int.from_bytes(digest, "little")], dtype=np.uint64)
        records = np.zeros(len(drawn), dtype=RECORD)
        share, rest = divmod(num_bytes(text), len(drawn))
        records["key"], records["repository"], records["bytes"] = drawn, owners[i], share
        records["bytes"][:rest] += 1
        parts.append(records)
    return np.concatenate(parts)


def _summed(pairs: np.ndarray) -> np.ndarray:
    """The rows (own, other, bytes), those of one pair added up, in order."""
    if not len(pairs):
        return pairs
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    starts = np.flatnonzero(np.concatenate(([True], (pairs[1:, :2] != pairs[:-1, :2]).any(axis=1))))
    return np.concatenate((pairs[starts, :2], np.add.reduceat(pairs[:, 2], starts)[:, None]), axis=1)


def _batches(files: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    held = 0
    for name, text in files:
        batch.append((name, text))
        held += len(text)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _signed(folder: Path) -> list[Path]:
    return sorted((folder / "signed").glob("[0-9]*"))
