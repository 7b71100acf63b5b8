"""Rejection sampling: a model's own completions, sorted by a verifier into training data.

    python -m derivatives.sample STAGE.json OUT/

Completes every problem `num_samples` times with the engine of reinforcement learning, judges the completions while
others still grow, and writes

| file of data/ | a line | read by |
|---|---|---|
| `examples.jsonl` | `id`, `source`, `prompt`, `completion`: right and distinct, a few of a problem | sft |
| `pairs.jsonl` | `id`, `source`, `prompt`, `chosen`, `rejected`: a right and a wrong one of like length | dpo |
| `problems.jsonl` | the problems whose pass rate lies between `min_pass_rate` and `max_pass_rate` | rl |
| `pass_rates.jsonl` | `id`, `source`, `pass_rate`, `correct`, `judged`, `cut`, `mean_tokens` of all problems | people |
| `report.json`, `dropped.jsonl` | what was left out and why | people |

and every completion to `rollouts/` (`derive rollouts` reads it), from which a killed run goes on with the same command,
to the same bytes. A problem that asks a benchmark question is not sampled at all; a completion that repeats one is left
out. The two completions of a pair are as near in length as there are, so that a preference for length is not taught
along; with `pairs_by: likelihood` the wrong one is the model's likeliest among those of like length. Each is used once,
and `report.json` says which problems gave pairs, why others did not, and how long both halves are.

Sources: rejection sampling fine-tuning (arXiv:2308.01825), the difficulty filter of DAPO's kind (arXiv:2503.14476).
Departures: none of the wrong completions is repaired, and no model ranks the right ones; of these the first distinct
ones are taken, in the order of their draws. Completions that were cut count as wrong in the pass rate and are in no
pair: a cut text teaches to stop nowhere. With `tools`, a completion holds what its programs printed, in blocks of their
own (`verifiers/tool_text.py`), which sft and dpo leave out of the loss.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.reinforcement import SampleStage
from configs.stage import Progress, StageFile, run_command, write_json_atomic
from corpora.decontaminate import Decontaminator, load_benchmarks
from corpora.dedup import Seen, text_digest
from corpora.document import Document
from corpora.document import batches as document_batches
from corpora.dropped import DropLog, drop_unusable
from derivatives.rollout.judged import Batch, Group, Judged, Rolled, roll_out
from derivatives.rollout.on_ranks import PATIENCE_S, share_out
from derivatives.rollout.problems import check_lengths, encode_prompt, read_tasks
from derivatives.rollout.store import RolloutStore
from derivatives.rollout.tools import open_tools
from derivatives.rollout.vllm_engine import VllmEngine, open_engine
from derivatives.training.loop import fingerprint, finished, set_up
from derivatives.training.model import load_model
from derivatives.training.ranks import Ranks, joined
from verifiers.api import Outcome, Task
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool

PARTIAL = "data.partial"
LIKE_LENGTH = 1.25
"""Longer over shorter, up to which two completions are of like length."""
Pair = tuple[Judged, Judged]
"""A right completion and a wrong one of the same problem."""


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: problems, completions, data."""
    stage = stage_file.stage
    assert isinstance(stage, SampleStage)
    with joined(stage_file.machine, out, PATIENCE_S) as ranks:
        if finished(stage_file, out):
            return
        set_up(stage_file.machine, stage_file.seed, ranks)
        sorter = Sorter(stage)
        tasks = sorter.clean(read_tasks(stage_file, stage.data))
        folder = out / PARTIAL
        if ranks.first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        with Writer(folder) if ranks.first else nullcontext() as writer:
            for task, group in completed(stage_file, stage, tasks, sorter, out, ranks):
                if writer is not None:
                    sorter.sort(task, group, writer)
        if writer is not None:
            publish(stage, stage_file, sorter, writer, out)


def completed(
    stage_file: StageFile, stage: SampleStage, tasks: Sequence[Task], sorter: Sorter, out: Path, ranks: Ranks
) -> Iterator[tuple[Task, Group]]:
    """Each problem with its judged completions, drawn part by part, or read where a killed run got that far.

    Every rank draws a share of each part and gives all of it. The first keeps the store and the log; of what became of
    the problems, which the log says, `sorter` knows by the end of a part.
    """
    machine = stage_file.machine
    model, tokenizer = load_model(stage_file.model_folder(), stage.precision, machine.device)
    check_lengths(tasks, model, tokenizer, stage.system, stage.sampling.max_new_tokens)
    store = RolloutStore(out, fingerprint(stage_file), [stage.verifier])
    if ranks.first:
        store.write_problems(tasks)
    parts = [range(first, min(first + stage.batch_problems, len(tasks)))
             for first in range(0, len(tasks), stage.batch_problems)]  # fmt: skip
    progress = Progress(out) if ranks.first else None
    faults = Breaker(stage.max_no_verdict)
    with (
        VerifierPool(machine.num_verifier_workers, max_no_verdict=stage.max_no_verdict) as pool,
        open_tools(stage.tools, machine.num_verifier_workers) as tools,
        open_engine(model, tokenizer, machine.rollout if ranks.first else None, out, tools) as engine,
    ):

        def draw(part: range, places: Sequence[int]) -> list[Group]:
            chosen = [tasks[part[place]] for place in places]
            prompts = [encode_prompt(task, tokenizer, stage.system) for task in chosen]
            keys = [f"sample/{task.id}" for task in chosen]
            batch = Batch(chosen, prompts, keys, stage.num_samples, [stage.verifier])
            if isinstance(engine, VllmEngine):
                engine.sync(0)
            return roll_out(engine, pool, batch, stage.sampling, stage_file.seed, faults)

        for number, part in enumerate(parts, 1):
            started = time.perf_counter()
            rolled = store.read(number, part, tokenizer)
            if not all(ranks.gather(rolled is not None)):
                groups = share_out(ranks, len(part), partial(draw, part), all_first=machine.rollout is not None)
                rolled = Rolled(list(part), groups, list(range(len(groups))))
                if ranks.first:
                    store.write(number, rolled, [[_score(one) for one in group] for group in groups])
            assert rolled is not None
            for index, group in zip(part, rolled.groups, strict=True):
                yield tasks[index], group
            if progress is None:
                continue
            num_tokens = sum(one.completion.num_drawn for group in rolled.groups for one in group)
            seconds = max(1e-9, time.perf_counter() - started)
            progress.write(number, len(parts), **{
                "sample/problems": part.stop, "sample/pass_rate": sorter.pass_rate(), "sample/tokens": num_tokens,
                "sample/tokens_per_s": round(num_tokens / seconds, 1),
            })  # fmt: skip


def publish(stage: SampleStage, stage_file: StageFile, sorter: Sorter, writer: Writer, out: Path) -> None:
    """Put the data in their place, whole. Raises UserError if there are none."""
    folder, report = out / PARTIAL, sorter.report(writer.counts)
    if not writer.counts["examples"] and not writer.counts["problems"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorter.dropped.by_reason().items())
        raise UserError(
            f"stage.min_pass_rate: no problem of {', '.join(stage.data)} has a pass rate from {stage.min_pass_rate} to "
            f"{stage.max_pass_rate} (left out: {reasons or 'nothing'}); widen that, or sample from a stronger model"
        )
    write_json_atomic(folder / "report.json", report)
    sorter.dropped.write(folder / "dropped.jsonl")
    shutil.rmtree(out / "data", ignore_errors=True)
    os.replace(folder, out / "data")
    figures = {f"sample/{name}": report[name] for name in ("sampled", "problems", "examples", "pairs", "pass_rate")}
    write_json_atomic(out / "metrics.json", {**figures, "fingerprint": fingerprint(stage_file)})


class Writer:
    """The files of the product, line by line; on the disk when it is left."""

    FILES = ("examples", "pairs", "problems", "pass_rates")

    def __init__(self, folder: Path) -> None:
        self.files = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in self.FILES}
        self.counts = dict.fromkeys(self.FILES, 0)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def write(self, name: str, line: dict[str, Any]) -> None:
        """Append a line to one of the files."""
        self.files[name].write(json.dumps(line, ensure_ascii=False) + "\n")
        self.counts[name] += 1


@dataclass(frozen=True)
class Rate:
    """How often a problem was solved; `judged` leaves out missing verdicts, and so does the rate."""

    correct: int
    judged: int
    cut: int

    @property
    def value(self) -> float | None:
        """Share of the judged completions that are right; None where none was judged."""
        return self.correct / self.judged if self.judged else None


class PairCounts:
    """Which problems gave pairs and why others did not, and the length of both halves."""

    def __init__(self) -> None:
        self.problems: dict[str, int] = {}
        self.num_pairs = self.chosen_tokens = self.rejected_tokens = 0

    def add(self, rate: Rate, pairs: Sequence[Pair], some_right: bool, some_wrong: bool) -> None:
        """Count a problem with the pairs that it gave."""
        if pairs:
            reason = "gave_pairs"
        elif not rate.correct:
            reason = "none_right"
        elif rate.correct == rate.judged:
            reason = "all_right"
        elif not some_wrong:
            reason = "wrong_ones_cut"
        else:  # what is left of one side was written before, repeats a benchmark, or is of another length
            reason = "no_fitting_wrong_one" if some_right else "no_usable_right_one"
        self.problems[reason] = self.problems.get(reason, 0) + 1
        self.num_pairs += len(pairs)
        self.chosen_tokens += sum(len(better.completion.token_ids) for better, _ in pairs)
        self.rejected_tokens += sum(len(worse.completion.token_ids) for _, worse in pairs)

    def report(self) -> dict[str, Any]:
        """Problems by what became of them, and mean tokens of chosen and rejected completions."""
        num = max(1, self.num_pairs)
        return {
            "problems": dict(sorted(self.problems.items())),
            "chosen_tokens": round(self.chosen_tokens / num, 2),
            "rejected_tokens": round(self.rejected_tokens / num, 2),
        }


class Sorter:
    """Decides what becomes of problems and completions, and counts what is left out."""

    def __init__(self, stage: SampleStage) -> None:
        self.stage = stage
        self.dropped = DropLog()
        self.dropped.source = "problems"
        self.benchmarks = Decontaminator(load_benchmarks(stage.decontaminate), stage.ngram, stage.subsequence)
        self.seen = Seen()
        self.rates: list[Rate] = []
        self.pairs = PairCounts()

    def clean(self, tasks: Sequence[Task]) -> list[Task]:
        """The problems that are asked once and ask no benchmark question. Raises UserError if none are left."""
        documents = (_document(task, str(place)) for place, task in enumerate(tasks))
        kept: list[Task] = []
        questions = Seen()
        for batch in document_batches(documents):
            batch = questions.deduplicate(batch, self.dropped)
            kept += [tasks[int(document.id)] for document in self.benchmarks.remove(batch, self.dropped)]
        if not kept:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.by_reason().items())
            raise UserError(
                f"stage.data: no problem of {', '.join(self.stage.data)} is left ({reasons}); give others, or remove "
                "the benchmark from stage.decontaminate"
            )
        return kept

    def sort(self, task: Task, group: Group, writer: Writer) -> None:
        """Write what a problem's completions give."""
        rate = rate_of(group)
        self.rates.append(rate)
        about = {"id": task.id, "source": task.source}
        tokens = sum(len(one.completion.token_ids) for one in group) / len(group)
        writer.write("pass_rates", {**about, "pass_rate": rate.value, **asdict(rate), "mean_tokens": round(tokens, 1)})
        if rate.value is None or not self.stage.min_pass_rate <= rate.value <= self.stage.max_pass_rate:
            low = rate.value is not None and rate.value < self.stage.min_pass_rate
            reason = "no_verdict" if rate.value is None else "pass_rate_too_low" if low else "pass_rate_too_high"
            self.dropped.add(_document(task, task.id), reason, pass_rate=rate.value)
            return
        writer.write("problems", {**asdict(task), "metadata": dict(task.metadata), "pass_rate": rate.value})
        right = self._usable(task, [one for one in group if one.verdict.outcome is Outcome.CORRECT])
        for number, (one, document) in enumerate(right):
            if number >= self.stage.max_examples:
                self.dropped.add(document, "beyond_max_examples")
            else:
                line = {"id": document.id, "source": task.source, "prompt": task.prompt}
                writer.write("examples", {**line, "completion": one.completion.text})
        wrong = [one for one in group if one.verdict.outcome is Outcome.INCORRECT and one.asked]
        if not self.stage.max_pairs:
            return
        usable = self._usable(task, wrong) if right and wrong else []
        order = nearest_pairs if self.stage.pairs_by == "length" else likeliest_pairs
        found = order([one for one, _ in right], [one for one, _ in usable])
        pairs = list(itertools.islice(found, self.stage.max_pairs))
        self.pairs.add(rate, pairs, bool(right), bool(wrong))
        for place, (better, worse) in enumerate(pairs):
            line = {"id": f"{task.id}/{place}", "source": task.source, "prompt": task.prompt}
            writer.write("pairs", {**line, "chosen": better.completion.text, "rejected": worse.completion.text})

    def pass_rate(self) -> float:
        """Mean over the problems so far that have one."""
        known = [rate.value for rate in self.rates if rate.value is not None]
        return sum(known) / len(known) if known else 0.0

    def report(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """What was sampled, kept and left out."""
        known = [rate.value for rate in self.rates if rate.value is not None]
        histogram = [0] * 11
        for value in known:
            histogram[round(10 * value)] += 1
        return {
            "sampled": len(self.rates),
            **counts,
            "pass_rate": self.pass_rate(),
            "histogram": {f"{place / 10:.1f}": count for place, count in enumerate(histogram)},
            "cut": sum(rate.cut for rate in self.rates),
            "no_verdict": len(self.rates) * self.stage.num_samples - sum(rate.judged for rate in self.rates),
            "dropped": self.dropped.by_reason(),
            "contamination": {"checked": [one.name for one in self.benchmarks.benchmarks]},
            **({"paired": self.pairs.report()} if self.stage.max_pairs else {}),
        }

    def _usable(self, task: Task, completions: Sequence[Judged]) -> list[tuple[Judged, Document]]:
        """Those that say something, were not seen before, and repeat no benchmark question."""
        documents, by_id = [], {}
        for place, one in enumerate(completions):
            document = _document(task, f"{task.id}/{text_digest(one.completion.text).hex()[:12]}/{place}", one)
            documents.append(document)
            by_id[document.id] = one
        documents = drop_unusable(documents, "examples", self.dropped)
        documents = self.seen.deduplicate(documents, self.dropped)
        return [(by_id[document.id], document) for document in self.benchmarks.remove(documents, self.dropped)]


def rate_of(group: Group) -> Rate:
    """How often the group's problem was solved."""
    judged = [one for one in group if not one.missing]
    return Rate(
        sum(one.verdict.outcome is Outcome.CORRECT for one in judged), len(judged), sum(one.truncated for one in group)
    )


def nearest_pairs(right: Sequence[Judged], wrong: Sequence[Judged]) -> Iterator[Pair]:
    """Pairs of a right and a wrong completion, those nearest in tokens first; each completion is used once."""
    distances = sorted(
        (abs(len(a.completion.token_ids) - len(b.completion.token_ids)), i, j)
        for i, a in enumerate(right)
        for j, b in enumerate(wrong)
    )
    used_right: set[int] = set()
    used_wrong: set[int] = set()
    for _, i, j in distances:
        if i not in used_right and j not in used_wrong:
            used_right.add(i)
            used_wrong.add(j)
            yield right[i], wrong[j]


def likeliest_pairs(right: Sequence[Judged], wrong: Sequence[Judged]) -> Iterator[Pair]:
    """For each right completion, the likeliest first, the likeliest wrong one of like length; each is used once."""
    left = sorted(wrong, key=_likelihood, reverse=True)
    for one in sorted(right, key=_likelihood, reverse=True):
        tokens = len(one.completion.token_ids)
        for place, other in enumerate(left):
            short, long = sorted((tokens, len(other.completion.token_ids)))
            if long <= LIKE_LENGTH * short:
                yield one, left.pop(place)
                break


def _likelihood(one: Judged) -> float:
    """Log-probability per drawn token, in nats; what an interpreter wrote counts for nothing."""
    return sum(one.completion.log_probs) / max(1, one.completion.num_drawn)


def _document(task: Task, name: str, one: Judged | None = None) -> Document:
    completion = "" if one is None else one.completion.text
    return Document(name, task.source, "", task.source, prompt=task.prompt, completion=completion, answer=task.answer)


def _score(one: Judged) -> float | None:
    return None if one.missing else one.verdict.score


if __name__ == "__main__":
    sys.exit(run_command("sample", run, __doc__ or ""))
