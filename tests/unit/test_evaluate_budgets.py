"""Thinking budgets: what stays of an answer, that reusing one is drawing it anew, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import derivatives.seedling
from configs.settings.common import Sampling, TaskSource
from configs.settings.evaluation import EvaluateStage
from configs.settings.tools import ToolUse
from derivatives.evaluation.answers import Answer, Asking, Drawn, ask
from derivatives.evaluation.budgets import FullLength, at_budgets
from derivatives.evaluation.formats import CHAT, FEW_SHOT
from derivatives.evaluation.report import AtBudget, ModelAnswers, Questions, model_figures
from derivatives.evaluation.thinking import CLOSED, FORCED, UNCLOSED, Budgets, closed_at, cut_to, usual_closing
from derivatives.rollout.engine import Completion
from derivatives.training.chat import TURN_END, encode_text, token_id
from derivatives.training.model import load_tokenizer
from verifiers.api import Task, Verdict, correct, incorrect

TOKENIZER = load_tokenizer(Path(derivatives.seedling.__file__).parent / "checkpoint")
STOP = token_id(TOKENIZER, TURN_END)
GREEDY = Sampling(temperature=0.0, max_new_tokens=60)
CLOSING = "\n</think>\n"


def text_of(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids)))


class WritingEngine:
    """Writes what `rest` says follows the text so far, token by token; the end of a turn where nothing does."""

    def __init__(self, rest: Callable[[str, str], str], positions: int = 4096) -> None:
        self.rest, self.tokenizer, self.num_prompts = rest, TOKENIZER, 0
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seed: int, keys: Sequence[str],
        on_completion: Callable[[int, int, Completion], None] | None = None, stop_text: Any = None,
    ) -> list[list[Completion]]:  # fmt: skip
        assert len(prompts) == len(keys) == len(set(keys))
        self.num_prompts += len(prompts)
        groups = [[self.one(prompt, sampling.max_new_tokens)] * num_samples for prompt in prompts]
        for index, group in enumerate(groups):
            for sample, completion in enumerate(group):
                if on_completion is not None:
                    on_completion(index, sample, completion)
        return groups

    def one(self, prompt: list[int], max_new_tokens: int) -> Completion:
        ids: list[int] = []
        while len(ids) < max_new_tokens and ids[-1:] != [STOP]:
            question, _, written = text_of([*prompt, *ids]).partition("<|im_start|>assistant\n")
            following = encode_text(TOKENIZER, self.rest(question, written))
            ids.append(following[0] if following else STOP)
        ended = ids[-1] == STOP
        text = text_of(ids[:-1] if ended else ids)
        return Completion(ids, [0.0] * len(ids), "stop" if ended else "length", text)


def counting(question: str, written: str) -> str:
    """Counts up in its thought as far as the question says, then answers with the last number that it thought of."""
    last = int(question.split("to ")[1].split("<")[0].split(".")[0])
    whole = "<think>\n" + "".join(f"{number} then\n" for number in range(1, last + 1)) + "</think>\n"
    if "</think>" not in written:
        return whole[len(written) :] if whole.startswith(written) else CLOSING
    thought, _, answer = written.partition("</think>")
    said = "\n\\boxed{" + str(sum(thought.count(digit) for digit in "0123456789")) + "}"
    return said[len(answer) :] if said.startswith(answer) else ""


class CountingPool:
    """Judges at once: right where the box holds the gold answer."""

    def __init__(self) -> None:
        self.num_judged = 0

    def submit(self, task: Task, text: str) -> Future[Verdict]:
        self.num_judged += 1
        done: Future[Verdict] = Future()
        box = text.partition("\\boxed{")[2].partition("}")[0]
        done.set_result(correct(box) if box == task.answer else incorrect("other", box or None))
        return done


def asked(engine: WritingEngine, tasks: Sequence[Task], sampling: Sampling = GREEDY) -> tuple[FullLength, Asking]:
    drawn, asking = Drawn(), Asking(CountingPool(), {}, 0, None, 0)  # type: ignore[arg-type]
    answers = ask(engine, tasks, CHAT, asking, sampling, 1, drawn)  # type: ignore[arg-type]
    return FullLength(tasks, answers, drawn, sampling), asking


def redrawn(engine: WritingEngine, prompt: list[int], budget: int, answer_tokens: int) -> tuple[str, int]:
    """The answer at a budget without anything reused: think up to the budget, close, answer."""
    thought = engine.one(prompt, budget)
    place = closed_at(TOKENIZER, thought.token_ids)
    if place is not None:
        ids = thought.token_ids[:place]
    else:
        ids = [one for one in thought.token_ids if one != STOP] + encode_text(TOKENIZER, CLOSING)
    rest = engine.one([*prompt, *ids], answer_tokens)
    ids = [*ids, *rest.token_ids]
    return text_of([one for one in ids if one != STOP]), len(ids)


def test_reusing_an_answer_of_full_length_is_drawing_it_anew() -> None:
    engine = WritingEngine(counting)
    tasks = [Task(f"t{last}", f"Count to {last}.", str(last)) for last in (1, 3, 9)]
    full, asking = asked(engine, tasks)
    assert all(one.thought == CLOSED for group in full.answers for one in group)
    drawn_at_first = engine.num_prompts
    budgets = Budgets((4, 12, 20, 60), 12)
    found = at_budgets(engine, full, asking, budgets, CLOSING)  # type: ignore[arg-type]
    for place, ((at,), prompt) in enumerate(zip(found, full.drawn.prompts.values(), strict=True)):
        for budget, answer in zip(budgets.thinking, at, strict=True):
            assert (answer.completion, answer.num_tokens) == redrawn(engine, prompt, budget, 12), (place, budget)
    # Counting to 1 is done within 12 tokens: drawn once and judged once, at budget 4.
    (short,) = found[0]
    assert [one.thought for one in short] == [FORCED, CLOSED, CLOSED, CLOSED]
    assert short[1] is full.answers[0][0] and short[1].correct
    num_forced = sum(one.thought == FORCED for (at,) in found for one in at)
    assert engine.num_prompts - drawn_at_first == num_forced < len(tasks) * len(budgets.thinking)
    assert asking.pool.num_judged == len(tasks) + num_forced  # type: ignore[attr-defined]


def test_a_thought_that_just_stops_is_closed_once_for_all_budgets() -> None:
    def stops(question: str, written: str) -> str:
        if "</think>" in written:
            return "\\boxed{7}"[len(written.partition("</think>\n")[2]) :]
        return "<think> 3 and 4"[len(written) :]

    engine = WritingEngine(stops)
    full, asking = asked(engine, [Task("t", "Count to 1.", "7")])
    assert full.answers[0][0].thought == UNCLOSED and not full.answers[0][0].correct
    before = engine.num_prompts
    ((at,),) = at_budgets(engine, full, asking, Budgets((30, 40), 20), CLOSING)  # type: ignore[arg-type]
    assert engine.num_prompts == before + 1
    assert [(one.completion, one.correct, one.thought) for one in at] == [
        ("<think> 3 and 4\n</think>\n\\boxed{7}", True, FORCED)
    ] * 2


def test_an_answer_without_a_thought_stays_as_it_is_at_every_budget() -> None:
    engine = WritingEngine(lambda question, written: "It is \\boxed{7}"[len(written) :])
    full, asking = asked(engine, [Task("t", "Count to 1.", "7")])
    before = engine.num_prompts
    ((at,),) = at_budgets(engine, full, asking, Budgets((1, 2), 1), CLOSING)  # type: ignore[arg-type]
    assert at == [full.answers[0][0]] * 2 and engine.num_prompts == before


def test_an_answer_after_the_thought_has_its_own_limit() -> None:
    ids = encode_text(TOKENIZER, "<think>a</think>It is seven, I think.")
    place = closed_at(TOKENIZER, ids)
    assert place is not None and text_of(ids[:place]).endswith("</think>")
    assert "</think>" not in text_of(ids[: place - 1])
    closing = encode_text(TOKENIZER, CLOSING)
    tail = len(ids) - place
    assert cut_to(TOKENIZER, ids, False, place, 2, closing).ids == tuple(ids[: place + 2])
    assert cut_to(TOKENIZER, ids, False, place, tail + 3, closing).room == 3, "cut at its length: it may go on"
    assert cut_to(TOKENIZER, ids, True, place, tail + 3, closing).whole
    forced = cut_to(TOKENIZER, ids, True, place - 1, 9, closing)
    assert (forced.ids, forced.room, forced.thought) == ((*ids[: place - 1], *closing), 9, FORCED)


def test_answers_at_the_end_of_a_models_positions_are_cut_there() -> None:
    tasks = [Task("t", "Count to 9.", "9")]
    (prompt,) = asked(WritingEngine(counting), tasks)[0].drawn.prompts.values()
    closing = len(encode_text(TOKENIZER, CLOSING))
    engine = WritingEngine(counting, positions=len(prompt) + 60)
    full, asking = asked(engine, tasks)
    for budget, room in ((60 - closing - 3, 3), (60, 0)):
        ((at,),) = at_budgets(engine, full, asking, Budgets((budget,), 40), CLOSING)  # type: ignore[arg-type]
        assert at[0].truncated or at[0].thought == CLOSED
        if at[0].thought == FORCED:
            assert at[0].num_tokens == budget + closing + room


def test_a_model_closes_a_forced_thought_as_it_closes_its_own() -> None:
    assert usual_closing(["<think>a\n</think>\n4", "<think>a\n</think>\n5", "<think>a</think>6"]) == CLOSING
    assert usual_closing(["4", "<think>a</think>"]) == "\n</think>\n\n", "none that an answer follows"


def answer(right: bool, thought: str, num_tokens: int) -> Answer:
    return Answer("text", "7", "correct" if right else "incorrect", "reason", num_tokens, False, thought=thought)


def test_figures_at_budgets_name_what_closed_and_what_the_thought_adds() -> None:
    tasks = [Task(f"t{n}", "q", "7", source="a") for n in range(2)]
    small = AtBudget(8, [answer(False, FORCED, 10), answer(True, CLOSED, 6)], [[answer(True, CLOSED, 6)] * 2])
    large = AtBudget(16, [answer(True, CLOSED, 14), answer(True, CLOSED, 6)], [[answer(False, CLOSED, 6)] * 2])
    full = [answer(True, CLOSED, 14), answer(True, CLOSED, 6)]
    found = model_figures(ModelAnswers("chat", full, [full], budgets=[small, large]), Questions(tasks, [0]))
    first, second = found["budgets"]
    assert (first["max_thinking_tokens"], first["pass@1"]["value"], first["maj@k"]["value"]) == (8, 0.5, 1.0)
    assert (first["mean_tokens"], first["closed_fraction"], first["over_smallest"]["value"]) == (8.0, 0.5, 0.0)
    assert (second["pass@1"]["value"], second["maj@k"]["value"]) == (1.0, 0.0)
    assert (second["over_smallest"]["value"], second["closed_fraction"]) == (0.5, 1.0)
    assert found["thoughts"] == {"opened_fraction": 1.0, "closed_fraction": 1.0}


@pytest.mark.parametrize(("form", "said"), [(CHAT, "no answer opens a thought"), (FEW_SHOT, "asked plainly")])
def test_a_model_that_does_not_think_has_no_figures_at_budgets_and_says_why(form: str, said: str) -> None:
    plain = [answer(True, "" if form == CHAT else CLOSED, 4)]
    found = model_figures(ModelAnswers(form, plain, budgets=[AtBudget(8, plain)]), Questions([Task("t", "q", "7")]))
    assert "budgets" not in found and said in found["no_budgets"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thinking_budgets": (64, 32)}, r"evaluate.thinking_budgets: \[64, 32\]; allowed: rising .* write \[32, 64\]"),
        ({"thinking_budgets": (64, 512)}, "thinking_budgets: 512 tokens of thinking, in completions of 128"),
        ({"thinking_budgets": (64,), "tools": ToolUse(output_tokens=16)}, "thinking_budgets: .* with evaluate.tools"),
    ],
)
def test_budgets_that_cannot_be_measured_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateStage(id="evaluate", models=("base",), tasks=(TaskSource(name="x.jsonl"),), **given)
