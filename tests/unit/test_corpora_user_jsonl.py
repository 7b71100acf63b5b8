"""The user's own files: every fault is named with file, line, field and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import open_source


def read(path: Path, output: str) -> list[Document]:
    return list(open_source(CorpusSource(name=str(path)), output, DropLog()))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_each_output_reads_its_own_keys(tmp_path: Path) -> None:
    line = {"id": "a", "text": "T", "prompt": "P", "completion": "C", "answer": "7", "other": [1]}
    path = written(tmp_path, "\ufeff" + json.dumps(line) + "\r\n\n")
    assert [one.text for one in read(path, "tokens")] == ["T"]
    [example] = read(path, "examples")
    assert (example.id, example.prompt, example.completion, example.provenance) == ("a", "P", "C", {"line": 1})
    [problem] = read(path, "problems")
    assert (problem.prompt, problem.answer, problem.verifier, problem.metadata) == ("P", "7", "math", {})


def test_conversations_are_read_turn_by_turn(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    [document] = read(written(tmp_path, json.dumps({"messages": turns})), "examples")
    assert list(document.messages) == turns and document.questions() == ["2+2?"] and document.id == "mine.jsonl:1"


def test_a_number_is_an_answer_and_keeps_its_digits(tmp_path: Path) -> None:
    path = written(tmp_path, '{"prompt": "a", "answer": 72}\n{"prompt": "b", "answer": -0.5}\n')
    assert [one.answer for one in read(path, "problems")] == ["72", "-0.5"]


def test_at_most_count_documents_are_drawn(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    drawn = open_source(CorpusSource(name=str(path), count=2), "tokens", DropLog())
    assert [one.text for one in drawn] == ["a", "b"]


@pytest.mark.parametrize(("content", "output", "said"), [
    ("", "tokens", r"mine\.jsonl: is empty"),
    ("\n \n", "tokens", r"mine\.jsonl: holds no row"),
    ('{"text": "a"}\n{"text": "b', "tokens", r"mine\.jsonl:2: not JSON at column 10 .*the last line may be cut short"),
    ('{"txt": "a"}', "tokens", r"mine\.jsonl:1: text: is missing \(keys found: txt\); output tokens needs it"),
    ('{"text": 5}', "tokens", r"mine\.jsonl:1: text: 5 is a int; allowed: text"),
    ('["a"]', "tokens", r"mine\.jsonl:1: holds a list; allowed: one JSON object a line"),
    (b'{"text": "a"}\n{"text": "\xff"}', "tokens", r"mine\.jsonl:2: byte 11 of the line is not UTF-8"),
    ('{"prompt": "a"}', "examples", r"mine\.jsonl:1: completion: is missing"),
    ('{"messages": []}', "examples", r"mine\.jsonl:1: messages: \[\] is no list of turns"),
    ('{"messages": [{"role": "bot", "content": ""}]}', "examples", r"messages\[0\]\.role: 'bot' is no role; allowed"),
    ('{"messages": [{"role": "user", "content": null}]}', "examples", r"messages\[0\]: content: None is a NoneType"),
    ('{"messages": [{"role": "user", "content": "a"}]}', "examples", r"has no turn of the assistant"),
    ('{"prompt": "a", "answer": true}', "problems", r"mine\.jsonl:1: answer: True is a bool; allowed: text"),
    ('{"prompt": "a", "answer": [1]}', "problems", r"mine\.jsonl:1: answer: \[1\] is a list"),
    ('{"prompt": "a", "answer": "1", "metadata": 3}', "problems", r"metadata: 3 is a int; allowed: an object"),
    ('{"text": "\\ud800"}', "tokens", r"mine\.jsonl:1: text: '\\ud800' holds half of a surrogate pair"),
    ('{"text": ' + "9" * 5000 + "}", "tokens", r"mine\.jsonl:1: cannot be read"),
    ('{"text": ' + "[" * 100_000, "tokens", r"mine\.jsonl:1: "),
])
def test_a_fault_names_file_line_and_field(tmp_path: Path, content: str | bytes, output: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(written(tmp_path, content), output)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: does not exist"):
        read(tmp_path / "absent.jsonl", "tokens")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: is a folder, a pipe or a device"):
        read(tmp_path / "folder.jsonl", "tokens")
