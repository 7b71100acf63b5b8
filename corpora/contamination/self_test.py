"""Measures a decontamination: what it finds of known contaminations, and what it takes of clean text.

A step that silently marks nothing looks exactly like a clean corpus; one that marks everything like a dirty one. So
questions are injected (`injection.py`) into clean documents and the rule is asked about them, kind by kind, apart
for long questions, short ones, and those of procedural sets; then about the clean documents themselves.

A figure stands for the questions and clean texts that were given: the table says how many, with a 95% interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from corpora.contamination.injection import KINDS, inject
from corpora.contamination.short import ShortQuestions
from corpora.contamination.subsequence import MIN_TOKENS, SubsequenceIndex
from corpora.document import Document, batches
from corpora.dropped import DropLog
from corpora.near_duplicates.shingles import hash_words

Detector = Callable[[list[Document]], list[bool]]
"""Says of every document of a batch whether it holds a question."""
KEPT_SAMPLES = 20
_Z = 1.959963984540054


@dataclass(frozen=True)
class Questions:
    """Questions of one benchmark. `procedural`: they share their wording and differ in digits, so that only the exact
    question counts."""

    name: str
    texts: tuple[str, ...]
    procedural: bool = False

    def group_of(self, text: str) -> str:
        """`procedural`, `short` (too few words for the n-gram and subsequence rules) or `long`."""
        if self.procedural:
            return "procedural"
        return "long" if len(hash_words([text]).hashes) >= MIN_TOKENS else "short"


@dataclass
class Rate:
    """A count out of a number of trials, and the first of those that a reader should look at."""

    found: int = 0
    trials: int = 0
    samples: list[str] = field(default_factory=list)

    def interval(self) -> tuple[float, float]:
        """95% Wilson score interval (Wilson 1927), 0 to 1."""
        if not self.trials:
            return 0.0, 1.0
        share, z2 = self.found / self.trials, _Z**2 / self.trials
        middle = (share + z2 / 2) / (1 + z2)
        half = _Z * math.sqrt(share * (1 - share) / self.trials + z2 / (4 * self.trials)) / (1 + z2)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        low, high = self.interval()
        return {"found": self.found, "trials": self.trials, "rate": self.found / self.trials if self.trials else None,
                "low": round(low, 6), "high": round(high, 6), "samples": self.samples}


def measure(detect: Detector, benchmarks: Sequence[Questions], clean: Sequence[Document], seed: int = 0,
            kinds: Sequence[str] = tuple(KINDS), per_kind: int | None = None) -> dict[str, Any]:
    """Recall by group and kind, and the false-positive rate on the clean documents.

    Args:
        detect: The rule.
        benchmarks: What it looks for.
        clean: Documents without any of the questions; also the hosts of those that are embedded.
        seed: Of the draw.
        kinds: Names of `injection.KINDS`.
        per_kind: Questions taken of each benchmark, spread evenly over it; None takes all.

    Returns:
        {"recall": {group: {kind: rate}}, "false_positives": rate}; samples of a recall are questions that were
        missed, those of the false positives are ids of documents.
    """
    hosts = [document.full_text() for document in clean]
    recall: dict[str, dict[str, Rate]] = {}
    for kind in kinds:
        for benchmark in benchmarks:
            step = max(len(benchmark.texts) // per_kind, 1) if per_kind else 1
            chosen = benchmark.texts[::step][:per_kind]
            dirty = [Document(f"{kind}/{i}", benchmark.name, "", "", text=inject(kind, question, hosts, seed))
                     for i, question in enumerate(chosen)]
            for question, hit in zip(chosen, _ask(detect, dirty), strict=True):
                rate = recall.setdefault(benchmark.group_of(question), {}).setdefault(kind, Rate())
                _count(rate, hit, question, sample_of=False)
    false_positives = Rate()
    for document, hit in zip(clean, _ask(detect, clean), strict=True):
        _count(false_positives, hit, document.id, sample_of=True)
    return {"recall": {group: {kind: rate.as_dict() for kind, rate in by_kind.items()}
                       for group, by_kind in sorted(recall.items())},
            "false_positives": false_positives.as_dict()}


def removed_by(remove: Callable[[list[Document], DropLog], list[Document]]) -> Detector:
    """The detector that a step such as `Decontaminator.remove` amounts to."""

    def detect(batch: list[Document]) -> list[bool]:
        kept = {id(document) for document in remove(list(batch), DropLog())}
        return [id(document) not in kept for document in batch]

    return detect


def subsequence_rule(benchmarks: Sequence[Questions]) -> Detector:
    """The rule of Qwen2.5 for long questions, and the exact normalised question for short and procedural ones."""
    natural = [(benchmark.name, text) for benchmark in benchmarks if not benchmark.procedural
               for text in benchmark.texts]
    procedural = [(benchmark.name, text) for benchmark in benchmarks if benchmark.procedural
                  for text in benchmark.texts]
    index = SubsequenceIndex(natural)
    short = ShortQuestions([*index.exact_only, *procedural])

    def detect(batch: list[Document]) -> list[bool]:
        long_hits = index.find([document.full_text() for document in batch])
        return [first is not None or second is not None
                for first, second in zip(long_hits, short.find(batch), strict=True)]

    return detect


def either(*detectors: Detector) -> Detector:
    """What any of the rules finds."""
    return lambda batch: [any(hits) for hits in zip(*(detect(batch) for detect in detectors), strict=True)]


def _ask(detect: Detector, documents: Sequence[Document]) -> list[bool]:
    return [hit for batch in batches(documents) for hit in detect(batch)]


def _count(rate: Rate, hit: bool, sample: str, sample_of: bool) -> None:
    rate.trials += 1
    rate.found += hit
    if hit == sample_of and len(rate.samples) < KEPT_SAMPLES:
        rate.samples.append(sample)
