"""Where an answer is found in a completion."""

import time

import pytest

from verifiers.answers.extract import Extraction, extract, extract_text, last_boxed


@pytest.mark.parametrize(("completion", "text", "kind"), [
    ("so \\boxed{5}", "5", "boxed"),
    ("\\boxed{1} then \\boxed{2}", "2", "boxed"),
    ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}", "boxed"),
    ("\\boxed{\\boxed{5}}", "5", "boxed"),
    ("\\boxed {7}", "7", "boxed"),
    ("\\fbox{7}".replace("\\fbox", "\\fboxed"), "7", "boxed"),
    ("\\boxed{3} and then cut \\boxed{4", "3", "boxed"),
    ("\\boxed{\\{1,2\\}}", "\\{1,2\\}", "boxed"),
    ("\\boxed{}", "", "boxed"), ("so \\fbox{7}", "7", "boxed"), ("The answer is exactly $7$.", "7", "marked"),
    ("Hence\n\\[x = 12\\]", "x = 12", "last_line"), ("The answer is about $7$.", "about $7$", "marked"),
    ("a = 5\n#### 42", "42", "marked"),
    ("#### 41\nno wait\n#### 42", "42", "marked"),
    ("The final answer is 42.", "42", "marked"),
    ("The final answer is $42$. I hope it is correct.", "42", "marked"),
    ("Answer: 3.5", "3.5", "marked"),
    ("**Answer:** 12 apples", "12 apples", "marked"),
    ("The answer is: 7", "7", "marked"),
    ("The answer is 18 dollars. She is glad.", "18 dollars", "marked"),
    ("A: 26", "26", "marked"),
    ("<answer> 9 </answer>", "9", "marked"),
    ("Answer:\n12", "12", "marked"),
    ("\\boxed{1}. The answer is 2.", "1", "boxed"),
    ("first\n48 + 2 = 50", "50", "last_line"),
    ("first\n50", "50", "last_line"),
    ("She has 12 apples and pays $3.50.", "$3.50", "last_number"),
    ("It has 48 legs.", "48", "last_number"),
    ("5 or 6", "5 or 6", "last_line"),
    ("- 12 apples", "12", "last_number"),
    ("It ranges over 5-10 metres", "10 metres", "last_number"),
    ("It ranges over 5-10 places", "10", "last_number"),
    ("The rope is 5 cm long.", "5 cm", "last_number"),
    ("Final Answer: The final answer is $7$. I hope it is correct.", "7", "marked"),
    ("The answer is \\$4.50.", "\\$4.50", "marked"),
    ("The final answer is $\\$4.50$.", "\\$4.50", "marked"),
    ("The answer is $3$ cm.", "3 cm", "marked"),
    ("The correct option is (B) red.", "(B) red.", "marked"),
    ("The answer is B. Red", "B. Red", "marked"),
    ("The final answer is:\n\\[\n\\frac{1}{2}\n\\]\nDone.", "\\frac{1}{2}", "marked"),
    ("\u7b54\u6848\u662f 12\u3002", "12", "marked"),
    ("\u6240\u4ee5\n\u6700\u7ec8\u7b54\u6848\uff1a$x=3$", "x=3", "marked"),
    ("\u7b54\uff1a15", "15", "marked"),
    ("f(x)=2x", "f(x)=2x", "last_line"),
    ("so\na=1, b=2", "a=1, b=2", "last_line"),
    ("Minimum: 2, Maximum: 9", "Minimum: 2, Maximum: 9", "last_line"),
    ("x \\le 2", "x \\le 2", "last_line"),
    ("2^{k - n}", "2^{k - n}", "last_line"),
    ("(-1,\\ 2) \\, ", "(-1,\\ 2) \\,", "last_line"),
    ("It falls to -4 degrees", "-4", "last_number"),
    ("", None, "none"),
    ("  \n ", None, "none"),
    ("<think>\\boxed{5}</think> \\boxed{6}", "6", "boxed"),
    ("<think>\\boxed{5}</think>", "5", "boxed"),
])
def test_the_answer_is_found_where_it_is_marked(completion: str, text: str | None, kind: str) -> None:
    found = extract(completion)
    assert (found.text, found.kind) == (text, kind)


@pytest.mark.parametrize(("ways", "kind"), [
    (("boxed", "marked", "last_line"), "boxed"), (("marked", "last_line"), "marked"), (("last_line",), "last_number"),
    (("boxed",), "boxed")])
def test_the_ways_of_finding_an_answer_can_be_chosen(ways: tuple[str, ...], kind: str) -> None:
    text = "\\boxed{1}\nThe answer is 2.\nIt has 3 legs."
    assert extract(text, ways).kind == kind
    assert extract("no box", ("boxed",)).text is None


def test_a_text_answer_without_a_mark_is_the_whole_final_part() -> None:
    assert extract_text("<think>hm</think>\n_ Q\nQ _\n").text == "_ Q\nQ _"


def test_ten_thousand_boxes_and_a_megabyte_of_braces_take_no_time() -> None:
    started = time.process_time()
    assert last_boxed("\\boxed{1}" * 10_000 + "\\boxed{2}") == "2"
    assert last_boxed("\\boxed{" * 100_000) is None
    assert last_boxed("\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}") is not None
    assert extract("answer " * 150_000).text is not None
    assert extract("<answer>" * 120_000).text is not None
    assert time.process_time() - started < 5


def test_a_last_line_of_more_parts_than_are_read_is_still_an_answer() -> None:
    assert extract("a=1;" * 60).kind == "last_line"
    assert extract("x = 1, y = 2").text == "x = 1, y = 2"


@pytest.mark.parametrize(("text", "answer"), [
    ("It is $\\boxed{8}$ or $\\boxed{7}$.", "8, 7"),
    ("$\\boxed{8}$, $\\boxed{7}$, and $\\boxed{9}$", "8, 7, 9"),
    ("\\(\\boxed{A}\\) and \\(\\boxed{C}\\)", "A, C"),
    ("\\[\\boxed{3}\\]\n\\text{and}\n\\[\\boxed{4}\\]", "3, 4"),
    ("\\boxed{7} or \\boxed{7}", "7"),
    ("\\boxed{7}, \\boxed{}", ""),
    ("\\boxed{1}, then \\boxed{2}", "2"),
    ("\\boxed{1} \\boxed{2}", "2"),
    ("\\boxed{5}, but no: \\boxed{1} or \\boxed{2}", "1, 2"),
])  # fmt: skip
def test_boxes_with_nothing_but_a_comma_or_a_conjunction_between_them_are_one_list(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer, "boxed")


def test_a_number_that_is_denied_is_not_the_answer() -> None:
    assert extract("The answer isn't 7").text == "n't 7"
    assert extract("It is surely not 7.").kind == extract("It can't be the number 7.").kind == "last_line"
    assert extract("He could not buy more, so he has 7 apples.").text == "7"


def test_white_space_between_boxes_costs_no_time() -> None:
    began = time.process_time()
    for blank in ("\n", " ", "\t "):
        assert extract(f"\\boxed{{5}}{blank * 20_000}\\boxed{{7}}").text == "7"
    assert time.process_time() - began < 2.0
    assert extract("\\boxed{5}, \\boxed{7}").text == "5, 7"
