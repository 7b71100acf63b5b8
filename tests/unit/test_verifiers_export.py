"""Exported modules: imported from the folder that was written, and called as TRL, verl and lm-eval call them."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from verifiers import registry
from verifiers.breaker import TooManyNoVerdicts
from verifiers.export import TOOLS, bridge, write

Export = Callable[..., ModuleType]
PLUGIN = '''
from verifiers.api import correct, incorrect, no_verdict

class Half:
    """Correct if the completion is the gold answer; half for its first letter; none where it is away."""
    name, version = "half", "1"

    def judge(self, task, completion):
        if completion == "away":
            return no_verdict("away")
        if completion == task.answer:
            return correct(completion)
        return incorrect("other", completion, 0.5 if completion[:1] == task.answer[:1] else 0.0)
'''


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The verifier `half` is installed, in this process and in workers."""
    info = tmp_path / "site" / "half-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "half_verifier.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[derivative_factory.verifiers]\nhalf = half_verifier:Half\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()
    yield
    for cached in (registry.load_verifier, registry.identity):
        cached.cache_clear()


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Export]:
    """Writes a module and imports it as the tools do, from its file."""
    made: list[ModuleType] = []

    def of(name: str, tool: str, **given: Any) -> ModuleType:
        files = write(name, tool, tmp_path / f"{name}-{tool}", **given)
        path = next(path for path in files if path.suffix == ".py")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made.append(module)
        return module

    yield of
    for module in made:
        module.BRIDGE.close()


def test_trl_s_reward_takes_columns_texts_and_messages_and_gives_none_without_a_verdict(
    export: Export, half: None
) -> None:
    module = export("half", "trl", gold="solution")
    asked = {"trainer_state": object(), "log_extra": print, "completion_ids": [[1], [2], [3], [4]]}
    golds = {"solution": ["17", "17", "17", "17"], "answer": ["worked out: 17"] * 4}
    said = ["17", "away", "18", "9"]
    assert module.reward.__name__ == "half"
    assert module.reward(prompts=["?"] * 4, completions=said, **golds, **asked) == [1.0, None, 0.0, 0.0]
    chats = [[{"role": "assistant", "content": text}] for text in said]
    questions = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}]] * 4
    assert module.reward(prompts=questions, completions=chats, **golds, **asked) == [1.0, None, 0.0, 0.0]
    parts = [{"type": "text", "text": "1"}, {"type": "text", "text": "7"}]
    tools = [*chats[0], {"role": "tool", "content": "3"}, {"role": "assistant", "content": parts}]
    assert module.reward(prompts=["?"], completions=[tools], solution=["17"]) == [1.0]
    silent = [[{"role": "assistant", "content": None}]]
    assert module.reward(prompts=["?"], completions=silent, solution=["17"]) == [0.0]


def test_partial_credit_is_given_where_it_was_asked_for(export: Export, half: None) -> None:
    module = export("half", "trl", partial_credit=True)
    assert module.reward(["?"] * 3, ["17", "18", "away"], answer=["17"] * 3) == [1.0, 0.5, None]


def test_the_reward_works_in_a_running_event_loop_in_threads_and_in_a_forked_process(export: Export) -> None:
    module = export("exact", "trl")
    boxed = ["\\boxed{4}", "\\boxed{5}"]

    async def both() -> tuple[Any, Any]:
        one = await asyncio.gather(*(module.reward_async(["?"] * 2, boxed, answer=["4", "4"]) for _ in range(3)))
        return one, module.reward(["?"] * 2, boxed, answer=["4", "4"])

    assert asyncio.run(both()) == ([[1.0, 0.0]] * 3, [1.0, 0.0])
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(module.reward(["?"] * 2, boxed, answer=["4", "4"])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1.0, 0.0]] * 4
    before = set(module.BRIDGE._opened().worker_pids())
    queue: Any = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        judged = module.reward(["?"] * 2, boxed, answer=["4", "4"])
        queue.put((judged, module.BRIDGE._opened().worker_pids()))
        module.BRIDGE.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    judged, pids = queue.get()
    process.join()
    assert judged == [1.0, 0.0] and not before & set(pids)
    assert module.reward(["?"], ["\\boxed{4}"], answer=["4"]) == [1.0]  # the parent's workers are as they were


def test_a_verifier_that_fails_stops_the_training_and_so_does_a_column_that_is_not_there(
    export: Export, half: None
) -> None:
    module = export("half", "trl")
    with pytest.raises(TooManyNoVerdicts, match="away"):
        module.reward(["?"] * 200, ["away"] * 200, answer=["17"] * 200)
    with pytest.raises(UserError, match="row 0: gold: empty; verifier 'math' needs the gold answer"):
        export("math", "trl").reward(["?"], ["4"], solution=["4"])


def test_verl_s_score_reads_the_ground_truth_and_counts_missing_verdicts(export: Export, half: None) -> None:
    module = export("half", "verl")
    info = {"question": "?", "index": np.int64(3), "answer": "worked out", "num_turns": None,
            "rollout_reward_scores": {}}  # fmt: skip
    score = module.compute_score(data_source="gsm8k", solution_str="17", ground_truth="17", extra_info=info)
    assert score == {"score": 1.0, "acc": 1.0, "no_verdict": 0.0}
    away = module.compute_score("gsm8k", "away", "17")
    assert away == {"score": 0.0, "acc": 0.0, "no_verdict": 1.0}
    batch = module.compute_score_batch(
        data_sources=np.array(["a", "a", "a"], dtype=object), solution_strs=["17", "away", "3"],
        ground_truths=["17", "17", np.str_("17")], extra_infos=np.array([info, info, {}], dtype=object),
        reward_router_address=None,
    )  # fmt: skip
    assert [one["score"] for one in batch] == [1.0, 0.0, 0.0] and [one["no_verdict"] for one in batch] == [0, 1, 0]
    assert asyncio.run(module.compute_score_async("a", "17", "17")) == score


def test_verl_s_ground_truth_may_hold_the_tests_of_a_program(export: Export) -> None:
    module = export("code", "verl")
    truth = '{"entry_point": "f", "calls": [{"args": [3], "expected": 9}]}'
    right, wrong = "def f(n): return n * n", "def f(n): return n"
    assert [module.compute_score("t", f"```python\n{text}\n```", truth)["score"] for text in (right, wrong)] == [1, 0]


def test_lm_eval_s_filter_judges_all_answers_and_each_problem_gets_its_figures(
    export: Export, half: None, tmp_path: Path
) -> None:
    module = export("half", "lm-eval")
    docs = [{"question": "?", "answer": "17"}, {"question": "?", "answer": "5"}, {"question": "?", "answer": "6"}]
    judged = module.judge_all([["17"], ["17", "5"], ["away"]], docs)
    assert [[one["outcome"] for one in row] for row in judged] == [
        ["correct"], ["incorrect", "correct"], ["no_verdict"],
    ]  # fmt: skip
    figures = [module.process_results(doc, [row]) for doc, row in zip(docs, judged, strict=True)]
    assert [one["correct"] for one in figures] == [1.0, 0.5, 0.0]
    assert [one["no_verdict"] for one in figures] == [0.0, 0.0, 1.0]
    assert module.process_results(docs[0], ["17"])["correct"] == 1.0  # a task without the filter
    task = (tmp_path / "half-lm-eval" / "half_lm_eval.yaml").read_text()
    assert "task: half_judged" in task and 'doc_to_target: "{{answer | default(\'\')}}"' in task
    assert re.findall(r"!function (\S+?)\}*\n", task) == ["half_lm_eval.judge_all", "half_lm_eval.process_results"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_module_is_written_once_is_small_and_says_how_it_is_used(tool: str, tmp_path: Path) -> None:
    files = write("math", tool, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert len(readme.splitlines()) == 3 and registry.identity("math")["source"][:12] in readme
    module = next(path for path in files if path.suffix == ".py").read_text()
    assert 'VERIFIER = "math"\n' in module and len(module.splitlines()) < 80
    with pytest.raises(UserError, match="--out: .* exists; give another folder"):
        write("math", tool, tmp_path / "out")


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'mth' is not known; .*did you mean 'math'"):
        write("mth", "trl", tmp_path)
    with pytest.raises(UserError, match="--for: 'openrlhf'; allowed: trl, verl, lm-eval"):
        write("math", "openrlhf", tmp_path)
    with pytest.raises(UserError, match="--gold: 'a-b' is no name"):
        write("math", "trl", tmp_path, gold="a-b")
    assert not list(tmp_path.iterdir())


def test_values_of_other_tools_become_json_s() -> None:
    given = {"a": np.array([[1, 2]]), "b": (np.float32(0.5), None), 3: {"c": object()}, "d": np.str_("x")}
    assert bridge.plain(given) == {"a": [[1, 2]], "b": [0.5, None], "3": {"c": None}, "d": "x"}
    assert bridge.fields_of("{1, 2}") == {"answer": "{1, 2}"} and bridge.fields_of("{}") == {"answer": "{}"}
    assert bridge.fields_of({"tests": "x"}) == {"tests": "x"} and bridge.fields_of(np.int64(4)) == {"answer": 4}


def test_an_exported_module_imports_no_torch_and_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write("math", "trl", tmp_path)
    told = """
import sys, pickle
from math_trl import reward
print('torch' in sys.modules, pickle.loads(pickle.dumps(reward)) is reward)
"""
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", told], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert found.stdout.split() == ["False", "True"], found.stderr
    assert pickle.loads(pickle.dumps(bridge.plain)) is bridge.plain
