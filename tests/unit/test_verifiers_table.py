"""The table verifier: forms, cells by value, orders, and reasons that name what differs."""

from typing import Any

import pytest

from verifiers.api import OVER_BUDGET, Outcome, Task
from verifiers.structured.tables import Unreadable, cell, form_of, plain, read_table
from verifiers.table import MAX_PARTIAL, TableVerifier

GOLD = "city,people,share\nOslo,717710,50%\nBergen,291940,25%\nMoss,50290,1%"


def judge(completion: str, answer: str = GOLD, **metadata: Any) -> Any:
    return TableVerifier().judge(Task("t", "", answer, "table", metadata), completion)


@pytest.mark.parametrize(("one", "other", "equal"), [
    ("1,250", "1250.00", True), ("50%", ".5", True), ("50 %", "0.50", True), ("50%", "50", False),
    ("-3", "\u22123", True),
    ("+4", "4", True), ("1.5e3", "1,500", True), ("12,50", "1250", False), ("1,2500", "12500", False),
    ("007", "7", False),
    ("0.7", "00.7", False), ("0", "-0", True), ("5 cm", "5", False), ("$5", "5", False), ("**Oslo**", "Oslo", True),
    ("`a`", "a", True), ("a  b\t", "a b", True), ("a_b", "ab", False), ("*a* and *b*", "a* and *b", False),
    ("Oslo", "oslo", False), ("e\u0301", "\u00e9", True), ("\uff15", "5", False), ("1e401", "1e401", True),
    ("", " ", True),
    ("1" * 1001, "1" * 1001, True), ("one", "1", False),
])  # fmt: skip
def test_cells_are_compared_by_value(one: str, other: str, equal: bool) -> None:
    assert (cell(one) == cell(other)) == equal


def test_json_cells_are_as_good_as_their_texts() -> None:
    assert cell(5) == cell("5.0") and cell(True) == cell("true") and cell(None) == cell("") and cell("a") != cell("A")
    assert cell("A", folded=True) == cell("a", folded=True) and plain("** x **") == "x"
    with pytest.raises(Unreadable, match="nested_cell"):
        cell([1])


@pytest.mark.parametrize(("text", "form"), [
    ("| a |\n|---|\n| 1 |", "markdown"), ("a | b\n-|-\n1|2", "markdown"), ("a,b\n1,2", "csv"), ("a\tb", "tsv"),
    ('[{"a": 1}]', "json"), ("nothing", None), ("", None), ("a | b\n1 | 2", None),
    ("intro\n\n| a |\n|:-:|", "markdown"),
])  # fmt: skip
def test_the_form_shows_itself(text: str, form: str | None) -> None:
    assert form_of(text) == form


@pytest.mark.parametrize(("text", "form", "reason"), [
    ("a,b\n1", "csv", "ragged_row: 1"), ("a,b\n1,2\n1,2,3", "csv", "ragged_row: 2"),
    ("a,A", "csv", "duplicate_column: a"),
    ('a,b\n"1,2', "csv", "csv_unreadable"), ('a\n"1"2', "csv", "csv_unreadable"), ("", "csv", "no_table"),
    ("a\x00b", "csv", None), ("| a | b |\n|---|\n| 1 |", "markdown", "ragged_row: 0"),
    ("| a |", "markdown", "no_table"),
    ("| a |\n|---|\n| 1 | 2 |", "markdown", "ragged_row: 1"), ("{}", "json", "no_table"), ("[]", "json", "no_table"),
    ("[1]", "json", "no_table"), ('[{"a": 1}, {"b": 1}]', "json", "ragged_row: 2"), ("[[]]", "json", "no_table"),
    ('[{"a": [1]}]', "json", "nested_cell"), ('[["a"], [1, 2]]', "json", "ragged_row: 1"), ("[{", "json", "not_json"),
    ("a\n" + "1\n" * 100_000, "csv", "too_long"), ("x" * 1_000_001, "csv", "too_long"), ("a\n" + "x" * 200_000, "csv",
                                                                                       "csv_unreadable"),
])  # fmt: skip
def test_what_is_no_table_is_refused_with_the_reason(text: str, form: str, reason: str | None) -> None:
    if reason is None:
        assert read_table(text, form).rows == ()
        return
    with pytest.raises(Unreadable) as error:
        read_table(text, form)
    assert error.value.reason == reason


def test_lines_without_a_pipe_end_a_markdown_table_and_the_last_table_counts() -> None:
    text = "| a |\n|---|\n| 1 |\n| 2 |\nso | far\n\n| b |\n|--:|\n| 3 |\n\nend | of it"
    assert read_table(text, "markdown").columns == ("b",) and len(read_table(text, "markdown").rows) == 1
    assert read_table(r"| a \| b |" + "\n|---|\n| |", "markdown").columns == ("a | b",)


@pytest.mark.parametrize(("completion", "reason"), [
    (GOLD.replace("717710", "717711"), "other_cells: 1, first people in row 1"),
    (GOLD.replace("25%", "x").replace("291940", "y"), "other_cells: 2, first people in row 2"),
    ("\n".join(GOLD.split("\n")[:2]), "missing_rows: Bergen, Moss"),
    (GOLD + "\nRome,1,1\nBonn,1,1\nBari,1,1\nBern,1,1\nKiel,1,1", "extra_rows: Rome, Bonn, Bari and 2 more"),
    ("city,people\nOslo,717710\nBergen,291940\nMoss,50290", "missing_columns: share"),
    (GOLD.replace("share", "part"), "missing_columns: share; extra_columns: part"),
    ("city,people,share\nMoss,50290,1%\nBergen,291940,25%\nOslo,717710,50%", "row_order"),
    ("city,people,share\nOslo,717710,50%\nRome,291940,25%\n", "missing_rows: Bergen, Moss; extra_rows: Rome"),
    ("I am not sure.", "no_table"), ("```csv\ncity", "unclosed_block"), ("x" * 4_000_001, OVER_BUDGET),
    ("city,people,share\n" + "a,b,c\n" * 40_000, OVER_BUDGET), ("[" * 100, OVER_BUDGET),
])  # fmt: skip
def test_the_reason_names_what_differs(completion: str, reason: str) -> None:
    verdict = judge(completion)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCORRECT, reason)


def test_orders_are_as_the_task_says() -> None:
    turned = "share,people,city\n50%,717710,Oslo\n25%,291940,Bergen\n1%,50290,Moss"
    assert judge(turned).outcome is Outcome.CORRECT
    assert judge(turned, columns="fixed").reason == "column_order"
    moved = "city,people,share\nMoss,50290,1%\nOslo,717710,50%\nBergen,291940,25%"
    assert judge(moved, rows="free").outcome is Outcome.CORRECT
    twice = moved.replace("Oslo,717710,50%", "Moss,50290,1%")
    assert judge(twice, rows="free").reason == "missing_rows: Oslo; extra_rows: Moss"
    assert judge(f"```csv\n{turned}\n```", format="csv").outcome is Outcome.CORRECT
    assert judge(turned, format="markdown").reason == "other_format: csv"


def test_a_wrong_table_earns_the_f1_of_its_cells_below_full_marks() -> None:
    assert judge(GOLD.replace("717710", "1")).score == pytest.approx(8 / 9)
    missing = judge("\n".join(GOLD.split("\n")[:2]))  # 3 of 9 cells, none of them wrong
    assert missing.score == pytest.approx(2 * 3 / (3 + 9))
    assert judge("city,people\nOslo,717710\nBergen,291940\nMoss,50290").score == pytest.approx(2 * 6 / (6 + 9))
    turned = "share,people,city\n50%,717710,Oslo\n25%,291940,Bergen\n1%,50290,Moss"
    assert judge(turned, columns="fixed").score == MAX_PARTIAL
    assert judge("a,b,c\n1,2,3").score == judge("city,people,share").score == 0.0


@pytest.mark.parametrize(("answer", "metadata", "reason"), [
    ("", {}, "gold_unreadable: no_table"), ("a,a\n1,2", {}, "gold_unreadable: duplicate_column: a"),
    ("a,b\n1,2", {"rows": "loose"}, "setting_unreadable: rows"),
    ("a,b\n1,2", {"text": None}, "setting_unreadable: text"),
    ("a,b\n1,2", {"format": "html"}, "setting_unreadable: format"),
    ("a,b\n1,2", {"columns": []}, "setting_unreadable: columns"),
])  # fmt: skip
def test_a_fault_of_the_task_gives_no_verdict(answer: str, metadata: dict[str, Any], reason: str) -> None:
    for completion in (answer, "", "x" * 5_000_000):
        verdict = judge(completion, answer, **metadata)
        assert (verdict.outcome, verdict.reason) == (Outcome.NO_VERDICT, reason)
