"""Evaluation, and the release that stands on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from configs.errors import UserError
from configs.settings.common import Fraction, Frozen, Sampling, StageBase, StageId, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.probe import Probe
from configs.settings.tools import ToolUse, check_room
from configs.suites import expand


class EvaluateStage(StageBase):
    """Models side by side on held-out tasks, each figure with an interval."""

    kind: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(
        min_length=1,
        description="Stage ids or `base`, in the table's order; the first is "
        "what the others are compared with.",
    )
    tasks: tuple[TaskSource, ...] = Field(min_length=1, description="Held-out problems.")
    kept_tasks: tuple[TaskSource, ...] = Field(
        default=(),
        description="Problems of other domains that the base could do, for what was lost: asked once of every model, "
        "judged by each set's own verifier, reported apart and never part of pass@1.",
    )
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
        default=0, description="Samples per problem for unbiased pass@k and, from two on, maj@k; 0 skips both."
    )
    num_sampled_problems: PositiveInt | None = Field(
        default=None, description="Problems (the first ones) sampled for pass@k; empty is all."
    )
    thinking_budgets: tuple[PositiveInt, ...] = Field(
        default=(),
        description="Tokens that a thought in <think> may take, a figure for each: a thought that is not closed by "
        "then is closed for the model, which goes on to answer. At most sampling.max_new_tokens, rising.",
    )
    answer_tokens: PositiveInt = Field(
        default=128, description="Tokens of the answer after a thought, where thinking_budgets are measured."
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
    probe: Probe | None = Field(
        default=None,
        description="Ask the first model to complete problems of which it sees only the beginning: what it has read "
        "before is flagged beside its score. `true` takes the defaults.",
    )
    system: str | None = Field(default=None, description="System prompt for chat models.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(default=0.95, description="Level of all intervals.")
    max_no_verdict: Fraction = Field(
        default=0.1, description="The stage stops when more than this share of the latest verdicts is missing."
    )

    _suites = field_validator("tasks", "kept_tasks", "few_shot_tasks")(expand)

    @field_validator("probe", mode="before")
    @classmethod
    def _probe_by_a_word(cls, given: Any) -> Any:
        return ({} if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _another_one_audits(self) -> EvaluateStage:
        if self.audit is not None and self.audit == self.judge:
            raise UserError(
                f"{self.id}.audit: {self.audit!r} is the judge; allowed: another verifier, which knows something else; "
                "name one"
            )
        return self

    @model_validator(mode="after")
    def _budgets_within_reach(self) -> EvaluateStage:
        if not self.thinking_budgets:
            return self
        shown = list(self.thinking_budgets)
        if shown != sorted(set(shown)):
            raise UserError(
                f"{self.id}.thinking_budgets: {shown}; allowed: rising numbers, each once; write {sorted(set(shown))}"
            )
        limit = self.sampling.max_new_tokens
        if shown[-1] > limit:
            raise UserError(
                f"{self.id}.thinking_budgets: {shown[-1]} tokens of thinking, in completions of {limit}; allowed: at "
                f"most {self.id}.sampling.max_new_tokens; lower it, or raise that"
            )
        if self.tools is not None:
            raise UserError(
                f"{self.id}.thinking_budgets: {shown} with {self.id}.tools; allowed: one of the two, as what a program "
                "prints inside a thought has no budget; remove one"
            )
        return self

    @model_validator(mode="after")
    def _room_for_outputs(self) -> EvaluateStage:
        check_room(self.id, self.tools, self.sampling.max_new_tokens)
        return self


class Gate(Frozen):
    """One condition of release."""

    metric: Literal["pass@1", "pass@k", "maj@k", "kept", "bits_per_byte"] = Field(
        description="What is compared; kept is the share of kept_tasks that is solved."
    )
    against: str = Field(default="base", description="Stage id or `base` that the released model is compared with.")
    min_gain: float = Field(
        default=0.0,
        description="The interval's lower end of the gain must exceed this (accuracy: fraction; "
        "bits per byte: a fall counts as a gain, so -0.5 allows a rise of 0.5).",
    )
    tasks: str | None = Field(
        default=None,
        description="One set of the evaluation's tasks (pass@1) or kept_tasks (kept) alone; empty takes all together.",
    )

    @model_validator(mode="after")
    def _one_set_of_what_is_asked_once(self) -> Gate:
        if self.tasks is not None and self.metric not in ("pass@1", "kept"):
            raise ValueError(
                f"gates: tasks {self.tasks!r} was given with metric {self.metric}, which is measured over all sets; "
                "allowed: pass@1, kept; remove tasks or change the metric"
            )
        return self


NO_SIDE = "none"
"""What a recipe writes to keep nothing on one side."""


class Keep(Frozen):
    """What the base could do and the release may lose: the second side of the gates, on by default."""

    tasks: Annotated[float, Field(ge=-1.0, le=0.0)] | Literal["none"] = Field(
        default=-0.02,
        description="The interval's lower end of the gain over the base on kept_tasks must exceed this (a fraction: "
        "-0.02 is two points lost); `none` asks for nothing, and the card says so.",
    )
    bits_per_byte: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | Literal["none"] = Field(
        default=0.01,
        description="Largest relative rise of the bits per byte of each text of heldout_text, by the interval's upper "
        "end (0.01 is 1%); `none` asks for nothing, and the card says so.",
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
    keep: Keep = Field(
        default=Keep(),
        description="What of the base must be left, beside the gates; the card prints a looser margin beside the "
        "default one.",
    )
    allow_same_judge: bool = Field(
        default=False,
        description="Release although the evaluation's judge shares its implementation with a verifier that gave the "
        "reward; the card says so.",
    )
    name: str = Field(description="Name of the derivative on its card.")
    system: str | None = Field(
        default=None, description="System prompt written into the chat template's default, if any."
    )
