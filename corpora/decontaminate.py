"""Keeps benchmark questions out of a corpus.

Natural benchmarks (GSM8K, MATH): a document is dropped when it shares a run of n words with a question (13 by
default, as in Qwen2.5-Math, arXiv 2409.12122, section 2.2; their further rule, a longest common subsequence above
0.6, is no condition here: it frees documents, so that ours drops more). Shorter questions, and all questions of
procedural sets, whose questions share their wording and differ in digits only, are dropped by the exact normalised
question instead: as the document's own question, as its whole text, or as one line of it.

With `subsequence` two further rules are asked about what those leave (`corpora/contamination/`): the longest common
subsequence of Qwen2.5, which finds a question with other numbers or names, and short questions behind a label.

A benchmark of code (HumanEval, MBPP) has its questions looked for like any other, and its reference solutions by
`contamination/programs.py`: as functions, whatever their names are.

At the start every benchmark question is put through the index as if it were a document, and must be found: a
check that silently marks nothing is the usual fault of such steps. Paraphrases and translations are not found,
nor is a question without any letter or digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.catalogue import dataset, dataset_names, open_rows
from configs.errors import UserError
from configs.names import FIM, is_generated
from configs.settings.common import TaskSource
from corpora.contamination.programs import ProgramIndex, functions
from corpora.contamination.short import ShortQuestions
from corpora.contamination.subsequence import SubsequenceIndex
from corpora.document import Document, batches
from corpora.dropped import DropLog
from corpora.ngrams import NgramIndex, WordBatch, canonical, word_ngrams
from verifiers.tasks import load_tasks, normalise_question

SHORTEST_LINE = 16
"""Characters below which a line inside a document is not compared with short questions: `2 + 2` stands everywhere."""
_A_WORD = re.compile(rb"[^\s\d]{2}")
"""What an n-gram must hold to be evidence: `0 1 2 3 4 5 6 7 8 9 a b c` stands in many texts."""
OPENING_WORDS = 4
"""A text is compared with short questions only where it holds the first words of one (of a still shorter one, the
first word): comparing every line of every text takes ten times as long."""


@dataclass(frozen=True)
class Benchmark:
    """Questions that must not be seen."""

    name: str
    split: str
    questions: tuple[str, ...]
    procedural: bool
    programs: tuple[str, ...] = ()
    """Reference solutions that are Python."""


def load_benchmarks(sources: Sequence[TaskSource]) -> list[Benchmark]:
    """Read the benchmarks of `stage.decontaminate`. Raises UserError for one without questions.

    A natural benchmark is read whole, whatever `count` is drawn from it for measuring; so is a user's file. One that
    has no gold answers, as HumanEval and MBPP, is known by its questions and reference programs.
    """
    benchmarks = []
    for i, source in enumerate(sources):
        if source.name.startswith(f"{FIM}/"):
            continue  # their files are held out as files, by the source that they come from
        procedural = is_generated(source.name)
        if not procedural:
            whole_file = source.name.endswith(".jsonl") and source.split == "train"
            source = source.model_copy(update={"count": None, "split": "all" if whole_file else source.split})
        programs: tuple[str, ...] = ()
        if source.name in dataset_names() and not dataset(source.name).has_answers:
            questions, programs = _without_answers(source)
        else:
            questions = tuple(task.prompt for task in load_tasks(source))
        if not questions:
            raise UserError(f"decontaminate.{i}: {source.name!r}, split {source.split!r}, has no questions; "
                            "name a split that has some, or remove the entry")
        name = Path(source.name).name if source.name.endswith(".jsonl") else source.name
        benchmarks.append(Benchmark(name, source.split, questions, procedural, programs))
    return benchmarks


def _without_answers(source: TaskSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Questions and reference programs of a set whose problems have tests or constraints instead of an answer."""
    rows = list(open_rows(source.name, source.split))
    questions = [str(row.get("question") or "").strip() for row in rows]
    # HumanEval's solutions go on from the question; MBPP's stand alone.
    solutions = [str(row.get("solution") or "") for row in rows]
    programs = [solution if functions(solution) else question + "\n" + solution
                for question, solution in zip(questions, solutions, strict=True) if solution]
    return tuple(filter(None, questions)), tuple(programs)


class Decontaminator:
    """The questions of all benchmarks, ready to be looked for."""

    def __init__(self, benchmarks: Sequence[Benchmark], num_words: int, subsequence: float | None = None) -> None:
        """Args: subsequence: Share of the shorter text that makes a common subsequence count; None does not look."""
        self.benchmarks = list(benchmarks)
        self._exact: dict[str, str] = {}
        ngrams: list[tuple[bytes, str]] = []
        openings: dict[int, list[tuple[bytes, str]]] = {OPENING_WORDS: [], 1: []}
        for benchmark in self.benchmarks:
            for question in benchmark.questions:
                plain = canonical(question)
                found = [] if benchmark.procedural else [
                    ngram for ngram in word_ngrams(plain, num_words) if _A_WORD.search(ngram)]
                ngrams += [(ngram, benchmark.name) for ngram in found]
                if plain and not found:
                    self._exact.setdefault(normalise_question(question), benchmark.name)
                    size = OPENING_WORDS if word_ngrams(plain, OPENING_WORDS) else 1
                    openings[size].append((word_ngrams(plain, size)[0], benchmark.name))
        self._ngrams = NgramIndex(ngrams, num_words)
        self._openings = [NgramIndex(found, size) for size, found in openings.items()]
        self._rule: SubsequenceIndex | None = None
        if subsequence is not None:
            named = [(one.name, text, one.procedural) for one in self.benchmarks for text in one.questions]
            self._rule = SubsequenceIndex([(name, text) for name, text, procedural in named if not procedural],
                                          min_fraction=subsequence)
            self._short = ShortQuestions([*self._rule.exact_only,
                                          *((name, text) for name, text, procedural in named if procedural)])
        self._programs = ProgramIndex((one.name, text) for one in self.benchmarks for text in one.programs)
        self._check_itself()

    def remove(self, batch: list[Document], dropped: DropLog) -> list[Document]:
        """The documents of a batch that hold no benchmark question; others are dropped as `contaminated:NAME`."""
        if not self.benchmarks or not batch:
            return batch
        kept = []
        words = WordBatch([canonical(document.full_text()) for document in batch])
        by_ngram = self._ngrams.find(words)
        by_opening = [index.find(words) for index in self._openings]
        for i, document in enumerate(batch):
            hit = by_ngram[i]
            if hit is None and any(found[i] for found in by_opening):
                hit = self._exact_match(document)
            if hit is None:
                kept.append(document)
            else:
                dropped.add(document, f"contaminated:{hit[0]}", matched=hit[1].decode("utf-8", "replace"))
        kept = self._without_programs(kept, dropped)
        return kept if self._rule is None else self._by_further_rules(self._rule, kept, dropped)

    def question_keys(self) -> set[str]:
        """The normalised form of every benchmark question that is looked for, by whichever rule."""
        return {normalise_question(question) for benchmark in self.benchmarks for question in benchmark.questions
                if canonical(question)}

    def _without_programs(self, batch: list[Document], dropped: DropLog) -> list[Document]:
        kept = []
        for document in batch:
            hit = self._programs.find(document)
            if hit is None:
                kept.append(document)
            else:
                dropped.add(document, f"contaminated:{hit[0]}", matched=hit[1], rule="program")
        return kept

    def _by_further_rules(self, rule: SubsequenceIndex, batch: list[Document], dropped: DropLog) -> list[Document]:
        kept = []
        long_hits = rule.find([document.full_text() for document in batch])
        for document, long, short in zip(batch, long_hits, self._short.find(batch), strict=True):
            if long is not None:
                dropped.add(document, f"contaminated:{long.name}", matched=long.question, rule="subsequence",
                            common_words=long.common, of=long.shorter)
            elif short is not None:
                dropped.add(document, f"contaminated:{short[0]}", matched=short[1], rule="short question")
            else:
                kept.append(document)
        return kept

    def _exact_match(self, document: Document) -> tuple[str, bytes] | None:
        """The benchmark whose question is the document's question, its whole text or a line; slow, so asked last."""
        whole = [*document.questions(), document.full_text()]
        lines = [line for line in document.full_text().splitlines() if len(line) >= SHORTEST_LINE]
        for text in [*whole, *lines]:
            key = normalise_question(text)
            if key in self._exact:
                return self._exact[key], key.encode("utf-8", "replace")
        return None

    def _check_itself(self) -> None:
        """Every benchmark question, taken as a document, must be found."""
        for benchmark in self.benchmarks:
            asked = [Document(str(i), benchmark.name, "", "", prompt=question)
                     for i, question in enumerate(benchmark.questions) if canonical(question)]
            missed = [document for batch in batches(asked) for document in self.remove(batch, DropLog())]
            assert not missed, f"decontaminate: {len(missed)} questions of {benchmark.name} would pass unseen"
