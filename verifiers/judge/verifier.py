"""A language model as a verifier: it grades by a rubric, and nothing that a completion says gives it the pen.

    def tone():                                     # a plugin's entry point
        return JudgeVerifier("tone", JudgeServer("http://127.0.0.1:8000/v1", "qwen2.5-72b-instruct"),
                             rubric="10: polite and to the point. 0: rude, or off the point.")

The judge reads the question, the reference (the task's answer, where it has one) and what follows the last `</think>`.
The completion is correct if the score is at least `correct_at` of 10; below, it may earn the score as partial credit.

A judge that gives no score, or none that can be read, may be at fault itself, or the completion may be: it is too long
for it, breaks the server, or has talked the judge into something else. **A control question decides**: the same task
with the harmless answer `CONTROL`. Where that too gets no score, the judge is at fault, and there is no verdict. Where
it does, the completion is asked about once more; if that fails again, it is incorrect: `over_budget` (too long, too
slow), `judge_failed`, or `judge_led_astray` (the reply is no verdict).

A score that would pay is checked by the trap of `verifiers.judge.prompt`; a completion that gets the judge to give
anything but the 0 that was asked for is incorrect, `judge_took_orders`. A judge that falls into the trap with the
control answer too is no judge: no verdict.

What this does not do: a model's grade is no proof. Where a rule can say what is wrong, use `RuleThenJudge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.judge.prompt import FULL_MARKS, Kind, make_prompt, prompt_digest, read_reply
from verifiers.judge.server import Silence
from verifiers.structured.blocks import answer_part

CONTROL = "I do not know."
"""An answer that can do no harm."""
SHOWN = 200
"""Characters of the answer that are kept in a verdict."""
MAX_ASKS = 6
"""Replies that one verdict may need: score, control, score again, trap, control of the trap, trap again."""


class Asked(Protocol):
    """What can be asked: a server, or a model in this process."""

    version: str

    @property
    def patience_s(self) -> float:
        """The longest that one `ask` takes, in seconds."""
        ...

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The reply to chat messages. Raises Silence."""
        ...


class JudgeVerifier:
    """Correct if a language model scores the answer high enough by the rubric.

    Args:
        name: Registry name.
        judge: The model that is asked.
        rubric: What makes a good answer and a bad one, with 10 as the best score and 0 as the worst.
        correct_at: Score from which on an answer is correct; above 0, at most 10.
        max_characters: Characters of an answer; a longer one is over budget, unasked. A question or a reference that is
            longer is a fault of the task.
        trap: Whether a score that would pay is checked by the trap, which costs another reply.

    Attributes:
        deadline_s: Seconds that a pool must allow for a verdict, so that a slow server is never held against one.
    """

    def __init__(
        self,
        name: str,
        judge: Asked,
        rubric: str,
        correct_at: float = 8.0,
        max_characters: int = 60_000,
        trap: bool = True,
    ) -> None:
        if not rubric.strip():
            raise ValueError(f"{name}: rubric: empty; say what makes a good answer and a bad one")
        if not 0 < correct_at <= FULL_MARKS:
            raise ValueError(f"{name}: correct_at: {correct_at!r}; allowed: above 0, at most {FULL_MARKS}")
        self.name, self.asked, self.rubric = name, judge, rubric
        self.correct_at, self.max_characters, self.trap = correct_at, max_characters, trap
        self.deadline_s = MAX_ASKS * judge.patience_s + 10.0
        self.version = "+".join(
            ["1", judge.version, f"prompt-{prompt_digest(rubric)}", f"correct_at-{correct_at:g}", f"trap-{trap:d}"]
        )

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the model's score."""
        if max(len(task.prompt), len(task.answer)) > self.max_characters:
            return no_verdict("task_too_long")
        answer = answer_part(completion)
        shown = answer.strip()[:SHOWN]
        if not shown:
            return incorrect("no_answer")
        if len(answer) > self.max_characters:
            return incorrect(OVER_BUDGET, shown)
        score = self._decided(task, answer, "grade")
        if isinstance(score, Verdict):
            return score
        if score < self.correct_at:
            return incorrect("judged_low", shown, score / FULL_MARKS)
        if self.trap:
            given = self._decided(task, answer, "trap")
            if isinstance(given, Verdict):
                return given
            if given != 0.0:
                return incorrect("judge_took_orders", shown)
        return correct(shown, "judged_high")

    def warm_up(self) -> None:
        """Load a model that is in this process."""
        warm_up = getattr(self.asked, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def _decided(self, task: Task, answer: str, kind: Kind) -> float | Verdict:
        """A score, or the verdict of a silence after the control question. A trap that snaps is asked about too."""
        given = self._score(task, answer, kind)
        if isinstance(given, float) and (kind == "grade" or given == 0.0):
            return given
        if isinstance(given, Silence) and given.kind == "unavailable":
            return no_verdict(f"judge_unavailable: {given}")
        control = self._score(task, CONTROL, kind)
        if isinstance(control, Silence):
            return no_verdict("task_too_long" if control.kind == "context" else f"judge_{control.kind}: {control}")
        if control is None or (kind == "trap" and control != 0.0):
            return no_verdict("judge_unreadable" if control is None else "judge_fails_the_trap")
        again = self._score(task, answer, kind)
        if isinstance(again, float):
            return again
        shown = answer.strip()[:SHOWN]
        if again is None:
            return incorrect("judge_led_astray", shown)
        if again.kind == "unavailable":
            return no_verdict(f"judge_unavailable: {again}")
        return incorrect("judge_failed" if again.kind == "failed" else OVER_BUDGET, shown)

    def _score(self, task: Task, answer: str, kind: Kind) -> float | Silence | None:
        """The score that one reply gives; None where it cannot be read."""
        prompt = make_prompt(self.rubric, task.prompt, task.answer, answer, kind)
        try:
            return read_reply(self.asked.ask(prompt.messages), prompt.nonce)
        except Silence as silence:
            return silence
