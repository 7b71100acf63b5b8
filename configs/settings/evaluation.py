"""Evaluation, and the release that stands on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from configs.errors import UserError
from configs.settings.common import Fraction, Frozen, Sampling, StageBase, StageId, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.tools import ToolUse, check_room


class EvaluateStage(StageBase):
    """Models side by side on held-out tasks, each figure with an interval."""

    kind: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(
        min_length=1,
        description="Stage ids or `base`, in the table's order; the first is "
        "what the others are compared with, the last is what is released.",
    )
    tasks: tuple[TaskSource, ...] = Field(min_length=1, description="Held-out problems.")
    judge: str | None = Field(default=None, description="Verifier that judges; empty takes each task set's own.")
    audit: str | None = Field(
        default=None,
        description="Second verifier that judges a share of the greedy answers, for agreement and gap of every model; "
        "best one that shares no code with the judge. No figure and no gate depends on it.",
    )
    audit_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.25, description="Share of the problems that are audited, the same ones for every model."
    )
    sampling: Sampling = Field(
        default=Sampling(),
        description="How the k samples of pass@k are drawn; greedy pass@1 ignores all but max_new_tokens.",
    )
    tools: ToolUse | None = Field(
        default=None,
        description="Run the programs that an answer writes and feed back what they print, for every model; `{}` takes "
        "the defaults.",
    )
    num_samples: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Samples per problem for unbiased pass@k; 0 skips it."
    )
    num_sampled_problems: PositiveInt | None = Field(
        default=None, description="Problems (the first ones) sampled for pass@k; empty is all."
    )
    few_shot: Annotated[int, Field(ge=0)] = Field(
        default=4,
        description="Solved examples before each problem for the base model, "
        "in the best of its formats (plain few-shot and chat are both tried).",
    )
    few_shot_tasks: tuple[TaskSource, ...] = Field(
        default=(),
        description="Where few-shot examples come from (train split); empty takes the tasks' own train split.",
    )
    heldout_text: tuple[CorpusSource, ...] = Field(
        default=(), description="Texts for bits per byte, which shows what was forgotten."
    )
    system: str | None = Field(default=None, description="System prompt for chat models.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(default=0.95, description="Level of all intervals.")
    max_no_verdict: Fraction = Field(
        default=0.1, description="The stage stops when more than this share of the latest verdicts is missing."
    )

    @model_validator(mode="after")
    def _another_one_audits(self) -> EvaluateStage:
        if self.audit is not None and self.audit == self.judge:
            raise UserError(
                f"{self.id}.audit: {self.audit!r} is the judge; allowed: another verifier, which knows something else; "
                "name one"
            )
        return self

    @model_validator(mode="after")
    def _room_for_outputs(self) -> EvaluateStage:
        check_room(self.id, self.tools, self.sampling.max_new_tokens)
        return self


class Gate(Frozen):
    """One condition of release."""

    metric: Literal["pass@1", "pass@k", "bits_per_byte"] = Field(description="What is compared.")
    against: str = Field(default="base", description="Stage id or `base` that the released model is compared with.")
    min_gain: float = Field(
        default=0.0,
        description="The interval's lower end of the gain must exceed this (accuracy: fraction; "
        "bits per byte: a fall counts as a gain, so -0.5 allows a rise of 0.5).",
    )


class ReleaseStage(StageBase):
    """Gates, then a Hugging Face folder with a model card, or a named refusal."""

    kind: Literal["release"] = "release"
    model: str | None = Field(
        default=None, description="Stage id of what is released; empty takes the nearest earlier model."
    )
    evaluation: StageId = Field(description="Evaluate stage whose figures the gates read.")
    gates: tuple[Gate, ...] = Field(
        default=(), description="All must hold; otherwise nothing is released and the command says why."
    )
    name: str = Field(description="Name of the derivative on its card.")
    system: str | None = Field(
        default=None, description="System prompt written into the chat template's default, if any."
    )
