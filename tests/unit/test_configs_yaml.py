"""What the strict YAML reader takes and refuses, and that the writer's text reads back."""

from __future__ import annotations

from typing import Any

import pytest

from configs.errors import UserError
from configs.strict_yaml import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 0.00001),
        ("1e6", 1_000_000),
        ("2.5e3", 2500.0),
        ("1_000", 1000),
        ("-3", -3),
        ("+4", 4),
        (".5", 0.5),
        ("1e300", 1e300),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        # text in YAML 1.2, something else in YAML 1.1
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("0x1f", "0x1f"),
        ("1e5e5", "1e5e5"),
        ("=", "="),
        ("'8'", "8"),
        ("[1, a]", [1, "a"]),
        ("{a: {b: c}}", {"a": {"b": "c"}}),
    ],
)
def test_plain_values_mean_what_they_say(text: str, value: Any) -> None:
    found = parse_yaml(text, "here")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "here:3: not valid YAML: the key 'a' is given twice; keep one"),
        ("{x: {a: 1, a: 1}}", "here:1: not valid YAML: the key 'a' is given twice; keep one"),
        ("1: 2", "here:1: not valid YAML: the key '1' is not text; put it in quotes"),
        ("null: 2", "the key 'None' is not text"),
        ("[1, 2]: 3", "the key '[1, 2]' is not text"),
        ("<<: {a: 1}", "the key '<<' is not text"),
        ("a: &x 1", "anchors and aliases are not allowed"),
        ("a: *x", "anchors and aliases are not allowed"),
        ("a: !!float 1", "the tag 'tag:yaml.org,2002:float' is not allowed"),
        ("a: .nan", "'.nan' is not a finite number"),
        ("a: -.inf", "'-.inf' is not a finite number"),
        ("a: 1e999", "'1e999' is not a finite number"),
        ("[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: 'x", "not valid YAML"),
        ("\tb", "not valid YAML"),
        ("a: \x01", "not valid YAML"),
    ],
)
def test_traps_are_refused_with_the_line(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "here")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "yes",
        "1e5",
        "1e-5",
        "1:30",
        "2024-01-31",
        "null",
        "",
        "~",
        "true",
        "<<",
        "a: b",
        "- a",
        "a\nb\n",
        "a\n\nb",
        " a",
        "#x",
        "\\boxed{1}",
        "é",
        "8",
        "*x",
        "&x",
        "!x",
        "=",
        "0x1f",
    ],
)
def test_text_is_written_so_that_it_reads_back_as_the_same_text(value: str) -> None:
    assert parse_yaml(dump_yaml({"k": value, "l": [value]}), "here") == {"k": value, "l": [value]}
