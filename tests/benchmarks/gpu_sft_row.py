"""One row of `gpu_sft.py`, in a process of its own: what is measured, and how each side trains.

    python tests/benchmarks/gpu_sft_row.py ROW --out OUT --budget-s SECONDS [--dry]

torch and our own parts are imported where they are used, after `stand_in_for_schemas`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STARTED = time.monotonic()
PEAK_FLOPS = 989e12


@dataclass(frozen=True)
class Shape:
    """A model's shape, and the row and step that it is measured with, in tokens."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    row_tokens: int = 8192
    step_tokens: int = 64_000


SHAPES = {
    "0.5B": Shape(896, 24, 14, 2, 4864, 151_936, True),
    "1.5B": Shape(1536, 28, 12, 2, 8960, 151_936, True),
    "7B": Shape(3584, 28, 28, 4, 18_944, 152_064, False, step_tokens=32_000),
}
DRY = Shape(64, 2, 4, 2, 128, 512, True, row_tokens=256, step_tokens=1000)


@dataclass(frozen=True)
class Setting:
    """How a row trains.

    Attributes:
        update: `full` with FP32 masters; `adapters`, rank 16, the weights frozen; `none`, gradients are thrown away.
        compile: Decoder layers through torch.compile.
        loss: `chunked`, or `compiled` (derivatives/training/compiled.py).
        recompute: As the training stages' field.
        rows: Packed rows that lie side by side in one micro-batch.
        least_gb: Memory of the device below which it is not tried.
    """

    update: str = "full"
    compile: bool = False
    loss: str = "chunked"
    recompute: str = "none"
    rows: int = 1
    least_gb: float = 0.0


@dataclass(frozen=True)
class PeerSetting:
    """How the plain loop trains: `padded` or `packed` batches, FP32 weights under autocast or bf16 ones."""

    batch: str = "padded"
    weights: str = "fp32"
    update: str = "full"


FAST = Setting(compile=True, loss="compiled")
OURS = {
    "0.5B": (Setting(), FAST, replace(FAST, rows=4), Setting(loss="compiled"), Setting(compile=True)),
    "1.5B": (Setting(), FAST, replace(FAST, rows=2), Setting(loss="compiled"), replace(FAST, recompute="full")),
    "7B": (
        replace(FAST, recompute="full", least_gb=147),
        Setting(update="none"),
        replace(FAST, update="none"),
        replace(FAST, update="none", recompute="full"),
    ),
    "7B-lora": (replace(FAST, update="adapters"), replace(FAST, update="adapters", recompute="full")),
}
PEERS = {
    "0.5B": (PeerSetting(), PeerSetting("packed"), PeerSetting("padded", "bf16")),
    "1.5B": (PeerSetting(), PeerSetting("packed"), PeerSetting("padded", "bf16")),
    "7B": (PeerSetting("padded", "bf16", "none"), PeerSetting("packed", "bf16", "none")),
}
PLAIN = "plain transformers loop, sdpa"
Step = Callable[[list[list[int]]], float]
"""Trains on documents and returns the loss."""
VARIANT_S = 9.0
"""Seconds of timed steps of one setting, after the first two, or after the first where that took long."""
NUM_STEPS = 5


def stand_in_for_schemas() -> None:
    """Let the trainer's parts be imported where pydantic is missing: they name its schemas in annotations only."""
    if importlib.util.find_spec("pydantic") is None:
        for path in (ROOT / "configs" / "settings").glob("[!_]*.py"):
            module = types.ModuleType(f"configs.settings.{path.stem}")
            module.__getattr__ = _any_class  # type: ignore[method-assign]
            sys.modules[module.__name__] = module


def _any_class(name: str) -> type:
    if name.startswith("_"):
        raise AttributeError(name)  # modules are asked for such by whoever inspects them
    return object


class Row:
    """One row's process: its model, documents and device, and the lines that it writes."""

    def __init__(self, name: str, out: Path, dry: bool, budget_s: float) -> None:
        import torch

        self.name, self.out, self.dry, self.until = name, out, dry, STARTED + budget_s - 3
        self.device = "cpu" if dry else "cuda"
        if dry:
            torch.set_num_threads(1)
        self.size = name.split("-")[1]
        self.shape = DRY if dry else SHAPES[self.size]

    def write(self, **line: Any) -> None:
        """Append one line to the results, and print it."""
        text = json.dumps({"row": self.name, **line})
        print(text, flush=True)
        with (self.out / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def model(self, dtype: Any, attention: str) -> Any:
        """Random weights of the row's shape, the same for every side."""
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        shape = {key: value for key, value in asdict(self.shape).items() if not key.endswith("_tokens")}
        rope = {"rope_type": "default", "rope_theta": 1e6}
        config = Qwen2Config(**shape, max_position_embeddings=32_768, rope_parameters=rope, use_cache=False)
        torch.manual_seed(0)
        with torch.device(self.device):
            model = Qwen2ForCausalLM._from_config(config, dtype=dtype, attn_implementation=attention)
        model.get_input_embeddings().padding_idx = None
        return model

    def steps(self) -> Iterator[list[list[int]]]:
        """The documents of each step, the same for every side."""
        drawn = random.Random(0)
        limit = self.shape.row_tokens
        while True:
            documents: list[list[int]] = []
            left = self.shape.step_tokens
            while left > 1:
                length = min(max(32, round(drawn.lognormvariate(6.238, 1.0))), limit, left)  # e^6.238 = 512
                documents.append(drawn.choices(range(self.shape.vocab_size), k=max(2, length)))
                left -= length
            yield documents

    def time(self, setting: Any, step: Step, flops: Any, more: Callable[[], dict[str, Any]]) -> None:
        """Write tokens/s, MFU and memory of one setting, and what else there is to say at the end."""
        import torch

        seconds: list[float] = []
        losses: list[float] = []
        rates, shares = [], []
        if not self.dry:
            torch.cuda.reset_peak_memory_stats()
        for documents in self.steps():
            started = time.perf_counter()
            losses.append(step(documents))
            if not self.dry:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            warm = 1 if seconds[0] > VARIANT_S and len(seconds) < 3 else 2  # the first compiles, the second settles
            if len(seconds) > warm:
                lengths = [len(document) for document in documents]
                rates.append(sum(lengths) / seconds[-1])
                shares.append(flops.of_step(lengths, sum(lengths) - len(lengths)) / seconds[-1] / PEAK_FLOPS)
            if len(rates) >= NUM_STEPS or (rates and sum(seconds[warm:]) > VARIANT_S) or time.monotonic() > self.until:
                break
        if not rates:
            self.write(setting=asdict(setting), failed=f"out of time: {len(seconds)} steps took {sum(seconds):.0f} s")
            return
        self.write(
            setting=asdict(setting), tokens_per_s=round(statistics.median(rates), 1),
            spread=[round(min(rates), 1), round(max(rates), 1)], steps=len(rates),
            mfu=None if self.dry else round(statistics.median(shares), 4),
            peak_gb=None if self.dry else round(torch.cuda.max_memory_allocated() / 1e9, 2),
            first_s=round(seconds[0], 2), first_loss=round(losses[0], 4), last_loss=round(losses[-1], 4), **more(),
        )  # fmt: skip

    def has_time(self) -> bool:
        """Whether another setting may begin."""
        return time.monotonic() < self.until - (0 if self.dry else 12)

    def each(self, settings: tuple[Any, ...], measure: Callable[[Any], None]) -> None:
        """Measure each setting; one that fails or does not fit is written down and the next one tried."""
        import torch

        for setting in settings:
            needed = getattr(setting, "least_gb", 0.0)
            if not self.has_time():
                self.write(setting=asdict(setting), failed="out of time: not begun")
                continue
            if not self.dry and torch.cuda.get_device_properties(0).total_memory < needed * 1e9:
                self.write(setting=asdict(setting), failed=f"not tried: needs {needed:.0f} GB")
                continue
            try:
                measure(setting)
            except Exception as error:  # of any kind: a compiler's, the allocator's
                kind = "does not fit" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
                self.write(setting=asdict(setting), failed=f"{kind}: {str(error).strip()[:300]}")
                if not isinstance(error, torch.OutOfMemoryError):
                    import traceback

                    traceback.print_exc()
            if not self.dry:
                torch.cuda.empty_cache()


def ours(row: Row, settings: tuple[Setting, ...]) -> None:
    """Our side: the trainer's parts, joined as the trainer joins them."""
    stand_in_for_schemas()
    import torch

    from derivatives.training import attention
    from derivatives.training.lora import add_adapters
    from derivatives.training.throughput import ModelFlops

    model = row.model(torch.bfloat16, attention.REGISTERED_NAME)
    attention.set_method(model, attention.choose(row.device, torch.bfloat16, attention.head_dim_of(model)))
    model.eval()
    if settings[0].update == "adapters":
        targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        lora: Any = SimpleNamespace(rank=16, alpha=32, dropout=0.0, targets=targets)
        add_adapters(model, lora, seed=0)
    flops = ModelFlops(model)
    leak = attention.leak_probe(model)
    optimizers: dict[str, Any] = {}

    def measure(setting: Setting) -> None:
        prepare(model, setting)
        if setting.update not in optimizers:
            for optimizer in optimizers.values():
                for hook in optimizer if isinstance(optimizer, list) else optimizer._hooks:
                    hook.remove()  # else it keeps the masters
            optimizers.clear()
            optimizers[setting.update] = optimizer_of(model, setting)
        elif setting.update != "none":
            optimizers[setting.update].adamw.zero_grad(set_to_none=True)  # what a setting left that did not fit
        step = train_step(row, model, optimizers[setting.update], setting)
        method = attention.method_of(model)
        row.time(setting, step, flops, lambda: {"attention": method, "leak": leak, "graphs": graphs()})
        if replace(setting, update="full") in (Setting(), FAST) and row.has_time():
            profile(row, step, setting)

    row.each(settings, measure)


def profile(row: Row, step: Step, setting: Setting) -> None:
    """Add the kernels of one step that take the most time to OUT/profiles.txt."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU] if row.dry else [ProfilerActivity.CUDA]
    with profiler(activities=activities) as found:
        step(next(row.steps()))
    by = "self_cpu_time_total" if row.dry else "self_device_time_total"
    text = found.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=80)
    with (row.out / "profiles.txt").open("a", encoding="utf-8") as file:
        file.write(f"===== {row.name}, {setting}\n{text}\n")


def graphs() -> int:
    """How many graphs were compiled so far in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def prepare(model: Any, setting: Setting) -> None:
    """Undo what another setting did to the layers, and do what this one asks for."""
    from derivatives.training.attention import REGISTERED_NAME
    from derivatives.training.compiled import compile_layers
    from derivatives.training.recompute import decoder_layers, recompute_layers

    for layer in decoder_layers(model):
        layer.__dict__.pop("forward", None)
    model.set_attn_implementation(REGISTERED_NAME)
    if setting.compile:
        compile_layers(model)
    recompute_layers(model, setting.recompute)  # type: ignore[arg-type]


def optimizer_of(model: Any, setting: Setting) -> Any:
    """FP32 masters; or, without update, nothing but hooks that throw gradients away as they come."""
    from derivatives.training.optimizer import MasterAdamW

    if setting.update == "none":
        return [weight.register_post_accumulate_grad_hook(_throw_away) for weight in model.parameters()]
    config: Any = SimpleNamespace(learning_rate=1e-5, weight_decay=0.0, beta1=0.9, beta2=0.95, max_grad_norm=1.0)
    return MasterAdamW(model, config)


def _throw_away(weight: Any) -> None:
    weight.grad = None


def train_step(row: Row, model: Any, optimizer: Any, setting: Setting) -> Step:
    """A step of `Trainer.update`: micro-batches, one divisor, one update."""
    import torch

    from derivatives.losses.cross_entropy import chunked_cross_entropy
    from derivatives.training.batch import Row as Document
    from derivatives.training.batch import num_trained, pack
    from derivatives.training.compiled import compiled_cross_entropy
    from derivatives.training.forward import hidden_states
    from derivatives.training.model import head_weight

    cross_entropy: Any = compiled_cross_entropy if setting.loss == "compiled" else chunked_cross_entropy

    def step(documents: list[list[int]]) -> float:
        rows = [Document(ids) for ids in documents]
        losses, divisor = [], num_trained(rows)
        for batch in pack(rows, setting.rows * row.shape.row_tokens):
            placed = batch.to(row.device)
            hidden_TE = hidden_states(model, placed)
            part = cross_entropy(hidden_TE, head_weight(model), placed.targets_T, placed.weights_T) / divisor
            part.backward()
            losses.append(part.detach())
        total = sum(torch.stack(losses).tolist())
        if setting.update != "none":
            optimizer.step(1e-5)
        return total

    return step


def peer(row: Row, settings: tuple[PeerSetting, ...]) -> None:
    """The other side: TRL where it is, else a plain loop over transformers."""
    stand_in_for_schemas()
    if importlib.util.find_spec("trl") and importlib.util.find_spec("datasets") and row.size != "7B":
        row.each(settings, lambda setting: trl_peer(row, setting))
        return
    row.each(settings, lambda setting: plain_peer(row, setting))


def plain_peer(row: Row, setting: PeerSetting) -> None:
    """transformers alone: its own loss over full logits, AdamW as its Trainer has it, gradients clipped at 1."""
    import torch

    from derivatives.training.throughput import ModelFlops

    model = row.model(torch.float32 if setting.weights == "fp32" else torch.bfloat16, "sdpa").train()
    flops = ModelFlops(model)
    autocast = torch.autocast(row.device, torch.bfloat16, enabled=setting.weights == "fp32")
    optimizer = None
    if setting.update == "full":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    else:
        for weight in model.parameters():
            weight.register_post_accumulate_grad_hook(_throw_away)

    def step(documents: list[list[int]]) -> float:
        total, divisor = torch.zeros((), device=row.device), sum(len(ids) - 1 for ids in documents)
        for batch in batches_of(documents, setting.batch, row.shape.row_tokens):
            placed = {name: tensor.to(row.device) for name, tensor in batch.items()}
            with autocast:
                loss = model(**placed, use_cache=False, num_items_in_batch=divisor).loss
            loss.backward()
            total += loss.detach()
        if optimizer is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(total)

    try:
        row.time(setting, step, flops, lambda: {"peer": PLAIN})
        return
    except torch.OutOfMemoryError:
        pass  # what it holds is free only after this block
    model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    row.time(setting, step, flops, lambda: {"peer": f"{PLAIN}, with gradient checkpointing"})


def batches_of(documents: list[list[int]], kind: str, row_tokens: int) -> Iterator[dict[str, Any]]:
    """Micro-batches of at most `row_tokens`, padding included: the longest first, or packed, positions restarting."""
    import torch

    from derivatives.training.batch import Row as Document
    from derivatives.training.batch import pack

    if kind == "packed":
        for batch in pack([Document(ids) for ids in documents], row_tokens):
            labels_T = batch.input_ids_T.clone()
            labels_T[batch.cu_seqlens[:-1].long()] = -100
            yield {"input_ids": batch.input_ids_T[None], "position_ids": batch.position_ids_T[None],
                   "labels": labels_T[None]}  # fmt: skip
        return
    left = sorted(documents, key=len, reverse=True)
    while left:
        width = len(left[0])
        taken, left = left[: row_tokens // width], left[row_tokens // width :]
        ids_BT, mask_BT = torch.zeros(len(taken), width, dtype=torch.int64), torch.zeros(len(taken), width).long()
        for number, ids in enumerate(taken):
            ids_BT[number, : len(ids)], mask_BT[number, : len(ids)] = torch.tensor(ids), 1
        yield {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": ids_BT.masked_fill(mask_BT == 0, -100)}


def trl_peer(row: Row, setting: PeerSetting) -> None:
    """TRL, with the largest micro-batch that fits: its padded ones hold a number of documents, however long."""
    import torch

    micro = 1 if setting.batch == "packed" else 6
    while True:
        try:
            return run_trl(row, setting, micro)
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        micro //= 2
        torch.cuda.empty_cache()


def run_trl(row: Row, setting: PeerSetting, micro: int) -> None:
    """TRL's SFTTrainer on the same documents as token ids, with its default loss (which holds no full logits)."""
    import tempfile

    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from derivatives.training.throughput import ModelFlops

    model = row.model(torch.float32 if setting.weights == "fp32" else torch.bfloat16, "sdpa")
    flops, num_steps = ModelFlops(model), 2 + NUM_STEPS
    steps = [documents for documents, _ in zip(row.steps(), range(num_steps), strict=False)]
    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    lengths = [len(ids) for documents in steps for ids in documents]
    packed, ends = setting.batch == "packed", []
    mean = row.shape.row_tokens if packed else statistics.mean(lengths)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=micro, max_length=row.shape.row_tokens,
        gradient_accumulation_steps=max(1, round(row.shape.step_tokens / mean / micro)), packing=packed,
        train_sampling_strategy="random" if packed else "group_by_length", max_steps=num_steps, learning_rate=1e-5,
        lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
        bf16=setting.weights == "fp32", use_cpu=row.dry, gradient_checkpointing=False, eos_token="<|endoftext|>",
    )  # fmt: skip

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if not row.dry:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())
            if time.monotonic() > row.until and len(ends) > 2:
                trainer.control.should_training_stop = True

    trainer = SFTTrainer(
        model=model, processing_class=tokenizer, args=config, callbacks=[Clock()],
        train_dataset=Dataset.from_dict({"input_ids": [ids for documents in steps for ids in documents]}),
    )  # fmt: skip
    if not row.dry:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    seen = [log["num_tokens"] for log in logs]
    rate = (seen[-1] - seen[1]) / (ends[-1] - ends[1])  # the first two steps warm up
    per_token = flops.of_step(lengths, sum(lengths) - len(lengths)) / sum(lengths)
    row.write(
        setting=asdict(setting), tokens_per_s=round(rate, 1), steps=len(ends) - 2,
        mfu=None if row.dry else round(rate * per_token / PEAK_FLOPS, 4),
        peak_gb=None if row.dry else round(torch.cuda.max_memory_allocated() / 1e9, 2),
        first_loss=logs[0]["loss"], last_loss=logs[-1]["loss"], peer=f"TRL SFTTrainer, sdpa, rows of {micro}",
    )  # fmt: skip


def main() -> None:
    """Measure all settings of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", help="ours-SIZE or peer-SIZE")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows.jsonl")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds for the row, imports and compiling too")
    parser.add_argument("--dry", action="store_true", help="toy shapes on the CPU")
    given = parser.parse_args()
    row = Row(given.row, given.out, given.dry, given.budget_s)
    side, _, size = given.row.partition("-")
    if side == "ours":
        ours(row, OURS[size])
    else:
        peer(row, PEERS[size])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
