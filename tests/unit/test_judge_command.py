"""`derive verifiers judge` and `list`: order kept, killed and gone on from, one clear line for bad input."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from flows.cli import main
from verifiers import registry
from verifiers.judging import Summary, judge_file, read_lines

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
import pathlib, time
from verifiers.api import correct, incorrect

class PatientVerifier:
    """Correct if the completion is the gold answer, after a while."""
    name, version = "patient", "1"

    def judge(self, task, completion):
        with open(task.metadata["log"], "a") as file:
            file.write(task.id + "\\n")
        time.sleep(0.05)
        return correct(completion) if completion == task.answer else incorrect("other", completion)
'''


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """An environment in which the verifier `patient` is installed."""
    folder = tmp_path / "site"
    (folder / "patient-1.0.dist-info").mkdir(parents=True)
    (folder / "patient_verifier.py").write_text(PLUGIN)
    (folder / "patient-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1.0\n")
    (folder / "patient-1.0.dist-info" / "entry_points.txt").write_text(
        "[derivative_factory.verifiers]\npatient = patient_verifier:PatientVerifier\n")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def test_each_line_gets_its_verdict_and_keeps_its_place_and_keys(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": number, "completion": f"\\boxed{{{number % 5}}}", "gold": number % 7, "note": "\u00e9"}
            for number in range(300)]
    rows[5] = {"completion": "\ud800 \\boxed{5}", "answer": "5"}
    source, out = write(tmp_path / "in.jsonl", [*rows[:9], "", *rows[9:]]), tmp_path / "out.jsonl"
    assert main(["verifiers", "judge", "math", str(source), str(out), "--workers", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    judged = read(out)
    assert [{key: row[key] for key in given} for row, given in zip(judged, rows, strict=True)] == rows
    right = [number == 5 or number % 5 == number % 7 for number in range(300)]
    assert [row["outcome"] == "correct" for row in judged] == right
    assert [row["score"] for row in judged] == [float(each) for each in right]
    assert judged[0]["extracted"] == "0" and judged[0]["reason"].endswith("boxed") and judged[0]["seconds"] >= 0
    assert summary["lines"] == 300 and summary["resumed"] == 0
    assert summary["outcomes"] == {"correct": sum(right), "incorrect": 300 - sum(right), "no_verdict": 0}
    assert sum(summary["reasons"]["incorrect"].values()) == 300 - sum(right)
    assert summary["mean_score"] == pytest.approx(sum(right) / 300) and summary["per_second"] > 0
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.jsonl"]


def test_a_table_closes_the_run_and_a_judged_file_can_be_judged_anew(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", [{"completion": "<think>a</think>5"}, {"completion": "5"}])
    assert main(["verifiers", "judge", "format", str(source), str(tmp_path / "once.jsonl"), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "format: 2 lines" in said and "no_think_tag" in said and "correct: 50.0%" in said and "lines/s" in said
    half = {"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    source = write(tmp_path / "half.jsonl", [{"completion": "one, two", **half}])
    assert main(["verifiers", "judge", "instructions", str(source), str(tmp_path / "score.jsonl")]) == 0
    assert "mean score: 0.500 over 1 lines with a verdict" in capsys.readouterr().out
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    assert main(["verifiers", "judge", "format", str(once), str(twice), "--workers", "1"]) == 0
    assert [{**row, "seconds": 0} for row in read(once)] == [{**row, "seconds": 0} for row in read(twice)]


@pytest.mark.parametrize(("name", "line", "message"), [
    ("math", "{", r"in.jsonl:2: not whole JSON .* write one whole object a line"),
    ("math", '{"completion": "5", "go', r"in.jsonl:2: not whole JSON \(Unterminated string starting at column 21\)"),
    ("math", "[1]", r"in.jsonl:2: a list; allowed: an object .*write its elements one a line"),
    ("math", "[", r"in.jsonl:2: not whole JSON .*write its elements one a line"),
    ("math", {"gold": "5"}, r"in.jsonl:2: completion: missing; allowed: a text"),
    ("math", {"response": "5", "gold": "5"}, r"completion: missing; allowed: a text; the line has response, gold$"),
    ("math", {"completion": None, "gold": "5"}, r"in.jsonl:2: completion: null; allowed: a text"),
    ("math", {"completion": 5, "gold": "5"}, r"in.jsonl:2: completion: 5; allowed: a text"),
    ("math", {"completion": "5", "target": "5"}, r"gold: empty; verifier 'math' needs .*has completion, target$"),
    ("math", {"completion": "5", "gold": None}, r"in.jsonl:2: gold: empty; verifier 'math' needs"),
    ("math", {"completion": "5", "gold": True}, r"in.jsonl:2: gold: True; allowed: a text or a number"),
    ("math", {"completion": "5", "gold": "5", "answer": "6"}, r"in.jsonl:2: gold: '5' beside answer '6'"),
    ("math", {"completion": "5", "gold": "5", "metadata": 7}, r"in.jsonl:2: metadata: 7; allowed: an object"),
    ("math", {"completion": "5", "gold": "5", "prompt": 7}, r"in.jsonl:2: prompt: 7; allowed: a text"),
    ("math", {"completion": "5", "gold": "5", "question": [7]}, r"in.jsonl:2: question: \[7\]; allowed: a text"),
    ("code", {"completion": "x", "entry_point": "f"}, r"in.jsonl:2: tests: missing; verifier 'code' needs"),
    ("code", {"completion": "x", "tests": "assert f()"}, r"in.jsonl:2: entry_point: missing; give the name"),
    ("code_hidden", {"completion": "x", "entry_point": "f", "calls": [{}]}, r"in.jsonl:2: hidden_calls: missing"),
    ("puzzles", {"completion": "5", "gold": "5"}, r"in.jsonl:2: metadata.family: missing"),
    ("instructions", {"completion": "5"}, r"in.jsonl:2: instruction_id_list, kwargs: missing"),
    ("math", '{"completion": "5", "gold": ' + "9" * 5_000 + "}", r"in.jsonl:2: cannot be read"),
    ("maths", {"completion": "5", "gold": "5"}, r"'maths' is not known; .*did you mean 'math'"),
])
def test_bad_input_is_one_line_with_file_and_number_and_writes_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, line: Any, message: str) -> None:
    good = {"completion": "5", "gold": "5", "metadata": {"family": "gcd"}, "kwargs": [], "instruction_id_list": ["x"],
            "entry_point": "f", "calls": [{}], "hidden_calls": [{}]}
    source = write(tmp_path / "in.jsonl", [good, line])
    assert main(["verifiers", "judge", name, str(source), str(tmp_path / "out.jsonl")]) == 2
    said = capsys.readouterr().err
    assert re.match(f"error: .*{message}", said) and said.count("\n") == 1, said
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_files_that_do_not_fit_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", [{"completion": "5", "gold": "5"}])
    empty, other, packed = write(tmp_path / "empty.jsonl", []), tmp_path / "other.jsonl", tmp_path / "in.jsonl.gz"
    other.write_bytes(source.read_bytes() + b'{"completion": "\xff"}\n')
    packed.write_bytes(gzip.compress(source.read_bytes()))
    os.mkfifo(tmp_path / "pipe")
    for words, message in (
        ([str(tmp_path / "no.jsonl"), "out"], "IN: .*no.jsonl: No such file"),
        ([str(tmp_path), "out"], "IN: .*: Is a directory"),
        ([str(tmp_path / "pipe"), "out"], "IN: .*pipe is a pipe or a device, and a file is read twice"),
        ([str(empty), "out"], "IN: .*empty.jsonl has no line"),
        ([str(other), "out"], "other.jsonl:2: not UTF-8 text .invalid start byte at byte 17 of the line"),
        ([str(packed), "out"], "in.jsonl.gz:1: the file is compressed; unpack it first"),
        ([str(source), str(empty)], "OUT: .*empty.jsonl exists"),
        ([str(source), str(tmp_path / "no" / "out")], "OUT: .*: no such folder; make .*no, or give another file"),
    ):
        assert main(["verifiers", "judge", "math", *words]) == 2
        said = capsys.readouterr().err
        assert re.search(message, said) and said.count("\n") == 1, said


def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    rows = [{"completion": "5", "gold": "5", "note": "x" * 1_000} for _ in range(40)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "flows.cli", "verifiers", "judge", "math", str(source), str(out), "--workers", "1"]
    limited = ["bash", "-c", 'ulimit -f 16; "$@"', "bash", *command]  # files of 16 KiB at most
    first = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert first.returncode == 2 and first.stderr.count("\n") == 1 and not out.exists()
    done = re.search(r"out.jsonl.partial: File too large; (\d+) of 40 lines are judged: make room", first.stderr)
    assert done is not None and int(done[1]) == 14  # of 1,100 bytes and a bit
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0 and "14 were there already" in second.stdout
    assert [row["outcome"] for row in read(out)] == ["correct"] * 40


def test_an_input_that_grows_meanwhile_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"completion": "5", "gold": "5"}] * 3)

    def grow(summary: Summary) -> None:
        if not summary.done:
            with source.open("a") as file:
                file.write('{"completion": "6", "gold": "5"}\n')

    with pytest.raises(UserError, match="in.jsonl was changed while it was judged"):
        judge_file("math", source, tmp_path / "out.jsonl", num_workers=1, on_line=grow)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_question_reaches_the_verifier(tmp_path: Path) -> None:
    percent = {"completion": "\\boxed{75\\%}", "gold": "75"}
    rows = [{**percent, "question": "What percent of 20 is 15?"}, {**percent, "prompt": "What percent of 20 is 15?"},
            {**percent, "question": "What percent of 20 is 15?", "prompt": "Think.\nQ: What is 1 + 1?\nA: 2\nQ: ..."},
            {**percent, "question": None, "prompt": "Compute 60 + 15."}, percent]
    judge_file("math", write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", num_workers=1)
    assert [row["outcome"] for row in read(tmp_path / "out.jsonl")] == ["correct"] * 3 + ["incorrect"] * 2
    options = {"question": "Which barks?", "prompt": "Which barks?\nA) the cat\nB) the dog", "gold": "the dog"}
    (_, task, _), = read_lines(write(tmp_path / "options.jsonl", [{**options, "completion": "B"}]), "choice")
    assert task.prompt == options["prompt"] and task.metadata == {"question": "Which barks?"}


def start(source: Path, out: Path, plugin: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "verifiers", "judge", "patient", str(source), str(out), "--json"]
    return subprocess.Popen([*command, "--workers", "2"], env=plugin, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def wait_for_lines(path: Path, count: int) -> None:
    limit = time.monotonic() + 60
    while (not path.exists() or path.read_bytes().count(b"\n") < count) and time.monotonic() < limit:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_judge_goes_on_where_it_stopped(
        tmp_path: Path, plugin: dict[str, str], number: signal.Signals) -> None:
    log, out = tmp_path / "log", tmp_path / "out.jsonl"
    rows = [{"id": f"t{index}", "completion": str(index % 3), "gold": "1", "log": str(log)} for index in range(60)]
    source, partial = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl.partial"
    with start(source, out, plugin) as first:
        wait_for_lines(partial, 6)
        first.send_signal(number)
        _, said = first.communicate(timeout=60)
    if number == signal.SIGINT:
        assert first.returncode == 130 and re.search(r"\d+ of 60 lines are judged; the same command goes on", said)
    assert not out.exists()
    whole = partial.read_bytes()
    done = whole.count(b"\n")
    partial.write_bytes(whole + b'{"id": "t99", "comple')  # a line that a power cut tore
    log.unlink()
    with start(source, out, plugin) as second:
        told, _ = second.communicate(timeout=60)
    summary = json.loads(told)
    assert 6 <= summary["resumed"] == done < 60 and summary["lines"] == 60
    assert summary["outcomes"] == {"correct": 20, "incorrect": 40, "no_verdict": 0}
    assert [row["id"] for row in read(out)] == [f"t{index}" for index in range(60)]
    assert sorted(log.read_text().split()) == sorted(f"t{index}" for index in range(done, 60))  # none of them twice
    assert out.read_bytes().startswith(whole)
    assert not list(tmp_path.glob("out.jsonl.*"))


def test_a_partial_file_of_other_settings_or_of_a_judge_at_work_is_left_alone(
        tmp_path: Path, plugin: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": index, "completion": "1", "gold": "1", "log": str(tmp_path / "log")} for index in range(500)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    with start(source, out, plugin) as first:
        wait_for_lines(tmp_path / "out.jsonl.partial", 1)
        with start(source, out, plugin) as second:
            _, said = second.communicate(timeout=60)
        assert second.returncode == 2 and "is being written by another judge" in said
        first.kill()
        first.communicate(timeout=60)
    before = (tmp_path / "out.jsonl.partial").read_bytes()
    assert main(["verifiers", "judge", "math", str(source), str(out)]) == 2
    assert "out.jsonl.partial was begun with another verifier; remove it" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl.partial").read_bytes() == before


def test_the_fields_of_code_tasks_are_taken_from_the_line(tmp_path: Path) -> None:
    script = {"completion": "x", "prompt": "def double(n):\n", "entry_point": "double", "test": "def check(f): ...",
              "task_id": "T/1", "canonical_solution": "..."}
    asserts = {"completion": "x", "prompt": "Double n.", "entry_point": "double", "test_setup_code": "import math",
               "test_list": ["assert double(2) == 4"]}
    calls = {"completion": "x", "entry_point": "double", "calls": [{"args": [2], "expected": 4}], "reward": "fraction"}
    cases = {"completion": "x", "cases": [{"stdin": "2", "stdout": "4"}]}
    whole = {"completion": "x", "metadata": {"kind": "script", "entry_point": "f", "test": "..."}, "note": 1}
    source = write(tmp_path / "in.jsonl", [script, asserts, calls, cases, whole])
    found = [dict(task.metadata) for _, task, _ in read_lines(source, "code")]
    assert found == [
        {"kind": "script", "entry_point": "double", "test": "def check(f): ...", "prompt": "def double(n):\n"},
        {"kind": "script", "entry_point": "double", "test": ["assert double(2) == 4"], "setup": "import math"},
        {"kind": "calls", "entry_point": "double", "calls": [{"args": [2], "expected": 4}], "reward": "fraction"},
        {"kind": "stdio", "cases": [{"stdin": "2", "stdout": "4"}]},
        {"kind": "script", "entry_point": "f", "test": "...", "note": 1},
    ]


def test_instructions_and_puzzles_are_judged_from_plain_lines(tmp_path: Path) -> None:
    rows = [{"completion": "no comma", "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {"completion": "a, b", "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
    summary = judge_file("instructions", write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", num_workers=1)
    assert summary.outcomes == {"correct": 1, "incorrect": 1, "no_verdict": 0}
    rows = [{"completion": "\\boxed{42}", "gold": 42, "metadata": {"family": "leg_counting"}},
            {"completion": "\\boxed{42}", "gold": 42, "metadata": {"source_dataset": "leg_counting"}},
            {"completion": "\\boxed{42}", "gold": 42, "family": "no_such_family"}]
    summary = judge_file("puzzles", write(tmp_path / "in.jsonl", rows), tmp_path / "puzzles.jsonl", num_workers=1)
    assert summary.outcomes == {"correct": 2, "incorrect": 0, "no_verdict": 1}
    assert summary.as_dict()["mean_score"] == 1.0  # a missing verdict is in no mean


def test_the_list_names_every_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verifiers", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert sorted(rows) == registry.names()
    assert rows["think_math"]["about"] == "format and math say so" and len(rows["math"]["source"]) == 64
    assert main(["verifiers", "list"]) == 0
    assert "instructions_loose" in capsys.readouterr().out
