"""Rows of `bench_corpora.py` that ask how good the answers are: near-duplicates on injected edits, contamination."""

from __future__ import annotations

import ast
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from configs.settings.common import TaskSource
from corpora.contamination import self_test
from corpora.decontaminate import Decontaminator, load_benchmarks
from corpora.document import Document, batches
from corpora.near_duplicates import NearDuplicateSettings, dropped_rows, plan, run
from corpora.ngrams import canonical, word_ngrams
from tests.benchmarks.bench_corpora_builds import PEER, Say, library, write_rows

EDITED_SHARES = (0.05, 0.1, 0.2)
LINES = (20, 400)
"""Fewest and most lines of a file that is edited."""
TRUE_JACCARD = 0.7
"""A drop counts as right when a kept document is at least so similar to it: 14 bands of 8 find half of such pairs."""
BENCHMARKS = [TaskSource(name="gsm8k", split="test"), TaskSource(name="math500", split="test"),
              TaskSource(name="asdiv", split="test"), TaskSource(name="aime24", split="test"),
              TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=300)]
SHORTEST_CLEAN = 100
"""Characters below which a docstring is no document."""


def recall(num_documents: int, num_seeds: int, folder: Path, peer: str | None, say: Say) -> list[dict[str, Any]]:
    """Edited copies beside their originals: how many pairs are found, and how many drops are right.

    One seed's luck moves the recall by a few hundredths, so that either side draws its hash functions several times.
    """
    fewest, most = LINES
    everything = {one.id: one for one in library() if fewest <= one.text.count("\n") <= most}
    originals = dict(list(everything.items())[:num_documents])
    foreign = [line for one in list(everything.values())[num_documents:] for line in one.text.splitlines()]
    if not foreign:
        sys.exit(f"error: {num_documents} documents; allowed: below {len(everything)}, so that lines are left to edit "
                 "with; take fewer")
    rows = []
    for share in EDITED_SHARES:
        draw = random.Random(f"edit/{share}")
        copies = {f"copy/{name}": edited(one.text, share, foreign, draw) for name, one in originals.items()}
        texts = {**{name: one.text for name, one in originals.items()}, **copies}
        path = folder / f"recall-{share}" / "rows.jsonl"
        write_rows(path, [Document(name, "library", "", name, text=text) for name, text in texts.items()])
        sets = {name: shingle_set(text) for name, text in texts.items()}
        exact = {name: jaccard(sets[name], sets[f"copy/{name}"]) for name in originals}
        similar = {name: {other for other in sets if other != name and are_similar(sets[name], sets[other])}
                   for name in sets}
        answers: dict[str, list[set[str]]] = {"ours": [], "ours, threshold 0.7": []}
        for seed in range(num_seeds):
            answers["ours"].append(search(path, NearDuplicateSettings(seed=seed)))
            answers["ours, threshold 0.7"].append(search(path, NearDuplicateSettings(threshold=0.7, seed=seed)))
        for who, options in (("datatrove", []), ("datatrove, numbers kept", ["--keep-numbers"])):
            for seed in range(1, num_seeds + 1) if peer else ():
                kept = ask_peer([str(peer), str(PEER), str(path.parent), "--seed", str(seed), *options])
                answers.setdefault(who, []).append(set(texts) - kept)
        expected = statistics.mean(map(NearDuplicateSettings().chance_of_candidate, exact.values()))
        for who, drops in answers.items():
            scores = [score(dropped, similar, exact) for dropped in drops]
            found = {name: round(statistics.mean(one[name] for one in scores), 3) for name in scores[0]}
            rows.append({"row": "recall", "who": who, "edited_share": share, "pairs": len(originals),
                         "seeds": len(scores), "mean_jaccard": round(statistics.mean(exact.values()), 3),
                         "expected_of_bands": round(expected, 3), **found})
            say(f"recall, {share:.0%} of the lines edited: {who}: {found}")
    return rows


def search(rows: Path, settings: NearDuplicateSettings) -> set[str]:
    """Ids that our search drops."""
    out = rows.parent / f"search-{settings.seed}-{settings.threshold}"
    plan([str(rows)], out, settings)
    run(out)
    return {drop["id"] for _, drop in dropped_rows(out, 0)}


def ask_peer(command: Sequence[str]) -> set[str]:
    """Ids that the peer keeps."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {PEER.name} failed:\n{done.stderr[-2000:]}")
    return set(json.loads(done.stdout.strip().splitlines()[-1])["kept"])


def edited(text: str, share: float, foreign: Sequence[str], draw: random.Random) -> str:
    """The text with this share of its lines replaced, deleted, or followed by a line of another file."""
    lines = text.splitlines()
    for place in sorted(draw.sample(range(len(lines)), max(round(share * len(lines)), 1)), reverse=True):
        edit = draw.choice(("replace", "delete", "insert"))
        if edit == "delete":
            del lines[place]
        else:
            lines[place:place + (edit == "replace")] = [draw.choice(foreign)]
    return "\n".join(lines) + "\n"


def shingle_set(text: str) -> set[bytes]:
    """Word 5-grams as they are, without any hash."""
    return set(word_ngrams(canonical(text), NearDuplicateSettings.num_words))


def jaccard(one: set[bytes], other: set[bytes]) -> float:
    """Exact similarity."""
    return len(one & other) / max(len(one | other), 1)


def are_similar(one: set[bytes], other: set[bytes]) -> bool:
    """Whether the exact similarity reaches `TRUE_JACCARD`; where the sizes tell, nothing is compared."""
    return (min(len(one), len(other)) >= TRUE_JACCARD * max(len(one), len(other))
            and jaccard(one, other) >= TRUE_JACCARD)


def score(dropped: set[str], similar: dict[str, set[str]], exact: dict[str, float]) -> dict[str, float]:
    """Recall over all pairs and over those that are truly similar; precision of the drops."""
    found = {name for name in exact if name in dropped or f"copy/{name}" in dropped}
    true = {name for name in exact if exact[name] >= TRUE_JACCARD}
    right = sum(bool(similar[name] - dropped) for name in dropped)
    return {"found": len(found), "recall": len(found) / len(exact), "true_pairs": len(true),
            "recall_of_true": len(found & true) / max(len(true), 1), "dropped": len(dropped),
            "precision": right / max(len(dropped), 1)}


def docstrings(documents: Sequence[Document]) -> Iterator[Document]:
    """The modules' docstrings, each a document."""
    for one in documents:
        try:
            tree = ast.parse(one.text)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found = ast.get_docstring(node)
                if found and len(found) >= SHORTEST_CLEAN:
                    name = f"{one.id}:{getattr(node, 'lineno', 1)}"
                    yield Document(name, "python_stdlib", "PSF-2.0", one.path, text=found)


def contamination(per_kind: int, num_clean: int, say: Say) -> list[dict[str, Any]]:
    """The self-test of every rule; nothing, with the reason, where the mirror is missing."""
    if not os.environ.get("DERIVE_DATA"):
        say("contamination is left out: DERIVE_DATA names no folder with the data mirror; set it")
        return []
    held = load_benchmarks(BENCHMARKS)
    questions = [self_test.Questions(one.name, one.questions, one.procedural) for one in held]
    modules = library()
    # Docstrings first: most clean documents of a quick run are then short ones, which questions are more like.
    clean = [*docstrings(modules), *modules]
    clean = clean[:: max(len(clean) // num_clean, 1)][:num_clean]
    megabytes = sum(len(document.text) for document in clean) / 1e6
    rows = []
    ngrams = self_test.removed_by(Decontaminator(held, 13).remove)
    subsequence = self_test.removed_by(Decontaminator(held, 13, 0.6).remove)
    for who, detect in (("13-gram", ngrams), ("13-gram and subsequence", subsequence)):
        start = time.process_time()
        for batch in batches(clean):
            detect(batch)
        seconds = time.process_time() - start
        result = self_test.measure(detect, questions, clean, per_kind=per_kind)
        rows.append({"row": "contamination", "who": who, "clean_megabytes": round(megabytes, 1),
                     "mb_per_processor_second": round(megabytes / seconds, 1), **result})
        marked = result["false_positives"]
        say(f"contamination, {who}: {marked['found']} of {marked['trials']} clean documents marked")
    return rows
