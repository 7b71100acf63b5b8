"""The settings of the near-duplicate search, with where their values come from."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import UserError


@dataclass(frozen=True)
class NearDuplicateSettings:
    """What counts as a near-duplicate. The defaults are those of FineWeb (arXiv 2406.17557, Deduplication).

    Two documents share a band with chance 1 - (1 - J^num_rows)^num_bands, J being the Jaccard similarity of their
    sets of shingles (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.2). With 14 bands of 8
    rows that is 0.56 at J = 0.7, 0.77 at 0.75, 0.92 at 0.8 and 0.99 at 0.85.

    Attributes:
        num_words: Words in a shingle. FineWeb and OpenCoder (arXiv 2411.04905) take 5.
        num_bands: Bands of the signature; sharing one makes two documents a candidate pair.
        num_rows: Hashes in a band.
        threshold: Exact Jaccard similarity (0 to 1) that a candidate pair must have. None: every candidate pair counts,
            as FineWeb does it; then nothing but signatures is kept on disk.
        seed: Chooses the hash functions.
    """

    num_words: int = 5
    num_bands: int = 14
    num_rows: int = 8
    threshold: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in (("num_words", 64), ("num_bands", 1024), ("num_rows", 64)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"near_duplicates.{name}: {value}; allowed: 1 to {most}; the usual search takes "
                                f"{getattr(NearDuplicateSettings, name)}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"near_duplicates.threshold: {self.threshold}; allowed: above 0, at most 1, or nothing; "
                            "remove it to count every candidate pair")

    @property
    def num_hashes(self) -> int:
        """Hashes in a signature."""
        return self.num_bands * self.num_rows

    def chance_of_candidate(self, jaccard: float) -> float:
        """Chance that two documents of this similarity share at least one band.

        >>> round(NearDuplicateSettings().chance_of_candidate(0.8), 2)
        0.92
        """
        return 1 - (1 - jaccard**self.num_rows) ** self.num_bands
