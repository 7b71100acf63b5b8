"""How a problem is put to a model: as a chat turn, or plainly after a few solved examples.

A base model has not learnt to chat, so it is also asked plainly:

    Question: ...
    Answer: ...

    Question: ...
    Answer:

Examples come from the train side of the problem's own set where that has worked solutions, else from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import EvaluateStage
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import open_source
from derivatives.training.chat import conversation, encode_chat, encode_text
from verifiers.api import Task
from verifiers.tasks.split import question_digest

CHAT, FEW_SHOT = "chat", "few_shot"
NEXT_QUESTION = "\nQuestion:"
"""Where a plain completion goes on to ask itself something; what follows is not its answer."""
_DRAWN_PER_EXAMPLE = 4
"""Problems drawn for each example that is wanted, since not every one has a worked solution."""


@dataclass(frozen=True)
class Example:
    """A solved problem."""

    prompt: str
    completion: str

    def text(self) -> str:
        return f"Question: {self.prompt}\nAnswer: {self.completion}\n\n"


Examples = Mapping[str, Sequence[Example]]
"""Examples by the name of their task set."""


def gather_examples(stage: EvaluateStage, tasks: Sequence[Task], seed: int) -> Examples:
    """Up to `few_shot` solved examples of each set, none of them a held-out question."""
    heldout = {question_digest(task.prompt) for task in tasks}
    found: dict[str, list[Example]] = {}
    for source in stage.few_shot_tasks or stage.tasks:
        examples = found.setdefault(source.name, [])
        for document in _documents(source, stage.few_shot * _DRAWN_PER_EXAMPLE, seed):
            if len(examples) < stage.few_shot and question_digest(document.prompt) not in heldout:
                examples.append(Example(document.prompt, document.completion))
    return {name: examples for name, examples in found.items() if examples}


def _documents(source: TaskSource, count: int, seed: int) -> list[Document]:
    """Worked examples of a set's train side; none where it has no train side or no solutions."""
    drawn = CorpusSource(name=source.name, split="train", count=count, params=source.params, seed=seed)
    try:
        return list(open_source(drawn, "examples", DropLog()))
    except UserError:
        return []


def examples_for(task: Task, examples: Examples, count: int) -> list[Example]:
    """The task's own set's examples; where it has none, the other sets' in turn."""
    own = examples.get(task.source)
    if own:
        return list(own[:count])
    longest = max((len(group) for group in examples.values()), default=0)
    others = [group[place] for place in range(longest) for group in examples.values() if place < len(group)]
    return others[:count]


def encode_plain(
    tokenizer: PreTrainedTokenizerBase, task: Task, examples: Sequence[Example], max_tokens: int
) -> list[int]:
    """The plain prompt, with as many of the examples as fit into `max_tokens`."""
    chosen = list(examples)
    while True:
        text = "".join(example.text() for example in chosen) + f"Question: {task.prompt}\nAnswer:"
        ids = encode_text(tokenizer, text)
        if len(ids) <= max_tokens or not chosen:
            return ids
        chosen.pop()


def encode_question(tokenizer: PreTrainedTokenizerBase, task: Task, system: str | None) -> list[int]:
    """The problem as a chat turn."""
    return encode_chat(tokenizer, conversation(task.prompt, system), add_generation_prompt=True)


def own_answer(text: str) -> str:
    """A plain completion up to where it asks the next question."""
    return text.partition(NEXT_QUESTION)[0]
