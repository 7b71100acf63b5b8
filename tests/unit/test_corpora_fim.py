"""Fill in the middle and repositories: nothing lost, nothing forged, the same cut for the same seed and document."""

from __future__ import annotations

import ast
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import fim
from corpora.document import Document
from corpora.fim import Mark, Settings
from corpora.repository import assemble, dependencies, in_order
from corpora.tokens import load_encoder

CODE = '''import os


def área(width, height):
    """Área of a rectangle."""
    if width < 0:
        raise ValueError("negative")
    return width * height


print(área(2, 3), os.name)
'''


def document(text: str, path: str = "a.py", id: str = "1") -> Document:
    return Document(id, "s", "MIT", path, text=text)


def only(level: str, rate: float = 1.0) -> Settings:
    return Settings(**{"rate": rate, "character": 0.0, "line": 0.0, "syntax": 0.0, "min_characters": 1, level: 1.0})


def test_the_order_and_the_tokens_are_qwens() -> None:
    assert fim.render(fim.cut("abcdef", 2, 4)) == "<|fim_prefix|>ab<|fim_suffix|>ef<|fim_middle|>cd"
    assert fim.render(fim.cut("ab", 0, 2)) == "<|fim_prefix|><|fim_suffix|><|fim_middle|>ab"


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=200), st.integers(0, 100), st.sampled_from(["character", "line", "syntax"]))
def test_no_character_is_lost_and_the_middle_is_never_empty(text: str, seed: int, level: str) -> None:
    segments = fim.transform(document(text), only(level), seed)
    assert fim.restore(segments) == text
    assert segments[-2] is Mark.MIDDLE and segments[-1] != ""
    assert segments == fim.transform(document(text), only(level), seed)


def test_another_seed_or_document_is_cut_elsewhere() -> None:
    cuts = {fim.render(fim.transform(document(CODE, id=str(i)), only("character"), seed))
            for i in range(10) for seed in range(10)}
    assert len(cuts) > 90  # of 100, where there are about 18,000 places


def test_the_rate_is_kept() -> None:
    def share(rate: float) -> float:
        return sum(len(fim.transform(document(CODE, id=str(i)), only("line", rate), 0)) > 1 for i in range(1000)) / 1000

    assert share(0.0) == 0 and share(1.0) == 1
    assert abs(share(0.3) - 0.3) < 0.06  # four standard deviations of sqrt(0.3 x 0.7 / 1000) = 0.0145


def test_short_documents_are_left_whole() -> None:
    assert fim.transform(document("x" * 29), Settings(rate=1.0), 0) == ["x" * 29]
    assert len(fim.transform(document("x" * 30), Settings(rate=1.0), 0)) > 1


def middle(segments: Sequence[fim.Segment]) -> str:
    part = segments[-1]
    assert isinstance(part, str)
    return part


def test_lines_are_cut_whole() -> None:
    for seed in range(50):
        segments = fim.transform(document(CODE), only("line"), seed)
        prefix = fim.restore(segments[: segments.index(Mark.SUFFIX)])
        assert CODE.startswith(prefix + middle(segments))
        assert prefix == "" or prefix.endswith("\n")
        assert middle(segments).endswith("\n")


def test_nodes_are_statements_expressions_and_blocks() -> None:
    found = {CODE[start:end] for start, end in fim.syntax_nodes(CODE)}
    assert {"import os", "width < 0", "width * height", 'raise ValueError("negative")', "área(2, 3)"} <= found
    body = CODE[CODE.index('"""') : CODE.index("\n\n\nprint")]
    assert body in found
    assert fim.syntax_nodes("x = (") == [] and fim.syntax_nodes("a = 1\r\nb = 2\r\n") == []
    separators = "x = 'a\u2028b'\ny = '\f' + foo\n\x0cz = bar(1)\n"
    assert {separators[start:end] for start, end in fim.syntax_nodes(separators)} >= {"foo", "bar(1)", "'a\u2028b'"}


def test_the_syntax_level_takes_nodes_and_falls_back_to_lines() -> None:
    nodes = {CODE[start:end] for start, end in fim.syntax_nodes(CODE)}
    middles = Counter(middle(fim.transform(document(CODE, id=str(i)), only("syntax"), 0)) for i in range(300))
    assert nodes.issuperset(middles) and len(middles) > len(nodes) / 2
    for path, text in (("a.py", "x = (\n1\n2\n"), ("a.js", CODE)):
        cut = middle(fim.transform(document(text, path), only("syntax"), 1))
        assert cut.endswith("\n") and cut in text


def test_character_cuts_are_uniform() -> None:
    draws = Counter(fim.character_span("ab", fim.drawer(seed, "x")) for seed in range(3000))
    # Places 0, 1, 2: three pairs, each as likely; five standard deviations of sqrt(3000 x 1/3 x 2/3) = 25.8.
    assert set(draws) == {(0, 1), (0, 2), (1, 2)}
    assert all(abs(count - 1000) < 130 for count in draws.values())


def test_a_document_that_spells_a_mark_is_named() -> None:
    assert fim.check(document("x = '<|fim_middle|>'")) == "holds_fim_token"
    assert fim.check(document("<|file_sep|>")) == "holds_fim_token"
    assert fim.check(document("<|endoftext|> <|fim|> fim_middle")) is None


def test_marks_become_one_token_each_and_text_stays_text() -> None:
    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([ord(character) for character in text], dtype="<u4") for text in texts]

    ids = {mark: 151659 + i for i, mark in enumerate(Mark)}
    first, second, empty = fim.encode([fim.cut("abc", 1, 2), ["d"], []], encode, ids)
    assert first.tolist() == [ids[Mark.PREFIX], 97, ids[Mark.SUFFIX], 99, ids[Mark.MIDDLE], 98]
    assert second.tolist() == [100] and empty.tolist() == [] and first.dtype == np.dtype("<u4")
    assert [mark.value for mark in Mark] == ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
                                             "<|repo_name|>", "<|file_sep|>"]  # in the order of Qwen2.5's ids


def test_settings_need_a_level() -> None:
    with pytest.raises(ValueError, match="at least one must be above 0"):
        Settings(character=0, line=0, syntax=0)


FILES = [
    document("from .models import Book\nimport pkg.tools as t\n", "pkg/main.py"),
    document("import os\nfrom pkg import base\n", "pkg/models.py"),
    document("X = 1\n", "pkg/base.py"),
    document("", "pkg/__init__.py"),
    document("from . import base, models\n", "pkg/tools.py"),
    document("# Read me", "README.md"),
]


def test_dependencies_are_files_of_the_repository() -> None:
    paths = {one.path for one in FILES}
    assert dependencies(FILES[0], paths) == ["pkg/models.py", "pkg/tools.py"]
    assert dependencies(FILES[1], paths) == ["pkg/base.py"]
    assert dependencies(FILES[4], paths) == ["pkg/base.py", "pkg/models.py"]
    relative = document("from ..a import (\n  b,\n  c as d,\n)\n", "x/y/z.py")
    assert dependencies(relative, {"x/a/b.py", "x/a/__init__.py"}) == ["x/a/__init__.py", "x/a/b.py"]
    included = document('#include "../inc/a.h"\n#include <b.h>\n', "src/m.c")
    assert dependencies(included, {"inc/a.h", "b.h"}) == ["inc/a.h"]
    script = document("import x from './a'\nconst y = require('../b')\n", "s/m.ts")
    assert dependencies(script, {"s/a.ts", "b/index.js"}) == ["b/index.js", "s/a.ts"]
    assert dependencies(document('#include "../../../etc/a"\n', "m.c"), {"etc/a"}) == []


def test_files_come_after_what_they_depend_on_whatever_order_they_are_given_in() -> None:
    ordered = [one.path for one in in_order(FILES)]
    assert ordered == ["README.md", "pkg/__init__.py", "pkg/base.py", "pkg/models.py", "pkg/tools.py", "pkg/main.py"]
    assert [one.path for one in in_order(FILES[::-1])] == ordered


def test_a_circle_of_imports_is_broken_by_path() -> None:
    circle = [document("import b\n", "a.py"), document("import c\n", "b.py"), document("import a\n", "c.py"),
              document("import a, b, c\n", "z.py")]
    # Each of the circle lacks one file; a comes first by path, then c, which lacks nothing any more, then b.
    assert [one.path for one in in_order(circle)] == ["a.py", "c.py", "b.py", "z.py"]


def test_a_repository_is_written_in_qwens_format() -> None:
    files = [document("x = 1", "a.py"), document("import a\n", "b.py")]
    (whole,) = assemble("shop", files, None, 0, 1000)
    assert fim.render(whole) == "<|repo_name|>shop\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\nimport a\n"


def test_only_the_last_file_is_cut() -> None:
    files = [document(CODE, "a.py", "1"), document("import a\n" + CODE, "b.py", "2")]
    (segments,) = assemble("shop", files, only("line"), 0, 10_000)
    last_file = max(i for i, segment in enumerate(segments) if segment is Mark.FILE)
    assert segments.index(Mark.PREFIX) > last_file and segments.count(Mark.MIDDLE) == 1
    assert segments[last_file + 1] == "b.py\n"
    assert fim.restore(segments[segments.index(Mark.PREFIX) :]) == files[1].text
    assert CODE in fim.render(segments[:last_file])


def test_a_long_repository_goes_on_in_a_next_document_with_whole_files() -> None:
    files = [document("x" * 40, f"{i}.py", str(i)) for i in range(5)]
    parts = assemble("shop", files, None, 0, 100)  # a file takes 40 + 4 + 2 characters, the name 5: two fit
    assert [fim.render(part).count("<|file_sep|>") for part in parts] == [2, 2, 1]
    assert all(part[0] is Mark.REPOSITORY and part[1] == "shop\n" for part in parts)
    assert [len(part) for part in assemble("shop", files[:1], None, 0, 10)] == [4]  # too long by itself, and whole


def test_ids_and_strings_are_those_of_qwens_own_tokenizer(data_mirror: Path) -> None:
    """The formats of Qwen2.5-Coder's report (arXiv 2409.12186, figures 2 and 3), to the byte."""
    from transformers import AutoTokenizer

    encoder = load_encoder(data_mirror / "qwen2.5-tokenizer", 1)
    whole = AutoTokenizer.from_pretrained(data_mirror / "qwen2.5-tokenizer", local_files_only=True)
    marks = {mark: encoder.added_id(mark.value) for mark in Mark}
    assert list(marks.values()) == [151659, 151660, 151661, 151662, 151663, 151664] and encoder.end_id == 151643
    files = [document("x = 1\n", "a.py"), document("import a\nprint(a.x)\n", "b.py")]
    (repository,) = assemble("shop/front", files, only("line"), 0, 1000)
    at = repository.index(Mark.PREFIX)
    prefix, suffix, middle = (_part(repository[at:], mark) for mark in (Mark.PREFIX, Mark.SUFFIX, Mark.MIDDLE))
    expected = {
        "file": "<|fim_prefix|>def f():\n    <|fim_suffix|>\n<|fim_middle|>return 1<|endoftext|>",
        "repository": "<|repo_name|>shop/front\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\n"
        f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>{middle}<|endoftext|>",
    }
    assert prefix + middle + suffix == files[1].text and middle
    text = "def f():\n    return 1\n"
    written = fim.encode([fim.cut(text, 13, 21), repository], encoder.encode, marks)
    for ids, string in zip(written, expected.values(), strict=True):
        tokens = [*ids.tolist(), encoder.end_id]
        assert whole.decode(tokens) == string
        assert whole.encode(string, add_special_tokens=False) == tokens  # as whoever asks such a model writes it


def _part(segments: Sequence[fim.Segment], mark: Mark) -> str:
    """The text behind a mark; empty where another mark follows at once."""
    behind = segments[segments.index(mark) + 1 :]
    return behind[0] if behind and isinstance(behind[0], str) else ""


def test_what_the_syntax_level_cuts_out_of_real_code_parses() -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    num_nodes = 0
    for name in ("argparse.py", "dataclasses.py", "heapq.py", "json/decoder.py", "statistics.py", "textwrap.py"):
        text = (folder / name).read_text(encoding="utf-8")
        nodes = fim.syntax_nodes(text)
        for start, end in nodes[:: max(len(nodes) // 60, 1)]:
            num_nodes += 1
            assert _parses(text, start, end), (name, text[start:end])
    assert num_nodes > 350


def _parses(text: str, start: int, end: int) -> bool:
    """Whether a part of a text is a statement, a block, an `elif` with what follows, an expression or a slice."""
    part = text[start:end]
    if part.startswith("elif"):
        part = part[2:]
    column = start - text.rfind("\n", 0, start) - 1
    block = textwrap.indent(textwrap.dedent(" " * column + part), " ")
    for whole in (f"async def f():\n while 1:\n{textwrap.indent(block, ' ')}", f"f({part})", f"a[{part}]"):
        try:
            ast.parse(whole)
            return True
        except SyntaxError:
            pass
    return False
