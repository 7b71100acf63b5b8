"""How much a stage has to do: steps, tokens, completions; and what of it is a guess.

What a corpus holds is known once it is built (`Built`), and lines of the user's own files are counted; before that the
recipe's counts stand in, and lengths are assumed. Every assumption is told in words, so that a person can correct it.
Without torch.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.names import TWINS
from configs.schema import Stage
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource, CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, PretrainStage, SftStage
from configs.suites import expand
from derivatives.planning.answering import answers_of_one
from derivatives.planning.speed import DrawWork, TrainWork

SAMPLED_LINES = 200
CHARACTERS_PER_TOKEN = 3.5
TEMPLATE_TOKENS = 12
"""Of a chat template around a question and its answer, without a system prompt."""
ASSUMED_EXAMPLE_TOKENS, ASSUMED_PROMPT_TOKENS = 400, 150
ASSUMED_TRAINED = 0.7
LONG_SEQUENCE = 8192
"""Tokens from which on a corpus of examples is taken to be one of traces, of a quarter of that length. A guess: traces
of DeepSeek-R1 over competition mathematics that fit into 32,768 tokens are of some 6,000 to 8,000."""
ASSUMED_SPREAD = 0.5
"""Groups of rl whose rewards differ; only they are trained on."""
LENGTH, TRAINED_SHARE = "length", "trained_share"
"""Of an earlier run of rl: mean tokens of its completions, and the share of the drawn tokens that it trained on."""
PUBLISHED_ROWS = {
    ("gsm8k", "train"): 7473, ("gsm8k", "test"): 1319, ("math", "train"): 7500, ("math", "test"): 5000,
    ("math500", "test"): 500, ("asdiv", "test"): 2305, ("aime24", "test"): 30, ("aime25", "test"): 30,
    ("humaneval", "test"): 164, ("mbpp", "train"): 374, ("mbpp", "test"): 500, ("mbpp_sanitized", "train"): 120,
    ("mbpp_sanitized", "test"): 257, ("ifeval", "test"): 541, ("deepscaler", "train"): 40_315,
    ("numinamath", "train"): 859_494,
}  # fmt: skip
"""Rows of public data sets, as their pages say."""


@dataclass(frozen=True)
class Built:
    """What is known of a stage whose product is there."""

    folder: Path
    report: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Texts:
    """Mean tokens of the prompts and completions of some data, and how many there are."""

    count: float
    prompt_tokens: float
    completion_tokens: float
    spread: float = 1.0
    """Mean square of the lengths over the square of their mean."""
    assumptions: tuple[str, ...] = ()


@dataclass
class Amount:
    """What one stage has to do."""

    steps: int = 0
    length: float = 1.0
    """What one whole step takes of the field that says how long the stage is: tokens, epochs or steps."""
    tokens: float = 0.0
    """Trained on in all; in rl, drawn."""
    before: float = 0.0
    """Work before the first step, in steps' time; it grows with the data, not with the stage's length."""
    train: TrainWork | None = None
    draw: DrawWork | None = None
    draws: float = 1.0
    """Times that `draw` is done: steps of rl, models of an evaluation."""
    assumptions: list[str] = field(default_factory=list)
    unknown: str = ""
    """Why nothing can be said."""


@dataclass(frozen=True)
class Known:
    """What amounts are read from."""

    stages: Mapping[str, Stage]
    built: Mapping[str, Built]
    count_tokens: Callable[[str], int]
    counts_by: str = ""
    """How tokens of a text are counted, where that is not the base's tokenizer."""


def amount_of(stage: Stage, known: Known) -> Amount:
    """What a stage has to do."""
    if isinstance(stage, PretrainStage):
        return _pretrain(stage, known)
    if isinstance(stage, SftStage):
        return _sft(stage, known)
    if isinstance(stage, DpoStage):
        return _dpo(stage, known)
    if isinstance(stage, RlStage):
        return _rl(stage, known)
    if isinstance(stage, SampleStage):
        return _sample(stage, known)
    if isinstance(stage, EvaluateStage):
        return _evaluate(stage, known)
    if isinstance(stage, CorpusStage):
        return Amount(unknown="a corpus takes what its sources and filters take; it is known once it has been built")
    return Amount(unknown="copies and checks a model; minutes at most")


def _pretrain(stage: PretrainStage, known: Known) -> Amount:
    mean, square, assumptions = _documents(stage.data, known)
    tokens = min(stage.batch_tokens, stage.num_tokens)
    work = TrainWork(tokens, tokens * (1 - 1 / mean), square)
    steps = math.ceil(stage.num_tokens / stage.batch_tokens)
    return Amount(steps, stage.batch_tokens, stage.num_tokens, train=work, assumptions=assumptions)


def _documents(data: Sequence[str], known: Known) -> tuple[float, float, list[str]]:
    """Mean length of packed documents, mean length of the document that a token lies in, and what was assumed."""
    lengths: list[int] = []
    sequence = 512
    for name in data:
        found = known.built.get(name)
        if found is not None:
            lengths += _document_lengths(found.folder)
        given = known.stages.get(name)
        sequence = given.sequence_length if isinstance(given, CorpusStage) else sequence
    if lengths:
        return sum(lengths) / len(lengths), sum(one**2 for one in lengths) / sum(lengths), []
    return sequence / 2, sequence / 2, [f"documents of half the corpus' sequence_length ({sequence} tokens)"]


def _document_lengths(folder: Path) -> list[int]:
    import numpy as np

    try:
        offsets = np.load(folder / "data" / "documents.npy", mmap_mode="r")
    except (OSError, ValueError):
        return []
    kept = np.diff(offsets[: 100_000 + 1])
    return [int(one) for one in kept]


def _sft(stage: SftStage, known: Known) -> Amount:
    texts = _texts(stage.data, known, stage.max_length, stage.system)
    if texts is None:
        return Amount(unknown=_uncounted(stage.data, known))
    examples = min(texts.count, float(stage.batch_examples))
    mean = texts.prompt_tokens + texts.completion_tokens
    tokens = examples * mean
    trained, squares = examples * texts.completion_tokens, tokens * mean * texts.spread
    if stage.replay is not None:
        more = stage.replay.batch_tokens
        length, square, _ = _documents(stage.replay.data, known)
        tokens, trained, squares = tokens + more, trained + more * (1 - 1 / length), squares + more * square
    work = TrainWork(tokens, trained, squares / tokens)
    steps = math.ceil(max(1, round(stage.epochs * texts.count)) / stage.batch_examples)
    total, length = max(1.0, stage.epochs * texts.count), stage.batch_examples / texts.count
    more = 0 if stage.replay is None else stage.replay.batch_tokens
    trained_on = total * (mean + more / stage.batch_examples)
    return Amount(steps, length, trained_on, train=work, assumptions=list(texts.assumptions))


def _dpo(stage: DpoStage, known: Known) -> Amount:
    texts = _texts(stage.data, known, stage.max_length, stage.system, completion="chosen")
    if texts is None:
        return Amount(unknown="the number of pairs is known when the sample stage before it is done")
    pairs = min(texts.count, float(stage.batch_pairs))
    mean = texts.prompt_tokens + texts.completion_tokens
    tokens = 2 * pairs * mean
    work = TrainWork(tokens, 2 * pairs * texts.completion_tokens, mean * texts.spread)
    steps = math.ceil(max(1, round(stage.epochs * texts.count)) / stage.batch_pairs)
    length, trained_on = stage.batch_pairs / texts.count, 2 * max(1.0, stage.epochs * texts.count) * mean
    # What the starting model gives to every completion: one forward pass over all, a third of an update's cost.
    before = texts.count / stage.batch_pairs / 3
    return Amount(steps, length, trained_on, before, work, assumptions=list(texts.assumptions))


def _rl(stage: RlStage, known: Known) -> Amount:
    texts = _texts(stage.data, known, None, stage.system, completion=None)
    prompt = texts.prompt_tokens if texts else ASSUMED_PROMPT_TOKENS
    assumptions = list(texts.assumptions) if texts else [f"prompts of {ASSUMED_PROMPT_TOKENS} tokens"]
    limits = [*stage.length_stages, stage.sampling.max_new_tokens]
    longest = round(sum(limits) / len(limits))
    mean = _mean_length(stage.id, longest, known, assumptions)
    completions = float(stage.prompts_per_step * stage.group_size)
    measured = _metric(known, stage.id, TRAINED_SHARE)
    share = ASSUMED_SPREAD if measured is None else measured
    if stage.kl_coefficient > 0 or stage.entropy_coefficient > 0:
        share = 1.0
    elif measured is None:
        assumptions.append(f"{share:.0%} of the groups have rewards that differ, and are trained on")
    tokens = completions * share * (prompt + mean)
    work = TrainWork(tokens, completions * share * mean, prompt + mean)
    draw = DrawWork(completions, stage.prompts_per_step, prompt, mean, longest)
    drawn = completions * mean * stage.steps
    return Amount(stage.steps, 1.0, drawn, train=work, draw=draw, draws=stage.steps, assumptions=assumptions)


def _sample(stage: SampleStage, known: Known) -> Amount:
    texts = _texts(stage.data, known, None, stage.system, completion=None)
    if texts is None:
        return Amount(unknown=_uncounted(stage.data, known))
    assumptions = list(texts.assumptions)
    mean = _mean_length(stage.id, stage.sampling.max_new_tokens, known, assumptions)
    batch = min(float(stage.batch_problems), texts.count)
    draw = DrawWork(batch * stage.num_samples, batch, texts.prompt_tokens, mean, stage.sampling.max_new_tokens)
    return Amount(draw=draw, draws=texts.count / max(batch, 1), assumptions=assumptions)


def _evaluate(stage: EvaluateStage, known: Known) -> Amount:
    tasks, kept = ([(source.name, _rows(source, known)) for source in expand(given)]
                   for given in (stage.tasks, stage.kept_tasks))  # fmt: skip
    unknown = [name for name, count in (*tasks, *kept) if count is None]
    if unknown:
        return Amount(unknown=f"how many problems {', '.join(unknown)} has is not known here; set its count")
    problems, of_others = (sum(count or 0.0 for _, count in found) for found in (tasks, kept))
    assumptions = [f"prompts of {ASSUMED_PROMPT_TOKENS} tokens"]
    mean = _mean_length(stage.id, stage.sampling.max_new_tokens, known, assumptions)
    draw, more = answers_of_one(stage, problems, of_others, ASSUMED_PROMPT_TOKENS, mean)
    return Amount(draw=draw, draws=len(stage.models), assumptions=[*assumptions, *more])


def _rows(source: TaskSource | CorpusSource, known: Known) -> float | None:
    """Rows that a source gives, as far as that can be told without opening it; of twins those of their originals."""
    source = source.model_copy(update={"name": source.name.removeprefix(f"{TWINS}/")})
    if source.name.endswith(".jsonl"):
        try:
            with Path(source.name).expanduser().open("rb") as file:
                total = float(sum(1 for line in file if line.strip()))
        except OSError:
            return source.count
        return min(total, source.count or total)
    total = PUBLISHED_ROWS.get((source.name, source.split), math.inf)
    found = min(total, source.count or math.inf)
    return None if math.isinf(found) else found


def _metric(known: Known, stage_id: str, name: str) -> float | None:
    found = known.built.get(stage_id)
    value = found.metrics.get(name) if found is not None else None
    return float(value) if isinstance(value, (int, float)) else None


def _mean_length(stage_id: str, longest: int, known: Known, assumptions: list[str]) -> float:
    """Mean tokens of completions: what an earlier run of the stage drew, else half of what is allowed."""
    measured = _metric(known, stage_id, LENGTH)
    if measured is not None:
        return measured
    assumptions.append(f"completions of half of max_new_tokens ({longest})")
    return longest / 2


def _uncounted(data: Sequence[str], known: Known) -> str:
    missing = [name for name in data if not name.endswith(".jsonl") and name not in known.built]
    return f"how many rows {', '.join(missing)} will hold is known once it has been built; set counts on its sources"


def _texts(
    data: Sequence[str], known: Known, limit: int | None, system: str | None, completion: str | None = "completion"
) -> Texts | None:
    """What some data hold: from files where they are there, else by the recipe's counts. None where nothing is known.

    Args:
        data: Stage ids or paths of JSONL files.
        known: What there is.
        limit: Longer examples are dropped; None has no limit.
        system: System prompt before every conversation.
        completion: Field of the completion; None reads prompts alone.
    """
    count, prompt, answer, spread = 0.0, 0.0, 0.0, 0.0
    assumptions: list[str] = []
    before = TEMPLATE_TOKENS + (known.count_tokens(system) if system else 0)
    for name in data:
        path = _file_of(name, known)
        found = None if path is None else sample_file(path, known.count_tokens, completion)
        if found is None:
            number = _planned_rows(name, known, completion)
            if number is None:
                return None
            whole, asked = _assumed_lengths(name, known, limit, completion)
            found = Texts(number, asked, whole - asked if completion else 0.0)
            most = "at most " if isinstance(known.stages[name], SampleStage) else ""
            assumptions.append(f"{name}: {most}{number:,.0f} rows by its counts, {whole:.0f} tokens each")
        elif known.counts_by:
            assumptions.append(known.counts_by)
        count += found.count
        prompt += found.count * (found.prompt_tokens + before)
        answer += found.count * found.completion_tokens
        spread += found.count * found.spread
    if count == 0:
        return None
    return Texts(count, prompt / count, answer / count, spread / count, tuple(dict.fromkeys(assumptions)))


def _assumed_lengths(name: str, known: Known, limit: int | None, completion: str | None) -> tuple[float, float]:
    """Tokens of an example of a corpus that is not built, and those of its prompt.

    A corpus whose sequences may be as long as `LONG_SEQUENCE` was made so for long traces, whose prompts are short.
    """
    stage = known.stages.get(name)
    longest = stage.sequence_length if isinstance(stage, CorpusStage) and stage.output == "examples" else 0
    if completion and longest >= LONG_SEQUENCE:
        return min(longest, limit or longest) / 4, ASSUMED_PROMPT_TOKENS
    whole = min(ASSUMED_EXAMPLE_TOKENS, (limit or ASSUMED_EXAMPLE_TOKENS) / 4)
    return whole, whole * (1 - ASSUMED_TRAINED) if completion else min(ASSUMED_PROMPT_TOKENS, whole)


def _file_of(name: str, known: Known) -> Path | None:
    if name.endswith(".jsonl"):
        return Path(name).expanduser()
    found = known.built.get(name)
    if found is None:
        return None
    names = ("examples.jsonl", "problems.jsonl", "pairs.jsonl")
    return next((path for one in names if (path := found.folder / "data" / one).is_file()), None)


def _planned_rows(name: str, known: Known, completion: str | None) -> float | None:
    """Rows of a stage's product that is not there. Of samples the most that can be: nobody knows how many are right; of
    pairs of them nothing, since that bound would say as little."""
    stage = known.stages.get(name)
    if isinstance(stage, SampleStage) and completion != "chosen":
        asked = _texts(stage.data, known, None, None, completion=None)
        return None if asked is None else asked.count * (stage.max_examples if completion else 1)
    if not isinstance(stage, CorpusStage):
        return None
    counts = [_rows(source, known) for source in stage.sources]
    return None if any(count is None for count in counts) else sum(count for count in counts if count is not None)


def drawn_before(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the progress of a stage of rl says of its completions, as `Built.metrics`; empty where it says nothing."""
    told = [line for line in lines if all(f"rl/{name}" in line for name in ("length", "tokens", "trained_tokens"))]
    drawn = sum(line["rl/tokens"] for line in told)
    if not drawn:
        return {}
    trained = sum(line["rl/trained_tokens"] for line in told)
    return {LENGTH: sum(line["rl/length"] for line in told) / len(told), TRAINED_SHARE: trained / drawn}


def sample_file(path: Path, count_tokens: Callable[[str], int], completion: str | None) -> Texts | None:
    """Rows of a JSONL file, and the mean tokens of an even draw of them; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            total = sum(1 for line in file if line.strip())
        every = max(1, total // SAMPLED_LINES)
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            rows = list(_objects(itertools.islice((line for line in file if line.strip()), 0, None, every)))
    except OSError:
        return None
    if not rows:
        return None
    prompts, answers = zip(*(_parts(row, completion) for row in rows), strict=True)
    asked, said = ([count_tokens(text) for text in texts] for texts in (prompts, answers))
    ends = 1 if completion else 0  # of a turn
    lengths = [TEMPLATE_TOKENS + before + after for before, after in zip(asked, said, strict=True)]
    spread = len(rows) * sum(length**2 for length in lengths) / sum(lengths) ** 2
    return Texts(float(total), sum(asked) / len(rows), sum(said) / len(rows) + ends, spread)


def _objects(lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _parts(row: Mapping[str, Any], completion: str | None) -> tuple[str, str]:
    """What is asked and what is answered in a row."""
    if isinstance(row.get("messages"), list):
        turns = [turn for turn in row["messages"] if isinstance(turn, dict)]
        said = [str(turn.get("content")) for turn in turns if turn.get("role") == "assistant"]
        asked = [str(turn.get("content")) for turn in turns if turn.get("role") != "assistant"]
        return "\n".join(asked), "\n".join(said) if completion else ""
    return str(row.get("prompt") or ""), str(row.get(completion) or "") if completion else ""
