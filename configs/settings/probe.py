"""Settings of the contamination probe (`derivatives/evaluation/probe.py`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from configs.errors import UserError
from configs.settings.common import Frozen

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Probe(Frozen):
    """How the base is asked to complete problems of which it is shown only the beginning."""

    shares: tuple[Share, ...] = Field(
        default=(0.4, 0.6, 0.8),
        min_length=1,
        description="Shares of a problem's words that are shown (arXiv:2507.10532 takes these three).",
    )
    decided_at: Share = Field(default=0.6, description="The share by which the flag is raised; one of `shares`.")
    num_problems: PositiveInt = Field(
        default=200, description="Problems of each set, the first ones, and as many of its control."
    )
    min_rest_words: PositiveInt = Field(
        default=4,
        description="Problems of which fewer words are left to complete are passed over: they can be guessed.",
    )
    answer_tokens: Annotated[int, Field(ge=0)] = Field(
        default=128,
        description="Tokens beyond the rest of the problem in which its answer may come out; 0 does not ask for it.",
    )
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.05,
        description="Where a set has no control: the flag is raised when the exact-match rate's lower bound exceeds it "
        "(our choice; sets published after a model's training are completed in 0 to 3%, arXiv:2507.10532).",
    )

    @model_validator(mode="after")
    def _decided_at_a_share(self) -> Probe:
        if self.decided_at not in self.shares:
            raise UserError(
                f"probe.decided_at: {self.decided_at} is none of the shares; allowed: "
                f"{', '.join(map(str, self.shares))}; add it to probe.shares, or name one of these"
            )
        return self
