"""datatrove on one core: a quality filter, MinHash near-duplicates, tokens. Prints one JSON line; `bench_corpora.py`
runs it in an environment of its own (`peers.py`).

    python bench_corpora_datatrove.py FOLDER [--quality] [--tokenizer FILE] [--keep-numbers] [--seed 1]

FOLDER holds *.jsonl with "text" and "id". 14 bands of 8 hashes of 64 bits, word 5-grams. `--quality` puts the rules
before it that StarCoder and OpenCoder share: a file's longest line, mean line, share of letters and digits, and size.
`--keep-numbers` compares texts without taking every number for 0. Tokens are made by Hugging Face's tokenizers in the
fastest of its ways (batches without offsets).
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig
from tokenizers import Tokenizer

DOCUMENTS_AT_ONCE = 64


def is_good(document: Document) -> bool:
    """The rules of `--quality`; one pass over the characters, as cheap as Python has it."""
    text = document.text
    lines = text.splitlines() or [""]
    letters = sum(map(str.isalnum, text))
    return (max(map(len, lines)) <= 1000 and len(text) / len(lines) <= 100 and letters >= 0.25 * len(text)
            and len(text) >= 100)


def read_rows(folder: str) -> list[dict[str, str]]:
    """What was written."""
    paths = sorted(Path(folder).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]


def count_tokens(texts: list[str], tokenizer: Tokenizer) -> int:
    """Tokens of all documents."""
    return sum(
        len(one.ids) for first in range(0, len(texts), DOCUMENTS_AT_ONCE)
        for one in tokenizer.encode_batch_fast(texts[first:first + DOCUMENTS_AT_ONCE], add_special_tokens=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--tokenizer")
    parser.add_argument("--keep-numbers", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    work = tempfile.mkdtemp()
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5, seed=given.seed,
        norm_config=TextNormConfig(norm_numbers=not given.keep_numbers))
    quality = [LambdaFilter(is_good)] if given.quality else []
    # The filter reads everything a second time at the end; what it dropped must not be counted as a row there.
    source = given.folder
    steps = []
    if quality:
        source = f"{work}/good"
        steps.append(("quality", [JsonlReader(given.folder, glob_pattern="*.jsonl"), *quality,
                                  JsonlWriter(source, compression=None)], 1))
    steps += [
        ("signatures", [JsonlReader(source, glob_pattern="*.jsonl"),
                        MinhashDedupSignature(f"{work}/signatures", config=config)], 1),
        ("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets),
        ("clusters", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1),
        ("dropping", [JsonlReader(source, glob_pattern="*.jsonl"), MinhashDedupFilter(f"{work}/remove"),
                      JsonlWriter(f"{work}/out", compression=None)], 1),
    ]
    seconds = {}
    for name, pipeline, tasks in steps:
        start = time.process_time()
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{work}/log/{name}").run()
        seconds[name] = time.process_time() - start
    written, tokens = read_rows(f"{work}/out"), None
    if given.tokenizer:
        start = time.process_time()
        tokenizer = Tokenizer.from_file(given.tokenizer)
        loaded = time.process_time()
        tokens = count_tokens([row["text"] for row in written], tokenizer)
        seconds["loading"], seconds["tokens"] = loaded - start, time.process_time() - loaded
    shutil.rmtree(work)
    print(json.dumps({"kept": [row["id"] for row in written], "tokens": tokens, "steps": seconds}))


if __name__ == "__main__":
    main()
