"""Empty, duplicate and contaminated documents: what is dropped, and with which reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings.common import TaskSource
from corpora.decontaminate import Benchmark, Decontaminator, load_benchmarks
from corpora.dedup import Seen, text_digest
from corpora.document import Document
from corpora.dropped import KEPT_PER_REASON, DropLog, drop_unusable
from corpora.ngrams import NgramIndex, WordBatch, canonical, word_ngrams

FIFTEEN_WORDS = "Anna has five red apples and buys seven green pears at the market on Monday"
ITS_MIDDLE_13 = "has five red apples and buys seven green pears at the market on"


def text(words: str, name: str = "d") -> Document:
    return Document(name, "s", "MIT", "f", text=words)


def natural(*questions: str) -> Benchmark:
    return Benchmark("bench", "test", questions, procedural=False)


def procedural(*questions: str) -> Benchmark:
    return Benchmark("reasoning_gym/chain_sum", "heldout", questions, procedural=True)


def kept_by(benchmark: Benchmark, documents: list[Document]) -> tuple[list[str], dict[str, int]]:
    dropped = DropLog()
    kept = Decontaminator([benchmark], 13).remove(documents, dropped)
    return [document.id for document in kept], dropped.by_reason()


def test_white_space_alone_makes_no_new_document_but_operators_and_case_do() -> None:
    assert text_digest("a + b\n") == text_digest("a  +\tb")
    assert text_digest("a + b") != text_digest("a - b")
    assert text_digest("Sum") != text_digest("sum")
    assert text_digest("caf\u00e9") == text_digest("cafe\u0301")  # one letter, or a letter and its accent


def test_the_first_of_two_duplicates_wins_across_batches() -> None:
    seen, dropped = Seen(), DropLog()
    first = seen.deduplicate([text("one", "a"), text("two", "b")], dropped)
    second = seen.deduplicate([text("two ", "c"), text("three", "d")], dropped)
    assert [one.id for one in first + second] == ["a", "b", "d"]
    assert dropped.by_reason() == {"exact_duplicate": 1}


def test_two_solutions_of_one_question_are_two_examples_but_one_problem() -> None:
    seen, dropped = Seen(), DropLog()
    examples = [Document(str(i), "s", "MIT", "f", prompt="2+2?", completion=end) for i, end in enumerate(["4", "four"])]
    assert len(seen.deduplicate(examples, dropped)) == 2
    problems = [Document(str(i), "s", "MIT", "f", prompt="2+2?", answer=end) for i, end in enumerate(["4", "four"])]
    assert [one.id for one in Seen().deduplicate(problems, dropped)] == ["0"]


def test_what_is_empty_for_the_output_is_dropped_by_name() -> None:
    dropped = DropLog()
    assert drop_unusable([text(" \n")], "tokens", dropped) == []
    assert drop_unusable([Document("x", "s", "", "f", prompt="2+2?", completion=" ")], "examples", dropped) == []
    assert drop_unusable([Document("x", "s", "", "f", prompt="2+2?", verifier="math")], "problems", dropped) == []
    assert drop_unusable([text("broken \ud800 half")], "tokens", dropped) == []
    assert dropped.by_reason() == {"empty": 2, "lone_surrogate": 1, "no_answer": 1}


def test_the_ledger_counts_all_drops_and_keeps_the_first_ones(tmp_path: Path) -> None:
    dropped = DropLog()
    dropped.source = "s"
    for i in range(KEPT_PER_REASON + 5):
        dropped.add(text("x" * 2000 + "\ud800", str(i)), "too_long", tokens=7)
    dropped.write(tmp_path / "dropped.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert dropped.total() == KEPT_PER_REASON + 5 and len(lines) == KEPT_PER_REASON
    assert {key: lines[0][key] for key in ("id", "source", "reason", "path", "tokens")} == {
        "id": "0", "source": "s", "reason": "too_long", "path": "f", "tokens": 7}


def test_canonical_text_is_words_of_letters_and_digits() -> None:
    assert canonical("Don't  add\t3.5 + x_1!") == b"don t add 3 5 x 1"
    assert canonical("“Straße” — x²") == b"strasse x2"
    assert canonical("ascii only") == canonical("ascii\u00a0only")


def test_ngrams_are_found_with_their_name_and_never_across_texts() -> None:
    index = NgramIndex([(b"b c", "x"), (b"d e", "y")], 2)
    assert index.find(WordBatch([b"a b c", b"", b"c d", b"e", b"d e b c"])) == [
        ("x", b"b c"), None, None, None, ("y", b"d e")]
    assert word_ngrams(b"a b c", 2) == [b"a b", b"b c"] and word_ngrams(b"a", 2) == []


def test_thirteen_words_in_a_row_mark_a_document_and_twelve_do_not() -> None:
    twelve = " ".join(ITS_MIDDLE_13.split()[:12])
    documents = [text(f"Once, {ITS_MIDDLE_13.upper()}!! the end", "13"), text(f"Once, {twelve} Tuesday", "12")]
    assert kept_by(natural(FIFTEEN_WORDS), documents) == (["12"], {"contaminated:bench": 1})


def test_completions_and_conversations_are_searched_too() -> None:
    in_completion = Document("c", "s", "", "f", prompt="Write a problem.", completion=FIFTEEN_WORDS)
    in_messages = Document("m", "s", "", "f", messages=(
        {"role": "user", "content": FIFTEEN_WORDS}, {"role": "assistant", "content": "12"}))
    assert kept_by(natural(FIFTEEN_WORDS), [in_completion, in_messages])[0] == []


def test_a_short_question_is_found_as_question_as_whole_text_and_as_a_line() -> None:
    question = "Compute 3 - 4 and square the result."
    documents = [
        Document("q", "s", "", "f", prompt="compute 3-4 and square the result", completion="1"),
        text("COMPUTE 3 - 4 AND SQUARE THE RESULT", "whole"),
        text("Exercise 7\n  Compute 3 - 4 and square  the result.\nSolution: 1", "line"),
        text("Compute 3 + 4 and square the result.", "other operator"),
        text("Now compute 3 - 4 and square the result of it.", "inside a line"),
    ]
    assert kept_by(natural(question), documents)[0] == ["other operator", "inside a line"]


def test_a_one_word_question_is_found_as_a_question_but_not_as_a_short_line() -> None:
    documents = [Document("q", "s", "", "f", prompt="2+2 =", completion="4"), text("x = 1\n2+2\ny = 2", "line")]
    assert kept_by(natural("2 + 2"), documents)[0] == ["line"]


def test_procedural_questions_that_differ_in_digits_only_are_different() -> None:
    frame = "State the final answer to the following long arithmetic problem that we ask you now: {} ="
    documents = [Document(sum_, "s", "", "f", prompt=frame.format(sum_), completion="x") for sum_ in ("3 + 5", "3 + 6")]
    assert kept_by(procedural(frame.format("3 + 5")), documents) == (
        ["3 + 6"], {"contaminated:reasoning_gym/chain_sum": 1})


def test_without_benchmarks_everything_is_kept() -> None:
    documents = [text(FIFTEEN_WORDS)]
    assert Decontaminator([], 13).remove(documents, DropLog()) == documents


def test_a_benchmark_file_is_read_whole_whatever_part_is_measured_on(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    lines = [json.dumps({"prompt": f"What is {i} + {i}?", "answer": str(2 * i)}) for i in range(50)]
    path.write_text("\n".join(lines))
    [benchmark] = load_benchmarks([TaskSource(name=str(path), count=3)])
    assert len(benchmark.questions) == 50 and not benchmark.procedural


def test_a_benchmark_without_problems_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text("\n")
    with pytest.raises(UserError, match=r"bench\.jsonl"):
        load_benchmarks([TaskSource(name=str(path))])


def test_every_gsm8k_test_question_is_found_again_inside_other_text(data_mirror: Path) -> None:
    [benchmark] = load_benchmarks([TaskSource(name="gsm8k", split="test", count=5)])
    assert len(benchmark.questions) == 1319
    hidden = [text(f"Homework.\n{question.replace(' ', '  ')}\nHave fun!", str(i))
              for i, question in enumerate(benchmark.questions)]
    assert Decontaminator([benchmark], 13).remove(hidden, DropLog()) == []
