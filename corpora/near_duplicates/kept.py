"""Which documents of a connected component are kept, and for which of them each other one is dropped.

Members are asked in turn: first those that share the most of their bands with any other, then the longest text, then
the least id. One is dropped where it is a near-duplicate of a document that is kept already (without a threshold: where
they share a band; with one: where their exact similarity reaches it), and is kept where it is of none. So a chain alone
drops nothing, and no two that are kept of a component are near-duplicates of one another.

Departure from FineWeb and datatrove, which keep one document of every component, whatever links it to the others. On
edited copies of the standard library's files two thirds of the wrong drops of that rule (12 of 18 at 5% of the lines,
mean of 32 draws) had no band in common with the document that was kept: families of files from one template, such as
the codecs, are chains of which a single one was left. The turn is what keeps the recall: a document in the middle of a
family stands for more of the others than the longest does, and the others are then dropped for what they are like.

Held in memory: about 1 KB for each member of one component, by the sizes of its arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from corpora.near_duplicates.candidates import exact_jaccard
from corpora.near_duplicates.settings import NearDuplicateSettings
from corpora.near_duplicates.signatures import MinHasher
from corpora.near_duplicates.store import SignedShards, keep_first

_AT_ONCE = 4096
"""Members whose signatures are held at once: 2 MB of them."""
_NOBODY = -1
_ESTIMATE_ERROR = 0.2
"""How far the similarity that signatures estimate may lie below the exact one: more than four standard deviations of
112 hashes."""


class Keeper:
    """Parts the components of one search into what is kept and what is dropped for it."""

    def __init__(self, shards: SignedShards, settings: NearDuplicateSettings) -> None:
        self._shards = shards
        self._threshold = settings.threshold
        self._hasher = MinHasher(settings)

    def groups(self, members: list[int]) -> Iterator[list[int]]:
        """Each kept document of a component that others are dropped for, and after it those, all in their turns.

        Args: members: Numbers of the documents that links connect, two or more.
        """
        by_length = sorted(members, key=self._rank)
        if len(members) == 2:  # linked to each other: the most frequent component, and nothing to ask
            yield by_length
            return
        bands, num_bands = self._bands(by_length)
        num_shared = np.count_nonzero(np.bincount(bands.reshape(-1))[bands] > 1, axis=1)
        turns = np.argsort(-num_shared, kind="stable")
        documents = [by_length[i] for i in turns.tolist()]
        kept_for = (_by_bands(bands[turns], num_bands) if self._threshold is None
                    else self._by_similarity(documents, self._threshold))
        groups = {kept: [documents[kept]] for kept in sorted(set(kept_for))}
        for i, kept in enumerate(kept_for):
            if i != kept:
                groups[kept].append(documents[i])
        yield from (group for group in groups.values() if len(group) > 1)

    def _rank(self, document: int) -> tuple[tuple[int, bytes], int]:
        shard, row = self._shards.find(document)
        return keep_first(shard.num_characters(row), shard.id(row)), document

    def _bands(self, documents: list[int]) -> tuple[np.ndarray, int]:
        """The bands of each, `[documents, bands]`, numbered from 0, equal ones with one number; how many numbers."""
        keys = [self._hasher.band_keys(np.array([self._signature(document) for document in documents[i:i + _AT_ONCE]]))
                for i in range(0, len(documents), _AT_ONCE)]
        whole = np.concatenate(keys)
        distinct, numbers = np.unique(whole, return_inverse=True)
        return numbers.reshape(whole.shape), len(distinct)

    def _by_similarity(self, documents: list[int], threshold: float) -> list[int]:
        """For each, in turn, the place of the kept one that it is as similar to as the threshold; its own if none."""
        kept: list[int] = []
        signatures: list[np.ndarray] = []
        found = []
        for i, document in enumerate(documents):
            own, shingles = self._signature(document), self._shingles(document)
            alike = np.array([np.count_nonzero(other == own) for other in signatures]) / len(own)
            for j in np.argsort(-alike, kind="stable").tolist():
                if alike[j] >= threshold - _ESTIMATE_ERROR and exact_jaccard(
                        self._shingles(documents[kept[j]]), shingles) >= threshold:
                    found.append(kept[j])
                    break
            else:
                found.append(i)
                kept.append(i)
                signatures.append(np.array(own))
        return found

    def _signature(self, document: int) -> np.ndarray:
        shard, row = self._shards.find(document)
        return shard.signature(row)

    def _shingles(self, document: int) -> np.ndarray:
        shard, row = self._shards.find(document)
        return shard.shingles(row)


def _by_bands(bands: np.ndarray, num_bands: int) -> list[int]:
    """For each row the kept row with which it shares the most bands, of several the first; its own if it is kept."""
    owners = np.full(num_bands, _NOBODY)
    for i, own in enumerate(bands):
        if owners[own].max() == _NOBODY:
            owners[own] = i
    found = []
    # A second time, because a document may share more bands with one that is kept after its own turn.
    for own in owners[bands]:
        shared = Counter(own.tolist())
        shared.pop(_NOBODY, None)
        found.append(min(shared, key=lambda row: (-shared[row], row)))
    return found
