"""What one stage will take: tokens, steps, speed, memory, hours; and the nearest setting that fits where it does not.

A stage is first turned into a `Load` (what decides memory) and an `Amount` (what has to be done); what must be timed on
this machine is asked of all stages at once (`questions`), then `predict` adds up. Without torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from configs.errors import UserError
from configs.schema import Stage
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import RANKED_KINDS, divisors, require_divides
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, Optimization, Supervised
from derivatives.planning.amounts import Amount, Known, amount_of
from derivatives.planning.devices import Device
from derivatives.planning.memory import Drawing, Load, Memory, Mode, memory_of
from derivatives.planning.questions import Found, Question
from derivatives.planning.shape import Shape
from derivatives.planning.speed import (
    PUBLISHED,
    TIMED,
    draw_question,
    draw_seconds,
    fits,
    flops_of,
    memory_limit,
    step_seconds,
    train_question,
)

MODES: tuple[Mode, ...] = ("none", "selective", "full")
LEAST_ROW = 256
MAX_PROCESSES = 64
LORA_RANK = 16


@dataclass(frozen=True)
class Prediction:
    """One stage's line of the plan; empty (None) where nothing is predicted."""

    stage_id: str
    kind: str
    tokens: float | None = None
    """Tokens trained on, or drawn."""
    steps: int | None = None
    tokens_per_s: float | None = None
    """Over all devices; in rl, drawn tokens over the whole step."""
    rollout_tokens_per_s: float | None = None
    mfu: float | None = None
    memory: Memory | None = None
    """Of one device."""
    limit: float | None = None
    """Bytes into which it must fit."""
    seconds: float | None = None
    devices: int = 1
    basis: str = ""
    assumptions: tuple[str, ...] = ()
    unpredicted: str = ""
    """Why there is no figure."""
    refusal: str = ""
    remedies: tuple[str, ...] = field(default=())

    @property
    def device_seconds(self) -> float | None:
        """Seconds times devices."""
        return None if self.seconds is None else self.seconds * self.devices


@dataclass(frozen=True)
class Asked:
    """A stage that is to be predicted."""

    stage: Stage
    amount: Amount
    load: Load | None
    device: Device


def prepare(stage: Stage, shape: Shape | None, device: Device, known: Known) -> Asked:
    """A stage with what it has to do and what decides its memory.

    Args:
        stage: Of the recipe.
        shape: Of the model that it starts from.
        device: As the stage uses the profile (`Machine.for_kind`).
        known: Data that are there already.
    """
    amount = amount_of(stage, known)
    return Asked(stage, amount, None if shape is None else load_of(stage, shape, device, amount), device)


def load_of(stage: Stage, shape: Shape, device: Device, amount: Amount) -> Load | None:
    """What decides a stage's memory; None for a stage without a model."""
    work, draw = amount.train, amount.draw
    drawing = None
    if draw is not None:
        own = max(1, int(draw.completions / device.num_processes))  # ranks share the problems out
        drawing = Drawing(own, round(draw.prompt_tokens), draw.max_new_tokens)
    base = Load(shape, device=device.kind, drawing=drawing, device_bytes=device.memory)
    if isinstance(stage, (SampleStage, EvaluateStage)):
        precision = stage.precision if isinstance(stage, SampleStage) else "bf16"
        if drawing is None:
            return None
        if isinstance(stage, SampleStage):
            base = replace(base, has_server=device.has_server)
        return replace(base, precision=precision, trains=False, num_processes=device.num_processes)
    if not isinstance(stage, Optimization):
        return None
    tokens = (work.tokens if work else stage.micro_batch_tokens) / device.num_data
    row = max(1, int(min(stage.micro_batch_tokens, tokens)))
    trained = row * (work.trained / work.tokens) if work and work.tokens else row
    if stage.lora is not None:
        base = replace(base, rank=stage.lora.rank, targets=stage.lora.targets)
    return replace(
        base,
        precision=stage.precision,
        recompute=stage.recompute,
        row_tokens=row,
        num_rows=max(1, math.ceil(tokens / stage.micro_batch_tokens)),
        trained_tokens=max(1, int(trained / device.tensor_parallel)),
        document_tokens=max(1, round(work.document_tokens)) if work else 1024,
        num_processes=device.num_processes,
        tensor_parallel=device.tensor_parallel,
        has_reference=isinstance(stage, RlStage) and stage.kl_coefficient > 0,
        has_server=device.has_server,
    )


def questions(asked: Asked) -> list[Question]:
    """What must be timed on this machine for a stage; nothing for a GPU, or for what will not fit."""
    load, amount = asked.load, asked.amount
    if load is None or asked.device.kind == "cuda" or not fits(load, asked.device):
        return []
    found: list[Question] = []
    if amount.train is not None:
        found.append(train_question(load, loss_kind(asked.stage)))
    if amount.draw is not None:
        found.append(draw_question(load, amount.draw))
    return found


def loss_kind(stage: Stage) -> str:
    """Which of the two losses over the vocabulary a stage takes."""
    return "log_probs" if isinstance(stage, (RlStage, DpoStage)) else "cross_entropy"


def predict(asked: Asked, found: Found | None, why_untimed: str = "") -> Prediction:
    """One stage's line.

    Args:
        asked: The stage.
        found: What was timed on this machine; None where nothing was.
        why_untimed: The reason of that.
    """
    stage, amount, load, device = asked.stage, asked.amount, asked.load, asked.device
    line = Prediction(stage.id, stage.kind, assumptions=tuple(amount.assumptions))
    if load is None:
        return replace(line, unpredicted=amount.unknown or "the shape of its model is not known")
    memory = memory_of(load)
    line = replace(line, memory=memory, limit=memory_limit(device), devices=device.num_processes)
    if memory.total > memory_limit(device):
        line = replace(line, refusal=_refusal(stage, memory, device), remedies=tuple(remedies(asked)))
    try:
        require_divides(load.tensor_parallel, load.shape.cut_sizes())
    except UserError as error:
        line = replace(line, refusal=f"{stage.id}: {error}", remedies=(_fewer_parts(load),))
    if amount.unknown:
        return replace(line, unpredicted=amount.unknown)
    tokens, steps = _tokens(amount)
    line = replace(line, tokens=tokens, steps=steps)
    if device.has_server and amount.draw is not None and not isinstance(stage, EvaluateStage):
        return replace(line, unpredicted="speed: a vLLM server draws, on devices that are not known here")
    train_s = 0.0 if amount.train is None else step_seconds(load, amount.train, device, found, loss_kind(stage))
    draw_s = 0.0 if amount.draw is None else draw_seconds(load, amount.draw, device, found)
    draw_once = train_s + draw_s if amount.draw is not None and amount.train is not None else draw_s
    before_s = train_s * amount.before
    seconds = before_s + (draw_once * amount.draws if amount.draw is not None else train_s * amount.steps)
    if math.isnan(seconds) or seconds <= 0:
        reason = "it does not fit" if line.refusal else why_untimed or "nothing was timed"
        return replace(line, unpredicted=f"speed: {reason}")
    rollout = amount.draw.completions * amount.draw.mean_tokens / draw_s if amount.draw is not None else None
    mfu = None
    if amount.train is not None and amount.draw is None and device.peak is not None:
        mfu = flops_of(load, amount.train) / train_s / (device.peak * device.num_processes)
    return replace(
        line,
        seconds=seconds,
        tokens_per_s=tokens / (seconds - before_s),
        rollout_tokens_per_s=rollout,
        mfu=mfu,
        basis=PUBLISHED if device.kind == "cuda" else TIMED,
    )


def _tokens(amount: Amount) -> tuple[float, int]:
    if amount.draw is not None:
        return amount.draw.completions * amount.draw.mean_tokens * amount.draws, math.ceil(amount.draws)
    assert amount.train is not None
    return amount.train.tokens * amount.steps, amount.steps


def _refusal(stage: Stage, memory: Memory, device: Device) -> str:
    largest = sorted(memory.parts.items(), key=lambda part: -part[1])[:3]
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in largest)
    return (
        f"{stage.id}: needs {memory.total / 1e9:.1f} GB a device ({parts}); {device.name} has "
        f"{memory_limit(device) / 1e9:.1f}"
    )


def remedies(asked: Asked) -> list[str]:
    """The nearest settings with which a stage fits, as words to put on the command line or into the profile.

    Searched in the order of what they cost: recomputation and shorter rows (more time, same result), adapters (another
    result), more processes, a device with more memory.
    """
    stage, load, device = asked.stage, asked.load, asked.device
    assert load is not None
    found: list[str] = []
    if load.trains:
        same = next((one for one in _same_result(load) if fits(one, device)), None)
        if same is not None:
            return [_as_settings(stage.id, load, same)]
        if load.rank is None:
            smaller = replace(load, rank=LORA_RANK)
            adapted = next((one for one in _same_result(smaller, itself=True) if fits(one, device)), None)
            if adapted is not None:
                found.append(_as_settings(stage.id, load, adapted))
        if isinstance(stage, (Supervised, RlStage)) and device.kind == "cuda":
            found += _more_processes(stage.id, load, device)
    least = min((memory_of(one).total for one in _same_result(load, itself=True)), default=memory_of(load).total)
    if not found:
        alone = "" if stage.kind in RANKED_KINDS else f"; {stage.kind} runs in one process"
        found.append(f"no setting fits: a device with at least {least / 1e9:.0f} GB, or a smaller base{alone}")
    return found


def _same_result(load: Load, itself: bool = False) -> Iterator[Load]:
    """Loads with the same result and less memory, the cheapest in time first."""
    rows = [load.row_tokens]
    while rows[-1] // 2 >= max(LEAST_ROW, min(load.document_tokens, load.row_tokens)):
        rows.append(rows[-1] // 2)
    for mode, row in itertools.product(MODES[MODES.index(load.recompute) :], rows):
        share = row / load.row_tokens
        smaller = replace(
            load,
            recompute=mode,
            row_tokens=row,
            num_rows=math.ceil(load.num_rows / share),
            trained_tokens=max(1, int(load.trained_tokens * share)),
        )
        if itself or smaller != load:
            yield smaller


def _as_settings(stage_id: str, before: Load, after: Load) -> str:
    words = []
    if after.rank != before.rank:
        words.append(f"--set '{stage_id}.lora={{rank: {after.rank}, alpha: {2 * (after.rank or 0)}}}'")
    if after.recompute != before.recompute:
        words.append(f"--set {stage_id}.recompute={after.recompute}")
    if after.row_tokens != before.row_tokens:
        words.append(f"--set {stage_id}.micro_batch_tokens={after.row_tokens}")
    return " ".join([*words, f"({memory_of(after).total / 1e9:.1f} GB)"])


def _more_processes(stage_id: str, load: Load, device: Device) -> list[str]:
    """More ranks over the data axis; where none are enough, layers cut over some of them."""
    numbers = list(itertools.takewhile(lambda number: number <= MAX_PROCESSES, _doubled(device.num_processes)))
    for parts in _allowed_parts(load):
        if parts < load.tensor_parallel:
            continue
        for number in numbers if parts > load.tensor_parallel else numbers[1:]:
            if number % parts:
                continue
            more = replace(load, num_processes=number, tensor_parallel=parts)
            for one in _same_result(more, itself=True):
                if fits(one, replace(device, num_processes=number)):
                    words = f"a machine profile with num_processes: {number}"
                    words += f" and tensor_parallel: {parts}" if parts > load.tensor_parallel else ""
                    return [f"{words} {_as_settings(stage_id, load, one)}"]
    return []


def _doubled(number: int) -> Iterator[int]:
    return (number * 2**times for times in itertools.count())


def _allowed_parts(load: Load) -> list[int]:
    """Into how many parts the layers of a model can be cut."""
    sizes = load.shape.cut_sizes().values()
    return [parts for parts in divisors(min(sizes)) if not any(size % parts for size in sizes)]


def _fewer_parts(load: Load) -> str:
    parts = max(one for one in _allowed_parts(load) if load.num_processes % one == 0)
    return f"a machine profile with tensor_parallel: {parts}"
