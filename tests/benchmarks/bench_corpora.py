"""The corpus line beside datatrove: speed on one core, near-duplicates found, contamination found, digests, memory.

    python tests/benchmarks/bench_corpora.py [--rows speed recall ...] [--quick] [--cores 0] [--out FILE.json]
    python tests/benchmarks/bench_corpora.py --rows memory --megabytes 100 2000

| row | what |
|---|---|
| speed | a quality filter, exact and near-duplicates (14 x 8 hashes, 5-grams), tokens: both sides read one JSONL file |
| ids | the token ids of all these texts are those of Hugging Face's tokenizers |
| recall | pairs found, and drops that are right, of files and copies with 5, 10, 20% of their lines edited |
| contamination | injected benchmark questions found, clean documents marked |
| workers | the digest of everything published by 1, 2 and 4 workers |
| memory | peak memory of a build as its input grows |

Our side is `python -m corpora.build`, a process each time, with the settings that a recipe has; nothing is left out
that a user's build does. Its filters are `line_shape` and `characters` (12 rules); datatrove's is the function of the
rules that StarCoder and OpenCoder share (4 of those 12). Without tokens means without the step that tokenises and
without reading the tokenizer, which both sides time beside the rest.
Whole processes are timed, with the start of the interpreter and the reading of the tokenizer; beside them their steps
alone, which is what a long run comes to. `everything` adds licences, all filters of code, redaction, fill in the
middle, exact verification of near-duplicates and decontamination by both rules; datatrove has no such line.

Texts: the modules of the standard library, and files of installed packages. DERIVE_DATA names the mirror that holds
Qwen2.5's tokenizer and the benchmarks; without it the seedling's tokenizer is taken and contamination is left out.
datatrove lives in an environment of its own, which is made at the first run (`peers.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # before tokenizers starts its threads: one core is the point
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import bench_corpora_builds as builds  # noqa: E402 - needs the path above
from tests.benchmarks import bench_corpora_quality as quality  # noqa: E402
from tests.benchmarks.peers import DATATROVE, available  # noqa: E402

ROWS = ("speed", "ids", "recall", "contamination", "workers", "memory")
QUICK_MEGABYTES = 3
VERBATIM_KINDS = ("verbatim", "respaced", "embedded")
TARGETS = {"without_tokens": 10, "with_tokens": 4}
Row = dict[str, Any]


def measure(given: argparse.Namespace, folder: Path, add: Callable[[list[Row]], None]) -> None:
    """All rows that were asked for."""
    peer = available(DATATROVE) if {"speed", "recall"} & set(given.rows) else None
    base, whose = builds.checkpoint(folder / "tokenizer")
    say(f"tokens of {whose}")
    texts = {"library": builds.library(), "packages": builds.packages(given.packages)}
    if given.quick:
        texts = {"library": texts["library"][: len(texts["library"]) // 4]}
    if "speed" in given.rows:
        for name, documents in texts.items():
            add([builds.speed(name, documents, base, folder, given.cores, given.repeats, peer, say)])
    if "ids" in given.rows:
        add([builds.same_ids(name, documents, base) for name, documents in texts.items()])
    if "recall" in given.rows:
        add(quality.recall(given.documents, given.seeds, folder, peer, say))
    if "contamination" in given.rows:
        add(quality.contamination(given.per_kind, given.clean, say))
    if "workers" in given.rows:
        add([builds.digests(texts["library"], base, folder, (1, 2, 4))])
    if "memory" in given.rows:
        add(builds.memory(given.megabytes, base, folder, given.cores, say))


def table(rows: list[Row]) -> str:
    """The figures in Markdown."""
    by_kind = {kind: [row for row in rows if row["row"] == kind] for kind in ROWS}
    parts = [
        _speed_table(by_kind["speed"]), _recall_table(by_kind["recall"]), _contamination_table(by_kind["contamination"])
    ]
    for row in by_kind["ids"]:
        parts.append(f"Ids of {row['text']}: {row['differing_documents']} of {row['documents']:,} documents differ "
                     f"({row['tokens']:,} tokens); ours {row['ours']} MB/s, tokenizers {row['tokenizers']}")
    for row in by_kind["workers"]:
        found = ", ".join(f"{count}: {one['digest'][:12]} in {one['seconds']} s"
                          for count, one in row["workers"].items())
        parts.append(f"Workers, everything on, {row['megabytes']} MB: {found}; "
                     f"{'identical' if row['identical'] else 'DIFFERENT'}")
    if by_kind["memory"]:
        parts.append("Memory at its peak: " + ", ".join(
            f"{row['megabytes']} MB of text ({row['documents']:,} documents) {row['peak_mb']:.0f} MB"
            for row in by_kind["memory"]))
    return "\n\n".join(part for part in parts if part)


def _speed_table(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = ["| one core, MB a second of processor time | n | ours | datatrove | ratio | target |",
             "|---|---|---|---|---|---|"]
    for row in rows:
        size = f"{row['text']}, {row['documents']:,} documents, {row['megabytes']} MB"
        theirs = row.get("datatrove")
        for name, what in (("without_tokens", "filter and near-duplicates"), ("with_tokens", "the same with tokens")):
            for prefix, scope in (("", "whole process"), ("steps_", "steps alone")):
                mine = row["ours"][prefix + name]
                other = theirs[prefix + name] if theirs else None
                lines.append(f"| {what}, {scope} | {size} | {mine:.2f} | {_figure(other)} "
                             f"| {_figure(mine / other if other else None, '.1f')} | {TARGETS[name]} |")
        kept = f"kept {row['ours']['kept']:,}" + (f", datatrove {theirs['kept']:,}" if theirs else "")
        everything = row["everything"]["with_tokens"]
        lines.append(f"| everything on, whole process | {size}; {kept} | {everything:.2f} | - | - | |")
    return "\n".join(lines)


def _figure(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _recall_table(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = ["| lines edited | mean exact Jaccard | who | pairs found | of those with Jaccard 0.7 | precision |",
             "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['edited_share']:.0%} | {row['mean_jaccard']:.2f} | {row['who']} ({row['seeds']} draws) "
                     f"| {row['recall']:.3f} of {row['pairs']} (14 x 8: {row['expected_of_bands']:.3f}) "
                     f"| {row['recall_of_true']:.3f} of {row['true_pairs']:.0f} | {row['precision']:.3f} |")
    return "\n".join(lines)


def _contamination_table(rows: list[Row]) -> str:
    if not rows:
        return ""
    kinds = list(next(iter(rows[0]["recall"].values())))
    lines = [f"| rule | questions | {' | '.join(kinds)} |", "|---|---|" + "---|" * len(kinds)]
    for row in rows:
        for group, found in row["recall"].items():
            cells = [f"{found[kind]['found']} of {found[kind]['trials']}" if kind in found else "-" for kind in kinds]
            lines.append(f"| {row['who']} | {group} | {' | '.join(cells)} |")
    for row in rows:
        marked = row["false_positives"]
        lines += ["", f"Clean documents marked, {row['who']}: {marked['found']} of {marked['trials']:,} (95%: at most "
                  f"{marked['high']:.3%}); {row['mb_per_processor_second']} MB/s"]
    return "\n".join(lines)


def say(line: str) -> None:
    """Progress."""
    print(f"  {line}", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="rows to measure, else all")
    parser.add_argument("--quick", action="store_true", help="a small sample of each row, in a few minutes")
    parser.add_argument("--cores", default="0", help="processor that either side runs on")
    parser.add_argument("--repeats", type=int, default=3, help="builds of ours; one run less of datatrove")
    parser.add_argument("--packages", type=float, default=30, help="MB of installed packages")
    parser.add_argument("--documents", type=int, default=150, help="files that are edited")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the hash functions")
    parser.add_argument("--per-kind", type=int, default=60, help="questions of each benchmark and kind")
    parser.add_argument("--clean", type=int, default=5000, help="clean documents at most")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 40], help="sizes of the memory row")
    parser.add_argument("--out", type=Path, help="JSON file for every figure")
    given = parser.parse_args()
    if given.quick:
        given.repeats, given.documents, given.seeds, given.per_kind, given.clean = 1, 40, 1, 10, 500
        given.megabytes, given.packages = [3, 6], 0.1
    rows: list[Row] = []

    def add(found: list[Row]) -> None:
        rows.extend(found)
        if given.out is not None:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        measure(given, Path(folder), add)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
