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


def test_a_corpus_without_counts_leaves_the_stage_open() -> None:
    amount = amount_of(sft("corpus"), known(corpus("examples", {"name": "sympy_examples"})))
    assert amount.train is None
    assert amount.unknown.startswith("how many rows corpus will hold is known once it has been built")


def test_conversations_count_what_the_assistant_says(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d e"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": turns}) + "\nnot json\n")
    amount = amount_of(sft(str(tmp_path / "x.jsonl")), known())
    assert amount.train is not None and amount.train.trained == 2 * (3 + 1)


def test_dpo_counts_both_completions_and_the_pass_of_the_reference(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": "a", "chosen": "b c", "rejected": "d"}] * 6)
    stage = DpoStage(id="dpo", data=(str(path),), learning_rate=1e-6, batch_pairs=2)
    amount = amount_of(stage, known())
    assert amount.steps == 3 + 1
    assert amount.train is not None and amount.train.tokens == 2 * 2 * (1 + TEMPLATE_TOKENS + 2 + 1)


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
