"""What a model may use while it answers: a Python interpreter that runs the programs it writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from configs.settings.common import Frozen


class ToolUse(Frozen):
    """Programs in fenced blocks are run in the sandbox, and what they print is fed back (docs/rl.md)."""

    kind: Literal["python"] = Field(
        default="python", description="What runs: python, a fresh interpreter with the standard library per program."
    )
    turns: PositiveInt = Field(
        default=4, description="Programs of one completion that are run; one that closes another ends (reason `turns`)."
    )
    seconds: Annotated[float, Field(gt=0.0, le=600.0)] = Field(
        default=5.0, description="Processor seconds of one program; twice that and a second more by the clock."
    )
    memory_mb: Annotated[int, Field(ge=16, le=65_536)] = Field(
        default=512, description="Megabytes of one program, above the bare interpreter's."
    )
    output_characters: Annotated[int, Field(ge=16)] = Field(
        default=400, description="Characters that are fed back of what a program prints; of more, the two ends."
    )
    output_tokens: Annotated[int, Field(ge=16)] = Field(
        default=256, description="Tokens of that; they count towards max_new_tokens."
    )


def check_room(where: str, tools: ToolUse | None, max_new_tokens: int) -> None:
    """An output leaves room for an answer. Raises ValueError that names the field of the stage `where`."""
    if tools is not None and tools.output_tokens >= max_new_tokens:
        raise ValueError(
            f"{where}.tools.output_tokens: {tools.output_tokens} of what a program prints would fill a completion of "
            f"{max_new_tokens} tokens; allowed: fewer than {where}.sampling.max_new_tokens; lower it, or raise that"
        )
