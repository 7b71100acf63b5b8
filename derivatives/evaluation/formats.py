"""How a problem is put to a model: as a chat turn, plainly after a few solved examples, or as a text with a gap.

A base model has not learnt to chat, so it is also asked plainly:

    Question: ...
    Answer: ...

    Question: ...
    Answer:

Examples come from the train side of the problem's own set where that has worked solutions, else from the others. A
source with `style: published` has its own frame, examples, stop texts and length (`styles.py`). A task whose
`metadata["form"]` is `fim` is asked in neither way: a model gets prefix and suffix between Qwen's tokens and fills the
gap. Of a context that is too long the suffix keeps its beginning and the prefix its end, as in Qwen2.5-Coder's script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from configs.catalogue import dataset
from configs.errors import UserError
from configs.names import TWINS
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import EvaluateStage
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources import open_source
from derivatives.evaluation.styles import STYLES, Style, style_of
from derivatives.training.chat import conversation, encode_chat, encode_text
from verifiers.api import Task
from verifiers.tasks import load_tasks
from verifiers.tasks.fim import FORM as FIM
from verifiers.tasks.fim import MARKS
from verifiers.tasks.split import question_digest

CHAT, FEW_SHOT = "chat", "few_shot"
NEXT_QUESTION = "\nQuestion:"
"""Where a plain completion goes on to ask itself something; what follows is not its answer."""
LINE_TOKENS, SPAN_TOKENS = 64, 256
"""Longest filling of a gap of one line (Qwen2.5-Coder's script) and of a longer one (ours)."""
MAX_SUFFIX_TOKENS = 512
"""What a suffix may take of a context that is too short for all (Qwen2.5-Coder's script)."""
_DRAWN_PER_EXAMPLE = 4
"""Problems drawn for each example that is wanted, since not every one has a worked solution."""
_PUBLISHED = "published/"
"""Before the name of a style: its examples, which only its own problems are shown."""


@dataclass(frozen=True)
class Example:
    """A solved problem."""

    prompt: str
    completion: str

    def text(self) -> str:
        return f"Question: {self.prompt}\nAnswer: {self.completion}\n\n"


Examples = Mapping[str, Sequence[Example]]
"""Examples by the name of their task set; those of published styles under `published/STYLE`."""


def gather_examples(stage: EvaluateStage, tasks: Sequence[Task], seed: int) -> Examples:
    """Up to `few_shot` solved examples of each set, and those that styles ask for; none is a held-out question."""
    heldout = {question_digest(task.prompt) for task in tasks}
    found: dict[str, list[Example]] = {}
    for source in stage.few_shot_tasks or stage.tasks:
        if source.style == "published" and not stage.few_shot_tasks:
            continue
        own = source.model_copy(update={"name": source.name.removeprefix(f"{TWINS}/")})
        examples = found.setdefault(own.name, [])
        for document in _documents(own, stage.few_shot * _DRAWN_PER_EXAMPLE, seed):
            if len(examples) < stage.few_shot and question_digest(document.prompt) not in heldout:
                examples.append(Example(document.prompt, document.completion))
    for name in dict.fromkeys(task.metadata["protocol"] for task in tasks if "protocol" in task.metadata):
        found[_PUBLISHED + name] = _style_examples(STYLES[name], heldout)
    return {name: examples for name, examples in found.items() if examples}


def _style_examples(style: Style, heldout: set[str]) -> list[Example]:
    """The first solved problems of the train split of the first of a style's sets that has enough of them."""
    for name in style.examples:
        source = TaskSource(name=name, split="train")
        if dataset(name).tests is None:
            documents = _documents(source, style.num_examples * _DRAWN_PER_EXAMPLE, 0)
            solved = [Example(one.prompt, one.completion) for one in documents]
        else:
            solved = [Example(task.prompt, task.answer) for task in load_tasks(source)]
        chosen = [one for one in solved if question_digest(one.prompt) not in heldout][: style.num_examples]
        if len(chosen) == style.num_examples:
            return chosen
    if style.num_examples:
        raise UserError(
            f"style: published asks for {style.num_examples} solved examples of {' or '.join(style.examples)} (train), "
            "which cannot be had here; set DERIVE_DATA to a mirror that has them, or ask with style: plain"
        )
    return []


def _documents(source: TaskSource, count: int, seed: int) -> list[Document]:
    """Worked examples of a set's train side; none where it has no train side or no solutions."""
    drawn = CorpusSource(name=source.name, split="train", count=count, params=source.params, seed=seed)
    try:
        return list(open_source(drawn, "examples", DropLog()))
    except UserError:
        return []


def examples_for(task: Task, examples: Examples, count: int) -> list[Example]:
    """The task's own set's examples, of a twin those of the set that it was made from, so that the two are asked alike;
    where there are none, the other sets' in turn. A style has its own and its number."""
    style = style_of(task)
    if style is not None:
        return list(examples.get(_PUBLISHED + str(task.metadata["protocol"]), []))[: style.num_examples]
    own = examples.get(task.source.removeprefix(f"{TWINS}/"))
    if own:
        return list(own[:count])
    groups = [group for name, group in examples.items() if not name.startswith(_PUBLISHED)]
    longest = max(map(len, groups), default=0)
    others = [group[place] for place in range(longest) for group in groups if place < len(group)]
    return others[:count]


def encode(
    tokenizer: PreTrainedTokenizerBase, task: Task, form: str, examples: Sequence[Example], system: str | None,
    room: int,
) -> list[int]:  # fmt: skip
    """What a model is given of a task, in at most `room` tokens where that can be had.

    Args:
        form: `chat` or `few_shot`; a text with a gap is given as it is in both.
        examples: Solved examples of the plain form.
        system: System prompt of the chat.
        room: Tokens of a prompt.

    Raises:
        UserError: A text with a gap, and a tokenizer without Qwen's tokens for it.
    """
    if task.metadata.get("form") == FIM:
        return encode_gap(tokenizer, task, room)
    if form == FEW_SHOT:
        return encode_plain(tokenizer, task, examples, room)
    return encode_question(tokenizer, task, system)


def encode_plain(
    tokenizer: PreTrainedTokenizerBase, task: Task, examples: Sequence[Example], max_tokens: int
) -> list[int]:
    """The plain prompt, with as many of the examples as fit into `max_tokens`."""
    chosen, style = list(examples), style_of(task)
    own = f"Question: {task.prompt}\nAnswer:" if style is None else style.plain(task)
    while True:
        shown = [one.text() if style is None else style.solved(one.prompt, one.completion) for one in chosen]
        ids = encode_text(tokenizer, "".join(shown) + own)
        if len(ids) <= max_tokens or not chosen:
            return ids
        chosen.pop()


def encode_question(tokenizer: PreTrainedTokenizerBase, task: Task, system: str | None) -> list[int]:
    """The problem as a chat turn."""
    style = style_of(task)
    if style is None:
        return encode_chat(tokenizer, conversation(task.prompt, system), add_generation_prompt=True)
    asked = conversation(style.chat(task), system if system is not None else style.system)
    return encode_chat(tokenizer, asked, add_generation_prompt=True)


def encode_gap(tokenizer: PreTrainedTokenizerBase, task: Task, max_tokens: int) -> list[int]:
    """Prefix, suffix and the token after which the middle is written, in this order.

    Raises:
        UserError: The tokenizer has no tokens for it.
    """
    marks = [tokenizer.get_vocab().get(mark) for mark in MARKS]
    if None in marks:
        raise UserError(
            f"task set {task.source}: the model's tokenizer has no {MARKS[marks.index(None)]}, so no gap can be shown; "
            "leave fim/... out of the tasks of this model"
        )
    before, after, middle = marks
    prefix, suffix = (encode_text(tokenizer, str(task.metadata[part])) for part in ("prefix", "suffix"))
    room = max(max_tokens - len(MARKS), 2)
    if len(prefix) + len(suffix) > room:
        suffix = suffix[: max(min(MAX_SUFFIX_TOKENS, room // 4), room - len(prefix))]
        prefix = prefix[max(0, len(prefix) - (room - len(suffix))) :]
    return [before, *prefix, after, *suffix, middle]  # type: ignore[list-item]  # None was refused above


def stops_of(task: Task, form: str) -> tuple[str, ...]:
    """Texts that end an answer in this form; they and what follows are no part of it."""
    if form != FEW_SHOT or task.metadata.get("form") == FIM:
        return ()
    style = style_of(task)
    return (NEXT_QUESTION,) if style is None else style.stops


def limit_of(task: Task, form: str) -> int | None:
    """Tokens that an answer in this form needs at most; None leaves it to the stage."""
    if task.metadata.get("form") == FIM:
        return LINE_TOKENS if task.metadata.get("cut") == "line" else SPAN_TOKENS
    style = style_of(task)
    return None if style is None or form != FEW_SHOT else style.max_new_tokens


def own_answer(text: str, stops: Sequence[str] = (NEXT_QUESTION,)) -> str:
    """A completion up to the first of the texts that end it.

    >>> own_answer(" 8\\n\\nQuestion: 5 + 5?")
    ' 8\\n'
    """
    return text[: min((found for stop in stops if (found := text.find(stop)) >= 0), default=len(text))]


def has_ended(text: str, task: Task, form: str) -> bool:
    """Whether a completion holds all of its answer, though it was drawn on to its limit."""
    if task.metadata.get("form") == FIM:
        return task.metadata.get("cut") == "line" and "\n" in text.lstrip()
    return any(stop in text for stop in stops_of(task, form))


def alike(tasks: Sequence[Task], form: str) -> list[list[int]]:
    """Places of tasks that end and are cut alike in this form, so that they can be drawn together; in order."""
    groups: dict[tuple[tuple[str, ...], int | None], list[int]] = {}
    for place, task in enumerate(tasks):
        groups.setdefault((stops_of(task, form), limit_of(task, form)), []).append(place)
    return list(groups.values())
