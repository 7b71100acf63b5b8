"""The subsequence rule, the exact rule for short questions, and the self-test that measures any rule."""

from __future__ import annotations

import random

import pytest

from configs.errors import UserError
from corpora.contamination import injection, self_test
from corpora.contamination.self_test import Questions, Rate
from corpora.contamination.short import ShortQuestions
from corpora.contamination.subsequence import SubsequenceIndex, common_subsequence
from corpora.decontaminate import Benchmark, Decontaminator
from corpora.document import Document

LONG = ("A gardener plants 14 rows of tulips with 23 bulbs in every row, and then gives 17 bulbs to each of her 3 "
        "neighbours. How many bulbs are left in the garden after that?",
        "Maria's train leaves the harbour at 9 in the morning and travels 45 miles an hour towards the mountains, "
        "where it arrives after 4 hours. How long is the way back at 60 miles an hour?")
SHORT = ("What is the smallest prime above 90?", "Solve\n$x - 7 > 12$ for x.", "Compute $\\sqrt{1764} + 1$.")
PROCEDURAL = ("Work out the value of 12 + 34 - 5.", "Work out the value of 12 - 34 + 5.",
              "Work out the value of 70 - 8.")
BENCHMARKS = [Questions("long", LONG), Questions("short", SHORT), Questions("sums", PROCEDURAL, procedural=True)]
NOUNS = ("window", "parser", "socket", "thread", "buffer", "handler", "module", "queue", "packet", "signal")


def clean_documents(num: int = 30) -> list[Document]:
    draw = random.Random(0)

    def line() -> str:
        first, second, third = draw.sample(NOUNS, 3)
        return f"    the {first} of a {second} is closed when its {third} has been read {draw.randrange(100)} times"

    return [Document(f"clean/{i}", "clean", "MIT", f"{i}.py", text="\n".join(line() for _ in range(40)))
            for i in range(num)]


def as_document(text: str) -> Document:
    return Document("a", "", "", "", text=text)


# --- the rule of Qwen2.5 ------------------------------------------------------------------------------------------

def test_common_subsequence_by_hand() -> None:
    assert common_subsequence([1, 2, 3, 4, 5], [9, 1, 3, 9, 5, 2]) == 3  # 1 3 5
    assert common_subsequence([1, 1, 2], [2, 1, 1]) == 2
    assert common_subsequence([], [1]) == 0


def test_the_rule_asks_for_thirteen_words_and_six_tenths_of_the_shorter() -> None:
    words = [f"w{i}" for i in range(40)]
    index = SubsequenceIndex([("exam", " ".join(words))])

    def found(num_common: int, num_others: int) -> tuple[int, int] | None:
        text = " ".join([*words[:num_common], *(f"other{i}" for i in range(num_others))])
        hit = index.find([text])[0]
        return (hit.common, hit.shorter) if hit else None

    assert found(24, 50) == (24, 40)  # 24 = 0.6 * 40
    assert found(23, 50) is None
    assert found(13, 0) == (13, 13)
    assert found(12, 0) is None
    assert found(13, 8) == (13, 21)  # 13 >= 0.6 * 21 = 12.6
    assert found(13, 9) is None  # 13 < 0.6 * 22 = 13.2


def test_changed_numbers_and_names_do_not_hide_a_question() -> None:
    index = SubsequenceIndex([("exam", text) for text in LONG])
    twin = LONG[0].replace("14", "15").replace("23", "31").replace("17", "9").replace("tulips", "roses")
    hit = index.find(["nothing here", f"Exercise. {twin}", ""])[1]
    assert hit is not None and (hit.name, hit.question) == ("exam", LONG[0])
    # Three numbers and a noun are others.
    assert (hit.common, hit.shorter) == (len(LONG[0].split()) - 4, len(LONG[0].split()))


def test_a_question_is_found_deep_in_a_long_text_but_not_scattered_over_it() -> None:
    index = SubsequenceIndex([("exam", LONG[0])])
    filler = " ".join(document.text for document in clean_documents())
    assert index.find([filler + LONG[0] + filler])[0] is not None
    scattered = " ".join(f"{word} {'filler ' * 9}" for word in LONG[0].split())
    anchored = scattered + " ".join(LONG[0].split()[:6]) + scattered
    assert index.find([scattered, anchored]) == [None, None]


def test_counting_is_no_question() -> None:
    index = SubsequenceIndex([("exam", "Determine the remainder of the sum 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10")])
    assert len(index.questions) == 1
    assert index.find(["tree: " + " ".join(map(str, range(1, 40)))]) == [None]


def test_questions_that_the_rule_cannot_judge_are_said() -> None:
    numbers = " ".join(map(str, range(20)))
    index = SubsequenceIndex([("exam", LONG[0]), ("exam", SHORT[0]), ("exam", numbers)])
    assert index.questions == [("exam", LONG[0])]
    assert index.exact_only == [("exam", SHORT[0]), ("exam", numbers)]
    assert SubsequenceIndex([]).find(["a"]) == [None]


def test_limits_that_make_no_sense_are_rejected() -> None:
    for wrong in ({"min_tokens": 2}, {"min_fraction": 0.0}):
        with pytest.raises(UserError, match="allowed: at least 5, and above 0 up to 1"):
            SubsequenceIndex([], **wrong)  # type: ignore[arg-type]


# --- short questions ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    SHORT[0], "12. " + SHORT[0], "Problem 3.4: " + SHORT[0], "Q7) what is the  smallest prime ABOVE 90",
    "> " + SHORT[0], f"import os\n\n# {SHORT[0]}\nprint(97)\n",
    "x = 1\n    # What is the smallest\n    # prime above 90?\ny = 2",
    f"Read on.\n{SHORT[1]}\nAnd so on.", "// 5. Solve\n// $x-7>12$ for x.\n"])
def test_a_short_question_is_found_as_a_text_or_as_lines(text: str) -> None:
    assert ShortQuestions([("exam", question) for question in SHORT]).find([as_document(text)])[0] is not None


@pytest.mark.parametrize("text", ["", "Work out the value of 12 - 34 - 5.", "Work out the value of 12 + 34",
                                  "We work out the value of 70 - 8. Then we go on.", "70 - 8", "\n\n# \n"])
def test_a_like_question_is_not_taken_for_it(text: str) -> None:
    assert ShortQuestions([("sums", question) for question in PROCEDURAL]).find([as_document(text)]) == [None]


def test_a_question_of_several_sentences_is_found_where_a_line_of_a_comment_ends_with_one() -> None:
    question = 'Write get(s). It takes out every "i", then uses capitals. Give back the text.'
    short = ShortQuestions([("functions", question)])
    comment = '    # 3) Write get(s). It takes out every "i", then uses capitals.\n    # Give back the text.\n'
    assert short.find([as_document(f"def f():\n{comment}    return 1")])[0] is not None


def test_a_short_question_is_found_as_the_question_of_a_problem_or_conversation() -> None:
    short = ShortQuestions([("sums", PROCEDURAL[2])])
    problem = Document("a", "", "", "", prompt=PROCEDURAL[2], completion="62")
    asked = Document("b", "", "", "", messages=({"role": "user", "content": "3) " + PROCEDURAL[2]},
                                               {"role": "assistant", "content": "62"}))
    assert [hit[0] if hit else None for hit in short.find([problem, asked])] == ["sums", "sums"]


# --- the self-test ------------------------------------------------------------------------------------------------

def test_an_injection_is_the_same_for_the_same_seed_and_holds_the_question() -> None:
    hosts = [document.text for document in clean_documents()]
    for kind in injection.KINDS:
        first = injection.inject(kind, LONG[0], hosts, 1)
        assert first == injection.inject(kind, LONG[0], hosts, 1)
        if kind == "embedded":
            assert LONG[0] in first and len(first) > injection.LONG_FILE
    assert injection.inject("numbers_changed", LONG[0], hosts, 1) != LONG[0]
    assert injection.inject("respaced", LONG[0], hosts, 1).split() == LONG[0].split()
    assert injection.inject("renumbered_prefix", LONG[0], hosts, 1).endswith(LONG[0])


def test_the_rules_together_find_all_that_must_be_found_and_nothing_clean() -> None:
    result = self_test.measure(self_test.subsequence_rule(BENCHMARKS), BENCHMARKS, clean_documents())
    missed = {(group, kind): rate["samples"] for group, by_kind in result["recall"].items()
              for kind, rate in by_kind.items() if kind in injection.MUST_FIND and rate["found"] < rate["trials"]}
    assert missed == {}
    assert {group: rates["verbatim"]["trials"] for group, rates in result["recall"].items()} == {
        "long": 2, "short": 3, "procedural": 3}
    assert result["recall"]["long"]["numbers_changed"]["found"] == 2
    assert result["recall"]["procedural"]["numbers_changed"]["found"] == 0
    assert (result["false_positives"]["found"], result["false_positives"]["trials"]) == (0, 30)


def test_the_ngram_rule_of_the_corpus_is_measured_too() -> None:
    held = [Benchmark(one.name, "test", one.texts, one.procedural) for one in BENCHMARKS]
    result = self_test.measure(self_test.removed_by(Decontaminator(held, 13).remove), BENCHMARKS, clean_documents())
    recall = result["recall"]
    for kind in injection.MUST_FIND:
        assert recall["long"][kind]["found"] == recall["long"][kind]["trials"] == 2
    for group in ("short", "procedural"):
        assert recall[group]["verbatim"]["rate"] == 1
    assert result["false_positives"]["found"] == 0


def test_a_rule_that_marks_nothing_and_one_that_marks_all_are_told() -> None:
    clean = clean_documents()
    nothing = self_test.measure(lambda batch: [False] * len(batch), BENCHMARKS, clean)
    assert {rate["rate"] for by_kind in nothing["recall"].values() for rate in by_kind.values()} == {0.0}
    assert nothing["recall"]["long"]["verbatim"]["samples"] == list(LONG)
    everything = self_test.measure(lambda batch: [True] * len(batch), BENCHMARKS, clean)
    assert everything["false_positives"]["rate"] == 1
    assert len(everything["false_positives"]["samples"]) == self_test.KEPT_SAMPLES
    both = self_test.either(lambda batch: [True, False, False], lambda batch: [False, False, True])
    assert both(clean[:3]) == [True, False, True]


def test_questions_are_drawn_evenly() -> None:
    many = Questions("many", tuple(f"question number {i} of an exam" for i in range(100)))
    result = self_test.measure(lambda batch: [False] * len(batch), [many], [], kinds=["verbatim"], per_kind=4)
    assert result["recall"]["short"]["verbatim"]["samples"] == [many.texts[i] for i in (0, 25, 50, 75)]


def test_wilson_interval_by_hand() -> None:
    # Of n trials without a hit the upper end is z^2 / (n + z^2), z^2 = 3.8415.
    assert Rate(0, 100).interval() == pytest.approx((0, 3.8415 / 103.8415), abs=1e-4)
    assert Rate(50, 100).interval() == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert Rate().interval() == (0, 1)
