"""`combination`: the request repeated before the answer, or two answers apart."""

from __future__ import annotations

from verifiers.rules.rule import Rule


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """The response begins with the request, word for word, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(response: str) -> bool:
    """Two different texts with six asterisks between them; empty ones count only in the middle, where they may not."""
    parts = [part.strip() for part in response.split("******")]
    answers = [part for part in parts if part]
    if any(not part for part in parts[1:-1]):
        return False
    return len(answers) == 2 and answers[0] != answers[1]


RULES = {"repeat_prompt": Rule(repeat_prompt, {"prompt_to_repeat": "text"}), "two_responses": Rule(two_responses)}
