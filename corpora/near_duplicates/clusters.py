"""From links to clusters: connected components, the documents that are kept of each, and the files that say so.

Of a component the document that goes before the others is kept. With a threshold every other one, in that order, is
compared with those that are kept already: it is dropped for the one that it is like, or kept, where a chain of
documents alone leads from it to them (a licence header at the top of short files makes such chains: of 209 drops among
24,000 files of packages 33 had a similarity below the threshold to the one that was kept).

Held in memory: 16 bytes per document that is in a link, and the files' lines only as far as `spill.sorted_lines`
holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpora.near_duplicates.candidates import exact_jaccard
from corpora.near_duplicates.signatures import estimated_jaccard
from corpora.near_duplicates.spill import sorted_lines
from corpora.near_duplicates.store import SignedShards, keep_first, split_number

_ESTIMATE_ERROR = 0.2
"""How far the similarity that signatures estimate may lie below the exact one: more than four standard deviations of
112 hashes."""


def components(links: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of all links.

    Each round gives both ends of every link the lesser of their labels, then follows labels to their end; it is
    repeated until nothing changes (minimum-label propagation with pointer jumping, Shiloach and Vishkin 1982).

    Returns:
        The linked documents (uint64, sorted), and for each the place in that list of the least document of its
        component.
    """
    documents = np.zeros(0, dtype=np.uint64)
    for path in links:
        documents = np.union1d(documents, np.load(path).reshape(-1))
    labels = np.arange(len(documents))
    changed = True
    while changed:
        changed = False
        for path in links:
            ends = np.searchsorted(documents, np.load(path))
            ends = labels[ends][labels[ends[:, 0]] != labels[ends[:, 1]]]
            if len(ends):
                changed = True
                # The ends are labels themselves, so that whole trees are joined and not single documents.
                np.minimum.at(labels, ends.max(axis=1), ends.min(axis=1))
                labels = _follow(labels)
    return documents, labels


def _follow(labels: np.ndarray) -> np.ndarray:
    while True:
        further = labels[labels]
        if np.array_equal(further, labels):
            return labels
        labels = further


def write_clusters(links: list[Path], shards: SignedShards, shard_names: list[str], folder: Path,
                   threshold: float | None) -> dict[str, Any]:
    """Write FOLDER/clusters.jsonl (sorted by cluster) and FOLDER/dropped/NUMBER.jsonl (one a shard, sorted by row).

    Args: threshold: Exact similarity that a dropped document has to the kept one; None asks for none.

    Returns:
        Counts, and the SHA-256 of clusters.jsonl.
    """
    documents, labels = components(links)
    counts = {"clusters": 0, "largest_cluster": 0, "dropped": 0}

    def lines() -> Iterator[bytes]:
        for members in _groups(documents, labels):
            for group in _alike(members, shards, threshold):
                cluster, drops = _describe(group, shards, threshold is not None)
                counts["clusters"] += 1
                counts["dropped"] += len(drops)
                counts["largest_cluster"] = max(counts["largest_cluster"], len(group))
                dropped.extend(drops)
                yield cluster

    dropped = _DropFiles(folder / "dropped", len(shard_names))
    digest = hashlib.sha256()
    with (folder / "clusters.jsonl").open("wb") as file:
        for line in sorted_lines(lines(), folder / "sorting"):
            digest.update(line)
            file.write(line)
    dropped.finish()
    return {**counts, "digest": digest.hexdigest()}


class _DropFiles:
    """The drops of every shard: collected by document number, then written shard by shard."""

    def __init__(self, folder: Path, num_shards: int) -> None:
        self._folder = folder
        self._num_shards = num_shards
        folder.mkdir()
        self._file = (folder / "unsorted").open("w+b")

    def extend(self, drops: list[tuple[int, dict[str, Any]]]) -> None:
        """Add drops: the document's number and its line."""
        for document, line in drops:
            self._file.write(b"%016x" % document + json.dumps(line, ensure_ascii=True).encode("ascii") + b"\n")

    def finish(self) -> None:
        """Write one file for every shard, empty where nothing was dropped."""
        self._file.seek(0)
        shard, file = 0, (self._folder / "000000.jsonl").open("wb")
        for line in sorted_lines(self._file, self._folder / "sorting"):
            owner = split_number(int(line[:16], 16))[0]
            while shard < owner:
                file.close()
                shard, file = shard + 1, (self._folder / f"{shard + 1:06d}.jsonl").open("wb")
            file.write(line[16:])
        file.close()
        for empty in range(shard + 1, self._num_shards):
            (self._folder / f"{empty:06d}.jsonl").touch()
        self._file.close()
        (self._folder / "unsorted").unlink()


def _groups(documents: np.ndarray, labels: np.ndarray) -> Iterator[list[int]]:
    by_label = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[by_label], prepend=-1, append=len(labels)))
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield documents[by_label[begin:end]].tolist()


def _alike(members: list[int], shards: SignedShards, threshold: float | None) -> Iterator[list[int]]:
    """The members of a component, each kept document with those that are dropped for it, if there are any."""
    if threshold is None:
        yield members
        return
    places = {document: shards.find(document) for document in members}

    def rank(document: int) -> tuple[Any, int]:
        shard, row = places[document]
        return keep_first(shard.num_characters(row), shard.id(row)), document

    groups: list[list[int]] = []
    signatures: list[np.ndarray] = []
    for document in sorted(members, key=rank):
        shard, row = places[document]
        own, shingles = shard.signature(row), shard.shingles(row)
        alike = np.array([np.count_nonzero(other == own) for other in signatures]) / max(len(own), 1)
        for i in np.argsort(-alike, kind="stable").tolist():
            if alike[i] < threshold - _ESTIMATE_ERROR:
                continue
            kept_shard, kept_row = places[groups[i][0]]
            if exact_jaccard(kept_shard.shingles(kept_row), shingles) >= threshold:
                groups[i].append(document)
                break
        else:
            groups.append([document])
            signatures.append(np.array(own))
    yield from (group for group in groups if len(group) > 1)


def _describe(members: list[int], shards: SignedShards, exact: bool) -> tuple[bytes, list[tuple[int, dict[str, Any]]]]:
    """The line of one cluster, and the number and line of each document that is dropped from it."""
    places = {document: shards.find(document) for document in members}
    known = {document: (shard.num_characters(row), shard.id(row)) for document, (shard, row) in places.items()}
    kept, *others = sorted(members, key=lambda document: (keep_first(*known[document]), document))
    kept_shard, kept_row = places[kept]
    entries: list[dict[str, Any]] = [{"id": known[kept][1], "characters": known[kept][0]}]
    drops: list[tuple[int, dict[str, Any]]] = []
    for document in others:
        shard, row = places[document]
        similarity = {"estimated_jaccard": round(estimated_jaccard(
            kept_shard.signature(kept_row), shard.signature(row)), 4)}
        if exact:
            similarity["jaccard"] = round(exact_jaccard(kept_shard.shingles(kept_row), shard.shingles(row)), 4)
        name = known[document][1]
        entries.append({"id": name, "characters": known[document][0], **similarity})
        drops.append((document, {"row": split_number(document)[1], "id": name, "duplicate_of": known[kept][1],
                                 **similarity}))
    name = hashlib.blake2b(known[kept][1].encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    line = {"cluster": name, "kept": known[kept][1], "size": len(members), "members": entries}
    return json.dumps(line, ensure_ascii=True).encode("ascii") + b"\n", drops
