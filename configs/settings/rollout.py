"""A vLLM server that draws the completions of reinforcement learning in the place of the in-process engine."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.settings.common import Frozen

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


class RolloutServer(Frozen):
    """Where completions are drawn, if not in the trainer's own process: a server to start, or one that runs."""

    command: tuple[str, ...] = Field(
        default=("vllm", "serve"),
        description="Words that start the server, e.g. the path of `vllm` in an environment of its own, and `serve`; "
        "the model and the options that the factory needs are put after them.",
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="More options of a started server, e.g. --tensor-parallel-size 4; the last word counts."
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables of a started server beside those of the stage, e.g. CUDA_VISIBLE_DEVICES.",
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Loopback port of a started server; empty takes a free one."
    )
    address: str | None = Field(
        default=None,
        description="A server that runs already, e.g. http://127.0.0.1:8000; nothing is started. It must see the "
        "stage's folder under the same path.",
    )
    key_variable: str = Field(
        default="VLLM_API_KEY",
        description="Variable of the stage's environment that holds the key of a server at `address`, if it asks for "
        "one. A started one gets a key of its own.",
    )
    start_timeout_s: PositiveFloat = Field(default=900.0, description="Seconds until the server must be ready.")
    request_timeout_s: PositiveFloat = Field(default=1800.0, description="Seconds until a completion must be there.")
    sync_timeout_s: PositiveFloat = Field(default=600.0, description="Seconds until new weights must be loaded.")
    weights: Literal["auto", "collective", "disk"] = Field(
        default="auto",
        description="How new weights reach the server: broadcast to its workers over loopback (collective), or through "
        "files of the stage's folder (disk). auto takes the first for a started server and the second for one at "
        "`address`, or where the first fails to be set up.",
    )
    max_concurrency: PositiveInt = Field(default=256, description="Completions asked for at once.")
    max_probe_distance: PositiveFloat | None = Field(
        default=None,
        description="Nats per token, in the mean, that the server's log-probabilities of a fixed text may be off after "
        "a sync; empty takes 0.001 for fp32 and 0.05 for bf16.",
    )

    @model_validator(mode="before")
    @classmethod
    def _says_where_it_runs_only(cls, given: Any) -> Any:
        if isinstance(given, dict) and "importance_cap" in given:
            raise ValueError(
                f"rollout.importance_cap: {given['importance_cap']!r} changes what a stage computes, and a machine "
                f"profile is in no digest; allowed: in the recipe's rl stage; take it out and set "
                f"rl.importance_cap={given['importance_cap']}"
            )
        return given

    @field_validator("command")
    @classmethod
    def _has_words(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command or not command[0]:
            raise ValueError("rollout.command: no word was given; allowed: a command such as [vllm, serve]; name it")
        return command

    @field_validator("address")
    @classmethod
    def _is_plain_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "rollout.address: it holds a user name or a password, which would be written to logs and manifests; "
                "allowed: http://HOST:PORT; put the key into the variable that key_variable names"
            )
        plain = parts.path in ("", "/") and not parts.query and not parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise ValueError(
                f"rollout.address: {address!r} is no address of a server; allowed: http://HOST:PORT or https://HOST:PORT"
            )
        return address.rstrip("/")

    @model_validator(mode="after")
    def _holds_no_secret(self) -> RolloutServer:
        for name in self.environment:
            if _SECRET.search(name):
                raise ValueError(
                    f"rollout.environment: {name} looks like a secret, and settings are written to manifests; set it "
                    "in the environment of the command instead, from which the server inherits it"
                )
        if any(word.split("=")[0] in ("--api-key", "--hf-token") for word in (*self.command, *self.arguments)):
            raise ValueError(
                "rollout.arguments: a key in a command line can be read by every user of the machine; leave it out: a "
                "started server gets a key through its environment"
            )
        return self
