"""One row of `gpu_rl.py`, in a process of its own: how our side draws and updates.

    python tests/benchmarks/gpu_rl_row.py ROW --out OUT --budget-s SECONDS [--dry]

Also a plugin of pytest (`-p gpu_rl_row`) that lets the engine's tests run where pydantic is missing. torch and our own
parts are imported where they are used, after `stand_in`.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gpu_rl_load import (
    NUM_STEPS,
    bound_of,
    fitting_length,
    is_rewarded,
    load_of,
    memory,
    num_real,
    prompts_of,
    reset_memory,
    seconds_of,
    time_steps,
    tokenizer_of,
)
from gpu_sft_row import PEAK_FLOPS, ROOT, Row, Setting, optimizer_of, prepare, profile, stand_in_for_schemas


@dataclass(frozen=True)
class Drawing:
    """How the engine alone draws; 0 is greedy, which draws no random numbers and searches no distribution."""

    temperature: float = 1.0


@dataclass(frozen=True)
class Updating:
    """How our policy is updated: compiled decoder layers or plain ones, and the tokens of a packed row."""

    compile: bool = False
    micro_batch_tokens: int = 8192


DRAWINGS = (Drawing(), Drawing(0.0))
UPDATINGS = (Updating(), Updating(True), Updating(True, 16_384))


@dataclass(frozen=True)
class _Sampling:
    """Fields of `configs.settings.common.Sampling`, of which the engine needs no more, where pydantic is missing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int = 128


def stand_in() -> None:
    """Let the engine and the policy update be imported where pydantic is missing: they name schemas and the trainer in
    annotations only, and read plain fields."""
    if importlib.util.find_spec("pydantic") is not None or "configs.stage" in sys.modules:
        return
    stand_in_for_schemas()
    sys.modules["configs.settings.common"].Sampling = _Sampling  # type: ignore[attr-defined]
    for name, annotated in (("configs.stage", "StageFile"), ("derivatives.training.loop", "Trainer")):
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], annotated, object)


def pytest_configure() -> None:
    """As a plugin: before tests are collected."""
    stand_in()


def engine_of(model: Any, tokenizer: Any) -> Any:
    """The rollout engine, with nothing that ends a completion early."""
    from derivatives.rollout.engine import RolloutEngine

    engine = RolloutEngine(model, tokenizer)
    engine.stops_V.zero_()
    engine.stop_ids = frozenset()
    return engine


def decode(row: Row) -> None:
    """The engine alone: whole calls, prompts included, after one that captured the graphs."""
    stand_in()
    import torch

    from configs.settings.common import Sampling
    from derivatives.training.attention import REGISTERED_NAME

    model, load = row.model(torch.bfloat16, REGISTERED_NAME).eval(), load_of(row)
    engine = engine_of(model, tokenizer_of(row))

    def measure(setting: Drawing) -> None:
        reset_memory(row)

        def draw(new_tokens: int, step: int = 0) -> Any:
            sampling = Sampling(temperature=setting.temperature, max_new_tokens=new_tokens)
            return engine.generate(prompts_of(row, step), load.num_samples, sampling, seed=step)

        length = fitting_length(row, draw, share=0.45)
        lengths = [len(prompt) for prompt in prompts_of(row, 0) for _ in range(load.num_samples)]
        tokens = len(lengths) * length
        seconds: list[float] = []
        while len(seconds) <= NUM_STEPS and (len(seconds) < 2 or time.monotonic() + seconds[-1] < row.until):
            seconds.append(seconds_of(row, lambda: draw(length)))
        rates = [tokens / taken for taken in seconds[1:]]
        bound = bound_of(row, model, lengths, length)
        rate = statistics.median(rates)
        row.write(
            setting=asdict(setting), tokens_per_s=round(rate, 1), spread=[round(min(rates), 1), round(max(rates), 1)],
            steps=len(rates), step_ms=round(len(lengths) / rate * 1e3, 3), new_tokens=length,
            bound_tokens_per_s=bound and round(bound, 1), bound_share=bound and round(rate / bound, 4),
            first_s=round(seconds[0], 2), **memory(row),
        )  # fmt: skip
        if setting == Drawing() and row.has_time():
            profile_steps(row, engine, setting)

    row.each(DRAWINGS, measure)


def profile_steps(row: Row, engine: Any, setting: Any) -> None:
    """The kernels of a few steps behind prompts as long as a completion's cache is on the mean."""
    from configs.settings.common import Sampling

    load, drawn = load_of(row), random.Random(0)
    length = (load.shortest + load.longest + load.new_tokens) // 2
    prompts = [drawn.choices(range(num_real(row)), k=length) for _ in range(load.num_prompts)]
    sampling = Sampling(max_new_tokens=16)

    def draw(_: Any = None) -> float:
        engine.generate(prompts, load.num_samples, sampling)
        return 0.0

    draw()
    profile(row, draw, setting)


class Policy:
    """What `PolicyUpdate` asks of a trainer, joined as `Trainer.update` joins it; without its checks of the loss."""

    def __init__(self, row: Row, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, row.device
        self.optimizer = optimizer_of(model, Setting())

    def update(self, batches: Sequence[Any], loss: Any, divisor: float, keys: Sequence[str] = ()) -> dict[str, float]:
        """One optimizer step over micro-batches."""
        import torch

        from derivatives.training.forward import hidden_states

        losses = []
        for batch in batches:
            placed = batch.to(self.device)
            part = loss(hidden_states(self.model, placed), placed) / divisor
            part.backward()
            losses.append(part.detach())
        total = sum(torch.stack(losses).tolist())
        return {"loss": total, "grad_norm": self.optimizer.step(1e-6), "lr": 1e-6}


def grpo(row: Row) -> None:
    """Whole steps of our side: draw, reward, advantages, one update of all weights."""
    stand_in()
    import torch

    from configs.settings.common import Sampling
    from derivatives.rollout.judged import Judged
    from derivatives.rollout.policy_update import PolicyUpdate
    from derivatives.training import attention
    from derivatives.training.throughput import ModelFlops
    from verifiers.api import correct, incorrect

    model, tokenizer, load = row.model(torch.bfloat16, attention.REGISTERED_NAME), tokenizer_of(row), load_of(row)
    attention.set_method(model, attention.choose(row.device, torch.bfloat16, attention.head_dim_of(model)))
    model.eval()
    policy, engine, flops = Policy(row, model, tokenizer), engine_of(model, tokenizer), ModelFlops(model)
    named = {"attention": attention.method_of(model), "leak": attention.leak_probe(model)}

    def draw(new_tokens: int, step: int = 0) -> Any:
        return engine.generate(prompts_of(row, step), load.num_samples, Sampling(max_new_tokens=new_tokens), seed=step)

    length = fitting_length(row, draw, share=0.25)
    reset_memory(row)

    def measure(setting: Updating) -> None:
        policy.optimizer.adamw.zero_grad(set_to_none=True)  # what a setting left that did not fit
        prepare(model, Setting(compile=setting.compile))
        stage: Any = SimpleNamespace(
            loss="grpo", clip_low=None, clip_high=None, sampling=Sampling(max_new_tokens=length), more_rewards=(),
            entropy_coefficient=0.0, entropy_target=None, kl_coefficient=0.0, kl_estimator="k3", lora=None,
            truncated="wrong", partial_credit=False, scale_advantages=True, updates_per_step=1, overlong_buffer=None,
            micro_batch_tokens=setting.micro_batch_tokens, precision="bf16",
        )  # fmt: skip
        update = PolicyUpdate(policy, stage, None)  # type: ignore[arg-type]
        figures: dict[str, float] = {}
        lengths: list[int] = []

        def step(number: int) -> tuple[float, float, int]:
            prompts = prompts_of(row, number)
            groups: list[Any] = []
            drawing = seconds_of(row, lambda: groups.extend(draw(length, number)))
            judged = [
                [Judged(one, correct("even") if is_rewarded(one.token_ids) else incorrect("odd")) for one in group]
                for group in groups
            ]
            updating = seconds_of(row, lambda: figures.update(update.step(prompts, judged)))
            lengths[:] = [
                len(prompt) + len(one.token_ids) for prompt, group in zip(prompts, groups, strict=True) for one in group
            ]
            return drawing, updating, sum(len(one.token_ids) for group in groups for one in group)

        def more(updating: float) -> dict[str, Any]:
            names = ("mismatch", "largest_mismatch", "entropy", "groups_without_spread")
            done = flops.of_step(lengths, figures["trained_tokens"]) / updating
            return {
                **{name: round(figures[name], 6) for name in names}, **named,
                "update_mfu": None if row.dry else round(done / PEAK_FLOPS, 4), "trained": figures["trained_tokens"],
            }  # fmt: skip

        time_steps(row, setting, step, length, more)

    row.each(UPDATINGS, measure)


def main() -> None:
    """Measure all settings of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", help="decode-SIZE, grpo-SIZE or peer-SIZE")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows.jsonl")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds for the row, imports and compiling too")
    parser.add_argument("--dry", action="store_true", help="toy shapes on the CPU")
    given = parser.parse_args()
    row = Row(given.row, given.out, given.dry, given.budget_s)
    side = given.row.partition("-")[0]
    if side == "peer":
        from gpu_rl_peer import peer

        peer(row)
    else:
        {"decode": decode, "grpo": grpo}[side](row)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
