"""The evaluation: formats, figures, overlap, the floor, and a whole small stage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.errors import UserError
from configs.settings.common import Sampling, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput
from derivatives import evaluate
from derivatives.evaluation import examination, texts
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.formats import Example, encode_plain, examples_for, gather_examples, own_answer
from derivatives.evaluation.partial import Partial
from derivatives.evaluation.report import AtBudget, ModelAnswers, Questions, accuracy, floor, gain, model_figures
from derivatives.evaluation.texts import bits_per_byte, document_costs
from derivatives.evaluation.thinking import Budgets
from derivatives.training import attention
from derivatives.training.model import load_tokenizer, num_real_tokens, save_model
from verifiers.api import Task, Verdict, correct, incorrect
from verifiers.pool import VerifierPool
from verifiers.tasks.split import question_digest

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
MACHINE = Machine(name="cpu", num_threads=1, num_verifier_workers=1)


def tiny_model(seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=num_real_tokens(load_tokenizer(CHECKPOINT)) + 8, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    model = Qwen2ForCausalLM._from_config(config, attn_implementation=attention.REGISTERED_NAME).eval()
    attention.set_method(model, attention.choose("cpu", torch.float32))
    return model


def answer(outcome: str, truncated: bool = False, num_tokens: int = 4) -> Answer:
    return Answer("text", None, outcome, "reason", num_tokens, truncated)


def tasks(*sources: str) -> list[Task]:
    return [Task(f"t{number}", f"question {number}", "1", source=source) for number, source in enumerate(sources)]


def test_a_missing_verdict_is_wrong_in_the_figure_and_right_in_the_upper_bound() -> None:
    answers = [answer("correct")] * 6 + [answer("incorrect")] * 3 + [answer("no_verdict")]
    found = accuracy(answers, 0.95)
    assert (found["value"], found["low_bound"], found["high_bound"]) == (0.6, 0.6, 0.7)
    assert (found["correct"], found["no_verdict"], found["total"]) == (6, 1, 10)
    assert found["low"] < 0.6 < found["high"]


def test_a_models_figures_are_split_by_task_set() -> None:
    greedy = [answer("correct", num_tokens=2), answer("incorrect", truncated=True, num_tokens=10), answer("correct")]
    sampled = [[answer("correct"), answer("incorrect")], [answer("incorrect")] * 2]
    model = ModelAnswers("chat", greedy, sampled, {"code": [(100, 150.0), (300, 450.0)]}, {"chat": 2 / 3})
    found = model_figures(model, Questions(tasks("a", "b", "a"), [0, 1]))
    assert {name: one["value"] for name, one in found["by_task"].items()} == {"a": 1.0, "b": 0.0}
    assert (found["pass@k"]["k"], found["pass@k"]["value"], found["pass@k"]["problems"]) == (2, 0.5, 2)
    assert found["mean_tokens"] == pytest.approx(16 / 3) and found["truncated_fraction"] == pytest.approx(1 / 3)
    assert found["bits_per_byte"] == {"code": 1.5}
    assert ModelAnswers.from_dict(json.loads(json.dumps(model.as_dict()))) == model


def test_gains_are_paired_over_problems() -> None:
    before = ModelAnswers("chat", [answer("correct"), answer("incorrect")] * 10)
    after = ModelAnswers("chat", [answer("correct")] * 20)
    found = gain(before, after, Questions(tasks(*["a"] * 20)))
    assert found["pass@k"] is None
    assert found["pass@1"] is not None and found["pass@1"]["value"] == 0.5 and found["pass@1"]["low"] > 0.2


def test_the_floor_is_the_best_constant_of_each_set() -> None:
    problems = [Task(str(n), "q", gold, source=source) for n, (gold, source) in enumerate(
        [("3", "a"), ("3", "a"), ("7", "a"), ("5", "b"), ("5", "b"), ("1", "b")])]  # fmt: skip

    def judge(pairs: list[tuple[Task, str]]) -> list[Verdict]:
        return [correct() if f"{{{task.answer}}}" in text else incorrect("other") for task, text in pairs]

    found = floor(problems, judge)  # type: ignore[arg-type]
    assert found["best_constant"] == {"a": {"answer": "3", "value": 2 / 3}, "b": {"answer": "5", "value": 2 / 3}}
    assert found["value"] == pytest.approx(4 / 6)


def test_a_set_that_no_boxed_answer_solves_has_no_floor_and_says_why() -> None:
    add = {"kind": "calls", "entry_point": "f", "calls": [{"args": [1], "expected": 2}]}
    programs = [Task("p1", "q", "def f(n):\n    return n + 1", "code", add, "programs")] * 2
    numbers = [Task("n1", "q", "3", "math", source="numbers"), Task("n2", "q", "4", "math", source="numbers")]
    with VerifierPool(num_workers=1) as pool:
        found, mixed = floor(programs, pool.judge), floor([*programs, *numbers], pool.judge)
    none = {"answer": None, "value": None, "reason": "not judged by a final answer alone"}
    assert found == {"best_constant": {"programs": none}, "value": None}
    assert mixed["best_constant"] == {"programs": none, "numbers": {"answer": "3", "value": 1 / 2}}
    assert mixed["value"] is None


def test_plain_prompts_hold_examples_of_the_same_set_as_far_as_they_fit() -> None:
    examples = {"a": [Example("1 + 1?", "2"), Example("2 + 2?", "4")], "b": [Example("3 + 3?", "6")]}
    task = Task("t", "4 + 4?", "8", source="a")
    tokenizer = load_tokenizer(CHECKPOINT)
    chosen = examples_for(task, examples, 2)
    ids = encode_plain(tokenizer, task, chosen, 500)
    assert tokenizer.decode(ids) == (
        "Question: 1 + 1?\nAnswer: 2\n\nQuestion: 2 + 2?\nAnswer: 4\n\nQuestion: 4 + 4?\nAnswer:"
    )
    assert tokenizer.decode(encode_plain(tokenizer, task, chosen, len(ids) - 1)).count("Question:") == 2
    strangers = examples_for(Task("t", "?", "1", source="c"), examples, 3)
    assert [example.prompt for example in strangers] == ["1 + 1?", "3 + 3?", "2 + 2?"]
    assert own_answer(" 8\n\nQuestion: 5 + 5?\nAnswer: 10") == " 8\n"


def test_a_twin_is_shown_the_examples_of_the_set_that_it_was_made_from() -> None:
    examples = {"words": [Example("w?", "w")], "sums": [Example("1 + 1?", "2"), Example("2 + 2?", "4")]}
    original, twin = (Task("t", "?", "1", source=name) for name in ("sums", "twins/sums"))
    assert examples_for(original, examples, 2) == examples_for(twin, examples, 2) == examples["sums"]
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    source = TaskSource(name="twins/reasoning_gym/chain_sum", split="heldout", count=4, params=params)
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(source,), few_shot=2)
    found = gather_examples(stage, evaluate.protocol_of(stage, 0).tasks, 0)
    assert list(found) == ["reasoning_gym/chain_sum"] and len(found["reasoning_gym/chain_sum"]) == 2


def test_few_shot_examples_are_worked_and_never_a_held_out_question() -> None:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    source = TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=8, params=params)
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(source,), few_shot=3)
    heldout = evaluate.protocol_of(stage, 0).tasks
    examples = gather_examples(stage, heldout, 0)["reasoning_gym/chain_sum"]
    assert len(examples) == 3
    assert not {question_digest(one.prompt) for one in examples} & {question_digest(task.prompt) for task in heldout}
    assert all("\\boxed{" in one.completion for one in examples)


def test_a_problem_of_two_sources_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    few, more = (TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=count, params=params)
                 for count in (4, 6))  # fmt: skip
    first = few.model_copy(update={"verifier": "exact"})
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(first, more))
    found = evaluate.protocol_of(stage, 0).tasks
    assert len({task.prompt for task in found}) == len(found) == 6
    assert [task.verifier for task in found] == ["exact"] * 4 + ["puzzles"] * 2, "as the first source has it"
    assert "4 of 10 problems are given by two sources and asked once" in capsys.readouterr().err


def test_sampled_problems_are_the_first_of_each_set_in_turn() -> None:
    protocol = evaluate.Protocol(tasks("a", "a", "a", "b", "b"), num_samples=2, num_sampled_problems=3)
    assert protocol.sampled_problems() == [0, 1, 3]
    assert evaluate.Protocol(tasks("a", "b"), num_samples=2).sampled_problems() == [0, 1]
    assert evaluate.Protocol(tasks("a", "b")).sampled_problems() == []


def test_bits_per_byte_is_the_models_own_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_model(0), load_tokenizer(CHECKPOINT)
    document = "def add(a, b):\n    return a + b  # süß\n"
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids = [start, *tokenizer.encode(document, add_special_tokens=False)]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1, : num_real_tokens(tokenizer)]
    nats = -logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
    num_bytes = len(document) + 2  # ü and ß take two bytes each
    expected = pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert bits_per_byte(document_costs(model, tokenizer, [document])) == expected
    # Each document has its own costs, whatever it is packed with.
    costs = document_costs(model, tokenizer, ["x = 1\n", document, "y"])
    assert [size for size, _ in costs] == [6, num_bytes, 1] and costs[1][1] / num_bytes == expected
    # In windows, every token still counts once, each window from an end of text.
    monkeypatch.setattr(texts, "WINDOW_TOKENS", 6)
    assert bits_per_byte(document_costs(model, tokenizer, [document])) != expected


def overlap_stage(folder: Path, trained: str) -> StageFile:
    (folder / "corpus" / "data").mkdir(parents=True)
    (folder / "corpus" / "data" / "question_hashes.txt").write_text(f"{question_digest(trained)}\n{'0' * 16}\n")
    stage = EvaluateStage(id="evaluate", models=("base",), tasks=(TaskSource(name="x.jsonl"),))
    return StageFile(recipe="t", stage=stage, inputs={"corpus": StageInput(kind="corpus", path=str(folder / "corpus"))})


def test_overlap_with_training_questions_is_counted_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [Task("t1", "What is 2 + 2?", "4")]
    stage_file = overlap_stage(tmp_path / "clean", "What is 2 + 3?")
    assert evaluate.count_overlap(stage_file, asked) == {"train_questions": 2, "shared": 0}
    assert "0 of 1 held-out questions among 2 trained" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 held-out questions are also in the training data .*t1, in corpus corpus"):
        evaluate.count_overlap(overlap_stage(tmp_path / "dirty", "what is  2 + 2"), asked)
    assert evaluate.count_overlap(stage_file.model_copy(update={"inputs": {}}), asked) is None


@pytest.fixture
def small_stage(tmp_path: Path) -> StageFile:
    for name in ("first", "second"):
        save_model(tiny_model(len(name)), load_tokenizer(CHECKPOINT), tmp_path / name / "model")
    lines = [json.dumps({"prompt": f"What is {n} + 2?", "answer": str(n + 2)}) for n in range(5)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "Some held-out text."}) + "\n")
    stage = EvaluateStage(
        id="evaluate", models=("base", "sft"), tasks=(TaskSource(name=str(tmp_path / "p.jsonl"), split="all"),),
        sampling=Sampling(max_new_tokens=6), num_samples=2, num_sampled_problems=3, few_shot=2, judge="math",
        heldout_text=(CorpusSource(name=str(tmp_path / "text.jsonl"), split="all"),),
    )  # fmt: skip
    inputs = {
        "base": StageInput(kind="base", path=str(tmp_path / "first" / "model")),
        "sft": StageInput(kind="sft", path=str(tmp_path / "second")),
    }
    return StageFile(recipe="t", stage=stage, inputs=inputs, machine=MACHINE)


def test_a_small_stage_writes_results_of_the_agreed_shape(
    tmp_path: Path, small_stage: StageFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    evaluate.run(small_stage, out)
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"models", "floor", "gains", "pairwise", "overlap", "confidence", "judge"}
    assert set(results["pairwise"]) == {"base->sft", "sft->base"} and set(results["gains"]) == {"sft"}
    assert results["pairwise"]["base->sft"] == results["gains"]["sft"]
    assert results["judge"] == "math" and results["overlap"] is None and results["confidence"] == 0.95
    for one in results["models"].values():
        assert one["pass@1"]["total"] == 5 and one["pass@k"]["problems"] == 3 and one["pass@k"]["k"] == 2
        assert set(one["bits_per_byte"]) == {"text.jsonl"}
    # Only the base is also asked plainly; these problems have no worked solutions, so without examples.
    assert {name: set(one["formats"]) for name, one in results["models"].items()} == {
        "base": {"chat", "few_shot"},
        "sft": {"chat"},
    }
    assert results["floor"]["value"] == pytest.approx(1 / 5)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 * 5
    assert {"model", "task", "prompt", "completion", "extracted", "outcome", "reason"} <= set(samples[0])
    assert "pass@1" in capsys.readouterr().out
    assert not (out / "checkpoints").exists()

    monkeypatch.setattr(evaluate, "answer_all", None)  # a finished stage asks nothing again
    evaluate.run(small_stage, out)


def test_an_audited_stage_says_how_far_a_second_verifier_agrees(
    tmp_path: Path, small_stage: StageFile, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = small_stage.stage.model_copy(update={"audit": "exact", "audit_share": 0.6})
    evaluate.run(small_stage.model_copy(update={"stage": stage}), tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["audit"]
    assert found["verifier"] == "exact" and found["problems"] == 3
    assert {name: one["completions"] for name, one in found["models"].items()} == {"base": 3, "sft": 3}
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    audited = [(line["model"], line["task"]) for line in samples if "audit" in line]
    assert len(audited) == 6 and {task for model, task in audited if model == "base"} == {
        task for model, task in audited if model == "sft"
    }
    assert "audited by exact on 3 problems" in capsys.readouterr().out


def test_a_killed_stage_goes_on_after_the_last_finished_model(
    tmp_path: Path, small_stage: StageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    evaluate.run(small_stage, whole)
    asked: list[Path] = []
    answer_all = evaluate.answer_all

    def second_fails(folder: Path, *rest: Any) -> ModelAnswers:
        asked.append(folder)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answer_all(folder, *rest)

    monkeypatch.setattr(evaluate, "answer_all", second_fails)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(small_stage, killed)
    evaluate.run(small_stage, killed)
    assert [folder.parent.name for folder in asked] == ["first", "second", "second"]
    assert (killed / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert (killed / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


@pytest.fixture
def whole_stage(tmp_path: Path, small_stage: StageFile) -> StageFile:
    """With everything that can be asked for."""
    lines = [json.dumps({"prompt": f"Say {word}.", "answer": word, "verifier": "exact"}) for word in ("a", "b", "c")]
    (tmp_path / "kept.jsonl").write_text("\n".join(lines))
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": f"Text {n}."}) + "\n" for n in range(3)))
    stage = small_stage.stage.model_copy(
        update={
            "kept_tasks": (TaskSource(name=str(tmp_path / "kept.jsonl"), split="all"),),
            "thinking_budgets": (2, 4), "answer_tokens": 3,
        }
    )  # fmt: skip
    return small_stage.model_copy(update={"stage": stage})


def test_problems_of_other_domains_are_judged_by_their_own_verifier_and_stand_apart(
    tmp_path: Path, whole_stage: StageFile, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    evaluate.run(whole_stage, out)
    results = json.loads((out / "results.json").read_text())
    for one in results["models"].values():
        assert set(one["by_task"]) == {"p.jsonl"} and one["pass@1"]["total"] == 5
        assert one["kept"]["kept.jsonl"]["total"] == 3 == one["kept_all"]["total"]
        assert one["maj@k"]["k"] == 2 and one["maj@k"]["problems"] == 3
        assert one["tokens"]["right"] is None and one["tokens"]["wrong"]["count"] == 5
        assert one["no_budgets"] in ("no answer opens a thought", "asked plainly, not as a chat")
    pair = results["pairwise"]["base->sft"]
    assert set(pair) == {
        "pass@1", "pass@k", "maj@k", "by_task", "kept", "kept_by_task", "bits_per_byte"
    } and pair["kept_by_task"] == {"kept.jsonl": pair["kept"]}  # fmt: skip
    rise = pair["bits_per_byte"]["text.jsonl"]
    bits = [results["models"][name]["bits_per_byte"]["text.jsonl"] for name in ("base", "sft")]
    assert rise["value"] == pytest.approx(bits[1] / bits[0] - 1) and rise["documents"] == 3
    assert rise["low"] <= rise["value"] <= rise["high"]
    kept = [json.loads(line) for line in (out / "samples_kept.jsonl").read_text().splitlines()]
    assert len(kept) == 2 * 3 and {line["reason"] for line in kept} == {"no_box"}, "the verifier exact, not the judge"
    assert (out / "samples_budgets.jsonl").read_text() == "", "neither model thinks"
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"evaluate/sft/kept", "evaluate/sft/maj@k", "evaluate/sft/bits_per_byte/text.jsonl"} <= set(metrics)
    assert "kept: kept.jsonl" in capsys.readouterr().out


def test_a_problem_of_another_domain_that_was_trained_on_is_refused(tmp_path: Path, whole_stage: StageFile) -> None:
    dirty = overlap_stage(tmp_path / "dirty", "Say b.").inputs["corpus"]
    with pytest.raises(UserError, match="1 held-out questions are also in the training data"):
        evaluate.run(whole_stage.model_copy(update={"inputs": {**whole_stage.inputs, "corpus": dirty}}), tmp_path)


def test_a_stage_that_is_killed_within_a_model_goes_on_after_its_last_part(
    tmp_path: Path, whole_stage: StageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    evaluate.run(whole_stage, whole)
    num_read, num_asked = 0, 0
    costs, ask = examination.document_costs, examination.ask

    def dies_at_the_second(*given: Any) -> Any:
        nonlocal num_read
        num_read += 1
        if num_read == 2:
            raise KeyboardInterrupt
        return costs(*given)

    def counted(*given: Any) -> Any:
        nonlocal num_asked
        num_asked += 1
        return ask(*given)

    monkeypatch.setattr(examination, "document_costs", dies_at_the_second)
    monkeypatch.setattr(examination, "ask", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(whole_stage, killed)
    before = num_asked
    assert before == (2 + 1 + 2) + (1 + 1 + 1), "the base in two formats, its samples, the kept ones in two; then once"
    evaluate.run(whole_stage, killed)
    assert num_asked == before, "only the texts of the second model were left"
    for name in ("results.json", "samples.jsonl", "samples_kept.jsonl", "samples_budgets.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_partial_result_of_another_form_is_asked_anew(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "base", "this run")
    partial.path.parent.mkdir()
    another = {"fingerprint": "another", "parts": {"texts": {}}}
    for text in ("no json", "[]", '{"fingerprint": "this run", "answers": {}}', json.dumps(another)):
        partial.path.write_text(text)
        assert partial.read() == {} and not partial.holds(examination.PARTS)
    partial.write({"format": {"form": "chat"}})
    assert partial.read() == {"format": {"form": "chat"}} and not partial.holds(examination.PARTS)


def test_answers_at_budgets_are_written_to_be_read_of_models_that_think(tmp_path: Path) -> None:
    protocol = evaluate.Protocol(tasks("a", "a"), budgets=Budgets((4, 8), 2))
    thought = Answer("<think>a</think>b", "b", "correct", "reason", 6, False, thought="closed")
    cut = Answer("<think>a\n</think>\nb", "b", "correct", "reason", 8, False, thought="forced")
    thinks = ModelAnswers("chat", [thought] * 2, budgets=[AtBudget(4, [cut] * 2), AtBudget(8, [thought] * 2)])
    plain = ModelAnswers("chat", [answer("correct")] * 2, budgets=[AtBudget(4, [answer("correct")] * 2)])
    evaluate.write_samples(tmp_path, {"base": plain, "rl": thinks}, protocol)
    lines = [json.loads(line) for line in (tmp_path / "samples_budgets.jsonl").read_text().splitlines()]
    assert [(line["model"], line["task"], line["max_thinking_tokens"], line["thought"]) for line in lines] == [
        ("rl", "t0", 4, "forced"), ("rl", "t1", 4, "forced"), ("rl", "t0", 8, "closed"), ("rl", "t1", 8, "closed")
    ]  # fmt: skip
    assert not (tmp_path / "samples_kept.jsonl").exists()


def test_twins_stand_by_themselves_and_count_for_nothing_else() -> None:
    problems = [
        Task("1", "q1", "1", source="gsm8k"), Task("2", "q2", "1", source="gsm8k"),
        Task("1t", "q1'", "1", metadata={"twin_of": "1"}, source="twins/gsm8k"),
        Task("2t", "q2'", "1", metadata={"twin_of": "2"}, source="twins/gsm8k"),
    ]  # fmt: skip
    protocol = evaluate.Protocol(problems, num_samples=2)
    assert protocol.sampled_problems() == [0, 1]
    seen = ModelAnswers("chat", [answer("correct")] * 2 + [answer("incorrect")] * 2)
    able = ModelAnswers("chat", [answer("correct")] * 4, contamination={"gsm8k": {"flag": True}})
    found = evaluate.compare({"able": able, "seen": seen}, protocol.questions())
    assert found["models"]["seen"]["pass@1"]["value"] == 1.0 and found["models"]["seen"]["pass@1"]["total"] == 2
    assert found["models"]["able"]["by_task"]["gsm8k"]["contamination"] == {"flag": True}
    assert found["pairwise"]["able->seen"]["pass@1"]["value"] == 0.0
    assert found["pairwise"]["able->seen"]["by_task"]["twins/gsm8k"]["value"] == -1.0
    assert found["twins"]["gsm8k"]["seen"]["gap"]["value"] == -1.0
    with VerifierPool(num_workers=1) as pool:
        assert floor(problems, pool.judge)["value"] == 1.0


def test_one_checkpoint_is_evaluated_without_a_recipe(tmp_path: Path) -> None:
    save_model(tiny_model(3), load_tokenizer(CHECKPOINT), tmp_path / "model")
    problems = [Task(f"t{n}", f"What is {n} + 1?", str(n + 1), source="mine") for n in range(3)]
    protocol = evaluate.Protocol(problems, Sampling(max_new_tokens=5))
    found = evaluate.evaluate_model(tmp_path / "model", protocol, judge="math", machine=MACHINE)
    assert found["model"]["by_task"]["mine"]["total"] == 3 and len(found["samples"]) == 3
    with pytest.raises(UserError, match="no problem was given"):
        evaluate.evaluate_model(tmp_path / "model", evaluate.Protocol([]), machine=MACHINE)
