"""The JSON verifier: exact values, strict reading, schemas that are looked through first, and schemas that attack."""

import json
import socket
import urllib.request
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from verifiers.api import OVER_BUDGET, Outcome, Task
from verifiers.cases import cases_path, read_cases
from verifiers.json_schema import MAX_PARTIAL, JsonSchemaVerifier, document
from verifiers.pool import VerifierPool
from verifiers.registry import load_verifier
from verifiers.structured.json_values import MAX_DEPTH, MAX_TEXT, Unreadable, read_json, read_order
from verifiers.structured.schemas import broken_rule, make_validator, required_share

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def judge(completion: str, answer: str = "", **metadata: Any) -> Any:
    return JsonSchemaVerifier().judge(Task("t", "", answer, "json_schema", metadata), completion)


@pytest.mark.parametrize("name", ["json_schema", "table"])
def test_the_case_file_holds(name: str) -> None:
    path = cases_path(name)
    assert path is not None
    cases = read_cases(path)
    for case in cases:
        verdict = load_verifier(name).judge(case.task, case.completion)
        assert verdict.outcome is case.expect, (case, verdict)
    assert sum(case.expect is Outcome.CORRECT for case in cases) >= 12
    assert sum(case.expect is Outcome.INCORRECT for case in cases) >= 12


@pytest.mark.parametrize(("text", "value"), [
    ("1.0", 1), ("1e2", 100), ("-0.0", 0), ("0.1", Fraction(1, 10)), ("0.10", Fraction(1, 10)),
    ("25E-2", Fraction(1, 4)),
    ('"e\\u0301"', "\u00e9"), ("\ufeff [ ] ", []), ('{"e\u0301": null}', {"\u00e9": None}), ("true", True),
])  # fmt: skip
def test_values_are_read_exactly(text: str, value: Any) -> None:
    read = read_json(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "no_document"), ("  \n", "no_document"), ("{", "not_json"), ("[1,]", "not_json"), ("01", "trailing_text"),
    ("{} {}", "trailing_text"), ('{"a": 1, "a": 1}', "duplicate_key"), ('{"\u00e9": 1, "e\u0301": 2}', "duplicate_key"),
    ("NaN", "not_a_number"), ("[-Infinity]", "not_a_number"), ("1e401", "number_out_of_range"),
    ("9" * 1001, "number_out_of_range"), ("1e" + "9" * 5000, "number_out_of_range"), ('"\t"', "not_json"),
    ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "too_deep"), ('{"a":' * 100_000, "too_deep"),
    ('"' + "x" * MAX_TEXT + '"', "too_long"), ('"' + '\\"' * 400_000, "not_json"), ("nul", "not_json"),
])  # fmt: skip
def test_what_is_no_document_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        read_json(text)
    assert error.value.reason == reason


def test_brackets_inside_of_strings_are_no_depth() -> None:
    assert read_json(json.dumps("[" * 1_000 + '\\"' + "{" * 1_000)) == "[" * 1_000 + '\\"' + "{" * 1_000


@pytest.mark.parametrize(("completion", "text"), [
    ('{"a": 1}', '{"a": 1}'),
    ("<think>```json\n1\n```</think> 2", " 2"),
    ("```json\n1\n```\n```json\n2\n```", "2"),
    ("```json\n1\n```\n```\n2\n```", "1"),
    ("```python\nx = 1\n```\n```\n2\n```", "2"),
    ("````json\n```\n1\n````", "```\n1"),
    ("- so:\n  ```JSON\n  3\n  ```", "  3"),
    ("```json\n1\n```\n```json\n2", None),
    ("```json title=x\n4\n```", "4"),
])
def test_the_document_is_the_last_block_or_the_whole_answer(completion: str, text: str | None) -> None:
    assert document(completion) == text


def test_a_wrong_document_earns_the_share_of_what_is_right_and_never_full_marks() -> None:
    gold = json.dumps({"name": "Ada", "age": 36, "tags": ["a", "b"]})  # four leaves
    verdict = judge('{"name": "Ada", "age": 37, "tags": ["a", "c"]}', gold, schema=PERSON)
    assert (verdict.outcome, verdict.score, verdict.reason) == (Outcome.INCORRECT, 2 / 4, "other_value: /age")
    assert judge('{"name": "Ada", "age": 36, "tags": ["a", "b", "c"]}', gold, schema=PERSON).score == 4 / 5
    extra = judge('{"name": "Ada", "age": 36, "tags": ["a", "b"], "x": {}}', gold, schema=PERSON)
    assert (extra.score, extra.reason) == (4 / 5, "schema_additional_properties: /")
    one = {"required": ["n"], "properties": {"n": {}}, "additionalProperties": False}
    closed = judge('{"n": 1, "x": 0}', schema=one)
    assert closed.score == MAX_PARTIAL  # all that is required is there, and too much
    assert judge('{"name": 3, "age": 36}', schema=PERSON).score == 1 / 3
    assert judge("nothing", gold, schema=PERSON).score == 0.0


def test_required_members_are_counted_through_nested_objects() -> None:
    inner = {"required": ["c", "d"], "properties": {"c": {"type": "null"}}}
    nested = {"required": ["a", "b"], "properties": {"a": inner}}
    validator = make_validator(nested)
    assert required_share(validator, {"a": {"c": None}, "b": 1}) == 2 / 3  # a.c and b of a.c, a.d and b
    assert required_share(validator, []) == 0.0
    assert required_share(make_validator(True), {}) == 0.0


@pytest.mark.parametrize(("schema", "value", "reason"), [
    ({"multipleOf": 0.1}, 0.3, None), ({"multipleOf": 0.1}, 1e300, None), ({"multipleOf": 0.1}, 0.35, "multiple_of: /"),
    ({"const": 1}, 1.0, None), ({"const": 1}, True, "const: /"), ({"enum": [0, False]}, 0.0, None),
    ({"type": "integer"}, 2.0, None), ({"type": "integer"}, 2.5, "type: /"), ({"uniqueItems": True}, [1, True], None),
    ({"uniqueItems": True}, [1, 1.0], "unique_items: /"), ({"items": {"required": ["x"]}}, [{}], "required: /0/x"),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, 1, "type: /"), (False, 1, "false: /"),
    ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "x"}, "any_of: /type"),
    ({"format": "date"}, "tomorrow", None), ({"patternProperties": {"^a": False}}, {"ab": 1}, "false: /"),
    ({"minLength": 2}, "e\u0301", "min_length: /"),
])  # fmt: skip
def test_numbers_are_exact_and_a_broken_rule_is_named_with_its_place(
    schema: Any, value: Any, reason: str | None
) -> None:
    found = broken_rule(make_validator(schema), read_json(json.dumps(value)))
    assert found == (None if reason is None else f"schema_{reason}")


@pytest.mark.parametrize(("schema", "reason"), [
    ([], "no object"), ({"type": "text"}, "type"), ({"minimum": "3"}, "minimum"), ({"pattern": "(a"}, "pattern"),
    ({"patternProperties": {"*": {}}}, "patternProperties"), ({"properties": {"a": {"$ref": "#/b"}}}, "$ref /b"),
    ({"$ref": "#/x", "x": 3}, "$ref #/x"), ({"$ref": "#/x", "x": {"type": 3}}, "type"),
    ({"$ref": "#/x", "x": {"items": {"pattern": "["}}}, "items/pattern"), ({"$ref": "other.json"}, "$ref other.json"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"), ({"multipleOf": 0}, "multipleOf"),
    ({"const": float("inf")}, "not_a_number"), ({"a": json.loads("[" * 80 + "]" * 80)}, "too deep"),
])  # fmt: skip
def test_a_schema_that_cannot_judge_is_told_before_any_document_is_read(schema: Any, reason: str) -> None:
    verdicts = {judge(completion, schema=schema).reason for completion in ("{}", "", "no", '{"a": 1}', "[" * 10**6)}
    assert verdicts == {f"schema_unreadable: {reason}"}
    assert judge("{}", schema=schema).outcome is Outcome.NO_VERDICT


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError(f"network: {arguments}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    for reference in ("http://127.0.0.1:9/a.json", "https://example.com/b", "file:///etc/hostname", "c.json#/d"):
        verdict = judge("{}", schema={"properties": {"x": {"$ref": reference}}})
        assert verdict.outcome is Outcome.NO_VERDICT and "$ref" in verdict.reason
    assert judge("3", schema={"$id": "https://example.com/b", "$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
                 ).outcome is Outcome.CORRECT  # fmt: skip


@pytest.mark.parametrize("order", ["any", 3, {"/a": "loose"}, {"a": "free"}, ["/a"], {"/a": ["free"]}])
def test_an_order_that_is_none_is_a_fault_of_the_task(order: Any) -> None:
    with pytest.raises(Unreadable):
        read_order(order)
    assert judge("[]", "[]", order=order).reason == "order_unreadable"


def test_only_the_named_arrays_are_free() -> None:
    gold, order = '{"a/b": [1, 2], "c": [[1, 2], [3]]}', {"/a~1b": "free", "/c/*": "free", "/c": "fixed"}
    assert judge('{"a/b": [2, 1], "c": [[2, 1], [3]]}', gold, order=order).outcome is Outcome.CORRECT
    assert judge('{"a/b": [2, 1], "c": [[3], [1, 2]]}', gold, order=order).reason == "other_value: /c/0"


def test_a_reason_holds_one_short_line_of_a_completion() -> None:
    name = "x\n\u202e" * 1_000
    verdict = judge(json.dumps({name: 1}), schema={"additionalProperties": {"type": "null"}})
    assert len(verdict.reason) < 120 and verdict.reason.isprintable()


def test_a_schema_that_refers_to_itself_without_end_is_over_budget_and_no_fault() -> None:
    for completion in ("{}", "3", '{"a": {}}'):
        verdict = judge(completion, schema={"$ref": "#"})
        assert (verdict.outcome, verdict.reason) == (Outcome.INCORRECT, OVER_BUDGET)


def test_a_pattern_that_takes_for_ever_is_ended_by_the_pool_and_the_rest_goes_on() -> None:
    bomb = Task("bomb", "", "", "json_schema", {"schema": {"pattern": "^(a+)+$"}})
    plain = Task("plain", "", "", "json_schema", {"schema": {"pattern": "^a+$"}})
    with VerifierPool(num_workers=1, deadline_s=0.5) as pool:
        verdicts = pool.judge([(bomb, json.dumps("a" * 60 + "!")), (plain, '"aaa"'), (bomb, '"aaa"')])
    assert [(verdict.outcome.value, verdict.reason) for verdict in verdicts] == [
        ("incorrect", OVER_BUDGET), ("correct", "fits_schema"), ("correct", "fits_schema")]  # fmt: skip


def test_huge_documents_are_judged_or_over_budget() -> None:
    wide = "[" + ",".join(map(str, range(100_000))) + "]"
    assert judge(wide, wide).outcome is Outcome.CORRECT
    assert judge(f"[{wide}", wide).reason == "not_json"
    assert judge("[" + wide * 2 + "]", wide).reason == OVER_BUDGET
    assert judge("x" * 4_000_001, "1").reason == OVER_BUDGET


def test_cases_are_beside_the_verifiers() -> None:
    assert {path.name for path in Path("verifiers/cases").glob("*.jsonl")} >= {"json_schema.jsonl", "table.jsonl"}
