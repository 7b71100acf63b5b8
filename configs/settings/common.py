"""What the settings of several kinds of stage are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StageId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Frozen(BaseModel):
    """Base of all configuration: immutable, unknown keys rejected, no silent type coercion of strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class TaskSource(Frozen):
    """A draw of problems from a named task set (`verifiers/tasks`) or from the user's own JSONL."""

    name: str = Field(
        description="Task set (`gsm8k`, `math500`, `humaneval`, `reasoning_gym/chain_sum`, `functions/lists`, "
        "`fim/python_stdlib`, ...), a suite of them (`suite/math`; configs/suites.yaml), or a "
        'path ending in .jsonl whose lines are {"prompt": ..., "answer": ...}.'
    )
    split: Literal["train", "heldout", "test", "all"] = Field(
        default="train",
        description="Part of the set. Procedural sets are split by the hash of the normalised question "
        "text, so train and heldout can never share a question, whatever the seed.",
    )
    count: PositiveInt | None = Field(
        default=None, description="Problems to draw; empty takes all (procedural sets need it)."
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of a procedural generator, "
        "e.g. {max_terms: 3}. Unknown names are rejected by the generator.",
    )
    seed: Seed = Field(default=0, description="Seed of the draw.")
    style: Literal["plain", "published"] = Field(
        default="plain",
        description="How an evaluation puts the problems: plain is alike for all sets; published follows the set's own "
        "protocol (solved examples, wording, stop texts and length; docs/evaluation.md), where it has one.",
    )
    verifier: str | None = Field(
        default=None, description="Verifier that judges these problems; empty takes the set's own."
    )


class StageBase(Frozen):
    """What every stage has."""

    id: StageId = Field(description="Name by which later stages and overrides refer to this stage.")


class Sampling(Frozen):
    """How completions are drawn."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Softmax temperature; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="Nucleus: smallest set with this probability."
    )
    top_k: Annotated[int, Field(ge=0)] = Field(default=0, description="Keep the k most likely tokens; 0 keeps all.")
    min_p: Fraction = Field(
        default=0.0, description="Drop tokens less likely than this share of the most likely one; 0 keeps all."
    )
    max_new_tokens: PositiveInt = Field(
        default=128, description="Tokens after which a completion is cut (finish reason `length`)."
    )
