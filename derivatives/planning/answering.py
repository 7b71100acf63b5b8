"""What an evaluation draws for one model, as one batch of completions of mean length.

Beside the answers: samples, trials of formats, problems of other domains, what follows a thought that is closed at a
budget, and the probe of the first model. How long thoughts are is not known before: their lengths are taken to be even
up to the longest completion, which is told as an assumption. Held-out texts are only read.
"""

from __future__ import annotations

import math

from configs.settings.evaluation import EvaluateStage
from derivatives.planning.speed import DrawWork

NUM_FORMAT_TRIALS = 300
"""As in `derivatives/evaluation/examination.py`."""
MAX_BYTES = 200_000
"""As in `derivatives/evaluation/texts.py`."""
DOCUMENT_BYTES, BYTES_PER_TOKEN = 6_000, 3.5
"""Of a held-out document on average (the standard library's files, cut as there), and of its tokens: assumed."""


def answers_of_one(
    stage: EvaluateStage, problems: float, kept: float, prompt_tokens: float, mean_tokens: float
) -> tuple[DrawWork, list[str]]:
    """What is drawn for a model of the stage, and what was assumed.

    Args:
        stage: An evaluation.
        problems: Its problems.
        kept: Its problems of other domains.
        prompt_tokens: Mean length of a prompt.
        mean_tokens: Mean length of an answer.
    """
    longest = stage.sampling.max_new_tokens
    sampled = min(problems, stage.num_sampled_problems or problems) * stage.num_samples
    whole = problems + sampled + kept
    if stage.few_shot:  # of the base alone; where all problems are tried, the better format's answers are kept
        trials = sum(
            2 * min(NUM_FORMAT_TRIALS, count) - (count if count <= NUM_FORMAT_TRIALS else 0)
            for count in (problems, kept)
        )
        whole += trials / len(stage.models)
    completions, prompts, tokens = whole, problems + kept, whole * mean_tokens
    read = prompts * prompt_tokens
    assumptions = []
    for budget in stage.thinking_budgets:
        forced = (problems + sampled) * (1 - budget / longest)
        completions, prompts = completions + forced, prompts + forced
        tokens, read = tokens + forced * stage.answer_tokens / 2, read + forced * (prompt_tokens + budget)
    if stage.thinking_budgets:
        assumptions.append(f"thoughts of even lengths up to max_new_tokens ({longest}), closed at the budgets")
    if stage.probe is not None:
        asked = 2 * min(float(stage.probe.num_problems), problems / len(stage.tasks)) * len(stage.tasks)
        begun = asked * len(stage.probe.shares) / len(stage.models)
        rest = prompt_tokens * (1 - sum(stage.probe.shares) / len(stage.probe.shares)) + stage.probe.answer_tokens
        completions, prompts = completions + begun, prompts + begun
        tokens, read = tokens + begun * rest, read + begun * prompt_tokens
    mean_prompt = read / prompts
    # Held-out texts are read as prompts are: as many more of these as have their tokens.
    texts = sum(min(MAX_BYTES, (one.count or math.inf) * DOCUMENT_BYTES) for one in stage.heldout_text)
    prompts += texts / BYTES_PER_TOKEN / mean_prompt
    return DrawWork(completions, prompts, mean_prompt, tokens / completions, longest), assumptions
