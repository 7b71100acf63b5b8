"""Completions that use an interpreter: against transformers' full pass, and against themselves in other batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from configs.settings.common import Sampling
from configs.settings.tools import ToolUse
from derivatives.rollout.engine import Completion, RolloutEngine
from derivatives.rollout.tools import Toolbox
from derivatives.training.chat import encode_text
from tests.tool_fixtures import ANSWERS, late, learnt, toolbox
from verifiers.interpreter import Interpreters, Output
from verifiers.sandbox.host import SandboxFault
from verifiers.tool_text import output_block

GREEDY = Sampling(temperature=0.0, max_new_tokens=160)
DRAWN = Sampling(temperature=1.2, max_new_tokens=160)
"""Hot enough that the learnt answers come out otherwise now and then."""


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Interpreters]:
    with Interpreters(2, seconds=1.0) as found:
        yield found


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerBase]:
    torch.manual_seed(0)
    return learnt(tmp_path_factory.mktemp("tokenizer"))


def answers(
    policy: tuple[Qwen2ForCausalLM, PreTrainedTokenizerBase],
    tools: Toolbox | None,
    questions: str = "abcde",
    sampling: Sampling = GREEDY,
    num_samples: int = 1,
    num_slots: int | None = None,
) -> dict[str, list[Completion]]:
    model, tokenizer = policy
    engine = RolloutEngine(model, tokenizer, num_slots, tools)
    prompts = [encode_text(tokenizer, question) for question in questions]
    return dict(zip(questions, engine.generate(prompts, num_samples, sampling, 5, keys=list(questions)), strict=True))


def parts(tokenizer: PreTrainedTokenizerBase, one: Completion) -> list[tuple[bool, str]]:
    """Drawn and fed texts in turn."""
    flags = zip(one.token_ids, one.drawn, strict=True)
    return [
        (drawn, tokenizer.decode([token for token, _ in run]))
        for drawn, run in itertools.groupby(flags, key=lambda pair: pair[1])
    ]


def test_programs_run_and_what_they_print_is_fed(policy, interpreters) -> None:  # type: ignore[no-untyped-def]
    found = {question: one for question, (one,) in answers(policy, toolbox(interpreters)).items()}
    tokenizer = policy[1]
    for question in "abde":
        assert found[question].text == ANSWERS[question] and found[question].finish_reason == "stop"
    assert parts(tokenizer, found["a"]) == [
        (True, "```python\nprint(6*7)\n```"),
        (False, output_block("42")),
        (True, "So 42.<|im_end|>"),
    ]
    assert [fed.failed for fed in found["b"].fed] == ["raised_NameError", ""]
    assert found["d"].fed == () and all(found["d"].drawn)
    fed_values = [value for value, drawn in zip(found["b"].log_probs, found["b"].drawn, strict=True) if not drawn]
    assert fed_values == [0.0] * len(output_block("NameError: name 'x' is not defined") + output_block("3"))
    assert found["b"].num_drawn == len(found["b"].token_ids) - len(fed_values)


def test_what_a_program_prints_cannot_pass_for_a_fence(policy, interpreters) -> None:  # type: ignore[no-untyped-def]
    ((one,),) = answers(policy, toolbox(interpreters), "e").values()
    assert one.text == ANSWERS["e"] and "'''output" in one.text and len(one.fed) == 1


def test_an_output_that_the_model_writes_itself_ends_it(policy, interpreters) -> None:  # type: ignore[no-untyped-def]
    ((one,),) = answers(policy, toolbox(interpreters), "c").values()
    assert one.finish_reason == "forged" and one.text == "Hm:\n```output\n9\n`"  # seen at the next backtick
    ((free,),) = answers(policy, None, "c").values()  # without tools it is text as any other
    assert free.text == ANSWERS["c"] and free.finish_reason == "stop"


def test_turns_and_tokens_are_bounded(policy, interpreters) -> None:  # type: ignore[no-untyped-def]
    ((one,),) = answers(policy, toolbox(interpreters, turns=1), "b").values()
    assert one.finish_reason == "turns" and one.text.endswith("```python\n3\n```") and len(one.fed) == 1
    program = len("```python\nprint(6*7)\n```")
    short = GREEDY.model_copy(update={"max_new_tokens": program + len(output_block("42"))})
    ((one,),) = answers(policy, toolbox(interpreters), "a", short).values()
    assert one.finish_reason == "length" and len(one.token_ids) == program and one.fed == ()
    one_more = GREEDY.model_copy(update={"max_new_tokens": program + len(output_block("42")) + 1})
    ((one,),) = answers(policy, toolbox(interpreters), "a", one_more).values()
    assert one.finish_reason == "length" and one.text == "```python\nprint(6*7)\n```" + output_block("42") + "S"


def test_a_fault_of_the_sandbox_ends_a_completion_as_such(policy) -> None:  # type: ignore[no-untyped-def]
    def submit(_: str) -> Future[Output]:
        failed: Future[Output] = Future()
        failed.set_exception(SandboxFault("the zygote is gone"))
        return failed

    found = answers(policy, Toolbox(ToolUse(), submit), "ad")
    assert found["a"][0].finish_reason == "fault" and found["a"][0].fault == "the zygote is gone"
    assert found["d"][0].finish_reason == "stop"


def _same(first: Sequence[Completion], second: Sequence[Completion]) -> bool:
    return [(one.token_ids, one.fed, one.finish_reason) for one in first] == [
        (one.token_ids, one.fed, one.finish_reason) for one in second
    ]


def test_a_completion_depends_on_neither_batch_nor_order_nor_when_a_program_ends(  # type: ignore[no-untyped-def]
    policy, interpreters
) -> None:
    expected = answers(policy, toolbox(interpreters), "abcde", DRAWN, 6)
    assert any(one.fed for group in expected.values() for one in group)
    assert any(one.text != ANSWERS[question] for question, group in expected.items() for one in group)
    for num_slots in (1, 3, None):
        backwards = answers(policy, toolbox(interpreters), "edcba", DRAWN, 6, num_slots)
        assert all(_same(expected[question], backwards[question]) for question in "abcde")
    delays = itertools.cycle([0.0, 0.1, 0.02])
    slow = Toolbox(ToolUse(), late(interpreters, lambda _: next(delays)))
    again = answers(policy, slow, "abcde", DRAWN, 6)
    assert all(_same(expected[question], again[question]) for question in "abcde")
    # As long as the batch is the same, to the last bit, whenever a program ends.
    assert [one.log_probs for group in expected.values() for one in group] == [
        one.log_probs for group in again.values() for one in group
    ]


def test_log_probabilities_of_drawn_tokens_are_those_of_a_full_pass(  # type: ignore[no-untyped-def]
    policy, interpreters
) -> None:
    model, tokenizer = policy
    sampling = DRAWN.model_copy(update={"temperature": 1.0})
    num_checked = 0
    for question, group in answers(policy, toolbox(interpreters), "abe", sampling, 4).items():
        prompt = encode_text(tokenizer, question)
        for one in group:
            with torch.no_grad():
                logits_TV = model(torch.tensor([[*prompt, *one.token_ids]]), use_cache=False).logits[0]
            logits_TV[:, len(tokenizer) :] = float("-inf")
            values = logits_TV.log_softmax(-1)[len(prompt) - 1 : -1]
            for place, (token, drawn) in enumerate(zip(one.token_ids, one.drawn, strict=True)):
                if drawn:
                    assert one.log_probs[place] == pytest.approx(float(values[place, token]), abs=1e-4)
                    num_checked += bool(one.fed) and place >= one.fed[0].end
    assert num_checked > 50  # tokens that stand after an output
