"""The executor filter: synthetic code is kept only if it runs, and a fault of the sandbox is never the document's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import derivatives
from configs.errors import RetryableError, UserError
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput, run_command
from corpora.build import run
from corpora.document import Document
from corpora.filters import Chain, runs
from verifiers.sandbox.host import SandboxFault, SandboxUnavailable

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"
ADD = "def add(a, b):\n    return a + b\n"


def program(text: str, **given: Any) -> Document:
    return Document("1", "synthetic", "mit", "made.py", text=text, **given)


def reason(document: Document, **settings: Any) -> str | None:
    return Chain({"runs": {"seconds": 1, **settings}}).check(document)


@pytest.mark.parametrize(("text", "expected"), [
    ("print('all is well')\n", None),
    ("\ufeffprint('all is well')\n", None),
    ("import math\nassert math.gcd(12, 18) == 6\n", None),
    ("total = amount * 2\n", "fails:NameError"),
    ("def f(:\n", "fails:SyntaxError"),
    ("import surely_not_installed\n", "fails:ModuleNotFoundError"),
    ("raise SystemExit(3)\n", "fails:exit_status_not_0"),
    ("raise SystemExit\n", None),
    ("class Odd(Exception): pass\nraise Odd\n", "fails:other"),
    ("open('/etc/passwd')\n", "fails:PermissionError"),
    ("input()\n", "fails:EOFError"),
    ("import os\nos.abort()\n", "fails:crashed"),
    ("bytearray(10**12)\n", "over_budget"),
])  # fmt: skip
def test_a_program_is_kept_if_it_runs_to_its_end(text: str, expected: str | None) -> None:
    assert reason(program(text)) == expected


def test_a_program_without_end_is_over_budget() -> None:
    assert reason(program("while True: pass\n")) == "over_budget"


def test_import_does_not_enter_the_main_part_and_run_does() -> None:
    text = ADD + 'if __name__ == "__main__":\n    print(add(1))\n'
    assert reason(program(text), level="import") is None
    assert reason(program(text), level="run") == "fails:TypeError"
    assert reason(program("x = y\n"), level="import") == "fails:NameError"


@pytest.mark.parametrize(("metadata", "expected"), [
    ({"tests": "assert add(1, 2) == 3"}, None),
    ({"tests": ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'"]}, None),
    ({"tests": "assert add(1, 2) == 4"}, "fails:assertion_failed"),
    ({"tests": "assert add(1) == 1"}, "fails:TypeError"),
    ({"tests": "def check(f):\n    assert f(2, 2) == 4\n", "entry_point": "add"}, None),
    ({"tests": "def check(f):\n    assert f(2, 2) == 5\n", "entry_point": "add"}, "fails:assertion_failed"),
    ({"tests": "def check(f):\n    assert f(2, 2) == 4\n"}, "tests_unreadable"),
    ({"tests": "assert add("}, "tests_unreadable"),
    ({"tests": "print(add(1, 2))"}, "tests_unreadable"),
    ({"tests": [1]}, "no_tests"),
    ({}, "no_tests"),
])  # fmt: skip
def test_the_rows_own_tests_must_pass(metadata: dict[str, Any], expected: str | None) -> None:
    assert reason(program(ADD, metadata=metadata), level="tests") == expected


def test_a_program_that_leaves_early_has_passed_no_test() -> None:
    leaves = program("import os\n" + ADD + "os._exit(0)\n", metadata={"tests": "assert add(1, 2) == 3"})
    assert reason(leaves, level="tests") == "fails:exited"


@pytest.mark.parametrize(("completion", "expected"), [
    ("So:\n```python\nprint(1)\n```\nDone.", None),
    ("First:\n```python\nprint(x)\n```\nBetter:\n```python\nx = 1\nprint(x)\n```\n", None),
    ("```python\nprint(x)\n```\n```bash\nls\n```\n", "fails:NameError"),
    ("<think>\n```python\n1 / 0\n```\n</think>\n```python\nprint(1)\n```\n", None),
    ("```javascript\nlet a = 1\n```\n", "not_python"),
    ("```python\n```\n", "no_code"),
    ("print(1)\n", None),
    ("There is no program here.", "no_code"),
])  # fmt: skip
def test_the_code_of_an_example_is_the_last_block_in_python(completion: str, expected: str | None) -> None:
    row: dict[str, Any] = {"id": "1", "source": "s", "licence": "mit", "path": "rows.jsonl"}
    assert reason(Document(prompt="Write it.", completion=completion, **row)) == expected
    turns = ({"role": "user", "content": "```python\n1 / 0\n```"}, {"role": "assistant", "content": completion})
    assert reason(Document(messages=turns, **row)) == expected


def test_a_row_that_states_no_language_may_be_a_program_or_hold_one() -> None:
    row: dict[str, Any] = {"id": "1", "source": "s", "licence": "mit", "path": "rows.jsonl"}
    assert reason(Document(text="x = 1\n", **row)) is None
    assert reason(Document(text="See:\n```python\nx\n```\n", **row)) == "fails:NameError"
    assert reason(Document(text="fn main() {}\n", language="rust", **row)) == "not_python"
    # A Python file keeps its docstring's fences to itself.
    assert reason(program('"""Try:\n```python\n1 / 0\n```\n"""\n')) is None


class Failing:
    """Stands for sandboxes of which the first so many fail."""

    def __init__(self, fault: SandboxFault, times: int) -> None:
        self.fault, self.times, self.closed = fault, times, 0

    def judge(self, problem: Any, text: str) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise self.fault
        with runs.Judge() as judge:
            return judge.judge(problem, text)

    def close(self) -> None:
        self.closed += 1


def test_a_fault_of_the_sandbox_is_tried_again_and_never_drops_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    passing = Failing(SandboxFault("the zygote is gone"), 2)
    monkeypatch.setattr(runs, "_judge", lambda: passing)
    assert reason(program("x = 1\n"), level="import") is None and passing.closed == 2
    monkeypatch.setattr(runs, "_judge", lambda: Failing(SandboxFault("the zygote is gone"), 99))
    with pytest.raises(RetryableError, match="'1' .the zygote is gone.; start again"):
        reason(program("x = 1\n"))
    assert reason(program("x = 1\n"), on_fault="drop") == "no_verdict:sandbox_fault"
    monkeypatch.setattr(runs, "_judge", lambda: Failing(SandboxUnavailable("for want of landlock"), 99))
    with pytest.raises(UserError, match="landlock"):
        reason(program("x = 1\n"), on_fault="drop")


def build(folder: Path, num_threads: int, output: str, rows: list[dict[str, Any]]) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / f"out{num_threads}"
    stage = CorpusStage(id="corpus", output=output, sources=[  # type: ignore[arg-type]
        {"name": str(folder / "rows.jsonl"), "filters": {"runs": {"level": "tests", "seconds": 2}}}])
    base = {"base": StageInput(kind="base", path=str(SEEDLING))}
    path = folder / "stage.json"
    path.write_text(StageFile(recipe="test", inputs=base, stage=stage,
                              machine=Machine(name="cpu", num_threads=num_threads)).model_dump_json())
    assert run_command("corpus", run, "", [str(path), str(out)]) == 0
    return out


def test_examples_go_through_the_stage_alike_for_any_number_of_workers(tmp_path: Path) -> None:
    rows = [{"id": str(i), "prompt": f"Write add, number {i}.", "completion": f"```python\n{ADD}# {i}\n```",
             "tests": f"assert add({i}, 1) == {i + (2 if i % 3 == 0 else 1)}"} for i in range(12)]
    rows.append({"id": "none", "prompt": "Say hello.", "completion": "Hello.", "tests": "assert hello()"})
    one, two = (build(tmp_path, n, "examples", rows) for n in (1, 2))
    report = json.loads((one / "data" / "report.json").read_text())
    assert report["sources"]["rows.jsonl"]["dropped"] == {"fails:assertion_failed": 4, "no_code": 1}
    for name in ("examples.jsonl", "dropped.jsonl", "report.json"):
        assert (one / "data" / name).read_bytes() == (two / "data" / name).read_bytes()
    assert "tests" not in json.loads((one / "data" / "examples.jsonl").read_text().splitlines()[0])
