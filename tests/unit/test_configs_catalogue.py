"""The catalogue: entries, rows from a mirror in all its shapes, rules, broken files, identities, recorded commits."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from configs import catalogue
from configs.catalogue import DatasetEntry, dataset, dataset_identity, dataset_names, mirror_path, open_rows
from configs.errors import UserError
from configs.hub import revisions_file
from configs.names import check_source, question_sets
from configs.settings.common import TaskSource
from corpora.decontaminate import load_benchmarks


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("DERIVE_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def put(folder: Path, name: str, *rows: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(list(rows)) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def rows(name: str, split: str = "test") -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "raw"} for row in open_rows(name, split)]


def test_every_entry_is_complete_and_its_licence_stated() -> None:
    expected = {
        "gsm8k",
        "math",
        "math500",
        "asdiv",
        "aime24",
        "aime25",
        "humaneval",
        "mbpp",
        "mbpp_sanitized",
        "ifeval",
        "finemath",
        "numinamath",
        "deepscaler",
        "openr1_math",
        "open_math_reasoning",
        "stack_v3",
        "fineweb_edu",
        "opc_sft2_educational",
        "open_code_reasoning",
        "codeforces_cots",
    }
    assert expected <= set(dataset_names())
    for name in dataset_names():
        entry = dataset(name)
        assert entry.licence and entry.hub.count("/") == 1
        assert entry.kind != "corpus" or "text" in entry.columns
        assert entry.revision == "unpinned" or (len(entry.revision) == 40 and int(entry.revision, 16) >= 0)


def test_an_unknown_data_set_or_split_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'gsm8' is not in the catalogue; did you mean 'gsm8k'\?; allowed: aime24"):
        dataset("gsm8")
    with pytest.raises(UserError, match="data set asdiv: 'train' is no split of it; allowed: test, all"):
        list(open_rows("asdiv", "train"))


def test_gsm8k_loses_calculator_marks_and_its_last_line_becomes_the_answer(mirror: Path) -> None:
    put(
        mirror,
        "gsm8k/train.jsonl",
        {"question": "Q?", "answer": "She sold 48/2 = <<48/2=24>>24.\nAll: <<48+24=72>>72 clips.\n#### 1,072"},
    )
    assert rows("gsm8k", "train") == [
        {"id": "gsm8k/train/0", "question": "Q?", "answer": "1072", "solution": "She sold 48/2 = 24.\nAll: 72 clips."}
    ]


def test_a_gsm8k_row_without_its_last_line_has_no_answer_rather_than_a_guessed_one(mirror: Path) -> None:
    put(mirror, "gsm8k/test.jsonl", {"question": "Q?", "answer": "It is 3."})
    assert rows("gsm8k") == [{"id": "gsm8k/test/0", "question": "Q?", "answer": "", "solution": "It is 3."}]


def test_asdiv_joins_body_and_question_and_drops_the_unit(mirror: Path) -> None:
    put(
        mirror,
        "asdiv/test.jsonl",
        *(
            {"body": "Two and seven. ", "question": "How many?", "answer": answer}
            for answer in ("9 (apples)", "4:5", "11:55 p.m.", "1.35 (dollars)")
        ),
    )
    assert [(row["question"], row["answer"]) for row in rows("asdiv")] == [
        ("Two and seven. How many?", answer) for answer in ("9", "4:5", "11:55 p.m.", "1.35")
    ]


def test_aime_loses_the_instruction_and_its_whole_number_becomes_text(mirror: Path) -> None:
    put(mirror, "aime/aime25.jsonl", {"prompt": f"Find $x$.\n{catalogue.AIME_INSTRUCTION}", "answer": 70})
    assert rows("aime25") == [{"id": "aime25/test/0", "question": "Find $x$.", "answer": "70"}]


def test_a_mirror_s_own_columns_are_found_inside_lists(mirror: Path) -> None:
    put(mirror, "math/math500.json", {"prompt": [{"from": "user", "value": "What?"}], "final_answer": "p - q"})
    assert rows("math500") == [{"id": "math500/test/0", "question": "What?", "answer": "p - q"}]


def test_splits_that_share_a_file_are_parted_by_the_row_s_number(mirror: Path) -> None:
    put(
        mirror,
        "mbpp/mbpp.jsonl",
        *({"task_id": number, "text": f"t{number}", "code": "c"} for number in (10, 11, 510, 511, 601)),
    )
    assert [row["question"] for row in rows("mbpp", "test")] == ["t11", "t510"]
    assert [row["question"] for row in rows("mbpp", "train")] == ["t601"]
    assert [row["id"] for row in rows("mbpp", "all")] == ["mbpp/train/0", "mbpp/test/0", "mbpp/test/1"]


def test_gzipped_lines_are_read_and_the_row_as_it_came_is_kept(mirror: Path) -> None:
    raw = {"task_id": "HumanEval/0", "prompt": "def f():", "canonical_solution": " pass", "test": "assert f"}
    put(mirror, "humaneval/HumanEval.jsonl.gz", raw)
    (row,) = open_rows("humaneval", "test")
    assert (row["question"], row["solution"], row["raw"]) == ("def f():", " pass", raw)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json"])
def test_a_set_without_a_stated_mirror_file_is_found_by_name_and_split(mirror: Path, ending: str) -> None:
    path = put(mirror, f"finemath/train{ending}", {"text": "1 + 1 = 2"})
    assert mirror_path("finemath", "train") == path
    assert rows("finemath", "train") == [{"id": "finemath/train/0", "text": "1 + 1 = 2"}]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so \\boxed{2}, no \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\fbox{7}", "7"),
        ("thus \\boxed 3", "3"),
        ("none", ""),
        ("\\boxed{open", ""),
        ("\\boxed{ {a} }", "{a}"),
    ],
)
def test_the_last_box_of_a_solution_is_its_answer(solution: str, answer: str) -> None:
    row: dict[str, Any] = {"solution": solution}
    catalogue.RULES["boxed_answer"](row)
    assert row["answer"] == answer


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'{"question": "a", "answer": "#### 1"}\n{"question": "b", "ans',
            'train.jsonl:2: \'{"question": "b", "ans\'... is no',
        ),
        (
            b'{"question": "a", "answer": "#### 1"}\n[1]\n',
            "train.jsonl:2: holds a list; allowed: one JSON object a line",
        ),
        (b'{"question": "caf\xe9", "answer": ""}\n', "train.jsonl:1: "),
        (b'{"question": "a"}\n', "train.jsonl:1: has no column 'answer'; found: question"),
        (b"[" * 100_000, "train.jsonl:1: "),
    ],
)
def test_a_broken_mirror_file_is_named_with_its_line(mirror: Path, content: bytes, problem: str) -> None:
    path = mirror / "gsm8k" / "train.jsonl"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(open_rows("gsm8k", "train"))
    assert problem in str(caught.value)


def test_a_cut_gzip_file_and_a_cut_array_are_named(mirror: Path) -> None:
    whole = put(mirror, "humaneval/HumanEval.jsonl.gz", {"prompt": "p" * 999, "canonical_solution": "s"}).read_bytes()
    (mirror / "humaneval/HumanEval.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(UserError, match="HumanEval.jsonl.gz: cannot be read .*fetch the file again"):
        list(open_rows("humaneval", "test"))
    (mirror / "math").mkdir()
    (mirror / "math/math500.json").write_text('[{"prompt": [],\n', encoding="utf-8")
    with pytest.raises(UserError, match="math500.json:2: not valid JSON"):
        list(open_rows("math500", "test"))
    (mirror / "math/math500.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(UserError, match="math500.json: holds a dict; allowed: a JSON array of objects"):
        list(open_rows("math500", "test"))


def test_a_mirror_that_is_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path / "absent"))
    with pytest.raises(
        UserError, match="DERIVE_DATA: .*absent' is no folder; set it to a mirror's folder or unset it"
    ):
        mirror_path("gsm8k", "train")


def test_without_mirror_and_hub_the_error_says_what_to_set(mirror: Path) -> None:
    with pytest.raises(UserError, match="data set asdiv: .* cannot be reached .*set DERIVE_DATA to a folder"):
        list(open_rows("asdiv", "test"))
    with pytest.raises(UserError, match="data set gsm8k: .*HF_HUB_OFFLINE is set; unset it, or set DERIVE_DATA"):
        list(open_rows("gsm8k", "train"))


def test_an_identity_is_the_content_of_the_mirror_s_file(mirror: Path) -> None:
    path = put(mirror, "gsm8k/train.jsonl", {"question": "a", "answer": "#### 1"})
    first = dataset_identity("gsm8k", "train")
    assert first["splits"]["train"] == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert str(mirror) not in json.dumps(first)
    assert dataset_identity("gsm8k", "train") == first
    put(mirror, "gsm8k/train.jsonl", {"question": "another", "answer": "#### 1"})
    assert dataset_identity("gsm8k", "train") != first


def test_an_identity_without_a_mirror_is_hub_id_commit_and_split(mirror: Path) -> None:
    identity = dataset_identity("gsm8k", "all")
    assert identity["splits"]["test"] == {
        "hub": "openai/gsm8k",
        "subset": "main",
        "split": "test",
        "revision": dataset("gsm8k").revision,
    }
    assert dataset_identity("asdiv", "test")["splits"]["test"]["revision"] == "unpinned"


def test_a_recorded_commit_is_taken_from_then_on_and_a_broken_record_is_named(mirror: Path) -> None:
    record = revisions_file()
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"EleutherAI/asdiv": "c" * 40}), encoding="utf-8")
    assert catalogue.hub_revision(dataset("asdiv")) == "c" * 40
    for broken in ("{", "[]", '{"a": 1}'):
        record.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match="revisions.json: .*mend it or delete it"):
            catalogue.hub_revision(dataset("asdiv"))


def test_an_entry_is_a_task_set_only_when_it_has_gold_answers() -> None:
    assert dataset("gsm8k").has_answers and dataset("math").has_answers
    assert not dataset("finemath").has_answers and not dataset("humaneval").has_answers
    assert isinstance(dataset("gsm8k"), DatasetEntry)


def test_the_real_mirror_has_the_published_counts(data_mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_DATA", str(data_mirror))
    counts = {
        ("gsm8k", "train"): 7473,
        ("gsm8k", "test"): 1319,
        ("math", "train"): 7474,
        ("math500", "test"): 500,
        ("asdiv", "test"): 2215,
        ("aime24", "test"): 30,
        ("aime25", "test"): 30,
        ("humaneval", "test"): 164,
        ("mbpp", "train"): 374,
        ("mbpp", "test"): 500,
        ("mbpp_sanitized", "train"): 120,
        ("mbpp_sanitized", "test"): 257,
        ("ifeval", "test"): 541,
    }
    for (name, split), count in counts.items():
        found = rows(name, split)
        assert len(found) == count, name
        assert all(row["question"].strip() for row in found), name
    gold = [row["answer"] for row in rows("gsm8k", "train")]
    assert gold[:3] == ["72", "10", "5"] and all(text.lstrip("-").replace(".", "").isdigit() for text in gold)
    assert not [row for row in rows("gsm8k", "train") if "<<" in row["solution"] or "####" in row["solution"]]
    assert not [row for row in rows("asdiv") if "(" in row["answer"]]


def test_a_corpus_can_be_cleaned_of_a_benchmark_without_gold_answers(mirror: Path) -> None:
    question = "def close(numbers, gap):\n" + " ".join(f"word{i}" for i in range(20))
    put(mirror, "humaneval/HumanEval.jsonl.gz", {"prompt": question, "canonical_solution": "return 1"},
        {"prompt": " ", "canonical_solution": ""})
    source = TaskSource(name="humaneval", split="test")
    check_source("corpus.decontaminate[0]", source, question_sets())
    [benchmark] = load_benchmarks([source])
    assert (benchmark.name, benchmark.questions) == ("humaneval", (question,))
    with pytest.raises(UserError, match=r"evaluate\.tasks\[0\]\.name: 'fineweb_edu' is no task set"):
        check_source("evaluate.tasks[0]", TaskSource(name="fineweb_edu"))
