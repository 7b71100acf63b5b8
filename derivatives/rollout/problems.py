"""The problems that are rolled out: read, turned into prompts, and checked for room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.common import TaskSource
from configs.stage import StageFile
from derivatives.training.chat import conversation, encode_chat
from verifiers.api import Task
from verifiers.tasks import load_tasks


def read_tasks(stage_file: StageFile, names: Sequence[str]) -> list[Task]:
    """All problems of JSONL files and of stages that made some, in order. Raises UserError for a file that is none."""
    tasks: list[Task] = []
    for name in names:
        path = Path(name) if name.endswith(".jsonl") else stage_file.data_folder(name) / "problems.jsonl"
        tasks += load_tasks(TaskSource(name=str(path), split="all"))
    return tasks


def encode_prompt(task: Task, tokenizer: PreTrainedTokenizerBase, system: str | None) -> list[int]:
    """Token ids of a problem as a chat turn."""
    return encode_chat(tokenizer, conversation(task.prompt, system), add_generation_prompt=True)


def check_lengths(
    tasks: Sequence[Task],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    system: str | None,
    max_new_tokens: int,
) -> None:
    """Every problem leaves the model room for an answer; else the run would end at the step that draws it.

    Raises:
        UserError: names the first problem that does not.
    """
    limit = model.config.max_position_embeddings
    for task in tasks:
        length = len(encode_prompt(task, tokenizer, system))
        if length + max_new_tokens > limit:
            raise UserError(
                f"stage.sampling.max_new_tokens: {max_new_tokens} after the {length} tokens of problem {task.id}; the "
                f"model has {limit} positions; lower it or leave that problem out"
            )
