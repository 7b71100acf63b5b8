"""The format verifier: one closed thought, then an answer."""

import pytest

from verifiers.api import Outcome, Task
from verifiers.format import FormatVerifier

TASK = Task("t", "", "")


def test_a_thought_followed_by_an_answer_is_well_formed() -> None:
    verdict = FormatVerifier().judge(TASK, "<think>2 + 3 = 5</think>\nThe answer is 5.")
    assert (verdict.outcome, verdict.score, verdict.extracted) == (Outcome.CORRECT, 1.0, "The answer is 5.")
    assert FormatVerifier().judge(TASK, "\n<think>\n\u601d\u8003\n</think>\n\n5").outcome is Outcome.CORRECT


@pytest.mark.parametrize(("completion", "reason"), [
    ("5", "no_think_tag"),
    ("thought</think> 5", "no_think_tag"),
    ("<think>thought", "unclosed_think_tag"),
    ("<think>a</think><think>b</think> 5", "repeated_think_tag"),
    ("<think>a</think>b</think> 5", "repeated_think_tag"),
    ("</think>a<think> 5", "closed_before_opened"),
    ("Well, <think>a</think> 5", "text_before_think_tag"),
    ("<think> </think> 5", "empty_thought"),
    ("<think>a</think> \n", "no_answer_after_thought"),
    ("", "no_think_tag"),
    ("<think>...</think> 5", "empty_thought"),
    ("<think>\u200b\ufeff</think> 5", "empty_thought"),
    ("<think>a</think> \u200b\x00", "no_answer_after_thought"),
    ("<think>a</think> 5 </ Think >", "repeated_think_tag"),
    ("<think>a <THINK> b</think> 5", "repeated_think_tag"),
    ("<THINK>a</THINK> 5", "no_think_tag"),
    ("<think>a</THINK> 5", "unclosed_think_tag"),
    ("<think><think></think></think> 5", "repeated_think_tag"),
    ("<think" * 9_000 + ">" * 9_000, "unclosed_think_tag"),
])
def test_each_defect_has_its_name_and_scores_zero(completion: str, reason: str) -> None:
    verdict = FormatVerifier().judge(TASK, completion)
    assert (verdict.outcome, verdict.score, verdict.reason) == (Outcome.INCORRECT, 0.0, reason)
