"""Everything that is asked of one model, in parts, each of which a killed run need not ask again.

    format    which of its formats a model that was not taught to chat does better in
    greedy    all problems once, and the same answers at the thinking budgets
    samples   some problems several times, and the same samples at the budgets
    kept      problems of other domains, in the better format for these
    texts     bits of every held-out document
    probe     whether the first model completes the problems from memory

Of several ranks each has the model whole and answers a share.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.probe import Probe
from configs.settings.tools import ToolUse
from derivatives.evaluation.answers import Answer, Asking, Drawn, ask
from derivatives.evaluation.budgets import FullLength, at_budgets
from derivatives.evaluation.formats import CHAT, FEW_SHOT, Examples
from derivatives.evaluation.partial import Partial
from derivatives.evaluation.probe import probe
from derivatives.evaluation.report import ModelAnswers, Questions, accuracy
from derivatives.evaluation.texts import document_costs
from derivatives.evaluation.thinking import Budgets, usual_closing
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.tools import open_tools
from derivatives.training.model import load_model
from derivatives.training.ranks import ALONE, Ranks
from verifiers.api import Task
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool

NUM_FORMAT_TRIALS = 300
"""Problems on which the formats are compared; the figures are then taken on all problems in the better one."""
PARTS = ("format", "greedy", "samples", "kept", "texts", "probe")


@dataclass(frozen=True)
class Protocol:
    """What every model of an evaluation goes through."""

    tasks: Sequence[Task]
    sampling: Sampling = Sampling()
    num_samples: int = 0
    num_sampled_problems: int | None = None
    few_shot: int = 0
    system: str | None = None
    confidence: float = 0.95
    max_no_verdict: float = 0.1
    seed: int = 0
    tools: ToolUse | None = None
    kept_tasks: Sequence[Task] = ()
    budgets: Budgets | None = None
    probe: Probe | None = None

    def sampled_problems(self) -> list[int]:
        """Places of the problems that are sampled for pass@k and maj@k: no twins among them."""
        return in_turn(self.tasks, self.num_sampled_problems) if self.num_samples else []

    def questions(self, not_voted: Mapping[str, str] | None = None) -> Questions:
        """What figures are made of."""
        return Questions(
            self.tasks, self.sampled_problems(), self.kept_tasks, not_voted or {}, self.confidence, self.seed
        )


def in_turn(tasks: Sequence[Task], count: int | None) -> list[int]:
    """Places of this many problems, the first of each set in turn, so that every set has its share; None takes all."""
    met: dict[str, int] = {}
    order: list[tuple[int, int]] = []
    for place in Questions(tasks).counted:
        source = tasks[place].source
        met[source] = met.get(source, -1) + 1
        order.append((met[source], place))
    return sorted(place for _, place in sorted(order)[:count])


@dataclass(frozen=True)
class Examiner:
    """Who asks, and who judges.

    Attributes:
        protocol: What is asked.
        machine: Where.
        pool: Judges the problems.
        kept_pool: Judges those of other domains, each by its set's own verifier.
        documents: Held-out texts by source.
        ranks: Who shares the work.
        unseen: For the probe: problems that no model can have read, by the task set that they are like.
    """

    protocol: Protocol
    machine: Machine
    pool: VerifierPool
    kept_pool: VerifierPool
    documents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranks: Ranks = ALONE
    unseen: Mapping[str, Sequence[Task]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """Solved examples that a model is shown, by task set; for the problems, and for those of other domains."""

    examples: Examples = field(default_factory=dict)
    kept: Examples = field(default_factory=dict)


def answer_all(
    folder: Path, examiner: Examiner, shown: Shown | None, probed: bool = False, partial: Partial | None = None
) -> ModelAnswers:
    """Ask a model everything.

    Args:
        folder: Its checkpoint.
        examiner: Who asks.
        shown: With examples (also with none at hand) the model is asked plainly too, and the better format counts;
            with None only as a chat.
        probed: Whether it is asked to complete problems from memory.
        partial: Where finished parts are kept.
    """
    ranks, machine = examiner.ranks, examiner.machine
    found = partial.read() if partial is not None else {}
    common = set.intersection(*(set(names) for names in ranks.gather(list(found))))
    parts = {name: found[name] for name in found if name in common}
    with open_tools(examiner.protocol.tools, machine.num_verifier_workers) as tools:
        model, tokenizer = load_model(folder, "bf16", machine.device)
        engine = RolloutEngine(model, tokenizer, tools=tools)
        faults = Breaker(examiner.protocol.max_no_verdict)
        asked = _Examination(examiner, engine, shown, faults, parts)
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "format": asked.choose_format,
            "greedy": asked.ask_once,
            "samples": asked.ask_often,
            "kept": asked.ask_kept,
            "texts": asked.read_texts,
            "probe": asked.probe if probed else dict,
        }
        for name in PARTS:
            if name not in parts:
                parts[name] = steps[name]()
                if partial is not None and ranks.first:
                    partial.write(parts)
        engine.release()
    del model, engine, asked, steps
    gc.collect()
    if machine.device == "cuda":
        torch.cuda.empty_cache()
    return assembled(parts)


def assembled(parts: Mapping[str, Mapping[str, Any]]) -> ModelAnswers:
    """A model's answers from its finished parts."""
    given = {name: value for part in parts.values() for name, value in part.items()}
    often = given["sampled_at_budgets"]
    budgets = [
        {"max_thinking_tokens": tokens, "greedy": answers, "sampled": often[place] if often else []}
        for place, (tokens, answers) in enumerate(zip(given["budget_tokens"], given["at_budgets"], strict=True))
    ]
    return ModelAnswers.from_dict({"contamination": {}, **given, "budgets": budgets})


class _Examination:
    """The parts, for one model. What they give is ready for JSON, so that a resumed run is the same as another."""

    def __init__(
        self, examiner: Examiner, engine: RolloutEngine, shown: Shown | None, faults: Breaker, parts: Mapping[str, Any]
    ) -> None:
        self.examiner, self.engine, self.parts, self.protocol = examiner, engine, parts, examiner.protocol
        self.shown = shown or Shown()
        protocol = examiner.protocol
        self.asking = Asking(
            examiner.pool, self.shown.examples, protocol.few_shot, protocol.system, protocol.seed, faults,
            examiner.ranks,
        )  # fmt: skip
        self.greedy = Sampling(temperature=0.0, max_new_tokens=protocol.sampling.max_new_tokens)
        self.tried: dict[str, tuple[list[list[Answer]], Drawn]] = {}
        self.forms = (CHAT, FEW_SHOT) if shown is not None and protocol.few_shot else (CHAT,)

    def choose_format(self) -> dict[str, Any]:
        form, shares = self._better(self.protocol.tasks, self.asking)
        return {"form": form, "formats": shares}

    def ask_once(self) -> dict[str, Any]:
        tasks = self.protocol.tasks
        answers, drawn = self._once(tasks, self._form, self.asking)
        closing = usual_closing(answer.completion for (answer,) in answers)
        at = self._at_budgets(FullLength(tasks, answers, drawn, self.greedy), closing)
        given = self.parts["format"]["formats"] or {
            self._form: accuracy([one for (one,) in answers], self.protocol.confidence)["value"]
        }
        return {
            "greedy": [one.as_dict() for (one,) in answers], "formats": given, "closing": closing,
            "budget_tokens": list(self.protocol.budgets.thinking) if self.protocol.budgets is not None else [],
            "at_budgets": [[one for (one,) in groups] for groups in at],
        }  # fmt: skip

    def ask_often(self) -> dict[str, Any]:
        tasks = [self.protocol.tasks[place] for place in self.protocol.sampled_problems()]
        if not tasks:
            return {"sampled": [], "sampled_at_budgets": []}
        drawn, sampling = Drawn(), self.protocol.sampling
        answers = ask(self.engine, tasks, self._form, self.asking, sampling, self.protocol.num_samples, drawn)
        at = self._at_budgets(FullLength(tasks, answers, drawn, sampling), self.parts["greedy"]["closing"])
        # Figures are made of what was judged; the texts of samples, by far the most, are not kept.
        for answer in itertools.chain(*itertools.chain(*at)):
            answer["completion"] = ""
        sampled = [[{**one.as_dict(), "completion": ""} for one in group] for group in answers]
        return {"sampled": sampled, "sampled_at_budgets": at}

    def ask_kept(self) -> dict[str, Any]:
        tasks = self.protocol.kept_tasks
        if not tasks:
            return {"kept_form": "", "kept": []}
        own = self.asking.of(self.examiner.kept_pool, self.shown.kept)
        form, _ = self._better(tasks, own)
        answers, _ = self._once(tasks, form, own)
        return {"kept_form": form, "kept": [one.as_dict() for (one,) in answers]}

    def read_texts(self) -> dict[str, Any]:
        self.engine.release()
        model, tokenizer, ranks = self.engine.model, self.engine.tokenizer, self.examiner.ranks
        documents = self.examiner.documents.items()
        return {"texts": {name: document_costs(model, tokenizer, texts, ranks) for name, texts in documents}}

    def probe(self) -> dict[str, Any]:
        settings, examiner = self.protocol.probe, self.examiner
        if settings is None:
            return {}
        self.engine.release()
        flags = probe(
            self.engine.model, self.engine.tokenizer, self.protocol.tasks, examiner.unseen, settings,
            examiner.kept_pool, self.protocol.confidence, examiner.ranks,
        )  # fmt: skip
        return {"contamination": flags}

    @property
    def _form(self) -> str:
        form: str = self.parts["format"]["form"]
        return form

    def _better(self, tasks: Sequence[Task], asking: Asking) -> tuple[str, dict[str, float]]:
        """The format in which more of the first problems are solved, and the shares; the chat where both are alike."""
        self.tried.clear()
        if len(self.forms) == 1:
            return self.forms[0], {}
        trial = [tasks[place] for place in in_turn(tasks, NUM_FORMAT_TRIALS)]
        shares = {}
        for form in self.forms:
            answers, drawn = self._once(trial, form, asking)
            shares[form] = accuracy([one for (one,) in answers], self.protocol.confidence)["value"]
            if len(trial) == len(tasks):  # all were asked, and need not be asked again
                self.tried[form] = answers, drawn
        return max(self.forms, key=lambda form: shares[form]), shares

    def _once(self, tasks: Sequence[Task], form: str, asking: Asking) -> tuple[list[list[Answer]], Drawn]:
        """A greedy answer to each, and what this rank drew."""
        if form in self.tried:
            return self.tried[form]
        drawn = Drawn()
        return ask(self.engine, tasks, form, asking, self.greedy, 1, drawn), drawn

    def _at_budgets(self, full: FullLength, closing: str) -> list[list[list[dict[str, Any]]]]:
        """Answers by budget, by task, by sample; those of full length where the format is not the chat's."""
        budgets = self.protocol.budgets
        if budgets is None:
            return []
        if self._form == CHAT:
            at = at_budgets(self.engine, full, self.asking, budgets, closing)
        else:
            at = [[[one] * len(budgets.thinking) for one in group] for group in full.answers]
        return [
            [[asdict(sample[number]) for sample in group] for group in at] for number in range(len(budgets.thinking))
        ]

