"""Rows of `bench_corpora.py` that run whole builds, as a user does: speed, digests by workers, memory.

A build is `python -m corpora.build` in a process of its own, whose time and memory the system counts; so is a run of
the peer's. Seconds are of processor time, so that a busy machine changes them less, with wall time beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import open_source
from corpora.tokens import load_encoder
from derivatives.seedling import SEEDLING_PATH

ROOT = Path(__file__).parents[2]
PEER = Path(__file__).with_name("bench_corpora_datatrove.py")
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": wall, "processor_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1000,
                  "code": done.returncode, "out": done.stdout[-1000000:], "err": done.stderr[-1000:]}))
"""
"""Runs a command from an interpreter so small that its own memory cannot pass for the command's."""
COMPARABLE: dict[str, Any] = {"near_duplicates": True}
COMPARABLE_SOURCE: dict[str, Any] = {"filters": {"line_shape": {}, "characters": {}}}
EVERYTHING: dict[str, Any] = {"near_duplicates": {"threshold": 0.7}, "subsequence": 0.6}
EVERYTHING_SOURCE: dict[str, Any] = {
    "licences": "permissive", "filters": "code", "redact": True, "fim": {"rate": 0.5},
}  # fmt: skip
PROCEDURAL = {"name": "reasoning_gym/chain_sum", "split": "heldout", "count": 300}
TOKENIZER = "qwen2.5-tokenizer"
DOCUMENT_LINES = 150
"""Lines of a document that is made of shuffled ones."""

Say = Callable[[str], None]


def library() -> list[Document]:
    """The standard library's modules."""
    return list(open_source(CorpusSource(name="python_stdlib"), "tokens", DropLog()))


def packages(megabytes: float) -> list[Document]:
    """Files of the installed packages, in their seeded order, until there are so many million characters."""
    found, size = [], 0
    for document in open_source(CorpusSource(name="python_packages"), "tokens", DropLog()):
        found.append(document)
        size += len(document.text)
        if size >= megabytes * 1e6:
            break
    return found


def num_megabytes(documents: Sequence[Document]) -> float:
    """Size of the texts in UTF-8, in 1e6 bytes."""
    return sum(len(document.text.encode()) for document in documents) / 1e6


def write_rows(path: Path, documents: Sequence[Document]) -> None:
    """One JSON object a line, as both sides read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for one in documents:
            row = {"id": one.id, "text": one.text, "path": one.path, "licence": one.licence}
            file.write(json.dumps(row) + "\n")


def checkpoint(folder: Path) -> tuple[Path, str]:
    """A folder with tokenizer.json, and whose it is: Qwen2.5's where DERIVE_DATA has it, else the seedling's."""
    mirror = Path(os.environ.get("DERIVE_DATA") or "") / TOKENIZER
    if not os.environ.get("DERIVE_DATA") or not mirror.is_dir():
        return SEEDLING_PATH, "the seedling's tokenizer (2,048 tokens; DERIVE_DATA names no mirror with Qwen2.5's)"
    if (mirror / "tokenizer.json").exists():
        return mirror, "Qwen2.5's tokenizer"
    from transformers import AutoTokenizer

    folder.mkdir()
    AutoTokenizer.from_pretrained(mirror, local_files_only=True).backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder, "Qwen2.5's tokenizer"


def measured(command: Sequence[str], cores: str) -> dict[str, Any]:
    """Run a command on these cores: seconds, processor seconds and peak memory of it and the processes below it.

    Raises SystemExit where it fails.
    """
    quiet = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    whole = ["taskset", "-c", cores, sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(whole, capture_output=True, text=True, env=quiet, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["code"]:
        sys.exit(f"error: {' '.join(command[:4])}: exit {found['code']}: {found['err']}")
    return found


def build(rows: Path, base: Path, out: Path, cores: str, stage: dict[str, Any], source: dict[str, Any],
          num_threads: int = 1) -> dict[str, Any]:
    """A build of one file; what `measured` says, with OUT/timings.json."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    content = {
        "recipe": "bench", "seed": 0, "inputs": {"base": {"kind": "base", "path": str(base)}},
        "stage": {"id": "corpus", "kind": "corpus", "output": "tokens", "sequence_length": 8192, **stage,
                  "sources": [{"name": str(rows), **source}]},
        "machine": {"name": "cpu", "num_threads": num_threads},
    }  # fmt: skip
    path = out.with_suffix(".json")
    path.write_text(json.dumps(content), encoding="utf-8")
    found = measured([sys.executable, "-m", "corpora.build", str(path), str(out)], cores)
    found["steps"] = {name: spent["processor_seconds"] for name, spent in
                      json.loads((out / "timings.json").read_text())["steps"].items()}
    found["report"] = json.loads((out / "data" / "report.json").read_text())
    return found


def decontaminate() -> list[dict[str, Any]]:
    """What `everything` is decontaminated against: GSM8K's test set where the mirror is, else a procedural set."""
    return [{"name": "gsm8k", "split": "test"} if os.environ.get("DERIVE_DATA") else PROCEDURAL]


def speeds(runs: Sequence[dict[str, Any]], megabytes: float) -> dict[str, float]:
    """MB a second of processor time, medians: with tokens and without, the whole process and its steps alone.

    The steps alone are without `loading`, the reading of the tokenizer, which a long run does once as well.
    """
    def median(seconds: Callable[[dict[str, Any]], float]) -> float:
        return round(megabytes / statistics.median(map(seconds, runs)), 3)

    def steps(run: dict[str, Any], *without: str) -> float:
        return float(sum(spent for name, spent in run["steps"].items() if name not in without))

    def tokens(run: dict[str, Any]) -> float:
        return float(run["steps"]["tokens"] + run["steps"]["loading"])

    return {
        "with_tokens": median(lambda run: run["processor_seconds"]),
        "without_tokens": median(lambda run: run["processor_seconds"] - tokens(run)),
        "steps_with_tokens": median(lambda run: steps(run, "loading")),
        "steps_without_tokens": median(lambda run: steps(run, "loading", "tokens")),
        "with_tokens_by_wall_clock": median(lambda run: run["seconds"]),
    }


def speed(name: str, documents: Sequence[Document], base: Path, folder: Path, cores: str, repeats: int,
          peer: str | None, say: Say) -> dict[str, Any]:
    """Both sides on one text, in turns."""
    rows = folder / name / "rows.jsonl"
    write_rows(rows, documents)
    megabytes = num_megabytes(documents)
    ours: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for number in range(repeats):
        ours.append(build(rows, base, folder / f"{name}-{number}", cores, COMPARABLE, COMPARABLE_SOURCE))
        say(f"{name}: ours {megabytes / ours[-1]['processor_seconds']:.2f} MB/s with tokens")
        if peer and number < max(repeats - 1, 1):
            command = [peer, str(PEER), str(rows.parent), "--quality", "--tokenizer", str(base / "tokenizer.json")]
            found = measured(command, cores)
            answer = json.loads(found["out"].strip().splitlines()[-1])
            others.append({**found, "steps": answer["steps"], "kept": len(answer["kept"]), "tokens": answer["tokens"]})
            say(f"{name}: datatrove {megabytes / found['processor_seconds']:.2f} MB/s with tokens")
    whole = build(rows, base, folder / f"{name}-all", cores, {**EVERYTHING, "decontaminate": decontaminate()},
                  EVERYTHING_SOURCE)
    [source] = ours[-1]["report"]["sources"].values()
    found = {
        "row": "speed", "text": name, "documents": len(documents), "megabytes": round(megabytes, 1),
        "ours": {**speeds(ours, megabytes), "kept": source["clean"],
                 "dropped": source["dropped"], "tokens": ours[-1]["report"]["tokens"], "peak_mb": ours[-1]["peak_mb"],
                 "steps": ours[-1]["steps"]},
        "everything": {**speeds([whole], megabytes), "steps": whole["steps"], "peak_mb": whole["peak_mb"],
                       "kept": whole["report"]["documents"]},
    }  # fmt: skip
    if others:
        found["datatrove"] = {**speeds(others, megabytes), "kept": others[-1]["kept"], "tokens": others[-1]["tokens"],
                              "peak_mb": others[-1]["peak_mb"], "steps": others[-1]["steps"]}
    return found


def same_ids(name: str, documents: Sequence[Document], base: Path) -> dict[str, Any]:
    """Every text's ids by our encoder and by the tokenizer itself, and how long both took.

    Specials that a text spells out are text to ours, so that the tokenizer goes without them here.
    """
    texts = [document.text for document in documents]
    encoder = load_encoder(base, 1)
    described = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    plain = Tokenizer.from_str(json.dumps({**described, "added_tokens": [], "post_processor": None}))
    times, differing, num_tokens = [0.0, 0.0], 0, 0
    for first in range(0, len(texts), 64):
        batch = texts[first:first + 64]
        start = time.process_time()
        ours = encoder.encode(batch)
        middle = time.process_time()
        theirs = plain.encode_batch_fast(batch, add_special_tokens=False)
        times[0] += middle - start
        times[1] += time.process_time() - middle
        differing += sum(one.tolist() != other.ids for one, other in zip(ours, theirs, strict=True))
        num_tokens += sum(map(len, ours))
    megabytes = num_megabytes(documents)
    return {"row": "ids", "text": name, "documents": len(texts), "tokens": num_tokens, "differing_documents": differing,
            "megabytes": round(megabytes, 1), "ours": round(megabytes / times[0], 2),
            "tokenizers": round(megabytes / times[1], 2)}


def digests(documents: Sequence[Document], base: Path, folder: Path, counts: Sequence[int]) -> dict[str, Any]:
    """The digest of everything that a build with all steps publishes, for several numbers of workers."""
    rows = folder / "digests" / "rows.jsonl"
    write_rows(rows, documents)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    found = {}
    for count in counts:
        out = folder / f"workers-{count}"
        run = build(rows, base, out, cores, {**EVERYTHING, "decontaminate": decontaminate()}, EVERYTHING_SOURCE, count)
        digest = hashlib.sha256()
        for path in sorted((out / "data").iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        found[str(count)] = {"digest": digest.hexdigest(), "seconds": round(run["seconds"], 2)}
    return {"row": "workers", "documents": len(documents), "megabytes": round(num_megabytes(documents), 1),
            "workers": found, "identical": len({one["digest"] for one in found.values()}) == 1}


def memory(megabytes: Sequence[int], base: Path, folder: Path, cores: str, say: Say) -> list[dict[str, Any]]:
    """Peak memory of a build as its input grows; documents are made of shuffled lines of the library."""
    lines = [line for document in library() for line in document.text.splitlines() if line]
    rows = []
    for size in megabytes:
        path = folder / "memory" / f"{size}.jsonl"
        path.parent.mkdir(exist_ok=True)
        num_documents = write_shuffled(path, lines, size)
        run = build(path, base, folder / "memory-out", cores, COMPARABLE, COMPARABLE_SOURCE)
        rows.append({"row": "memory", "megabytes": size, "documents": num_documents, "peak_mb": run["peak_mb"],
                     "processor_seconds": run["processor_seconds"], "dropped": run["report"]["dropped"]})
        say(f"memory: {size} MB of text, peak {run['peak_mb']:.0f} MB")
        path.unlink()
        shutil.rmtree(folder / "memory-out")
    return rows


def write_shuffled(path: Path, lines: Sequence[str], megabytes: int) -> int:
    """Documents of shuffled lines, one in ten twice with a line of its own each time; returns how many."""
    draw, size, number, written = random.Random(megabytes), 0, 0, 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 10**6:
            text = "\n".join(draw.choices(lines, k=DOCUMENT_LINES))
            for copy in range(1 + (number % 10 == 0)):
                size += len(text)
                file.write(json.dumps({"id": f"{number}/{copy}", "text": f"{text}\n{copy}\n"}) + "\n")
                written += 1
            number += 1
    return written
