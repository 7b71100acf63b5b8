"""datatrove's MinHash near-duplicates on one core, for `bench_corpora.py --datatrove-python`. Prints one JSON line.

    python bench_corpora_datatrove.py FOLDER        (FOLDER holds *.jsonl with "text" and "id")

Environment: pip install "datatrove[io,processing]==0.10.1" spacy orjson. 14 bands of 8 hashes, word 5-grams, 64 bits.
"""

import glob
import json
import os
import shutil
import sys
import tempfile
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main(folder: str) -> None:
    work = tempfile.mkdtemp()
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    steps = [
        ([JsonlReader(folder, glob_pattern="*.jsonl"), MinhashDedupSignature(f"{work}/signatures", config=config)], 1),
        ([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets),
        ([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1),
        ([JsonlReader(folder, glob_pattern="*.jsonl"), MinhashDedupFilter(f"{work}/remove"),
          JsonlWriter(f"{work}/out", compression=None)], 1),
    ]
    start, start_cpu = time.perf_counter(), cpu_seconds()
    for i, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{work}/log/{i}").run()
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
    kept = []
    for path in glob.glob(f"{work}/out/*.jsonl"):
        with open(path) as file:
            kept += [json.loads(line)["id"] for line in file]
    shutil.rmtree(work)
    print(json.dumps({"kept": kept, "seconds": seconds, "cpu_seconds": cpu}))


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main(sys.argv[1])
