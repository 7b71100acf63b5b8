"""Filters of code: every rule at its boundary, counted by hand, and the standard library left alone."""

from __future__ import annotations

import json
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import UserError
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.filters import CODE, FILTERS, Chain
from corpora.filters.languages import language_of
from corpora.filters.python_syntax import parse_fault
from corpora.filters.statistics import TextStatistics


def statistics(text: str, path: str = "a.py") -> TextStatistics:
    return TextStatistics(Document("1", "s", "MIT", path, text=text))


def reason(name: str, text: str, path: str = "a.py", **settings: object) -> str | None:
    module = FILTERS[name]
    found: str | None = module.check(statistics(text, path), module.Settings(**settings))
    return found


def loose(**settings: object) -> dict[str, object]:
    """Settings of `line_shape` in which only the given ones can be broken."""
    return {"min_characters": 0, "min_words": 0, "min_lines": 0, "min_mean_line": 0.0, "max_repeated_lines": 1.0,
            **settings}


def test_reasons_are_unique_and_every_filter_has_what_a_filter_needs() -> None:
    reasons = [reason for module in FILTERS.values() for reason in module.REASONS]
    assert len(reasons) == len(set(reasons))
    for module in FILTERS.values():
        assert module.Settings.model_config["frozen"] and module.__doc__
        assert all(field.description for field in module.Settings.model_fields.values())


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("x" * 49, {"min_characters": 50}, "too_few_characters"),
        ("x" * 50, {"min_characters": 50}, None),
        ("a b\nc", {"min_words": 4}, "too_few_words"),
        ("a b\nc d", {"min_words": 4}, None),
        ("a\nb\n", {"min_lines": 3}, "too_few_lines"),  # the last line feed opens no line
        ("a\nb\nc", {"min_lines": 3}, None),
        ("a\nb\nc", {"max_lines": 2}, "too_many_lines"),
        ("é" * 6, {"max_bytes": 11}, "too_many_bytes"),  # two bytes each
        ("é" * 6, {"max_bytes": 12}, None),
        ("x" * 1001, {"max_mean_line": 9999.0}, "line_too_long"),
        ("x" * 1000, {"max_mean_line": 9999.0}, None),
        ("x" * 150 + "\n" + "x" * 52, {}, "mean_line_too_long"),  # (150 + 52) / 2 = 101
        ("x" * 150 + "\n" + "x" * 50, {}, None),  # 100
        ("ab\nabcdefg", {"min_mean_line": 4.6}, "mean_line_too_short"),  # (2 + 7) / 2 = 4.5
        ("ab\nabcdefg", {"min_mean_line": 4.5}, None),
        ("a1\n" * 9 + "b\n", {"max_repeated_lines": 0.89}, "repeated_lines"),  # 9 of 10
        ("a1\n" * 9 + "b\n", {"max_repeated_lines": 0.9}, None),
        ("}\n" * 9 + "b\n", {"max_repeated_lines": 0.1}, None),  # brackets repeat in all code
        ("a1\n" * 87 + "".join(f"b{i}\n" for i in range(13)), {"max_repeated_lines": 0.87}, None),  # 87 of 100
        ("a1\n" * 88 + "".join(f"b{i}\n" for i in range(12)), {"max_repeated_lines": 0.87}, "repeated_lines"),
    ],
)
def test_lines(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("line_shape", text, **loose(**settings)) == expected


def test_a_paragraph_of_prose_may_be_one_long_line() -> None:
    assert reason("line_shape", "word " * 500, "a.md", **loose()) is None
    assert reason("line_shape", "word " * 500, "a.py", **loose()) == "line_too_long"


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("ab" + "+" * 6, {"min_letters": 0.0}, None),  # 2 of 8 = 0.25
        ("ab" + "+" * 7, {"min_letters": 0.0}, "too_few_alphanumeric"),  # 2 of 9
        ("abcdefg123", {}, None),  # 3 of 10 digits
        ("abcdef1234", {}, "too_many_digits"),  # 4 of 10
        ("abcd +-*/=! ", {}, None),  # 4 of 10 visible
        ("abcd +-*/=!?", {}, "too_few_letters"),  # 4 of 11 visible
        ("абвг +-*/=!", {}, None),  # letters of any script
        ("abc" + " " * 4 + "d", {}, None),  # 4 of 8
        ("abc" + " " * 5 + "d", {}, "too_much_space"),  # 5 of 9
        ("    " * 5 + "abcd", {"min_alphanumeric": 0.0}, None),  # indentation is not emptiness
        ("ab" + " " * 20 + "\\\ncd" + " " * 20 + "\\\n", {"min_alphanumeric": 0.0}, None),  # nor a macro's margin
        ("ab" + " " * 20 + "\\ cd" + " " * 20 + "\\ \n", {"min_alphanumeric": 0.0}, "too_much_space"),
        ("0xab x " + "y" * 3, {}, None),  # 4 of 10
        ("0xabc x" + "y" * 3, {"max_digits": 1.0}, "too_many_hex_words"),  # 5 of 10
    ],
)
def test_characters(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("characters", text, **settings) == expected


def test_vowel_signs_count_as_letters() -> None:
    counts = statistics("ຕື່").characters  # one letter, two combining marks
    assert (counts.letters, counts.total) == (3, 3)


BASE64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2"  # 64 characters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE64 * 16, "mostly_encoded_data"),  # 1,024 in a run, all of the file
        (BASE64 * 17, "long_encoded_data"),  # 1,088
        ("\n".join([BASE64] * 16), "long_encoded_data"),  # 16 x 64 + 15 line feeds = 1,039
        (BASE64 + " " + "word " * 13, None),  # 64 of 130
        (BASE64 + " " + "word " * 12, "mostly_encoded_data"),  # 64 of 125
        (BASE64[:63] + " and", None),  # no run of 64
        ("=" * 2000, None),  # a ruler
        ("apple\nbanana\ncherry\n" * 100, None),  # a list of words, which the published pattern takes for base64
        (", ".join(["0xfe"] * 400), "long_encoded_data"),
        (r"\x48\x31" * 150, "long_encoded_data"),  # 1,200
        (r"\u00e9" * 8, "mostly_encoded_data"),
        ("a 48 31 c0 50 68 2f 2f 73", None),  # seven bytes that stand apart, and the last at the end
        ("a " + "48 31 c0 50 " * 100, "long_encoded_data"),  # 1,200
    ],
)
def test_encoded_data(text: str, expected: str | None) -> None:
    assert reason("encoded_data", text) == expected


def test_comments_documentation_and_strings_are_told_apart() -> None:
    text = '# one\n"""doc"""\ndef f(a):  # two\n    """more"""\n    return "x#y" + \'\'\'z\'\'\'\n'
    marks = statistics(text).marks
    assert marks is not None
    assert marks.comments == len("# one")  # the other one is taken with the string that it stands before
    assert marks.docstrings == len('"""doc"""') + len(':  # two\n    """more"""')
    assert marks.strings == len('"x#y"') + len("'''z'''")
    script = statistics('let a = "// no"; // yes\n/* and */ b', "a.js").marks
    assert script is not None
    assert (script.comments, script.strings) == (len("// yes") + len("/* and */"), len('"// no"'))
    assert statistics("x", "a.unknown").marks is None


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("#" + "c" * 89 + "\n" + "x" * 9, {}, None),  # 90 of 100
        ("#" + "c" * 90 + "\n" + "x" * 8, {}, "too_many_comments"),  # 91 of 100
        ("x" * 100, {"min_comments": 0.01}, "too_few_comments"),
        ("x" * 98 + "#c", {"min_comments": 0.02}, None),
        ("x = '" + "s" * 998 + "'\n", {}, None),  # 1,000 characters in strings: too few to judge
        ("x = '" + "s" * 999 + "'\n", {}, "mostly_strings"),
        ("# TODO: write\ndef f():\n    pass\n", {}, "todo_only"),
        ("# TODO: write\ndef f():\n    return 1 + 1\n", {}, None),
        ("def f():\n    pass\n", {}, None),  # placeholders without a note are an interface
    ],
)
def test_comments(text: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("comments", text, **settings) == expected


@pytest.mark.parametrize(
    ("statement", "limit", "expected"),
    [
        ("import a", 6, "mostly_imports"),  # of 20 lines at most 30%
        ("pass", 2, "mostly_pass"),  # 10%
        ("assert a", 8, "mostly_assertions"),  # 40%
        ("print(a)", 8, "mostly_prints"),  # 40%
        ("def a(): b", 7, "mostly_signatures"),  # 35%
        ("'a',", 16, "mostly_literals"),  # 80%
    ],
)
def test_kinds_of_python_statements(statement: str, limit: int, expected: str) -> None:
    at_limit = [statement] * limit + ["x = 1"] * (20 - limit)
    above = [statement] * (limit + 1) + ["x = 1"] * (19 - limit)
    assert reason("python_shape", "\n".join(at_limit)) is None
    assert reason("python_shape", "\n".join(above)) == expected
    assert reason("python_shape", "\n".join(above[:19])) is None  # fewer than 20 lines are not judged
    assert reason("python_shape", "\n".join(above), "a.js") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", None),
        ('"""Doc."""\nfrom __future__ import annotations\nx: int = 1\n', None),
        ("\ufeffx = 1\n", None),
        ("match = 1\nmatch x:\n    case 1: pass\n", None),
        ("return 1", None),  # a parser does not mind
        ("x = '\\d'", None),  # a warning is no fault
        ("x = (", "not_parsable"),
        ("\nprint 'hello'\n", "python_2"),
        ("try: pass\nexcept A, b: pass\n", "python_2"),
        ("x = '\x00'", "not_parsable"),
        ("x = '\ud800'", "not_parsable"),
        ("x = " + "9" * 5000, "not_parsable"),
        ("(" * 300 + ")" * 300, "not_parsable"),
        ("-" * 100_000 + "1", "nested_too_deeply"),
        ("from __future__ import nothing_of_this_name", None),
    ],
)
def test_python_that_parses(text: str, expected: str | None) -> None:
    assert reason("python_syntax", text) == expected
    assert reason("python_syntax", text, "a.rb") is None


@pytest.mark.parametrize(
    ("text", "path", "settings", "expected"),
    [
        ("x", "a.py", {}, None),
        ("x\x00", "a.py", {}, "binary"),
        ("x" * 99 + "\ufffd", "a.py", {}, None),  # 1 of 100
        ("x" * 98 + "\ufffd", "a.py", {}, "undecodable"),  # 1 of 99
        ("x", "a.unheard", {}, "unknown_language"),
        ("x", "a.unheard", {"keep_unknown": True}, None),
        ("x", "a.rb", {"languages": ("python",)}, "unwanted_language"),
        ("#!/usr/bin/env python3\nx", "run", {"languages": ("python",)}, None),
        ('<?xml version="1.0"?>', "a.py", {}, "xml_under_another_name"),
        ('<?xml version="1.0"?>', "a.xml", {}, None),
        (" " * 100 + "<?xml version=", "a.py", {}, None),
    ],
)
def test_language(text: str, path: str, settings: dict[str, object], expected: str | None) -> None:
    assert reason("language", text, path, **settings) == expected


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.H", "", "c"), ("x/CMakeLists.txt", "", "cmake"), (".bashrc", "", ""), ("a.b.py", "", "python"),
        ("a.pyx", "", "cython"),
        ("run", "#!/bin/sh\n", "shell"), ("run", "#!/usr/bin/python3.11\n", "python"), ("run", "text", ""),
    ],
)  # fmt: skip
def test_a_language_is_told_by_the_name_or_the_first_line(path: str, text: str, expected: str) -> None:
    assert language_of(path, text) == expected


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("pkg/_vendor/a.py", "x", "vendored"),
        ("pkg/vendor.py", "x", None),
        ("package-lock.json", "{}", "lock_file"),
        ("a/foo_pb2.py", "x", "generated"),
        ("a.py", "# This file is generated by hand-made tool. DO NOT EDIT\n", "generated"),
        ("a.py", "x = 1\n" * 5 + "# automatically generated\n", None),  # the sixth line
        ("a.py", '"""Generate random numbers."""\n', None),
        ("a.py", "import x\nedit = 'do not edit'\n", None),  # not in a comment
        ("a.min.js", "x", "minified"),
        ("a.js", "x" * 111, "minified"),
        ("a.js", "x" * 110, None),
    ],
)
def test_origin(path: str, text: str, expected: str | None) -> None:
    assert reason("origin", text, path) == expected


def test_a_chain_keeps_drops_and_counts() -> None:
    dropped = DropLog()
    chain = Chain({"line_shape": {"min_words": 3, "min_lines": 1, "min_characters": 0}, "python_syntax": {}})
    texts = ["value = 1 + 2", "value = 1 +", "short"]
    kept = chain.remove([Document(str(i), "s", "MIT", "a.py", text=text) for i, text in enumerate(texts)], dropped)
    assert [document.id for document in kept] == ["0"]
    assert dropped.by_reason() == {"not_parsable": 1, "too_few_words": 1}
    assert json.loads(json.dumps(chain.identity()))["line_shape"]["min_words"] == 3


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"line_shap": {}}, "'line_shap' is no filter; did you mean 'line_shape'"),
        ({"line_shape": {"max_lin": 3}}, "clean.line_shape.max_lin"),
        ({"line_shape": {"max_line": 0}}, "clean.line_shape.max_line: '0'"),
        ({"language": {"languages": ["pyton"]}}, "did you mean 'python'"),
    ],
)
def test_a_wrong_recipe_is_named(filters: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Chain(filters, "clean")


def library(folder: str) -> list[Document]:
    """Python files of one folder of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted((root / folder).glob("*.py")):
        with tokenize.open(path) as file:
            documents.append(Document(path.name, "s", "PSF-2.0", path.name, text=file.read()))
    return documents


def test_good_code_is_left_alone() -> None:
    chain = Chain(CODE)
    found = {document.id: chain.check(document) for folder in ("asyncio", "json", "email", "http", "logging")
             for document in library(folder) if len(document.text) > 2000}
    assert len(found) > 50
    assert {name: why for name, why in found.items() if why} == {}


def test_the_librarys_character_maps_are_known_as_generated() -> None:
    found = Counter(Chain(CODE).check(one) for one in library("encodings") if one.id.startswith("iso8859"))
    assert found == {"generated": 15}


def test_the_parser_agrees_with_the_syntax_tree() -> None:
    for document in library("collections") + library("unittest"):
        assert parse_fault(document.text) is None
        assert parse_fault(document.text + "\n)") == "not_parsable"
