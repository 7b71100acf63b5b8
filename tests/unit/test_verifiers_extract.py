"""Where an answer is found in a completion."""

import time

import pytest

from verifiers.answers.extract import extract, extract_text, last_boxed


@pytest.mark.parametrize(("completion", "text", "kind"), [
    ("so \\boxed{5}", "5", "boxed"),
    ("\\boxed{1} then \\boxed{2}", "2", "boxed"),
    ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}", "boxed"),
    ("\\boxed{\\boxed{5}}", "5", "boxed"),
    ("\\boxed {7}", "7", "boxed"),
    ("\\fbox{7}".replace("\\fbox", "\\fboxed"), "7", "boxed"),
    ("\\boxed{3} and then cut \\boxed{4", "3", "boxed"),
    ("\\boxed{\\{1,2\\}}", "\\{1,2\\}", "boxed"),
    ("\\boxed{}", "", "boxed"),
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
    ("It ranges over 5-10 metres", "10", "last_number"),
    ("It falls to -4 degrees", "-4", "last_number"),
    ("", None, "none"),
    ("  \n ", None, "none"),
    ("<think>\\boxed{5}</think> \\boxed{6}", "6", "boxed"),
    ("<think>\\boxed{5}</think>", "5", "boxed"),
])
def test_the_answer_is_found_where_it_is_marked(completion: str, text: str | None, kind: str) -> None:
    found = extract(completion)
    assert (found.text, found.kind) == (text, kind)


def test_a_text_answer_without_a_mark_is_the_whole_final_part() -> None:
    assert extract_text("<think>hm</think>\n_ Q\nQ _\n").text == "_ Q\nQ _"


def test_ten_thousand_boxes_and_a_megabyte_of_braces_take_no_time() -> None:
    started = time.perf_counter()
    assert last_boxed("\\boxed{1}" * 10_000 + "\\boxed{2}") == "2"
    assert last_boxed("\\boxed{" * 100_000) is None
    assert last_boxed("\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}") is not None
    assert extract("answer " * 150_000).text is not None
    assert extract("<answer>" * 120_000).text is not None
    assert time.perf_counter() - started < 5
