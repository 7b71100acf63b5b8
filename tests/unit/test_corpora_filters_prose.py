"""Filters of prose and of mathematics: boundaries counted by hand, and pages full of LaTeX left alone."""

from __future__ import annotations

import pytest

from corpora.document import Document
from corpora.filters import FILTERS, MATH, PROSE, Chain
from corpora.filters.math_content import num_signs, prose_around
from corpora.filters.repetition import frequent_characters, repeated_characters
from corpora.filters.statistics import TextStatistics


def reason(name: str, text: str, **settings: object) -> str | None:
    module = FILTERS[name]
    found: str | None = module.check(TextStatistics(Document("1", "s", "MIT", "a.txt", text=text)),
                                     module.Settings(**settings))
    return found


GOOD = """Water that falls on a hill runs off in every direction, and the line along which it parts is called a divide.
To find it on a map, begin at the highest point and follow the ridge that the contour lines show.
Where two ridges meet, the one with the smaller drop is the boundary of the smaller basin.
Engineers have used this method for centuries, because it needs nothing but a pencil and a good eye.
It fails on flat ground, of course, and with it every other method that looks at height alone."""

SOLUTION = r"""We want the sum $S = \sum_{k=1}^{n} \frac{1}{k(k+1)}$. Since
\[\frac{1}{k(k+1)} = \frac{1}{k} - \frac{1}{k+1},\]
the sum telescopes: $S = 1 - \frac{1}{n+1} = \frac{n}{n+1}$. For $n = 9$ we get $\boxed{\frac{9}{10}}$."""

MATRIX = r"""\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \begin{pmatrix} x \\ y \end{pmatrix} = \begin{pmatrix} 5 \\ 6
\end{pmatrix} gives $x = -4$ and $y = \frac{9}{2}$, so that $\{x, y\} = \{-4, \tfrac{9}{2}\}$."""


def test_good_prose_passes_all_rules() -> None:
    assert Chain(PROSE).check(Document("1", "s", "MIT", "a.txt", text=GOOD)) is None


@pytest.mark.parametrize(
    "text",
    [SOLUTION, MATRIX, SOLUTION + "\n\n" + MATRIX, "Solve for $x$: $2^{x-3}=4^{x+1}$\n-5",
     "Tom has 12 apples and gives half of them to Ann. How many are left?\n12 / 2 = 6, so 6 are left.",
     "Beweis. Sei $f\\colon A \\to B$ injektiv; dann ist $|A| \\le |B|$."],
)  # fmt: skip
def test_mathematics_with_brackets_and_backslashes_passes(text: str) -> None:
    assert Chain(MATH).check(Document("1", "s", "MIT", "a.txt", text=text)) is None


def test_a_curly_bracket_drops_no_page() -> None:
    assert reason("prose_lines", GOOD + "\nThe set {1, 2} has two elements.") is None


WORD = "abcd "  # four letters


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        (WORD * 49, {}, "too_few_prose_words"),
        (WORD * 48 + "the of", {}, None),  # 50 words, two stop words
        (WORD * 50 + "the", {}, "too_few_stop_words"),
        (WORD * 5, {"min_words": 0, "max_words": 4}, "too_many_prose_words"),
        ("ab abc the of", {"min_words": 0, "min_mean_word": 2.5}, None),  # (2 + 3 + 3 + 2) / 4 = 2.5
        ("ab abc the of", {"min_words": 0, "min_mean_word": 2.6}, "words_too_short"),
        ("a" * 15 + " the", {"min_words": 0, "max_mean_word": 8.9}, "words_too_long"),  # 18 / 2 = 9
        ("the of ab#cd " + WORD * 7, {"min_words": 0}, None),  # 1 hash sign for 10 words
        ("the of ab#cd " + WORD * 6, {"min_words": 0}, "too_many_hash_signs"),
        ("### the\nof abcd efgh", {"min_words": 0}, None),  # a heading
        ("the of abcd... " + WORD * 6, {"min_words": 0}, "too_many_ellipses"),  # 1 for 9
        ("- the\n- of\nabcd", {"min_words": 0, "max_bullet_lines": 0.66, "min_mean_word": 0.0}, "mostly_bullets"),
        ("- the\n- of\nabcd", {"min_words": 0, "max_bullet_lines": 0.67, "min_mean_word": 0.0}, None),
        ("abcd…\n" + "the of\n" * 6, {"min_words": 0, "min_mean_word": 0.0}, None),  # 1 line of 7
        ("the of abcd 1234", {"min_words": 0}, "too_few_words_with_letters"),  # 3 of 4
        ("the of abcd efgh 1234", {"min_words": 0}, None),  # 4 of 5
        ("слово и ещё одно слово", {"min_words": 0}, None),  # stop words are asked of Latin text alone
    ],
)
def test_words(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("prose_words", text, **settings) == expected


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("One. Two.", {}, "too_few_sentences"),
        ("One. Two! Three?", {"max_short_lines": 1.0}, None),
        ("Version 1.2.3 of it", {}, "too_few_sentences"),
        ("Lorem ipsum dolor. Sit. Amet.", {}, "lorem_ipsum"),
        ("no end here at all\n" * 8 + "A. B. C.", {"max_short_lines": 1.0}, "few_lines_end_sentences"),  # 1 of 9
        ("no end here at all\n" * 7 + "A. B. C.", {"max_short_lines": 1.0}, None),  # 1 of 8 = 0.125
        ("A. B. C.\n" * 2 + "x" * 30 + ".", {}, None),  # 2 of 3 lines are short
        ("A. B. C.\n" * 2 + "x" * 29 + ".", {}, "mostly_short_lines"),
        ("A long line that ends, as it should. So. It. Does.\n" * 8 + "Our site uses cookies for all of this.", {},
         "mostly_policy_notices"),  # 1 of 9
    ],
)  # fmt: skip
def test_lines_of_pages(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("prose_lines", text, **settings) == expected


def test_repeated_characters_are_counted_once() -> None:
    words = list("abcdxabcd")
    assert repeated_characters(words, 4) == 8  # a b c d with a space after each
    assert repeated_characters(words, 3) == 8  # two runs that overlap
    assert repeated_characters(words, 5) == 0
    assert frequent_characters(["go", "on"] * 3, 2) == 5 * 3  # three times `go on`
    assert frequent_characters(["go", "on"] * 2, 2) == 0  # twice is not frequent


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        (GOOD, {}, None),
        ("same\n" * 4 + "a\nb\nc\n" + GOOD, {"max_lines": 0.25}, None),  # 3 of 12 lines came before
        ("same\n" * 4 + "a\nb\nc\n" + GOOD, {"max_lines": 0.24}, "repeated_prose_lines"),
        ("abcd\n" * 3 + "e" * 25, {"max_lines": 1.0}, None),  # 8 of 40 characters came before, without line feeds
        ("abcd\n" * 3 + "e" * 24, {"max_lines": 1.0}, "repeated_prose_lines"),  # 8 of 39
        ("a\n\nb\n\na\n\nc", {"max_lines": 1.0, "max_line_characters": 1.0}, None),  # 1 of 4 paragraphs
        ("a\n\nb\n\na\n\na", {"max_lines": 1.0, "max_line_characters": 1.0}, "repeated_paragraphs"),  # 2 of 4
        ("buy now " * 5 + GOOD, {}, None),
        ("buy now " * 50 + GOOD, {}, "frequent_run_of_words"),
        (GOOD.replace("\n", " ") + " " + GOOD.replace("\n", "  "), {}, "repeated_runs_of_words"),
    ],
)
def test_repetition(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("repetition", text, **settings) == expected


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("1 + 1 = 2 is true.", {}, "math_too_short"),  # 18 characters
        ("1 + 1 = 2 is so true.", {}, None),
        ("The cat sat on the mat and looked out.", {}, "too_little_math"),
        ("x = 1" + " and so it goes" * 30, {}, "too_little_math"),  # one sign
        ("x = 1 and y = 2" + "." * 385, {"min_signs_per_kilobyte": 10.0}, None),  # two signs, two numbers: 4 in 400
        ("x = 1 and y = 2" + "." * 386, {"min_signs_per_kilobyte": 10.0}, "too_little_math"),  # 4 in 401
        ("[Math Processing Error] gives x = 1 and y = 2", {}, "unrendered_math"),
        ("$\\frac{1}{2} + \\frac{1}{3}$ = $\\frac{5}{6}$", {}, "no_words_around_math"),
        ("Log in\nSign up\nx = 1\ny = 2\nz = 3", {"min_words": 0}, "interface_text"),
    ],
)
def test_mathematics(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("math_content", text, **settings) == expected


def test_signs_are_of_mathematics() -> None:
    assert num_signs("well-known and/or <b>bold</b>") == 0
    assert num_signs("2 - 1, a/2, 3 ≤ 4, 50%") == 4
    assert prose_around(r"Let \(x\) be \[y\] or $$z$$ or \begin{align*} a &= b \end{align*} now").split() == [
        "Let", "be", "or", "or", "now"]  # fmt: skip
