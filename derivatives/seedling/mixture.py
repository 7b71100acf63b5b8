"""The seedling's pretraining mixture as one endless stream of token ids, cut into shards made on demand.

A shard depends on the seed and its number alone (and on the versions of the installed packages that the
code source reads), so a run that resumes reads on where it stopped. Documents end with `<|endoftext|>`.

No text made by reasoning-gym is in it, and none of its question templates: those are held out for what
follows.
"""

import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

from .sources import arithmetic, code, english, functions, word_problems
from .tokenizer import END_OF_TEXT

# Source -> (share of tokens, maker of one document).
SOURCES = {
    "arithmetic": (0.44, arithmetic.document),
    "word_problems": (0.18, word_problems.document),
    "retrieval": (0.06, word_problems.retrieval_document),
    "code": (0.13, code.document),
    "functions": (0.08, functions.document),
    "english": (0.11, english.document),
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


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy"


def write_shard(tokenizer_file: str, folder: Path, seed: int, shard: int) -> Path:
    """Make one shard of `SHARD_TOKENS` uint16 ids unless it is there; returns its path."""
    path = shard_path(folder, shard)
    if path.exists():
        return path
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
    return path


class TokenStream:
    """Random access to the stream; the shard after the one in use is made in another process.

    Of several workers that read one folder, the first makes the shards and the others wait for them.
    """

    def __init__(self, tokenizer_file: Path, folder: Path, seed: int, rank: int = 0):
        self.arguments = (str(tokenizer_file), folder, seed)
        self.folder, self.rank = folder, rank
        self.pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        self.pending: dict[int, Future[Path]] = {}
        self.loaded: dict[int, np.ndarray] = {}

    def _request(self, shard: int) -> Future[Path]:
        if shard not in self.pending:
            self.pending[shard] = self.pool.submit(write_shard, *self.arguments, shard)
        return self.pending[shard]

    def _path(self, shard: int) -> Path:
        if self.rank == 0:
            path = self._request(shard).result()
            self._request(shard + 1)
            return path
        path = shard_path(self.folder, shard)
        while not path.exists():
            time.sleep(0.1)
        return path

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self.loaded:
            path = self._path(shard)
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
