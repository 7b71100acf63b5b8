"""Bad input through the real command: one line on stderr, exit code 2, and the store as it was before.

What needs no stage runs in this process and is quick. The slow tests start real stages on the seedling.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.base import SEEDLING
from flows.cli import main

ROOT = Path(__file__).parents[2]
SUM = '{"prompt": "1 + 1 = ?", "completion": "2"}\n'
PROBLEM = '{"prompt": "1 + 1 = ?", "answer": "2"}\n'
BOTH = '{"prompt": "1 + 1 = ?", "completion": "2", "answer": "2"}\n'
TINY = ("--machine", "one.yaml", "--no-prefect")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a store that is not there yet, and no mirror."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DERIVE_MACHINE", "cpu")
    monkeypatch.delenv("DERIVE_DATA", raising=False)
    (tmp_path / "one.yaml").write_text("device: cpu\nnum_threads: 1\nnum_verifier_workers: 1\n")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that is refused before it writes anything."""
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert not Path("store").exists()
    return said


def seedling_copy(name: str = "base") -> Path:
    shutil.copytree(SEEDLING, name)
    return Path(name)


# Presets, overrides, machines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run math/tinny", "'math/tinny' is no preset; did you mean 'math/tiny'"),
        ("maths", "invalid choice: 'maths'"),
        ("run nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("math --set rl.stpes=3", "rl.stpes: 3 was given to 'stpes', which is no field; did you mean 'steps'"),
        ("math --set rll.steps=3", "rll.steps: 'rll' is no stage of this preset.*did you mean 'rl'"),
        ("math --set rl.steps=many", "rl.steps: 'many' was given; allowed: a valid integer"),
        ("math --set rl.steps=0", "rl.steps: 0 was given; allowed: greater than 0"),
        ("math --set rl.learning_rate=.nan", "'.nan' is not a finite number"),
        ("math --set evaluate.tasks[99].count=3", r"\[99\] is past the end of tasks; allowed: \[0\] to"),
        ("math --set rl.sampling.top_p=0.5", "rl.sampling.top_p: 0.5 draws from another distribution"),
        ("math --set rl.data=[nosuch]", "rl.data: 'nosuch' names no earlier corpus"),
        ("math --set rl.data=[no.jsonl]", r"rl.data\[0\]: no.jsonl does not exist"),
        (r'math --set rl.data=["a\0b.jsonl"]', "rl.data.* null character"),
        ("math --set evaluate.models=[base,foo]", "evaluate.models: 'foo' names no earlier stage with a model"),
        ("math --set release.gates[0].against=nobody", "'nobody' is not among the models of evaluate"),
        ("math --set rl.verifier=maths", "rl.verifier: 'maths' is no verifier; did you mean 'math'"),
        ("math --machine abacus", "machine: 'abacus' is no machine profile; allowed: cpu"),
        ("math --base nowhere", "base: 'nowhere' is no folder; allowed: seedling"),
        ("math --base Qwen/Qwen2.5-0.5B-nowhere", "is no folder and cannot be downloaded .*connect, or download it"),
        ("evaluate seedling --tasks gsm9k", "'gsm9k' is no task set; did you mean 'gsm8k'"),
        ("evaluate seedling --tasks no.jsonl", "no.jsonl: cannot be read"),
        ("evaluate nowhere --tasks gsm8k", "'nowhere' is no folder"),
        ("evaluate seedling", "the following arguments are required: --tasks"),
        ("chat nowhere -p hi", "'nowhere' is no folder"),
        ("chat . -p hi", "has no config.json"),
        ("chat seedling -p caf\udce9", "--prompt: .* is not UTF-8 text"),
        ("chat seedling -p hi --temperature nan", "--temperature: nan is out of range"),
        ("adopt soft --preset math/tiny --why x", "'soft' is no stage of math/tiny"),
        ("report", "RUN: there are no runs in"),
    ],
)
def test_a_mistyped_request_is_one_line(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert re.search(said, refused(capsys, *words.split()))


def test_a_dangling_reference_in_a_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(
        "stages:\n"
        "  - {id: problems, kind: corpus, output: problems, sources: [{name: reasoning_gym/gcd, count: 4}]}\n"
        "  - {id: rl, kind: rl, data: [problem], steps: 1, learning_rate: 1e-4}\n"
    )
    assert "rl.data: 'problem' names no earlier corpus" in refused(capsys, "run", "mine.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_threads: 0\n", "num_threads: 0 was given; allowed: greater than 0"),
        ("num_treads: 1\n", "did you mean 'num_threads'"),
        ("device: tpu\n", "device: 'tpu' is not among the choices"),
        ("[", "not valid YAML"),
    ],
)
def test_a_machine_file_that_does_not_hold_is_one_line(
    capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("mine.yaml").write_text(text)
    assert said in refused(capsys, "run", "math/smoke", "--machine", "mine.yaml")


# Checkpoints ----------------------------------------------------------------------------------------------------


def _cut(base: Path) -> None:
    weights = base / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)


def _of_another_shape(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 48}))


def _of_a_wrong_type(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": "big"}))


def _not_finite(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def _without_turn_end(base: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = base / name
        path.write_text(path.read_text().replace("<|im_end|>", "<|other|>"))


SEEN_AT_ONCE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda base: (base / "config.json").unlink(), "has no config.json"),
    "config not json": (lambda base: (base / "config.json").write_text("{"), "config.json is not JSON"),
    "no weights": (lambda base: (base / "model.safetensors").unlink(), "holds no weights"),
    "cut weights": (_cut, "bytes where its header states .* cut short or damaged"),
    "no tokenizer": (lambda base: (base / "tokenizer.json").unlink(), "has no tokenizer.json"),
}
SEEN_ON_LOADING: dict[str, tuple[Callable[[Path], object], str]] = {
    "another shape": (_of_another_shape, "of the right shape|of another shape"),
    "wrong type": (_of_a_wrong_type, "'hidden_size' expected int, got str"),
    "not finite": (_not_finite, "model.norm.weight in .* not finite"),
    "no special token": (_without_turn_end, r"lacks <\|im_end\|>"),
    "template": (
        lambda base: (base / "chat_template.jinja").write_text("{% for"),
        "the chat template in .* cannot be used",
    ),
}


@pytest.mark.parametrize("fault", SEEN_AT_ONCE)
def test_a_damaged_base_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str], fault: str) -> None:
    spoil, said = SEEN_AT_ONCE[fault]
    spoil(seedling_copy())
    assert re.search(said, refused(capsys, "run", "math/smoke", "--base", "base"))


@pytest.mark.parametrize("fault", [*SEEN_AT_ONCE, *SEEN_ON_LOADING])
def test_a_damaged_checkpoint_answers_nothing(capfd: pytest.CaptureFixture[str], fault: str) -> None:
    spoil, said = (SEEN_AT_ONCE | SEEN_ON_LOADING)[fault]
    spoil(seedling_copy())
    assert re.search(said, refused(capfd, "chat", "base", "-p", "1 + 1 = ?"))


# Data -----------------------------------------------------------------------------------------------------------


BROKEN_LINES: dict[str, tuple[str | bytes, str]] = {
    "empty file": ("", "is empty"),
    "blank lines": ("\n \n", "is empty"),
    "cut line": (BOTH + '{"prompt": "1 +', "data.jsonl:2: not JSON .*may be cut short"),
    "other keys": ('{"a": 1}\n', r"data.jsonl:1: the line has \['a'\]; allowed: 'prompt' and"),
    "a number": (
        '{"prompt": 1, "completion": "2", "answer": "2"}\n',
        "data.jsonl:1: prompt: 1 is a int; allowed: text",
    ),
    "null": ('{"prompt": "1", "completion": null, "answer": null}\n', ": (completion|answer): None is a NoneType"),
    "a list": ("[1]\n", "data.jsonl:1: holds a list"),
    "latin-1": (
        b'{"prompt": "\xe9", "completion": "2", "answer": "2"}\n',
        "data.jsonl:1: byte 13 of the line is not UTF-8",
    ),
    "null byte": (b'{"prompt": "a\0b"}\n', "data.jsonl:1: not JSON at column"),
    "half a character": ('{"prompt": "\\ud800", "completion": "", "answer": ""}', "half of a surrogate pair"),
    "nested": ('{"prompt": ' + "[" * 100_000, "data.jsonl:1: "),
}


@pytest.mark.parametrize("fault", BROKEN_LINES)
@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_a_broken_line_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str], kind: str, fault: str) -> None:
    content, said = BROKEN_LINES[fault]
    Path("data.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(said, refused(capsys, kind, "data.jsonl"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "tasks.jsonl: no line; write one"),
        (PROBLEM + '{"prompt": "1 +', "tasks.jsonl:2: not whole JSON"),
        ('{"question": "1"}\n', "tasks.jsonl:1: prompt: None; allowed: a text"),
        ('{"prompt": "1", "answer": null}\n', "tasks.jsonl:1: answer: None; allowed"),
        ('{"prompt": "1", "answer": "1", "verifier": "nosuch"}\n', "verifier: 'nosuch' is not known; allowed: choice"),
        (json.dumps({"prompt": "word " * 5000, "answer": "1"}), "makes .* positions; the model has 2048"),
    ],
)
def test_a_broken_tasks_file_is_one_line(capfd: pytest.CaptureFixture[str], content: str, said: str) -> None:
    Path("tasks.jsonl").write_text(content)
    assert re.search(said, refused(capfd, "evaluate", "seedling", "--tasks", "tasks.jsonl", "--machine", "one.yaml"))


def test_a_mirror_that_is_away_or_cut_short_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERIVE_DATA", "/no/where")
    assert "DERIVE_DATA: '/no/where' is no folder" in refused(capsys, "run", "math/tiny-gsm8k")
    Path("mirror/gsm8k").mkdir(parents=True)
    Path("mirror/gsm8k/test.jsonl").write_text('{"question": "a", "answer": "#### 5"}\n{"question": "b", "ans')
    monkeypatch.setenv("DERIVE_DATA", "mirror")
    said = refused(capsys, "evaluate", "seedling", "--tasks", "gsm8k")
    assert "gsm8k/test.jsonl:2: " in said and "the file may be cut short, fetch it again" in said


# The store ------------------------------------------------------------------------------------------------------


def test_a_store_that_is_a_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert "is a file; give a folder" in refused(capsys, "run", "math/smoke", "--store", "file")
    assert Path("file").read_text() == ""


# With real stages -----------------------------------------------------------------------------------------------


def derive(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def left_over() -> list[str]:
    return [path.name for path in Path("store").rglob("*.partial")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.max_length=2", "holds no example of at most sft.max_length = 2 tokens"),
        ("sft.micro_batch_tokens=2", "sft.micro_batch_tokens: 2 is less than the longest example"),
    ],
)
def test_a_stage_that_refuses_leaves_a_record_and_no_folder(override: str, said: str) -> None:
    Path("data.jsonl").write_text(SUM)
    done = derive("sft", "data.jsonl", *TINY, "--set", override)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and said in errors[0], done.stderr
    assert "Traceback" not in done.stderr and left_over() == []
    assert not list(Path("store").glob("??/*/manifest.json"))
    [record] = json.loads(derive("runs", "--json").stdout)
    assert record["status"] == "failed" and said in record["error"]


@pytest.mark.slow
def test_a_problem_longer_than_the_model_is_refused_before_the_first_step() -> None:
    Path("data.jsonl").write_text(PROBLEM + json.dumps({"prompt": "word " * 5000, "answer": "1"}))
    done = derive("rl", "data.jsonl", *TINY, "--set", "rl.steps=1", "--set", "rl.prompts_per_step=1")
    assert done.returncode == 2 and "tokens of problem data.jsonl:2; the model has 2048" in done.stderr, done.stderr
    assert left_over() == []


@pytest.mark.slow
def test_two_same_runs_at_once_build_once_and_speak_json() -> None:
    turns = [{"role": "user", "content": "1 + 1 = ?"}, {"role": "assistant", "content": "2"}]
    Path("data.jsonl").write_bytes(b"\xef\xbb\xbf" + SUM.encode() + json.dumps({"messages": turns}).encode())
    Path("tasks.jsonl").write_text(PROBLEM)
    command = [sys.executable, "-m", "flows.cli", "sft", "data.jsonl", "--json", *TINY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "ab"]
    said = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    records = [json.loads(out) for out, _ in said]
    assert sorted(record["stages"][0]["reused"] for record in records) == [False, True]
    assert sum(b"waiting for process" in err for _, err in said) <= 1
    assert len(list(Path("store").glob("??/*/manifest.json"))) == 1 and left_over() == []

    listed: list[dict[str, Any]] = json.loads(derive("runs", "--json").stdout)
    assert {record["id"] for record in listed} == {record["id"] for record in records}
    assert [record["created"] for record in listed] == sorted(record["created"] for record in records)
    for record in listed:
        assert {"recipe", "release", "metrics"} <= record.keys()
        assert {"id", "kind", "digest", "folder", "reused", "metrics"} <= record["stages"][0].keys()

    model = records[0]["stages"][0]["folder"]
    answered = json.loads(derive("evaluate", model, "--tasks", "tasks.jsonl", "--json", "--machine", "one.yaml").stdout)
    figure = answered["models"][model]["pass@1"]
    assert figure["total"] == 1 and 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_the_stage_goes_on() -> None:
    Path("data.jsonl").write_text("".join(SUM.replace("1 + 1", f"{n} + 1") for n in range(24)))
    settings = ["--set", "sft.batch_examples=1", "--set", "sft.checkpoint_every=2", *TINY]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "sft", "data.jsonl", *settings],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while len(found := sorted(Path("store").glob("??/*.partial/checkpoints/step-*"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    while any(Path("store").glob("??/*.lease")) and time.monotonic() < deadline and _lives(found[0]):
        time.sleep(0.1)
    newest = sorted(Path("store").glob("??/*.partial/checkpoints/step-*"))[-1]
    (newest / "state.pt").write_bytes(b"spoilt")
    done = derive("sft", "data.jsonl", *settings)
    assert done.returncode == 0, done.stderr
    log = next(Path("store").glob("??/*/stage.log")).read_text()
    assert f"{newest.name} cannot be read (the digest of state.pt is wrong); trying the one before it" in log


def _lives(checkpoint: Path) -> bool:
    """Whether a process still works in the stage's folder."""
    folder = checkpoint.parents[1].name
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder in path.read_text():
                return True
        except OSError:
            continue
    return False
