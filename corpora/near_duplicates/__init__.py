"""Near-duplicates by MinHash and locality-sensitive hashing: bounded memory, the same result for any order and number
of workers, clusters kept for inspection. `search.py` says how it is run, `settings.py` what counts."""

from corpora.near_duplicates.search import dropped_rows, plan, read_jsonl, run
from corpora.near_duplicates.settings import NearDuplicateSettings

__all__ = ["NearDuplicateSettings", "dropped_rows", "plan", "read_jsonl", "run"]
