"""Bytes at a stage's peak by hand, what the sources say of the same constants, and the search for what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.settings.training import SftStage
from derivatives.losses import cross_entropy
from derivatives.planning import answering, checks, memory
from derivatives.planning.amounts import Amount
from derivatives.planning.devices import GPUS, Device, device_of
from derivatives.planning.memory import Drawing, Load, layer_bytes, memory_of
from derivatives.planning.predict import Asked, load_of, predict, remedies
from derivatives.planning.shape import QWEN_SHAPES, TARGETS, Shape
from derivatives.planning.speed import DrawWork, TrainWork, fits, step_seconds
from derivatives.rollout import engine
from derivatives.training import checkpoint, document_attention, recompute, tensor_parallel, throughput

HALF = QWEN_SHAPES["0.5B"]
H100 = device_of(Machine(name="one", device="cuda", gpu="H100"))
NO_OVERHEAD = {"process_bytes": 0.0}


def test_constants_are_those_of_the_code_that_they_describe() -> None:
    assert memory.SHORT_DOCUMENT == document_attention.SHORT_DOCUMENT
    assert memory.THIN == recompute.THIN
    assert memory.BY_INPUTS == tensor_parallel.BY_INPUTS
    assert memory.CHUNK_LOGITS == cross_entropy.CHUNK_LOGITS
    assert memory.MIN_CHUNK_TOKENS == cross_entropy.MIN_CHUNK_TOKENS
    assert (memory.KEPT_BYTES, memory.MAX_CHUNK_TOKENS) == (cross_entropy.KEPT_BYTES, cross_entropy.MAX_CHUNK_TOKENS)
    assert memory.CUDA_CHUNK_TOKENS == cross_entropy.CUDA_CHUNK_TOKENS
    assert memory.NUM_SLOTS == engine._NUM_SLOTS
    assert memory.CPU_CACHE_BYTES == engine._CPU_CACHE_BYTES
    assert (memory.CACHE_SHARE, memory.ROOM_SHARE) == (engine._CACHE_SHARE, engine._ROOM_SHARE)
    assert (memory.SMALL_DEVICE, memory.SMALL_PREFILL) == (engine._SMALL_DEVICE, engine._SMALL_PREFILL)
    assert memory.PREFILL_TOKENS == engine._PREFILL_TOKENS
    assert checks.CHECKPOINTS_AT_ONCE == checkpoint.KEPT + 1
    from derivatives.evaluation import examination, texts

    assert answering.MAX_BYTES == texts.MAX_BYTES
    assert answering.NUM_FORMAT_TRIALS == examination.NUM_FORMAT_TRIALS


def test_peaks_of_gpus_are_those_that_the_progress_log_knows() -> None:
    assert {name: gpu.tflops for name, gpu in GPUS.items()} == throughput.PEAK_TFLOPS


def test_full_training_holds_eighteen_bytes_a_parameter() -> None:
    load = Load(HALF, device="cuda", row_tokens=1024, num_rows=2, **NO_OVERHEAD)
    parts = memory_of(load).parts
    held = parts["weights"] + parts["masters"] + parts["moments"] + parts["gradients"]
    assert held == (2 + 4 + 8 + 4) * HALF.parameters


def test_fp32_weights_are_their_own_masters() -> None:
    parts = memory_of(Load(HALF, device="cuda", precision="fp32", **NO_OVERHEAD)).parts
    assert "weights" not in parts and parts["masters"] == 4 * HALF.parameters


def test_adapters_alone_have_masters_and_moments() -> None:
    shape = QWEN_SHAPES["1.5B"]
    parts = memory_of(Load(shape, device="cuda", rank=16, **NO_OVERHEAD)).parts
    trained = shape.adapter_parameters(16)
    assert trained == pytest.approx(18.5e6, rel=0.01)  # as docs/training.md has it
    assert parts["masters"] == 4 * trained and parts["moments"] == 8 * trained
    assert parts["weights"] == 2 * (shape.parameters + trained)


def test_ranks_share_masters_moments_and_gradients() -> None:
    one, eight = (
        memory_of(Load(HALF, device="cuda", num_processes=number, **NO_OVERHEAD)).parts for number in (1, 8)
    )
    for name in ("masters", "moments", "gradients"):
        assert eight[name] == one[name] / 8
    assert "weights" not in eight and eight["gathered"] > 0


def test_what_a_layer_keeps_is_what_the_profiler_counted() -> None:
    """Counted with `tests/benchmarks/bench_recompute.py`: 896 wide, long documents, in bytes of a token."""
    load = Load(HALF, device="cuda", document_tokens=512)
    assert layer_bytes(load, "none") == pytest.approx(57_408, abs=9)
    assert layer_bytes(load, "selective") == pytest.approx(28_989, abs=9)
    assert layer_bytes(load, "full") == pytest.approx(1797, abs=9)
    adapted = replace(load, rank=16)
    assert layer_bytes(adapted, "none") == pytest.approx(54_048, abs=9)
    assert layer_bytes(adapted, "selective") == pytest.approx(29_725, abs=9)


def test_short_documents_of_different_lengths_keep_padded_scores_on_cpu() -> None:
    """Counted over documents of 30 to 160 tokens, whose mean square over mean is 129: 12,151 bytes of a token."""
    seedling = Shape(256, 6, 4, 2, 64, 512, 2048, tied=True)
    assert layer_bytes(Load(seedling, document_tokens=129), "none") == pytest.approx(12_151, rel=0.04)


def test_the_cache_of_completions_is_bounded_by_its_slots() -> None:
    drawing = Drawing(completions=4096, prompt_tokens=100, max_new_tokens=412)
    found, slots = memory.cache_bytes(Load(HALF, device="cuda", trains=False, drawing=drawing))
    assert slots == 256
    assert found == 256 * 512 * HALF.kv_bytes_per_token()


def asked_of(stage: SftStage | RlStage, shape: Shape, device: Device, work: TrainWork) -> Asked:
    amount = Amount(steps=10, train=work)
    return Asked(stage, amount, load_of(stage, shape, device, amount), device)


def sft(**fields: object) -> SftStage:
    return SftStage.model_validate({"id": "sft", "kind": "sft", "data": ["x.jsonl"], "learning_rate": 1e-5, **fields})


LONG_ROWS = TrainWork(65_536, 40_000, 1024)


def test_a_stage_that_does_not_fit_is_refused_with_the_nearest_setting_that_does() -> None:
    asked = asked_of(sft(micro_batch_tokens=65_536), QWEN_SHAPES["0.5B"], H100, LONG_ROWS)
    line = predict(asked, None)
    assert line.refusal.startswith("sft: needs ") and line.refusal.endswith("H100 has 80.0")
    assert [remedy.partition(" (")[0] for remedy in line.remedies] == ["--set sft.micro_batch_tokens=32768"]


@pytest.mark.parametrize("size", ["0.5B", "1.5B", "3B", "7B", "14B"])
def test_every_remedy_fits_when_it_is_taken(size: str) -> None:
    small = replace(H100, memory=24e9)
    asked = asked_of(sft(micro_batch_tokens=65_536), QWEN_SHAPES[size], small, LONG_ROWS)
    for remedy in remedies(asked):
        if not remedy.startswith("--set"):
            continue
        changes: dict[str, object] = {"micro_batch_tokens": 65_536}
        if "lora" in remedy:
            changes["lora"] = {"rank": 16, "alpha": 32}
        for word in remedy.split():
            name, _, value = word.partition("=")
            if name.startswith("sft.") and "lora" not in name:
                changes[name.removeprefix("sft.")] = int(value) if value.isdigit() else value
        changed = asked_of(sft(**changes), QWEN_SHAPES[size], small, LONG_ROWS)
        assert changed.load is not None and fits(changed.load, small), remedy


def test_what_fits_nowhere_says_how_much_it_needs() -> None:
    stage = RlStage.model_validate({"id": "rl", "kind": "rl", "data": ["x.jsonl"], "learning_rate": 1e-6, "steps": 1})
    draw = DrawWork(256, 16, 200, 500, 1024)  # from a whole copy on each rank, however many there are
    amount = Amount(steps=10, train=LONG_ROWS, draw=draw)
    load = load_of(stage, QWEN_SHAPES["72B"], H100, amount)
    (remedy,) = remedies(Asked(stage, amount, load, H100))
    assert remedy.startswith("no setting fits: a device with at least 1")
    assert remedy.endswith("or a smaller base")


def test_ranks_that_draw_hold_a_whole_copy_unless_a_server_draws() -> None:
    shape, drawing = QWEN_SHAPES["7B"], Drawing(512, 200, 1024)
    load = Load(shape, device="cuda", num_processes=8, drawing=drawing, has_reference=True)
    parts = memory_of(load).parts
    assert parts["copy"] == 2 * shape.parameters  # bf16
    assert parts["masters"] == 4 * shape.parameters / 8
    assert parts["reference"] == 2 * shape.parameters / 8  # frozen, and spread as what is trained
    served = memory_of(replace(load, has_server=True)).parts
    assert "copy" not in served and "cache" not in served
    adapted = memory_of(replace(load, rank=16)).parts
    own = shape.adapter_parameters(16, TARGETS)
    assert adapted["copy"] == 2 * (shape.parameters + own) and "reference" not in adapted


def test_ranks_that_share_a_layer_hold_their_part_of_it_and_of_what_it_keeps() -> None:
    """Qwen2.5-7B by hand: 3584 wide, 28 layers, queries 3584, keys and values 512, 28 heads, 18944 inside."""
    shape = QWEN_SHAPES["7B"]
    alone, four = (Load(shape, device="cuda", num_processes=8, tensor_parallel=parts) for parts in (1, 4))
    assert layer_bytes(alone, "none") == 16 * 3584 + 4 * 3584 + 4 * 28 + 4 * 512 + 8 * 18_944
    assert layer_bytes(four, "none") == 16 * 3584 + (4 * 3584 + 4 * 28 + 4 * 512 + 8 * 18_944) / 4
    assert layer_bytes(four, "selective") == 6 * 3584 + (4 * 3584 + 4 * 28 + 4 * 512 + 4 * 18_944) / 4
    assert layer_bytes(four, "full") == layer_bytes(alone, "full") == 2 * 3584
    parts, whole = memory_of(four).parts, memory_of(alone).parts
    for name in ("masters", "moments"):
        assert parts[name] == whole[name]  # eight ranks share them either way
    root = 2 * 152_064 * 3584 + 3584
    assert parts["gathered"] == (2 * shape.layer_parameters / 4 + root) * 2 + root * 4


def test_rows_are_shared_out_over_the_data_axis_alone() -> None:
    pairs = device_of(Machine(name="pairs", device="cuda", num_processes=8, tensor_parallel=2))
    assert pairs.num_data == 4
    load = asked_of(sft(micro_batch_tokens=65_536), QWEN_SHAPES["7B"], pairs, LONG_ROWS).load
    assert load is not None and load.row_tokens == LONG_ROWS.tokens / 4
    assert load.trained_tokens == LONG_ROWS.trained / 4 / 2  # of the loss each of two works out a half


def test_parts_that_do_not_divide_the_model_are_refused_with_what_does() -> None:
    machine = Machine(name="eighths", device="cuda", num_processes=8, tensor_parallel=8)
    line = predict(asked_of(sft(), QWEN_SHAPES["7B"], device_of(machine), LONG_ROWS), None)
    assert "machine.tensor_parallel: 8 does not divide the model's num_attention_heads = 28" in line.refusal
    assert line.remedies == ("a machine profile with tensor_parallel: 4",)
    assert "tensor_parallel" not in predict(
        asked_of(sft(), QWEN_SHAPES["72B"], device_of(machine), LONG_ROWS), None
    ).refusal


def test_a_step_of_ranks_that_share_layers_costs_the_same_work_at_a_published_share_of_the_pace() -> None:
    load = Load(HALF, device="cuda", num_processes=8)
    work = TrainWork(tokens=8192.0, trained=8192.0, document_tokens=512.0)
    seconds = [step_seconds(replace(load, tensor_parallel=parts), work, H100, None) for parts in (1, 2, 8)]
    assert seconds[1] / seconds[0] == pytest.approx(1 / 0.907)
    assert seconds[2] / seconds[0] == pytest.approx(1 / 0.796)


def test_layers_are_cut_where_more_shares_of_rows_do_not_help() -> None:
    """A document of 32,768 tokens on 24 GB: all of what layers keep of it lies where their parts lie."""
    small = replace(H100, memory=24e9, num_processes=8)
    work = TrainWork(tokens=8 * 32_768.0, trained=32_768.0, document_tokens=32_768.0)
    asked = asked_of(sft(micro_batch_tokens=32_768, recompute="full"), QWEN_SHAPES["7B"], small, work)
    (found,) = remedies(asked)
    assert found.startswith("a machine profile with num_processes: 64 and tensor_parallel: 4 (")
    assert asked.load is not None
    more = replace(asked.load, num_processes=64)
    device = replace(small, num_processes=64)
    assert [fits(replace(more, tensor_parallel=parts), device) for parts in (1, 2, 4)] == [False, False, True]


def test_more_processes_are_named_where_they_help() -> None:
    found = remedies(asked_of(sft(), QWEN_SHAPES["14B"], H100, LONG_ROWS))
    adapters, processes = found
    assert adapters.startswith("--set 'sft.lora={rank: 16, alpha: 32}'")
    number = int(processes.partition("num_processes: ")[2].partition(" ")[0])
    alone = LONG_ROWS.tokens / number
    load = Load(QWEN_SHAPES["14B"], device="cuda", recompute="full", row_tokens=2048, num_processes=number)
    assert alone > 2048 and fits(load, replace(H100, num_processes=number))
    assert not fits(replace(load, num_processes=number // 2), replace(H100, num_processes=number // 2))
