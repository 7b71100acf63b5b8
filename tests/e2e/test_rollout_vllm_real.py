"""The vLLM engine against vLLM itself, on CPU, on the loopback device.

DERIVE_VLLM=$(python tests/benchmarks/vllm_environment.py) pytest tests/e2e/test_rollout_vllm_real.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import derivatives.seedling
from configs.errors import EXIT_RETRY
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.settings.rollout import RolloutServer
from configs.stage import StageFile, StageInput, read_progress
from derivatives.rollout import vllm_collective
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.store import read_step
from derivatives.rollout.vllm_engine import VllmEngine
from derivatives.training.chat import conversation, encode_chat
from derivatives.training.model import load_model, num_real_tokens

CHECKPOINT = Path(derivatives.seedling.__file__).parent / "checkpoint"
ROOT = Path(derivatives.seedling.__file__).parents[2]
PYTHON = os.environ.get("DERIVE_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not PYTHON or not Path(PYTHON).is_file(),
        reason="DERIVE_VLLM names no interpreter of an environment with vLLM (tests/benchmarks/vllm_environment.py)",
    ),
]
SERVER = RolloutServer(
    command=(str(Path(PYTHON).parent / "vllm"), "serve"),
    arguments=("--enforce-eager", "--max-model-len", "512"),
    environment={"OMP_NUM_THREADS": "2", "VLLM_CPU_KVCACHE_SPACE": "1"},
)
QUESTIONS = [f"State the final answer to the following arithmetic problem: {n} + {n + 3} =" for n in range(2, 8)]
ROUNDING = 1e-4
"""Nats by which two fp32 engines may differ at a token."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    model, tokenizer = load_model(CHECKPOINT, "fp32")
    with VllmEngine(model, tokenizer, SERVER, tmp_path_factory.mktemp("out")) as found:
        found.sync(0)
        yield found


def prompts_of(engine: VllmEngine) -> list[list[int]]:
    return [encode_chat(engine.tokenizer, conversation(question)) for question in QUESTIONS]


def own_log_probs(engine: VllmEngine, prompt: list[int], ids: list[int], sampling: Sampling) -> torch.Tensor:
    """Of each drawn token under the distribution that the settings describe, worked out from the trainer's logits."""
    with torch.inference_mode():
        logits = engine.model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits
    scaled_TV = logits[0, len(prompt) - 1 : -1, : engine.num_real_tokens] / sampling.temperature
    chosen = []
    for row_V, token in zip(scaled_TV, ids, strict=True):
        order_V = row_V.argsort(descending=True)
        kept_V = row_V.softmax(-1)[order_V]
        kept_V[sampling.top_k or len(row_V) :] = 0.0
        kept_V[kept_V < sampling.min_p * kept_V[0]] = 0.0
        kept_V /= kept_V.sum()
        if sampling.top_p < 1.0:
            kept_V[kept_V.cumsum(0) - kept_V >= sampling.top_p] = 0.0
        chosen.append(float((kept_V / kept_V.sum())[order_V == token].log()))
    return torch.tensor(chosen)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=20),
        Sampling(max_new_tokens=20, temperature=1.6),
        Sampling(max_new_tokens=20, temperature=1.6, top_k=5),
        Sampling(max_new_tokens=20, temperature=1.6, top_p=0.8),
        Sampling(max_new_tokens=20, temperature=1.6, top_p=0.9, top_k=8, min_p=0.05),
    ],
)
def test_log_probabilities_are_those_of_this_projects_own_sampling(engine: VllmEngine, sampling: Sampling) -> None:
    prompts = prompts_of(engine)
    found = engine.generate(prompts, 4, sampling, 3)
    distances = []
    for prompt, group in zip(prompts, found, strict=True):
        for one in group:
            own = own_log_probs(engine, prompt, one.token_ids, sampling)
            distances.append((own - torch.tensor(one.log_probs)).abs())
            assert (one.token_ids[-1] in engine.stop_ids) == (one.finish_reason == "stop")
            assert not set(one.token_ids[:-1]) & set(engine.stop_ids)
            assert one.finish_reason == "stop" or len(one.token_ids) == 20
    assert float(torch.cat(distances).max()) < ROUNDING


def test_greedy_completions_are_those_of_the_engine_in_the_process(engine: VllmEngine) -> None:
    greedy = Sampling(max_new_tokens=24, temperature=0.0)
    prompts = prompts_of(engine)
    here = RolloutEngine(engine.model, engine.tokenizer).generate(prompts, 1, greedy)
    there = engine.generate(prompts, 1, greedy)
    for (one,), (other,) in zip(here, there, strict=True):
        assert (one.token_ids, one.finish_reason, one.text) == (other.token_ids, other.finish_reason, other.text)
        assert one.log_probs == pytest.approx(other.log_probs, abs=ROUNDING)


def test_samples_differ_and_come_again_with_their_seed(engine: VllmEngine) -> None:
    sampling = Sampling(max_new_tokens=20, temperature=1.6)
    prompts, keys = prompts_of(engine), [f"1/{number}" for number in range(len(QUESTIONS))]
    num = 24  # together longer than what the server reads at once, which it must not split
    first = engine.generate(prompts, num, sampling, 3, keys)
    again = engine.generate(prompts, num, sampling, 3, keys)
    other = engine.generate(prompts, num, sampling, 4, keys)
    texts = [[tuple(one.token_ids) for group in groups for one in group] for groups in (first, again, other)]
    same = sum(a == b for a, b in zip(texts[0], texts[1], strict=True)) / len(texts[0])
    assert same >= 0.9  # rounding differs with the batch, so not all of them need to
    assert sum(a == b for a, b in zip(texts[0], texts[2], strict=True)) < len(texts[0]) / 2
    assert all(len(set(texts[0][num * n : num * n + num])) > 1 for n in range(len(prompts)))


def test_a_stop_text_ends_a_completion_where_it_is_complete(engine: VllmEngine) -> None:
    greedy = Sampling(max_new_tokens=24, temperature=0.0)
    ((whole,),) = engine.generate(prompts_of(engine)[:1], 1, greedy)
    ((cut,),) = engine.generate(prompts_of(engine)[:1], 1, greedy, stop_text="boxed")
    assert cut.text.endswith("boxed") and cut.finish_reason == "length"
    assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids and len(cut.token_ids) < len(whole.token_ids)


def test_new_weights_arrive_by_either_way_and_padding_is_never_drawn(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling, prompts = Sampling(max_new_tokens=12, temperature=1.6), prompts_of(engine)
    torch.manual_seed(0)
    collective = engine._collective
    assert collective is not None
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in engine.model.parameters():
                parameter.mul_(1.0 + 0.05 * torch.randn_like(parameter))
            embedding = engine.model.get_input_embeddings().weight
            # Padding ids that would win almost every draw: along the hidden state itself, longer than all others.
            hidden = engine.model.model(torch.tensor([prompts[0]]), use_cache=False).last_hidden_state[0, -1]
            embedding[engine.num_real_tokens :] = 3.0 * hidden / hidden.norm() * embedding.norm(dim=1).max()
            logits = engine.model(torch.tensor([prompts[0]]), use_cache=False).logits[0, -1]
        assert float(logits.softmax(-1)[engine.num_real_tokens :].sum()) > 0.9
        for version, way in ((1, collective), (2, None)):
            engine._collective = way
            with torch.no_grad():
                engine.model.model.norm.weight.mul_(1.01)
            engine.sync(version)
            assert engine.figures["sync_distance"] < ROUNDING
            assert engine.figures["sync_by_collective"] == float(way is not None)
        for prompt, group in zip(prompts, engine.generate(prompts, 4, sampling, 3), strict=True):
            for one in group:
                own = own_log_probs(engine, prompt, one.token_ids, sampling)
                assert float((own - torch.tensor(one.log_probs)).abs().max()) < 1e-3
                assert max(one.token_ids) < num_real_tokens(engine.tokenizer)
    finally:
        engine.model.load_state_dict(before)
        engine._collective = collective
        monkeypatch.setattr(vllm_collective, "PART_BYTES", 2**20)
        engine.sync(3)
        assert engine.figures["sync_distance"] < ROUNDING and engine.figures["sync_by_collective"] == 1.0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers of vLLM on CPU need two cores")
def test_each_of_several_workers_takes_its_part_of_the_weights(tmp_path: Path) -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    settings = SERVER.model_copy(
        update={
            "arguments": (*SERVER.arguments, "--tensor-parallel-size", "2"),
            "environment": {**SERVER.environment, "VLLM_CPU_OMP_THREADS_BIND": f"{first}|{second}"},
            "weights": "collective",
        }
    )
    model, tokenizer = load_model(CHECKPOINT, "fp32")
    with VllmEngine(model, tokenizer, settings, tmp_path) as engine:
        engine.sync(0)
        for version in (1, 2):
            torch.manual_seed(version)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.0 + 0.02 * torch.randn_like(parameter))
            engine.sync(version)
            assert engine.figures["sync_distance"] < ROUNDING and engine.figures["sync_by_collective"] == 1.0


def write_stage(folder: Path) -> Path:
    lines = [{"id": f"{a}+{b}", "prompt": f"State the final answer to the following arithmetic problem: {a} + {b} =",
              "answer": str(a + b)} for a in range(12, 20) for b in range(11, 15)]  # fmt: skip
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(folder / "p.jsonl"),), steps=4, prompts_per_step=8, group_size=4, learning_rate=5e-4,
        sampling=Sampling(max_new_tokens=24, temperature=1.5), precision="fp32", max_no_verdict=0.9,
        checkpoint_every=1, keep_rollouts=4,
    )  # fmt: skip
    machine = Machine(name="cpu", num_threads=2, num_verifier_workers=1, rollout=SERVER)
    inputs = {"base": StageInput(kind="base", path=str(CHECKPOINT))}
    path = folder / "stage.json"
    path.write_text(StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine).model_dump_json())
    return path


def children_of(pid: int) -> list[int]:
    """Processes that lead a group of their own and were started by this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[2] == path.parent.name:
            found.append(int(path.parent.name))
    return found


def test_a_stage_draws_from_updated_weights_stops_when_the_server_is_killed_and_goes_on(tmp_path: Path) -> None:
    stage, out = write_stage(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "derivatives.rl", str(stage), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 900
        while not read_progress(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        servers = [pid for pid in children_of(process.pid) if b"vllm" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(servers) == 1
        os.killpg(servers[0], signal.SIGKILL)
        _, said = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == EXIT_RETRY, said
    assert "retry: vllm:" in said and "vllm.log" in said and "Traceback" not in said
    num_before = len(read_progress(out))
    assert 1 <= num_before < 4 and not (out / "vllm").exists()

    assert subprocess.run(command, cwd=ROOT).returncode == 0
    log = read_progress(out)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert log[0]["rl/grad_norm"] > 0  # else the later steps would prove nothing
    for line in log:
        assert line["rl/mismatch"] < ROUNDING and line["rl/mismatch_kl"] < ROUNDING
        assert line["rl/sync_distance"] < ROUNDING and abs(line["rl/importance"] - 1.0) < ROUNDING

    # The rollouts of the first step are the base's; those of later steps were drawn from other, newer weights.
    model, tokenizer = load_model(CHECKPOINT, "fp32")
    base_distance = []
    for step in (1, 2, 4):
        meta, rolled, _ = read_step(out / "rollouts" / f"step-{step:06d}.npz", tokenizer)
        assert meta["step"] == step
        distances = []
        for number, group in zip(rolled.problems, rolled.groups, strict=True):
            question = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[number])["prompt"]
            prompt = encode_chat(tokenizer, conversation(question))
            for one in group:
                ids = one.completion.token_ids
                with torch.inference_mode():
                    logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits
                real = logits[0, len(prompt) - 1 : -1, : num_real_tokens(tokenizer)] / 1.5
                own = real.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).squeeze(1)
                distances.append((own - torch.tensor(one.completion.log_probs)).abs())
        base_distance.append(float(torch.cat(distances).mean()))
    assert base_distance[0] < ROUNDING < 100 * ROUNDING < min(base_distance[1:])
