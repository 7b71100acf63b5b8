"""The seedling's pretraining mixture as one endless stream of token ids, cut into shards made on demand.

A shard depends on the seed and its number alone (and on the versions of the installed packages that the
code source reads), so a run that resumes reads on where it stopped. Documents end with `<|endoftext|>`.

No text made by reasoning-gym is in it, and none of its question templates: those are held out for what
follows.
"""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

from .sources import arithmetic, code, english, word_problems
from .tokenizer import END_OF_TEXT

# Source -> (share of tokens, maker of one document).
SOURCES = {
    "arithmetic": (0.50, arithmetic.document),
    "word_problems": (0.20, word_problems.document),
    "retrieval": (0.06, word_problems.retrieval_document),
    "code": (0.12, code.document),
    "english": (0.12, english.document),
}
SHARD_TOKENS = 1 << 20
BATCH_DOCUMENTS = 64


def sample_documents(seed: int, num_chars: int) -> list[str]:
    """About `num_chars` characters in the mixture's proportions, for learning the tokenizer."""
    documents = []
    for name, (share, make) in SOURCES.items():
        rng, wanted = Random(f"{seed}/tokenizer/{name}"), int(share * num_chars)
        while wanted > 0:
            documents.append(make(rng))
            wanted -= len(documents[-1])
    return documents


def source_documents(tokenizer: Tokenizer, seed: int, shard: int, name: str) -> list[list[int]]:
    """Token ids of one source's documents in one shard."""
    share, make = SOURCES[name]
    rng, wanted = Random(f"{seed}/{shard}/{name}"), int(share * SHARD_TOKENS)
    end, documents = tokenizer.token_to_id(END_OF_TEXT), []
    assert end is not None
    while wanted > 0:
        for encoding in tokenizer.encode_batch([make(rng) for _ in range(BATCH_DOCUMENTS)]):
            documents.append([*encoding.ids, end])
            wanted -= len(documents[-1])
            if wanted <= 0:
                break
    return documents


def write_shard(tokenizer_file: str, folder: str, seed: int, shard: int) -> str:
    """Make one shard of `SHARD_TOKENS` uint16 ids unless it is there; returns its path."""
    path = Path(folder) / f"shard-{shard:05d}.npy"
    if path.exists():
        return str(path)
    tokenizer = Tokenizer.from_file(tokenizer_file)
    documents = [ids for name in SOURCES for ids in source_documents(tokenizer, seed, shard, name)]
    Random(f"{seed}/{shard}/order").shuffle(documents)
    ids = np.fromiter((token for document in documents for token in document), dtype=np.uint16)
    assert len(ids) >= SHARD_TOKENS - len(SOURCES)
    ids = np.resize(ids, SHARD_TOKENS)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial-{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, ids)
    os.replace(partial, path)
    return str(path)


class TokenStream:
    """Random access to the stream; the shard after the one in use is made in another process."""

    def __init__(self, tokenizer_file: Path, folder: Path, seed: int):
        self.arguments = (str(tokenizer_file), str(folder), seed)
        self.pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        self.pending: dict[int, Future[str]] = {}
        self.loaded: dict[int, np.ndarray] = {}

    def _request(self, shard: int) -> Future[str]:
        if shard not in self.pending:
            self.pending[shard] = self.pool.submit(write_shard, *self.arguments, shard)
        return self.pending[shard]

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self.loaded:
            path = self._request(shard).result()
            self._request(shard + 1)
            self.loaded = {shard: np.load(path), **{k: v for k, v in self.loaded.items() if k == shard - 1}}
        return self.loaded[shard]

    def read(self, start: int, count: int) -> np.ndarray:
        """Ids at `[start, start + count)` of the stream, uint16."""
        parts = []
        while count > 0:
            shard, offset = divmod(start, SHARD_TOKENS)
            parts.append(self._shard(shard)[offset : offset + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
