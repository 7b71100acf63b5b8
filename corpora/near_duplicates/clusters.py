"""From links to clusters: connected components, the documents that are kept of each, and the files that say so.

A cluster is a kept document and those that are dropped for it; `kept.py` says which they are. A component can hold
several.

Held in memory: 16 bytes per document that is in a link, the members of one component, and the files' lines only as far
as `spill.sorted_lines` holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corpora.near_duplicates.candidates import exact_jaccard
from corpora.near_duplicates.kept import Keeper
from corpora.near_duplicates.settings import NearDuplicateSettings
from corpora.near_duplicates.signatures import estimated_jaccard
from corpora.near_duplicates.spill import sorted_lines
from corpora.near_duplicates.store import SignedShards, split_number


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
                   settings: NearDuplicateSettings) -> dict[str, Any]:
    """Write FOLDER/clusters.jsonl (sorted by cluster) and FOLDER/dropped/NUMBER.jsonl (one a shard, sorted by row).

    Returns:
        Counts, and the SHA-256 of clusters.jsonl.
    """
    documents, labels = components(links)
    keeper = Keeper(shards, settings)
    counts = {"clusters": 0, "largest_cluster": 0, "dropped": 0}

    def lines() -> Iterator[bytes]:
        for members in _groups(documents, labels):
            for group in keeper.groups(members):
                cluster, drops = _describe(group, shards, settings.threshold is not None)
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


def _describe(members: list[int], shards: SignedShards, exact: bool) -> tuple[bytes, list[tuple[int, dict[str, Any]]]]:
    """The line of one cluster, the kept document first, and the number and line of each that is dropped from it."""
    places = {document: shards.find(document) for document in members}
    known = {document: (shard.num_characters(row), shard.id(row)) for document, (shard, row) in places.items()}
    kept, *others = members
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
