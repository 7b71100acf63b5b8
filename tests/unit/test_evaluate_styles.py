"""Published protocols: what a model is given, where its answer ends, how long it may be; and texts with a gap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.errors import UserError
from configs.names import PUBLISHED_STYLES
from configs.settings.common import Sampling, TaskSource
from configs.settings.evaluation import EvaluateStage
from corpora.fim import Mark, cut
from corpora.fim import encode as encode_documents
from derivatives.evaluation.answers import Asking, ask
from derivatives.evaluation.formats import (
    CHAT,
    FEW_SHOT,
    LINE_TOKENS,
    Example,
    alike,
    encode,
    encode_gap,
    examples_for,
    gather_examples,
    has_ended,
    limit_of,
    own_answer,
    stops_of,
)
from derivatives.evaluation.styles import MATH_INSTRUCTION, STYLES
from derivatives.rollout.engine import RolloutEngine
from derivatives.training import attention
from derivatives.training.model import load_tokenizer, num_real_tokens
from flows.inputs import outside_data
from verifiers.api import Task
from verifiers.pool import VerifierPool
from verifiers.tasks.fim import make

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
SUM = Task("s", "1 + 1?", "2", metadata={"protocol": "gsm8k"}, source="gsm8k")
DOUBLE = Task(
    "h", '\ndef double(n):\n    """Twice n."""\n', "", "code",
    {"protocol": "humaneval", "kind": "script", "entry_point": "double", "test": "assert double(2) == 4",
     "prompt": '\ndef double(n):\n    """Twice n."""\n', "hidden_tests": True}, "humaneval",
)  # fmt: skip
HALVE = Task("m", "Halve n. Your code should pass these tests:\n\nassert halve(4) == 2", "", "code",
             {"protocol": "mbpp", "question": "Halve n.", "first_test": "assert halve(4) == 2"}, "mbpp")  # fmt: skip


def shown(task: Task, form: str, examples: list[Example] | None = None, system: str | None = None) -> str:
    tokenizer = load_tokenizer(CHECKPOINT)
    return str(tokenizer.decode(encode(tokenizer, task, form, examples or [], system, 1000)))


def test_every_published_style_is_known_to_recipes() -> None:
    assert tuple(sorted(STYLES)) == PUBLISHED_STYLES


def test_word_problems_are_put_as_qwen_math_does() -> None:
    solved = [Example("2 + 2?", "It is 4.\n\\boxed{4}")]
    assert shown(SUM, FEW_SHOT, solved) == (
        "Question: 2 + 2?\nAnswer: It is 4.\n\\boxed{4}\n\n\nQuestion: 1 + 1?\nAnswer:")  # fmt: skip
    assert shown(SUM, CHAT) == (
        f"<|im_start|>system\n{MATH_INSTRUCTION}<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\n")  # fmt: skip
    assert "<|im_start|>system\nBriefly.<|im_end|>" in shown(SUM, CHAT, system="Briefly.")
    assert own_answer("2\n\nQuestion: 3 + 3?\nAnswer: 6", stops_of(SUM, FEW_SHOT)) == "2"


def test_competition_problems_are_put_as_minerva_does() -> None:
    task = Task("c", "Find x.", "1", metadata={"protocol": "math500"}, source="math500")
    assert shown(task, FEW_SHOT, [Example("Find y.", "\\boxed{2}")]) == (
        "Problem:\nFind y.\n\nSolution: \\boxed{2}\n\nProblem:\nFind x.\n\nSolution:")  # fmt: skip
    assert own_answer(" \\boxed{1}\n\nProblem:\nFind z.", stops_of(task, FEW_SHOT)) == " \\boxed{1}\n"


def test_functions_are_gone_on_with_or_asked_for_in_a_chat() -> None:
    assert shown(DOUBLE, FEW_SHOT) == 'def double(n):\n    """Twice n."""\n'
    assert own_answer("    return 2 * n\n\ndef more():", stops_of(DOUBLE, FEW_SHOT)) == "    return 2 * n\n"
    assert shown(DOUBLE, CHAT).count('```\ndef double(n):\n    """Twice n."""\n```') == 1
    assert stops_of(DOUBLE, CHAT) == () and limit_of(DOUBLE, CHAT) is None and limit_of(DOUBLE, FEW_SHOT) == 768


def test_tasks_with_tests_are_put_between_begin_and_done() -> None:
    assert shown(HALVE, FEW_SHOT, [Example("Add. Tests:", "def add(a, b):\n    return a + b\n")]) == (
        "You are an expert Python programmer, and here is your task: Add. Tests:\n[BEGIN]\n"
        "def add(a, b):\n    return a + b\n[DONE]\n\n\n"
        "You are an expert Python programmer, and here is your task: Halve n. Your code should pass these tests:\n\n"
        "assert halve(4) == 2\n[BEGIN]\n")  # fmt: skip
    assert '"""\nHalve n.\nassert halve(4) == 2\n"""' in shown(HALVE, CHAT)
    assert own_answer("def halve(n):\n    return n // 2\n[DONE]\n\nYou", stops_of(HALVE, FEW_SHOT)).endswith("2\n")


def test_a_style_has_its_own_examples_and_their_number() -> None:
    given = {"published/gsm8k": [Example(str(n), "1") for n in range(9)], "gsm8k": [Example("other", "1")],
             "functions/lists": [Example("f", "g")]}  # fmt: skip
    assert [one.prompt for one in examples_for(SUM, given, 1)] == ["0", "1", "2", "3"]
    assert examples_for(DOUBLE, given, 4) == []
    plain = Task("p", "?", "1", source="else")
    assert [one.prompt for one in examples_for(plain, given, 9)] == ["other", "f"]


def test_examples_that_a_style_needs_and_nobody_has_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    row = {"question": "1 + 1?", "answer": "1 + 1 = 2\n#### 2"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setenv("DERIVE_DATA", str(tmp_path))
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(TaskSource(name="gsm8k", style="published"),))
    with pytest.raises(UserError, match=r"published asks for 4 solved examples of gsm8k \(train\).*style: plain"):
        gather_examples(stage, [SUM], 0)
    rows = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(1, 9)]
    rows = [{**one, "answer": f"Add.\n{one['answer']}"} for one in rows]
    (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = gather_examples(stage, [SUM], 0)  # the first ones, less the one that is asked
    assert [one.prompt for one in found["published/gsm8k"]] == ["2 + 1?", "3 + 1?", "4 + 1?", "5 + 1?"]
    assert list(found) == ["published/gsm8k"]


def test_a_gap_is_shown_between_qwens_tokens_and_its_context_cut_to_fit() -> None:
    tokenizer = load_tokenizer(CHECKPOINT)
    task = make("g", "a = 1\n", "b = 2", "\nc = 3\n", "line", "fim/python_stdlib")
    for form in (CHAT, FEW_SHOT):
        assert shown(task, form) == task.prompt == "<|fim_prefix|>a = 1\n<|fim_suffix|>\nc = 3\n<|fim_middle|>"
        assert (stops_of(task, form), limit_of(task, form)) == ((), LINE_TOKENS)
    assert has_ended("\nb = 2\n", task, CHAT) and not has_ended("\nb = ", task, CHAT)
    long = make("g", "".join(f"x{n} = {n}\n" for n in range(300)), "b = 2", "y = 1\n" * 300, "span", "fim/x")
    ids = encode_gap(tokenizer, long, 200)
    text = str(tokenizer.decode(ids))
    assert len(ids) == 200 and "x299 = 299\n<|fim_suffix|>y = 1\n" in text and "x1 = 1\n" not in text
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|fim_prefix|>")
    short = make("g", "a = 1\n", "b = 2", "y = 1\n" * 300, "span", "fim/x")
    assert len(encode_gap(tokenizer, short, 100)) == 100  # what the prefix leaves is the suffix's


def test_a_gap_is_shown_as_it_stands_in_the_training_documents() -> None:
    tokenizer = load_tokenizer(CHECKPOINT)
    text = "def twice(n):\n    return 2 * n\n\n\nprint(twice(3))\n"
    start, end = text.index("    return"), text.index("\n\n\n")
    ids = {mark: tokenizer.convert_tokens_to_ids(mark.value) for mark in Mark}
    (trained,) = encode_documents(
        [cut(text, start, end)],
        lambda texts: [np.array(tokenizer.encode(one, add_special_tokens=False), dtype="<u4") for one in texts],
        ids,  # type: ignore[arg-type]  # one token for each mark
    )
    asked = encode_gap(tokenizer, make("g", text[:start], text[start:end], text[end:], "line", "fim/x"), 1000)
    middle = tokenizer.encode(text[start:end], add_special_tokens=False)
    assert trained.tolist() == [*asked, *middle]


def test_a_users_own_gaps_are_taken_in_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    source = {"name": str(path), "split": "all"}
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(TaskSource(**source),))
    path.write_text('{"prefix": "def one():\\n", "middle": "    return 1", "suffix": "\\n"}\n')
    assert list(outside_data(stage)) == ["tasks[0]"]
    path.write_text('{"prefix": "a", "middle": " ", "suffix": "b"}\n')
    with pytest.raises(UserError, match="gaps.jsonl:1: middle: ' '; allowed: a text that is not blank"):
        outside_data(stage)
    path.write_text('{"prefix": "a", "suffix": "b"}\n')
    with pytest.raises(UserError, match="allowed: 'prompt' and 'answer' or 'middle'"):
        outside_data(stage)


def test_a_tokenizer_without_tokens_for_gaps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(CHECKPOINT)
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: {"<|fim_prefix|>": 1, "<|fim_middle|>": 2})
    with pytest.raises(UserError, match=r"task set fim/x: the model's tokenizer has no <\|fim_suffix\|>"):
        encode_gap(tokenizer, make("g", "a", "b", "c", "line", "fim/x"), 100)


def test_tasks_that_end_alike_are_drawn_together_and_answers_keep_their_order() -> None:
    gap = make("g", "a = 1\n", "b = 2", "\n", "line", "fim/python_stdlib")
    plain = Task("p", "3 + 3?", "6", source="else")
    tasks = [SUM, gap, plain, DOUBLE, gap, SUM]
    assert alike(tasks, FEW_SHOT) == [[0, 5], [1, 4], [2], [3]]
    assert alike(tasks, CHAT) == [[0, 2, 3, 5], [1, 4]]
    tokenizer = load_tokenizer(CHECKPOINT)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=num_real_tokens(tokenizer) + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.1,
    )  # fmt: skip
    model = Qwen2ForCausalLM._from_config(config, attn_implementation=attention.REGISTERED_NAME).eval()
    attention.set_method(model, attention.choose("cpu", torch.float32))
    engine = RolloutEngine(model, tokenizer)
    sampling = Sampling(temperature=0.0, max_new_tokens=LINE_TOKENS + 16)
    with VerifierPool(num_workers=1) as pool:
        asking = Asking(pool, {}, 0, None, 0)
        together = ask(engine, tasks, FEW_SHOT, asking, sampling, 1)
        alone = [ask(engine, [task], FEW_SHOT, asking, sampling, 1)[0] for task in tasks]
    assert [group[0].completion for group in together] == [group[0].completion for group in alone]
    assert [group[0].reason for group in together] == [group[0].reason for group in alone]
    assert max(together[place][0].num_tokens for place in (1, 4)) <= LINE_TOKENS
