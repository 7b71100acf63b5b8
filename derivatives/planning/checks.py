"""What would go wrong in a run and can be seen before it: tokens, template, vocabulary, positions, licence, disk.

Each check has a state: ok, warning (it runs, a person should know), refused (it would not run). What is checked of a
checkpoint's tokenizer is what a stage itself checks when it opens the folder (`derivatives/training/model.py`), in
`facts_of`, which imports torch; everything else here does not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.errors import UserError
from configs.schema import Stage
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, PretrainStage, SftStage
from corpora import sources
from derivatives.licence import checkpoint_licence, combine_licences, published_licence
from derivatives.planning.memory import trained_parameters
from derivatives.planning.predict import Asked
from derivatives.planning.shape import BF16, FP32, QWEN_VOCABULARY, Shape

State = Literal["ok", "warning", "refused"]
CHECKPOINTS_AT_ONCE = 3
"""Two are kept, and a third is whole before the oldest goes (`derivatives/training/checkpoint.py`)."""
SHARED_FREELY = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "unlicense")
GIGABYTE = 1e9


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    state: State
    text: str
    remedy: str = ""


def facts_of(folder: Path) -> dict[str, Any]:
    """What a stage finds out about a checkpoint folder before it trains, without its weights; imports torch.

    Returns:
        `num_real_tokens`, `stop_ids`, `has_template`; or `error`, the one line with which a stage would end.
    """
    from derivatives.training.model import check_folder, load_tokenizer, num_real_tokens, stop_ids

    try:
        check_folder(folder)
        tokenizer = load_tokenizer(folder)
    except UserError as error:
        return {"error": str(error)}
    return {
        "num_real_tokens": num_real_tokens(tokenizer),
        "stop_ids": stop_ids(tokenizer),
        "has_template": _has_template(folder),
    }


def _has_template(folder: Path) -> bool:
    names = ("chat_template.jinja", "chat_template.json")
    return any((folder / name).is_file() for name in names) or bool(_json(folder / "tokenizer_config.json").get(
        "chat_template"
    ))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def check_base(name: str, folder: Path | None, shape: Shape, facts: Mapping[str, Any] | None) -> list[Check]:
    """Stop tokens, template, vocabulary and embeddings of the base.

    Args:
        name: As the recipe names it.
        folder: Where it lies; None for a hub id that is not downloaded.
        shape: Of its config.json, or the published one.
        facts: Of `facts_of`; None where the folder is not there, then Qwen2.5's published facts stand in.
    """
    tied = Check("tied embeddings", "ok", f"embeddings are {'tied' if shape.tied else 'apart'}, as config.json says")
    if facts is None:
        return [
            Check("stop tokens", "ok", f"{name} is not here: as published, it ends with <|endoftext|>, chats with "
                  "<|im_end|>; both are trained and written"),
            Check("chat template", "ok", "as published (ChatML)"),
            _vocabulary(shape.vocabulary, QWEN_VOCABULARY),
            tied,
        ]  # fmt: skip
    if "error" in facts:
        return [Check("base", "refused", str(facts["error"])), tied]
    ends = _ends(folder, facts["stop_ids"])
    template = "its own" if facts["has_template"] else "none; plain ChatML is taken and written"
    return [
        ends,
        Check("chat template", "ok", template),
        _vocabulary(shape.vocabulary, int(facts["num_real_tokens"])),
        tied,
    ]


def _ends(folder: Path | None, stop_ids: Sequence[int]) -> Check:
    given = {} if folder is None else _json(folder / "generation_config.json") or _json(folder / "config.json")
    ends = given.get("eos_token_id")
    known = [ends] if isinstance(ends, int) else list(ends or [])
    missing = [number for number in stop_ids if number not in known]
    if not missing:
        return Check("stop tokens", "ok", f"<|im_end|> and <|endoftext|> ({stop_ids[0]}, {stop_ids[1]}) both end")
    return Check(
        "stop tokens",
        "ok",
        f"the base stops at {known or 'nothing'}, a chat turn ends with {stop_ids[0]}: drawing stops at "
        f"{stop_ids[0]} and {stop_ids[1]}, and what is written says so",
    )


def _vocabulary(rows: int, real: int) -> Check:
    if real > rows:
        return Check(
            "vocabulary", "refused", f"the tokenizer has {real:,} tokens, the embedding {rows:,} rows",
            "put the tokenizer that belongs to the weights there",
        )  # fmt: skip
    padded = f", {rows - real:,} of them padding that is never drawn" if rows > real else ""
    return Check("vocabulary", "ok", f"{rows:,} rows for {real:,} tokens{padded}")


def check_positions(stages: Sequence[Stage], shape: Shape) -> list[Check]:
    """Every stage's longest document against the positions of the model that it starts from."""
    found, positions = [], shape.max_positions
    sequences = {stage.id: stage.sequence_length for stage in stages if isinstance(stage, CorpusStage)}
    for stage in stages:
        context = getattr(stage, "context", None)
        positions = context.length if context is not None else positions
        longest, field = _longest(stage, sequences)
        if longest <= positions:
            continue
        draws = isinstance(stage, (RlStage, SampleStage, EvaluateStage))
        found.append(
            Check(
                "positions",
                "refused" if draws else "warning",
                f"{stage.id}: {field} {longest:,} exceeds the {positions:,} positions of the model",
                f"lower {field}" + ("" if draws else f", or set {stage.id}.context to lengthen the model's"),
            )
        )
    return found or [Check("positions", "ok", f"no stage goes beyond the model's {shape.max_positions:,} positions")]


def _longest(stage: Stage, sequences: Mapping[str, int]) -> tuple[int, str]:
    if isinstance(stage, PretrainStage):
        longest = max((sequences.get(name, 0) for name in stage.data), default=0)
        return longest, "sequence_length of its corpus"
    if isinstance(stage, (SftStage, DpoStage)):
        return stage.max_length, f"{stage.id}.max_length"
    if isinstance(stage, (RlStage, SampleStage, EvaluateStage)):
        return stage.sampling.max_new_tokens, f"{stage.id}.sampling.max_new_tokens"
    return 0, ""


def check_licence(name: str, folder: Path | None, stages: Sequence[Stage]) -> Check:
    """What the base's licence and those of the data come to, as the release's card will say."""
    base = (checkpoint_licence(folder) if folder is not None else None) or published_licence(name)
    data: dict[str, str | None] = {}
    for stage in stages:
        if isinstance(stage, CorpusStage):
            for source in stage.sources:
                data[sources.plain_name(source)] = sources.licence(source)
        for given in getattr(stage, "data", ()):
            if str(given).endswith(".jsonl"):
                data[Path(given).name] = None
    found = combine_licences(base, data)
    if found.identifier in SHARED_FREELY:
        return Check("licence", "ok", found.sentence)
    return Check("licence", "warning", found.sentence, "read it before you share the model, or change base or data")


def disk_bytes(asked: Sequence[Asked], downloads: bool) -> dict[str, float]:
    """Bytes on the disk at the most: all models, the checkpoints of the largest stage, packed corpora, a download."""
    found = {"checkpoints": 0.0, "models": 0.0, "corpora": 0.0, "rollouts": 0.0, "download": 0.0}
    for one in asked:
        stage, load = one.stage, one.load
        if isinstance(stage, CorpusStage) and stage.num_tokens is not None:
            found["corpora"] += 4.0 * stage.num_tokens
        if load is None:
            continue
        model = float(load.shape.parameters * BF16)
        found["download"] = model if downloads else 0.0
        if not load.trains:
            continue
        found["models"] += model
        state = 3.0 * FP32 * trained_parameters(load)
        found["checkpoints"] = max(found["checkpoints"], CHECKPOINTS_AT_ONCE * state)
        if isinstance(stage, RlStage) and one.amount.draw is not None:
            steps = min(stage.steps, stage.keep_rollouts)
            found["rollouts"] += 5.0 * one.amount.draw.completions * one.amount.draw.mean_tokens * steps
            if stage.fork_every is not None:
                found["checkpoints"] += state * (stage.steps // stage.fork_every)
    if any(one.stage.kind == "release" for one in asked):
        found["models"] += max((one.load.shape.parameters * BF16 for one in asked if one.load), default=0)
    return {name: size for name, size in found.items() if size}


def check_disk(asked: Sequence[Asked], folder: Path, downloads: bool) -> Check:
    """What the stages that are still to be run need against what is free where the store is."""
    parts = disk_bytes(asked, downloads)
    needed = sum(parts.values())
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = ", ".join(f"{name} {size / GIGABYTE:.3g}" for name, size in parts.items())
    text = f"{needed / GIGABYTE:.3g} GB at the most ({detail or 'nothing'}), {free / GIGABYTE:,.0f} GB free in {there}"
    if needed > free:
        return Check("disk", "refused", text, "free space there, or give another folder with --store")
    return Check("disk", "ok" if needed < free / 2 else "warning", text)
