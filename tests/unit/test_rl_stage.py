"""The reinforcement learning stage: what it refuses, what it counts, and the gradient that it takes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

import derivatives.seedling
from configs.errors import UserError
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage, check_rl_settings
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl
from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Group, Judged
from derivatives.rollout.policy_update import LOSSES, PolicyUpdate
from derivatives.rollout.tools import Fed
from derivatives.training import attention
from derivatives.training.forward import hidden_states
from derivatives.training.model import load_tokenizer, num_real_tokens, save_model
from derivatives.training.ranks import ALONE
from verifiers.api import Verdict, correct, incorrect, no_verdict

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"


def tiny_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=num_real_tokens(load_tokenizer(CHECKPOINT)) + 8, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    return Qwen2ForCausalLM._from_config(config, attn_implementation=attention.REGISTERED_NAME).eval()


def rl_stage(**given: Any) -> RlStage:
    plain = {
        "id": "rl", "data": ("p.jsonl",), "steps": 2, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-3,
        "sampling": Sampling(max_new_tokens=8), "precision": "fp32", "max_no_verdict": 0.05,
    }  # fmt: skip
    return RlStage(**{**plain, **given})


def judged(tokens: list[int], verdict: Verdict, reason: str = "stop") -> Judged:
    return Judged(Completion(tokens, [-1.0] * len(tokens), reason, "text"), verdict)


class Recorder:
    """Stands where the trainer stands: takes gradients, changes nothing."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        attention.set_method(model, attention.choose("cpu", torch.float32))
        self.model, self.tokenizer, self.device = model, load_tokenizer(CHECKPOINT), "cpu"
        self.ranks = ALONE
        self.divisors: list[float] = []
        self.num_rows = 0

    def update(self, batches: Any, loss: Any, divisor: float, keys: list[str]) -> dict[str, float]:
        total = torch.zeros(())
        for batch in batches:
            part = loss(hidden_states(self.model, batch), batch) / divisor
            part.backward()
            total += part.detach()
        self.divisors.append(divisor)
        self.num_rows += len(keys)
        return {"loss": float(total), "grad_norm": 1.0, "lr": 1e-3}

    @torch.no_grad()
    def look(self, batch: Any, of: Any) -> torch.Tensor:
        found: torch.Tensor = of(hidden_states(self.model, batch), batch)
        return found


PROMPTS = [[5, 6, 7], [9, 10]]
GROUPS: list[Group] = [
    [
        judged([11, 12, 13], correct()), judged([14], incorrect("wrong")), judged([15, 16], no_verdict("fault")),
        judged([17, 18, 19, 20], incorrect("wrong"), "length"),
    ],
    [judged([21, 22], incorrect("wrong")) for _ in range(4)],
]  # fmt: skip
"""Known rewards 1, 0, 0 in the first group; no spread in the second."""


def plain_log_probs(model: Qwen2ForCausalLM, prompt: list[int], ids: list[int], temperature: float) -> Tensor:
    logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    real = logits[:, : num_real_tokens(load_tokenizer(CHECKPOINT))] / temperature
    return real.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).squeeze(1)


# First group: known rewards 1, 0, 0 have mean 1/3 and deviation sqrt(2)/3. Second group: no spread.
SCALED = [2**0.5, -(0.5**0.5), None, -(0.5**0.5)]
CENTRED = [2 / 3, -1 / 3, None, -1 / 3]
OTHERS = [1.0, -1 / 2, None, -1 / 2]
"""The reward less the mean of the two others."""
NUM_COMPLETIONS, NUM_TOKENS, LIMIT = 3 + 4, (3 + 1 + 4) + 4 * 2, 8


@pytest.mark.parametrize(
    ("loss", "advantages", "share", "divisor"),
    [
        ("grpo", SCALED, lambda length: 1 / length / NUM_COMPLETIONS, NUM_COMPLETIONS),
        ("gspo", SCALED, lambda length: 1 / length / NUM_COMPLETIONS, NUM_COMPLETIONS),
        ("dapo", SCALED, lambda length: 1 / NUM_TOKENS, NUM_TOKENS),
        ("cispo", SCALED, lambda length: 1 / NUM_TOKENS, NUM_TOKENS),
        ("dr_grpo", CENTRED, lambda length: 1 / LIMIT / NUM_COMPLETIONS, NUM_COMPLETIONS),
        ("rloo", OTHERS, lambda length: 1 / NUM_COMPLETIONS, NUM_COMPLETIONS),
    ],
)
@pytest.mark.parametrize("micro_batch_tokens", [6, 100])
def test_the_gradient_is_that_of_the_formula_on_single_completions(
    loss: str, advantages: list[float | None], share: Any, divisor: float, micro_batch_tokens: int
) -> None:
    stage = rl_stage(
        loss=loss, micro_batch_tokens=micro_batch_tokens, sampling=Sampling(temperature=0.8, max_new_tokens=LIMIT)
    )
    recorder, plain = Recorder(tiny_model()), tiny_model()
    update = PolicyUpdate(recorder, stage, SimpleNamespace())  # type: ignore[arg-type]
    found = update.step(PROMPTS, GROUPS)

    for one, advantage in zip(GROUPS[0], advantages, strict=True):
        if advantage is not None:
            ids = one.completion.token_ids
            log_probs = plain_log_probs(plain, PROMPTS[0], ids, 0.8)
            (-advantage * share(len(ids)) * log_probs.sum()).backward()
    for (name, parameter), other in zip(recorder.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)

    assert recorder.divisors == [divisor]
    assert recorder.num_rows == 3  # zero advantages are counted, not computed
    assert (found["trained_tokens"], found["groups_without_spread"], found["clipped"]) == (8, 0.5, 0.0)


@pytest.mark.parametrize(("loss", "divisor"), [("grpo", 2), ("dapo", 3 + 2)])
def test_what_was_fed_is_read_and_not_learnt(loss: str, divisor: float) -> None:
    ids, fed = [11, 12, 13, 14, 15], (Fed(1, 3),)
    recorder, plain = Recorder(tiny_model()), tiny_model()
    of_drawn = plain_log_probs(plain, PROMPTS[0], ids, 1.0)[[0, 3, 4]]
    values = of_drawn.tolist()
    one = Completion(ids, [values[0], 0.0, 0.0, *values[1:]], "stop", "text", fed)
    others = plain_log_probs(plain, PROMPTS[0], [21, 22], 1.0)
    two = Completion([21, 22], others.tolist(), "stop", "text")
    update = PolicyUpdate(recorder, rl_stage(loss=loss), SimpleNamespace())  # type: ignore[arg-type]
    found = update.step(PROMPTS[:1], [[Judged(one, correct()), Judged(two, incorrect("wrong"))]])

    shares = (1 / 3 / 2, 1 / 2 / 2) if loss == "grpo" else (1 / 5, 1 / 5)  # of the three drawn tokens, and of the two
    (-(shares[0] * of_drawn.sum() - shares[1] * others.sum())).backward()  # advantages 1 and -1
    for (name, parameter), other in zip(recorder.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert recorder.divisors == [divisor] and found["trained_tokens"] == 5
    assert found["mismatch"] < 1e-6 and found["clipped"] == 0.0


def test_the_entropy_bonus_moves_all_rows_towards_more_entropy() -> None:
    recorder, plain = Recorder(tiny_model()), tiny_model()
    stage = rl_stage(loss="dapo", entropy_coefficient=0.3, learning_rate=1e-3)
    groups = [GROUPS[1], GROUPS[1]]  # no spread anywhere: only the bonus is left
    update = PolicyUpdate(recorder, stage, SimpleNamespace())  # type: ignore[arg-type]
    found = update.step(PROMPTS, groups)
    assert recorder.num_rows == 8 and found["entropy_coefficient"] == 0.3
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for one in group:
            ids = one.completion.token_ids
            logits = plain(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            log_probs = logits[:, : num_real_tokens(load_tokenizer(CHECKPOINT))].log_softmax(-1)
            entropy = -(log_probs.exp() * log_probs).sum()
            (-0.3 / 16 * entropy).backward()
    for (name, parameter), other in zip(recorder.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_nearing_the_limit_costs_reward_where_the_recipe_says_so() -> None:
    stage = rl_stage(truncated="shaped", overlong_buffer=5)  # the last 5 of 8 tokens: from 3 on
    rewards_PG, known_PG = PolicyUpdate(Recorder(tiny_model()), stage, SimpleNamespace()).rewards(GROUPS)  # type: ignore[arg-type]
    # 3 tokens cost nothing, 1 token nothing, no verdict, cut: 0 - 1.
    assert rewards_PG[0].tolist() == [1.0, 0.0, 0.0, -1.0] and known_PG[0].tolist() == [True, True, False, True]
    long = [[judged([1] * 4, correct()), judged([1] * 8, correct())]]
    rewards_PG, _ = PolicyUpdate(Recorder(tiny_model()), stage, SimpleNamespace()).rewards(long)  # type: ignore[arg-type]
    assert rewards_PG[0].tolist() == pytest.approx([1 - 1 / 5, 0.0])


def test_what_the_log_says_of_a_step_leaves_out_missing_verdicts() -> None:
    half = judged([21, 22], incorrect("close", score=0.5))
    told = rl.describe([*GROUPS, [half] * 4], 2.0, rl_stage(partial_credit=True))
    # Eleven verdicts of twelve: one right, four half, six wrong; one group of three has a right completion.
    assert told["reward"] == pytest.approx((1 + 4 * 0.5) / 11) and told["solved_fraction"] == pytest.approx(1 / 11)
    assert told["solved_any"] == pytest.approx(1 / 3) and told["no_verdict"] == pytest.approx(1 / 12)
    assert told["tokens"] == 10 + 8 + 8 and told["rollout_tokens_per_s"] == 13.0
    assert "score_math" not in told


def test_the_length_of_a_step_decides_what_nearing_it_costs() -> None:
    stage = rl_stage(truncated="shaped", sampling=Sampling(max_new_tokens=20), length_stages=(10,))
    update = PolicyUpdate(Recorder(tiny_model()), stage, SimpleNamespace())  # type: ignore[arg-type]
    nine = [[judged([1] * 9, correct()), judged([1] * 3, correct())]]
    assert update.rewards(nine)[0].tolist() == [[1.0, 1.0]]  # of 20 tokens the last 4 cost
    update.limit = 10  # now the last 2 do, of which one is used
    assert update.rewards(nine)[0].tolist() == [[0.5, 1.0]]


def test_a_cut_completion_is_masked_where_the_recipe_says_so() -> None:
    update = PolicyUpdate(Recorder(tiny_model()), rl_stage(truncated="mask"), SimpleNamespace())  # type: ignore[arg-type]
    _, known_PG = update.rewards(GROUPS)
    assert known_PG.tolist() == [[True, True, False, False], [True] * 4]


def test_two_updates_split_the_problems_and_keep_the_old_policy() -> None:
    recorder = Recorder(tiny_model())
    groups = [GROUPS[0], [judged([21], correct()), judged([22], incorrect("wrong")), judged([23], incorrect("wrong"))]]
    groups[1].append(judged([24], no_verdict("fault")))
    update = PolicyUpdate(recorder, rl_stage(updates_per_step=2), SimpleNamespace())  # type: ignore[arg-type]
    found = update.step(PROMPTS, groups)
    assert recorder.divisors == [3.0, 3.0]
    assert found["loss"] == pytest.approx(0.0, abs=1e-6)  # nothing moved in between, so both ratios are 1


def test_the_divergence_to_the_starting_model_moves_rows_without_advantage(tmp_path: Path) -> None:
    save_model(tiny_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
    inputs = {"base": StageInput(kind="base", path=str(tmp_path / "model"))}
    stage = rl_stage(kl_coefficient=0.5)
    recorder = Recorder(tiny_model())
    update = PolicyUpdate(recorder, stage, StageFile(recipe="t", stage=stage, model="base", inputs=inputs))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in recorder.model.parameters():
            parameter += 0.02
    found = update.step(PROMPTS, GROUPS)
    assert recorder.num_rows == 3 + 4
    assert found["divergence"] > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampling": Sampling(temperature=0.0)}, "rl.sampling.temperature: 0 makes all completions"),
        ({"sampling": Sampling(top_p=0.9)}, "rl.sampling.top_p: 0.9 draws from another .* allowed in RL: 1"),
        ({"sampling": Sampling(top_k=5)}, "rl.sampling.top_k: 5 .* allowed in RL: 0"),
        ({"sampling": Sampling(min_p=0.1)}, "rl.sampling.min_p: 0.1 .* allowed in RL: 0"),
        ({"lora": {"dropout": 0.1}}, "rl.lora.dropout: 0.1 makes .* in RL: 0; set rl.lora.dropout=0"),
        ({"loss": "dapo", "kl_coefficient": 0.1}, "dapo has no KL term"),
        ({"overlong_buffer": 4}, "4 was given with truncated wrong .* allowed: up to 8, with truncated shaped"),
        ({"truncated": "shaped", "overlong_buffer": 9}, "9 was given .* max_new_tokens 8; allowed: up to 8"),
    ],
)
def test_a_stage_refuses_settings_that_contradict(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        rl.run(StageFile(recipe="t", stage=rl_stage(**given)), tmp_path)


@pytest.mark.parametrize("loss", LOSSES)
def test_only_a_loss_with_a_ratio_may_update_more_than_once(loss: Any) -> None:
    stage = rl_stage(loss=loss, updates_per_step=2)
    if LOSSES[loss].ON_POLICY_ONLY:
        with pytest.raises(UserError, match=f"updates_per_step: 2 was given, but {loss} has no ratio"):
            check_rl_settings(stage)
    else:
        check_rl_settings(stage)


def test_a_problem_that_leaves_no_room_for_an_answer_is_refused_before_the_first_step() -> None:
    model, tokenizer = tiny_model(), load_tokenizer(CHECKPOINT)
    tasks = [rl.Task("short", "1 + 1?", "2"), rl.Task("long", "1 + " * 256, "2")]
    rl.check_lengths(tasks[:1], model, tokenizer, None, 8)
    with pytest.raises(UserError, match="max_new_tokens: 8 after the .* of problem long; the model has 256 positions"):
        rl.check_lengths(tasks, model, tokenizer, None, 8)


def test_too_few_problems_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(UserError, match="prompts_per_step: 2 distinct problems a step, but .* has 1"):
        rl.read_problems(StageFile(recipe="t", stage=rl_stage()), rl_stage(data=(str(path),)))


def test_a_small_run_leaves_a_model_metrics_and_samples(tmp_path: Path) -> None:
    save_model(tiny_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
    lines = [{"id": f"p{number}", "prompt": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(6)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = rl_stage(data=(str(tmp_path / "p.jsonl"),), precision="bf16", steps=3)
    inputs = {"base": StageInput(kind="base", path=str(tmp_path / "model"))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    out = tmp_path / "out"
    out.mkdir()
    rl.run(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine), out)

    assert (out / "model" / "model.safetensors").is_file() and not (out / "checkpoints").exists()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rl/steps"] == 3 and metrics["rl/problems"] == 6
    progress = read_progress(out)
    assert [line["step"] for line in progress] == [1, 2, 3]
    for line in progress:
        assert 0 < line["rl/length"] <= 8 and line["rl/tokens"] == pytest.approx(line["rl/length"] * 8)
        assert {"rl/reward", "rl/entropy", "rl/mismatch", "rl/grad_norm", "rl/no_verdict"} <= set(line)
    samples = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert len(samples) == 3 * 2 * 4
    assert {sample["reason"] for sample in samples if sample["finish_reason"] == "length"} == {"truncated"}
