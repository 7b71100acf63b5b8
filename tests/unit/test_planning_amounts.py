"""How much a stage has to do, by hand; and what is assumed where it is not known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Stage
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, PretrainStage, SftStage
from derivatives.planning.amounts import TEMPLATE_TOKENS, Built, Known, amount_of, drawn_before


def known(*stages: Stage, **built: Built) -> Known:
    return Known({stage.id: stage for stage in stages}, built, lambda text: len(text.split()))


def corpus(output: str, *sources: dict[str, object]) -> CorpusStage:
    plain = {"id": "corpus", "kind": "corpus", "output": output, "sources": list(sources)}
    return CorpusStage.model_validate(plain)


def sft(data: str, **fields: object) -> SftStage:
    return SftStage.model_validate({"id": "sft", "kind": "sft", "data": [data], "learning_rate": 1e-5, **fields})


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pretraining_takes_its_tokens_and_the_built_documents_lengths(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "documents.npy", np.array([0, 100, 400]))
    stage = PretrainStage(id="pretrain", data=("corpus",), num_tokens=10_000, batch_tokens=4096, learning_rate=1e-4)
    amount = amount_of(stage, known(corpus=Built(tmp_path)))
    assert amount.steps == 3 and amount.assumptions == []
    assert amount.train is not None
    assert amount.train.tokens == 4096
    assert amount.train.document_tokens == (100**2 + 300**2) / 400  # the document that a token lies in
    assert amount.train.trained == 4096 * (1 - 2 / 400)  # the first token of a document is not predicted


def test_pretraining_on_a_corpus_that_is_not_there_says_what_it_assumes() -> None:
    made = corpus("tokens", {"name": "python_stdlib"}).model_copy(update={"sequence_length": 1024})
    stage = PretrainStage(id="pretrain", data=("corpus",), num_tokens=10_000, learning_rate=1e-4)
    amount = amount_of(stage, known(made))
    assert amount.train is not None and amount.train.document_tokens == 512
    assert amount.assumptions == ["documents of half the corpus' sequence_length (1024 tokens)"]


def test_sft_reads_lengths_from_its_own_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": "a b c", "completion": "d e"}, {"prompt": "a", "completion": "b c"}])
    amount = amount_of(sft(str(path), epochs=3, batch_examples=4), known())
    assert amount.steps == 2  # three passes over two examples, four a step
    assert amount.train is not None
    # Two examples a step: prompts of 2 words on average, the template, completions of 2 words and the turn's end.
    assert amount.train.tokens == 2 * (2 + TEMPLATE_TOKENS + 2 + 1)
    assert amount.train.trained == 2 * (2 + 1)


def test_sft_on_a_corpus_that_is_not_there_takes_the_recipes_counts() -> None:
    made = corpus("examples", {"name": "reasoning_gym/gcd", "count": 100}, {"name": "gsm8k"})
    amount = amount_of(sft("corpus", batch_examples=64, max_length=400), known(made))
    assert amount.steps == -(-(100 + 7473) // 64)
    assert amount.assumptions == ["corpus: 7,573 rows by its counts, 100 tokens each"]


def test_samples_that_are_not_there_count_as_many_as_can_be_and_pairs_not_at_all() -> None:
    asked = corpus("problems", {"name": "reasoning_gym/gcd", "count": 100})
    sample = SampleStage(id="drawn", data=("corpus",), num_samples=4, max_examples=2)
    amount = amount_of(sft("drawn", batch_examples=64, max_length=400), known(asked, sample))
    assert amount.steps == -(-200 // 64)
    assert amount.assumptions == ["drawn: at most 200 rows by its counts, 100 tokens each"]
    pairs = DpoStage(id="dpo", data=("drawn",), learning_rate=1e-6)
    assert amount_of(pairs, known(asked, sample)).unknown.startswith("the number of pairs is known when")


def test_a_corpus_without_counts_leaves_the_stage_open() -> None:
    amount = amount_of(sft("corpus"), known(corpus("examples", {"name": "sympy_examples"})))
    assert amount.train is None
    assert amount.unknown.startswith("how many rows corpus will hold is known once it has been built")


def test_conversations_count_what_the_assistant_says(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d e"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": turns}) + "\nnot json\n")
    amount = amount_of(sft(str(tmp_path / "x.jsonl")), known())
    assert amount.train is not None and amount.train.trained == 2 * (3 + 1)


def test_dpo_counts_both_completions_and_apart_from_its_steps_the_pass_of_the_reference(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": "a", "chosen": "b c", "rejected": "d"}] * 6)
    stage = DpoStage(id="dpo", data=(str(path),), learning_rate=1e-6, batch_pairs=2)
    amount = amount_of(stage, known())
    assert (amount.steps, amount.before) == (3, 1.0)  # a third of what three steps take
    assert amount.train is not None and amount.train.tokens == 2 * 2 * (1 + TEMPLATE_TOKENS + 2 + 1)
    assert amount.tokens == 3 * amount.train.tokens and amount.length == 2 / 6
    twice = amount_of(stage.model_copy(update={"epochs": 2.0}), known())
    assert (twice.steps, twice.before) == (6, 1.0)


def rl(**fields: object) -> RlStage:
    plain = {"id": "rl", "kind": "rl", "data": ["corpus"], "learning_rate": 1e-6, "steps": 5, **fields}
    return RlStage.model_validate(plain)


def test_rl_draws_groups_and_trains_on_those_with_spread(tmp_path: Path) -> None:
    line = {"rl/length": 40.0, "rl/tokens": 1280, "rl/trained_tokens": 960.0}
    measured = drawn_before([line, line, {"step": 3}])
    made = corpus("problems", {"name": "reasoning_gym/gcd", "count": 100})
    stage = rl(prompts_per_step=8, group_size=4)
    amount = amount_of(stage, known(made, rl=Built(tmp_path, metrics=measured)))
    assert amount.draw is not None and amount.train is not None
    assert (amount.draw.completions, amount.draw.mean_tokens, amount.draws) == (32, 40, 5)
    assert amount.train.trained == 32 * 0.75 * 40
    blind = amount_of(stage, known(made))
    assert blind.draw is not None and blind.draw.mean_tokens == 64
    assert any("half of max_new_tokens (128)" in text for text in blind.assumptions)
    assert any("50% of the groups" in text for text in blind.assumptions)


def test_rl_with_a_reference_trains_on_all_groups() -> None:
    made = corpus("problems", {"name": "reasoning_gym/gcd", "count": 100})
    amount = amount_of(rl(kl_coefficient=0.1), known(made))
    assert amount.train is not None and amount.draw is not None
    assert amount.train.trained == amount.draw.completions * amount.draw.mean_tokens


def test_sampling_draws_batches_of_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": "a b", "answer": "1"}] * 10)
    stage = SampleStage(id="sample", data=(str(path),), num_samples=4, batch_problems=5)
    amount = amount_of(stage, known())
    assert amount.draw is not None
    assert (amount.draw.completions, amount.draws) == (20, 2)


@pytest.mark.parametrize(("name", "expected"), [("gsm8k", 1319), ("nowhere", None)])
def test_an_evaluation_counts_its_problems_or_says_that_it_cannot(name: str, expected: int | None) -> None:
    task = {"name": name, "split": "test"}
    stage = EvaluateStage.model_validate(
        {"id": "evaluate", "kind": "evaluate", "models": ["base", "sft"], "tasks": [task], "few_shot": 0}
    )
    amount = amount_of(stage, known())
    if expected is None:
        assert amount.unknown == "how many problems nowhere has is not known here; set its count"
    else:
        assert amount.draw is not None and amount.draw.completions == expected and amount.draws == 2


def test_pass_at_k_adds_samples_and_the_choice_of_a_format_adds_trials() -> None:
    task = {"name": "reasoning_gym/gcd", "split": "heldout", "count": 1000}
    stage = EvaluateStage.model_validate(
        {"id": "evaluate", "kind": "evaluate", "models": ["base"], "tasks": [task], "num_samples": 8,
         "num_sampled_problems": 200, "few_shot": 2}
    )  # fmt: skip
    amount = amount_of(stage, known())
    assert amount.draw is not None and amount.draw.completions == 1000 + 8 * 200 + 2 * 300


def test_an_evaluation_counts_other_domains_and_what_follows_a_thought_that_is_closed() -> None:
    task = {"name": "reasoning_gym/gcd", "split": "heldout", "count": 400}
    kept = {"name": "functions/lists", "split": "heldout", "count": 200}
    stage = EvaluateStage.model_validate(
        {"id": "evaluate", "kind": "evaluate", "models": ["base", "sft"], "tasks": [task], "kept_tasks": [kept],
         "few_shot": 2, "thinking_budgets": [64, 128], "answer_tokens": 32, "sampling": {"max_new_tokens": 256}}
    )  # fmt: skip
    amount = amount_of(stage, known())
    # The base is tried in two formats: on 300 of 400 problems, and on all 200 others, whose better answers are kept.
    whole = 400 + 200 + (2 * 300 + 2 * 200 - 200) / 2
    forced = 400 * (1 - 64 / 256) + 400 * (1 - 128 / 256)
    assert amount.draw is not None and amount.draw.completions == whole + forced
    tokens = whole * 256 / 2 + forced * 32 / 2
    assert amount.draw.mean_tokens == pytest.approx(tokens / (whole + forced))
    assert amount.draw.prompts == 600 + forced
    assert any("closed at the budgets" in one for one in amount.assumptions)


def test_held_out_texts_are_read_and_nothing_is_drawn_for_them() -> None:
    given = {"id": "evaluate", "kind": "evaluate", "models": ["base"], "few_shot": 0,
             "tasks": [{"name": "reasoning_gym/gcd", "split": "heldout", "count": 100}]}  # fmt: skip
    texts = [{"name": "python_stdlib", "split": "heldout", "count": 10}, {"name": "sympy_examples", "split": "heldout"}]
    plain, read = (
        amount_of(EvaluateStage.model_validate({**given, "heldout_text": found}), known()).draw for found in ([], texts)
    )
    assert plain is not None and read is not None and read.completions == plain.completions
    more = (read.prompts - plain.prompts) * read.prompt_tokens
    assert more == pytest.approx((10 * 6_000 + 200_000) / 3.5) and read.prompt_tokens == plain.prompt_tokens


def test_the_probe_is_asked_of_the_first_model_alone() -> None:
    task = {"name": "reasoning_gym/gcd", "split": "heldout", "count": 100}
    given = {"id": "evaluate", "kind": "evaluate", "models": ["base", "sft"], "tasks": [task], "few_shot": 0}
    plain, probed = (
        amount_of(EvaluateStage.model_validate({**given, "probe": probe}), known()).draw for probe in (False, True)
    )
    assert plain is not None and probed is not None
    assert probed.completions == plain.completions + 2 * 100 * 3 / 2, "problems and controls, at three shares"


def test_examples_of_a_corpus_made_for_long_traces_are_planned_as_traces() -> None:
    made = corpus("examples", {"name": "reasoning_gym/gcd", "count": 1000})
    long = made.model_copy(update={"sequence_length": 32_768})
    amount = amount_of(sft("corpus", epochs=2, batch_examples=100, max_length=16_384), known(long))
    assert amount.steps == 20 and amount.train is not None
    assert amount.train.tokens == pytest.approx(100 * (16_384 / 4 + TEMPLATE_TOKENS))
    assert "4096 tokens each" in amount.assumptions[0]
    short = amount_of(sft("corpus", batch_examples=100, max_length=16_384), known(made))
    assert short.train is not None and short.train.tokens == pytest.approx(100 * (400 + TEMPLATE_TOKENS))


def test_replayed_documents_come_on_top_of_the_examples(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "documents.npy", np.array([0, 100, 400]))
    path = write(tmp_path / "x.jsonl", [{"prompt": "a b c", "completion": "d e f g h"}] * 8)
    plain = amount_of(sft(str(path), batch_examples=8), known())
    replay = {"data": ["text"], "batch_tokens": 600}
    mixed = amount_of(sft(str(path), batch_examples=8, replay=replay), known(text=Built(tmp_path)))
    assert plain.train is not None and mixed.train is not None and mixed.steps == plain.steps == 1
    assert mixed.train.tokens == plain.train.tokens + 600
    assert mixed.train.trained == pytest.approx(plain.train.trained + 600 * (1 - 2 / 400))
    squares = plain.train.tokens * plain.train.document_tokens + 600 * (100**2 + 300**2) / 400
    assert mixed.train.document_tokens == pytest.approx(squares / mixed.train.tokens)
