"""Adapters in reinforcement learning: the policy that draws is the one that is trained, the reference is the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Qwen2ForCausalLM

from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.training import Lora
from configs.stage import StageFile, StageInput, read_progress
from derivatives import rl
from derivatives.losses.kl import divergence
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.forward import decode_step, prefill, read_weights, rotary_table
from derivatives.rollout.policy_update import PolicyUpdate
from derivatives.rollout.vllm_weights import write_weights
from derivatives.training.forward import hidden_states
from derivatives.training.lora import add_adapters
from derivatives.training.model import load_model, load_tokenizer, num_real_tokens, save_model
from tests.unit.test_rl_stage import CHECKPOINT, GROUPS, PROMPTS, Recorder, plain_log_probs, rl_stage, tiny_model

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = Lora(rank=4, alpha=8)
CLOCKS = {"seconds", "rl/tokens_per_s", "rl/rollout_tokens_per_s", "rl/eta_s", "rl/mfu", "rl/peak_memory_gb"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As the stages here; two threads on busy cores take a hundred times as long for such small products."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(CHECKPOINT)


def adapted_model(lora: Lora = LORA) -> Qwen2ForCausalLM:
    """A tiny model whose adapters do something: the second product is 0 otherwise."""
    model = tiny_model()
    add_adapters(model, lora, seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


@pytest.mark.parametrize("targets", [LORA.targets, ("k_proj", "down_proj")], ids=["all", "two"])
@pytest.mark.parametrize("length", [1, 2, 33])
def test_logits_of_prefill_and_decode_equal_pefts_at_every_position(length: int, targets: tuple[str, ...]) -> None:
    model = adapted_model(LORA.model_copy(update={"targets": targets}))
    torch.manual_seed(length)
    ids = torch.randint(0, 500, (2, length))
    expected = logits(model, ids)
    assert (expected - logits(tiny_model(), ids)).abs().max() > 0.1
    with torch.inference_mode():
        weights, rotary = read_weights(model), rotary_table(model, 64)
        for num_prefilled in {0, length // 2, length - 1}:
            cache = torch.zeros(2, 2, 2, 1, 64, 16)
            if num_prefilled:
                cache[:, :, :, :, :num_prefilled] = prefill(weights, ids[:, :num_prefilled], rotary)
            for position in range(num_prefilled, length):
                found = decode_step(weights, ids[:, position], torch.full((2,), position), cache, rotary)
                torch.testing.assert_close(found, expected[:, position], rtol=1e-4, atol=1e-4)


def test_an_update_of_an_adapter_is_seen_by_the_next_generation(tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted_model()
    engine, sampling = RolloutEngine(model, tokenizer), Sampling(max_new_tokens=12)
    before = engine.generate(PROMPTS, 2, sampling, seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(-1.0)
    after = engine.generate(PROMPTS, 2, sampling, seed=1)
    assert before != after
    for prompt, group in zip(PROMPTS, after, strict=True):
        for one in group:
            with torch.no_grad():
                wanted = plain_log_probs(model, prompt, one.token_ids, 1.0)
            torch.testing.assert_close(torch.tensor(one.log_probs), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_is_the_base_and_the_gradient_that_of_the_formula_on_adapters_alone(precision: str) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    stage = rl_stage(kl_coefficient=0.5, lora=LORA, loss="grpo")
    recorder, plain = Recorder(adapted_model().to(dtype)), adapted_model()
    base = Recorder(tiny_model().to(dtype)).model
    update = PolicyUpdate(recorder, stage, StageFile(recipe="t", stage=stage, model="base"))  # type: ignore[arg-type]
    assert update.reference is recorder.model  # no second model
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = update._log_probs

    def spy(model: Any, hidden_TE: torch.Tensor, batch: Any) -> Any:
        found = real(model, hidden_TE, batch)
        if not torch.is_grad_enabled():
            seen.append((found[0], real(base, hidden_states(base, batch), batch)[0]))
        return found

    update._log_probs = spy  # type: ignore[method-assign]
    found = update.step(PROMPTS, GROUPS)
    assert seen and all(torch.equal(reference_T, base_T) for reference_T, base_T in seen)
    assert found["divergence"] > 0.01 and found["clipped"] == 0.0
    given = {name: weight for name, weight in recorder.model.named_parameters() if weight.grad is not None}
    assert given and all("lora_" in name for name in given)
    assert {name for name, weight in recorder.model.named_parameters() if weight.requires_grad} == set(given)
    if precision == "bf16":
        return
    # The first group's known rewards are 1, 0, 0; the second has no spread, so that only the divergence moves it.
    advantages = [[2**0.5, -(0.5**0.5), None, -(0.5**0.5)], [0.0] * 4]
    for prompt, group, row in zip(PROMPTS, GROUPS, advantages, strict=True):
        for one, advantage in zip(group, row, strict=True):
            if advantage is not None:
                ids = one.completion.token_ids
                log_probs = plain_log_probs(plain, prompt, ids, 1.0)
                with torch.no_grad():
                    reference = plain_log_probs(tiny_model(), prompt, ids, 1.0)
                losses = -advantage * log_probs + 0.5 * divergence(log_probs, reference, "k3")
                (losses.mean() / 7).backward()
    for name, weight in plain.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(given[name].grad, weight.grad, rtol=1e-3, atol=1e-5, msg=name)


def rl_file(tmp_path: Path, **given: Any) -> StageFile:
    if not (tmp_path / "model").exists():
        save_model(tiny_model(), load_tokenizer(CHECKPOINT), tmp_path / "model")
        lines = [{"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(6)]
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain: dict[str, Any] = {
        "data": (str(tmp_path / "p.jsonl"),), "lora": LORA, "learning_rate": 3e-2, "steps": 3, "checkpoint_every": 1,
        "kl_coefficient": 0.1, "updates_per_step": 2, "entropy_coefficient": 0.1,
    }  # fmt: skip
    inputs = {"base": StageInput(kind="base", path=str(tmp_path / "model"))}
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1)
    return StageFile(recipe="t", stage=rl_stage(**{**plain, **given}), model="base", inputs=inputs, machine=machine)


def run(given: StageFile, out: Path) -> list[dict[str, Any]]:
    """The stage's log, without what the clock says."""
    out.mkdir(exist_ok=True)
    rl.run(given, out)
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in read_progress(out)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_samples_from_the_policy_that_it_trains(tmp_path: Path, precision: str) -> None:
    settings = {"precision": precision, "updates_per_step": 1, "recompute": "full"}
    lines = run(rl_file(tmp_path, **settings), tmp_path / "out")
    bound = {"fp32": 1e-5, "bf16": 0.05}[precision]
    assert all(line["rl/largest_mismatch"] < bound and line["rl/clipped"] == 0.0 for line in lines)
    # It starts as its reference, and leaves it; rounding apart, as the first step's divergence is of equal logits.
    assert lines[0]["rl/divergence"] == 0.0 and lines[-1]["rl/divergence"] > 1e-4


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_the_written_model_is_the_adapted_one(tmp_path: Path) -> None:
    from peft import PeftModel

    run(rl_file(tmp_path), tmp_path / "out")
    ids = torch.tensor([[5, 6, 7, 900, 31, 8]])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    before = logits(base, ids)
    adapted = logits(PeftModel.from_pretrained(base, tmp_path / "out" / "adapter"), ids)
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model", dtype=torch.float32), ids)
    assert (merged - adapted).abs().max() < 0.05 * (merged - before).abs().max()  # weights are rounded to bf16
    assert set(load_file(tmp_path / "out/model/model.safetensors")) == set(
        load_file(tmp_path / "model/model.safetensors")
    )


@pytest.mark.parametrize("cut", ["drawn", "trained"])
def test_a_killed_run_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str) -> None:
    given = rl_file(tmp_path, precision="bf16")
    whole = run(given, tmp_path / "whole")
    real = rl.Steps.update_on

    def killed(self: rl.Steps, step: int, rolled: Any) -> dict[str, float]:
        found = real(self, step, rolled) if cut == "trained" else {}
        if step == 2:
            raise KeyboardInterrupt
        return found or real(self, step, rolled)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(rl.Steps, "update_on", killed)
        run(given, tmp_path / "killed")
    torch.manual_seed(99)  # another process would have drawn other numbers
    assert run(given, tmp_path / "killed") == whole
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_server_gets_the_merged_weights(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = adapted_model()
    write_weights(model, tokenizer, tmp_path / "written")
    opened, _ = load_model(tmp_path / "written", "fp32")
    assert set(load_file(tmp_path / "written/model.safetensors")) == {*tiny_model().state_dict()}
    ids, real = torch.tensor([[5, 6, 7, 900, 31, 8]]), num_real_tokens(tokenizer)
    torch.testing.assert_close(logits(opened, ids)[..., :real], logits(model, ids)[..., :real], rtol=1e-4, atol=1e-4)
    write_weights(model.to(torch.bfloat16), tokenizer, tmp_path / "half")
    assert {weight.dtype for weight in load_file(tmp_path / "half/model.safetensors").values()} == {torch.bfloat16}
