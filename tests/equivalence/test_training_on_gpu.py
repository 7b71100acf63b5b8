"""What training relies on, on the CPU and, marked `gpu`, by the same code on CUDA (`pytest -m gpu`).

Imports neither pydantic nor prefect, so that a bare GPU machine can run it (`tests/benchmarks/gpu_sft.py` does).
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training import attention
from derivatives.training.batch import PackedBatch, Row, pack
from derivatives.training.compiled import compile_layers, compiled_cross_entropy
from derivatives.training.forward import hidden_states
from derivatives.training.recompute import recompute_layers

ROOT = Path(__file__).parents[2]
ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = pytest.param("cuda", marks=ON_CUDA)
DEVICES = ["cpu", CUDA]
VOCABULARY = 600
BF16_ERROR = 2e-2
"""Relative error of a whole tensor (norm of the difference over the norm) that bf16 arithmetic explains."""
LENGTHS = {"cpu": (1, 40, 97, 2, 160, 40, 3), "cuda": (1, 300, 1000, 64, 2048, 129, 7, 300, 2, 900)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that share a core wait for each other far longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_model(device: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Qwen2ForCausalLM:
    """Two layers with grouped queries and heads of 64; weights large enough for attention to matter."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=384, tie_word_embeddings=True, initializer_range=0.06, max_position_embeddings=8192,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(dtype)
    model.set_attn_implementation(attention.REGISTERED_NAME)
    return model.to(device).eval()


def rows_of(lengths: tuple[int, ...], seed: int = 1) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    return [Row(torch.randint(VOCABULARY, (length,), generator=generator).tolist()) for length in lengths]


def loss_of(model: Any, batch: PackedBatch, cross_entropy: Any = chunked_cross_entropy) -> Tensor:
    loss: Tensor = cross_entropy(hidden_states(model, batch), model.lm_head.weight, batch.targets_T, batch.weights_T)
    return loss


def gradient(model: Any) -> Tensor:
    """Gradients of all parameters in one, which are then forgotten."""
    found = torch.cat([weight.grad.float().flatten() for weight in model.parameters()])
    model.zero_grad(set_to_none=True)
    return found


def error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = (found.double().cpu() - expected.double().cpu()).norm()
    return float(difference / expected.double().cpu().norm())


@contextmanager
def compiler() -> Iterator[None]:
    """The compiler's own warnings are no failures; compiling a second time is."""
    torch._dynamo.reset()
    with warnings.catch_warnings(), torch._dynamo.config.patch(error_on_recompile=True):
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("device", DEVICES)
def test_no_document_of_a_long_row_reaches_another(device: str) -> None:
    model = small_model(device)
    if device == "cuda":
        assert attention.method_of(model) != "documents"
    lengths = LENGTHS[device]
    (batch,) = pack(rows_of(lengths), sum(lengths))
    changed_T = torch.tensor([index % 2 == 0 for index in range(len(lengths))])[batch.rows_T]
    other_T = torch.where(changed_T, (batch.input_ids_T + 1) % VOCABULARY, batch.input_ids_T)
    one, other = batch.to(device), batch.to(device)
    object.__setattr__(other, "input_ids_T", other_T.to(device))
    with torch.no_grad():
        first_TE, second_TE = hidden_states(model, one).float().cpu(), hidden_states(model, other).float().cpu()
    assert error(second_TE[changed_T], first_TE[changed_T]) > 0.1  # what was changed did change
    limit = 0.0 if device == "cpu" else float(first_TE.abs().max()) * 2**-7  # the last bits of bf16
    assert float((second_TE - first_TE)[~changed_T].abs().max()) <= limit
    assert attention.leak_probe(model) <= limit


@pytest.mark.parametrize("device", DEVICES)
def test_a_packed_row_gives_what_its_documents_give_alone(device: str) -> None:
    model, lengths = small_model(device), LENGTHS[device]
    rows = rows_of(lengths)
    (batch,) = pack(rows, sum(lengths))
    packed = loss_of(model, batch.to(device))
    packed.backward()
    packed_gradient = gradient(model)
    model.set_attn_implementation("sdpa")
    total = 0.0
    for row in rows:
        ids = torch.tensor([row.ids], device=device)
        if ids.shape[1] > 1:
            logits_TV = model(input_ids=ids, use_cache=False).logits[0].float()
            alone = F.cross_entropy(logits_TV[:-1], ids[0, 1:], reduction="sum")
            alone.backward()
            total += alone.item()
    assert packed.item() == pytest.approx(total, rel=2e-3)
    assert error(packed_gradient, gradient(model)) < BF16_ERROR


@pytest.mark.parametrize(
    ("device", "cross_entropy"),
    [
        pytest.param("cpu", chunked_cross_entropy, id="cpu-chunked"),
        pytest.param("cpu", compiled_cross_entropy, id="cpu-compiled", marks=pytest.mark.slow),
        pytest.param("cuda", chunked_cross_entropy, id="cuda-chunked", marks=ON_CUDA),
        pytest.param("cuda", compiled_cross_entropy, id="cuda-compiled", marks=ON_CUDA),
    ],
)
def test_the_chunked_loss_is_the_full_one(device: str, cross_entropy: Any) -> None:
    num_tokens, vocabulary, width = (5000, 151_936, 256) if device == "cuda" else (700, 5000, 32)
    torch.manual_seed(0)
    hidden_TD = torch.randn(num_tokens, width, device=device).bfloat16().requires_grad_()
    head_VD = (torch.randn(vocabulary, width, device=device) / 8).bfloat16().requires_grad_()
    targets_T = torch.randint(vocabulary, (num_tokens,), device=device)
    weights_T = (torch.rand(num_tokens, device=device) * 2).floor() / num_tokens
    with compiler():
        loss = cross_entropy(hidden_TD, head_VD, targets_T, weights_T)
        loss.backward()
    found = hidden_TD.grad, head_VD.grad
    exact_TD, exact_VD = (tensor.detach().float().requires_grad_() for tensor in (hidden_TD, head_VD))
    expected = (F.cross_entropy(exact_TD @ exact_VD.t(), targets_T, reduction="none") * weights_T).sum()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    for part, exact in zip(found, (exact_TD.grad, exact_VD.grad), strict=True):
        assert part is not None and exact is not None and error(part, exact) < BF16_ERROR


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cross_entropy", [chunked_cross_entropy, compiled_cross_entropy], ids=["chunked", "compiled"])
def test_the_loss_never_holds_logits_of_all_tokens(cross_entropy: Any) -> None:
    num_tokens, vocabulary, width = 16_384, 151_936, 896
    hidden_TD = torch.randn(num_tokens, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    head_VD = torch.randn(vocabulary, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    targets_T = torch.randint(vocabulary, (num_tokens,), device="cuda")
    with compiler():
        for _ in range(2):  # once to compile and to load what products need
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            cross_entropy(hidden_TD, head_VD, targets_T, torch.ones(num_tokens, device="cuda")).backward()
            hidden_TD.grad = head_VD.grad = None
    # All logits in bf16 are 5.0 GB; the head's gradient is 0.5 in FP32 and twice 0.3 in bf16.
    assert torch.cuda.max_memory_allocated() - before < 0.75 * num_tokens * vocabulary * 2


@pytest.mark.parametrize(
    ("device", "mode"),
    [
        ("cpu", "none"),
        *(pytest.param("cpu", mode, marks=pytest.mark.slow) for mode in ("selective", "full")),
        *(pytest.param("cuda", mode, marks=ON_CUDA) for mode in ("none", "selective", "full")),
    ],
)
def test_compiled_layers_give_the_same_whatever_is_recomputed_and_compile_once(device: str, mode: Any) -> None:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    plain, compiled = small_model(device, dtype), small_model(device, dtype)
    with compiler():
        compile_layers(compiled, "inductor" if device == "cuda" else "aot_eager")
        recompute_layers(compiled, mode)
        num_graphs: list[int] = []
        for number in range(20):
            lengths = tuple(3 + (number * 37 + place * 53) % 90 for place in range(1 + number % 5))
            (batch,) = pack(rows_of(lengths, number), sum(lengths))
            losses = [loss_of(model, batch.to(device)) for model in (plain, compiled)]
            for loss in losses:
                loss.backward()
            assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5 if device == "cpu" else 1e-2)
            expected, found = gradient(plain), gradient(compiled)
            assert error(found, expected) < (1e-5 if device == "cpu" else 2 * BF16_ERROR)
            num_graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert all(later == earlier for earlier, later in itertools.pairwise(num_graphs)), num_graphs


@pytest.mark.slow
def test_kernels_made_for_the_cpu_give_the_same() -> None:
    plain, compiled = small_model("cpu", torch.float32), small_model("cpu", torch.float32)
    with compiler():
        compile_layers(compiled)
        for number in range(20):
            lengths = tuple(3 + (number * 37 + place * 53) % 90 for place in range(1 + number % 5))
            (batch,) = pack(rows_of(lengths, number), sum(lengths))
            losses = [loss_of(plain, batch), loss_of(compiled, batch, compiled_cross_entropy)]
            for loss in losses:
                loss.backward()
            assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
            expected = gradient(plain)
            assert error(gradient(compiled), expected) < 1e-5
        assert attention.leak_probe(compiled) == 0.0


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_over_masters_is_that_of_the_cpu(device: str) -> None:
    settings = pytest.importorskip("configs.settings.training", reason="no pydantic", exc_type=ImportError)
    from derivatives.training.optimizer import MasterAdamW

    config = settings.Optimization(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5)
    moved = []
    for place in ("cpu", device):
        model = small_model("cpu").to(place)
        optimizer = MasterAdamW(model, config)
        for step in range(3):
            torch.manual_seed(step)
            sum((weight * torch.randn(weight.shape).to(weight)).sum() for weight in model.parameters()).backward()
            optimizer.step(1e-2)
        moved.append(torch.cat([master.detach().cpu().flatten() for master in optimizer.masters]))
        written = torch.cat([weight.detach().cpu().flatten() for weight in model.parameters()])
        assert torch.equal(written, moved[-1].bfloat16())
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-5)


def test_the_gpu_script_runs_every_file_with_tests_that_need_one() -> None:
    script = (ROOT / "tests/benchmarks/gpu_sft.py").read_text(encoding="utf-8")
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text("utf-8")]
    assert marked and all(f'"{path.relative_to(ROOT)}"' in script for path in marked), marked


@pytest.mark.slow
def test_the_gpu_script_runs_at_toy_size_and_both_sides_begin_at_one_loss(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/benchmarks/gpu_sft.py"), "--dry", "--out", str(tmp_path)]
    subprocess.run([*command, "--rows", "ours-7B,peer-7B", "--deadline-s", "280"], check=True, timeout=290)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == ["ours-7B"] * 4 + ["peer-7B"] * 2
    assert all(line["tokens_per_s"] > 0 for line in lines), lines
    unchanged = [line["first_loss"] for line in lines if line["setting"]["update"] == "none"]
    assert max(unchanged) - min(unchanged) < 0.01
    assert lines[4]["first_loss"] == pytest.approx(lines[0]["first_loss"], abs=0.01)
    assert "times the peer's best" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_the_bandwidth_bound_of_a_batch_is_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")
    from gpu_rl_load import bound_tokens_per_s
    from gpu_sft_row import Shape

    # Heads of 4: a token's keys and values of 3 layers and 2 heads are 2 * 3 * 2 * 4 numbers, 96 bytes.
    shape = Shape(16, 3, 4, 2, 32, 100, True)
    # Two steps of weights and of 2 rows of logits; the first rows read 5 and 7 tokens, then 6 and 8.
    moved = 2 * (1000 + 2 * 100 * 2) + 96 * (5 + 7 + 6 + 8)
    assert bound_tokens_per_s(shape, 1000, [5, 7], 2, bandwidth=1e6) == pytest.approx(4 / (moved / 1e6))


@pytest.mark.slow
def test_the_gpu_script_of_rl_runs_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/benchmarks/gpu_rl.py"), "--dry", "--out", str(tmp_path)]
    rows = ["decode-0.5B", "grpo-0.5B", "peer-0.5B"]
    subprocess.run([*command, "--rows", ",".join(rows), "--deadline-s", "280"], check=True, timeout=290)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == ["decode-0.5B"] * 2 + ["grpo-0.5B"] * 3 + ["peer-0.5B"] * 2
    assert all(line["tokens_per_s"] > 0 for line in lines), lines
    for line in lines[2:5]:
        assert line["new_tokens"] == 64 and line["mismatch"] < 0.01 and line["leak"] == 0.0
    assert "0.5B GRPO: " in (tmp_path / "table.md").read_text(encoding="utf-8")
