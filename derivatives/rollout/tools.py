"""Tool-integrated completions: the model writes a program, the sandbox runs it, its output is fed back.

A completion that closes a fenced block of Python stands still while the program runs (`verifiers/interpreter.py`); then
the output's block (`verifiers/tool_text.py`) goes into its context as tokens that were not drawn, and drawing goes on.
Both engines share what is here: what to do when a completion has written something (`Turns.look`), and what is fed.

A completion ends for reasons of its own, beside `stop` and `length`:

| finish reason | when | its verdict |
|---|---|---|
| `turns` | it closes one more program than `turns` allows | incorrect, `out_of_turns` |
| `forged` | it writes a block of output itself | incorrect, `forged_output` |
| `fault` | the sandbox failed, not the program | none: it leaves the statistics and the loss |

Why a forged output ends it: what follows would rest on something that no program said, and neither a verifier nor a
reader could tell. That a model writes one at all is seen early in training, and costs it the reward.

Source: Qwen2.5-Math (arXiv:2409.12122), section 4. Departures are listed in `verifiers/tool_text.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.settings.tools import ToolUse
from derivatives.training.chat import encode_text
from verifiers.interpreter import Interpreters, Output
from verifiers.sandbox.host import SandboxFault
from verifiers.tool_text import harmless, next_block, output_block, shortened

OUT_OF_TURNS, FORGED, FAULT = "turns", "forged", "fault"
FENCE = "```"


class Fed(NamedTuple):
    """Tokens of a completion that an interpreter wrote.

    Attributes:
        start, end: Their places among the completion's tokens.
        failed: What went wrong with the program (`Output.failed`); empty where nothing did.
    """

    start: int
    end: int
    failed: str = ""


class Program(NamedTuple):
    """A program to run, closed by the token before this place of the completion."""

    text: str
    place: int


class Ended(NamedTuple):
    """The completion ends before this place, for this reason."""

    reason: str
    place: int


class Toolbox:
    """What a stage's completions may use. Make one with `open_tools`."""

    def __init__(self, settings: ToolUse, submit: Callable[[str], Future[Output]]) -> None:
        self.settings, self.submit = settings, submit

    def fed_ids(self, tokenizer: PreTrainedTokenizerBase, output: Output, ends_line: bool) -> list[int]:
        """Token ids of what is fed for an output, within the limits of characters and tokens.

        Args:
            tokenizer: The model's.
            output: Of the program.
            ends_line: The completion's last token goes beyond the closing fence to a new line.
        """
        most = self.settings.output_characters
        text = harmless(output.text)
        while True:
            content = shortened(text, most)
            num_tokens = len(encode_text(tokenizer, content))
            if num_tokens <= self.settings.output_tokens:
                break
            most = min(most, len(content)) * self.settings.output_tokens // (num_tokens + 1)
        block = output_block(content)
        return encode_text(tokenizer, block.removeprefix("\n") if ends_line else block)


@contextmanager
def open_tools(settings: ToolUse | None, num_workers: int) -> Iterator[Toolbox | None]:
    """Interpreters for as long as this lasts; None where a stage allows none.

    Raises:
        UserError: The sandbox does not start on this machine.
    """
    if settings is None:
        yield None
        return
    with Interpreters(num_workers, settings.seconds, settings.memory_mb) as interpreters:
        try:
            interpreters.start()
        except SandboxFault as error:
            raise UserError(f"tools.kind: {settings.kind} cannot run programs here: {error}") from error
        yield Toolbox(settings, interpreters.submit)


class Turns:
    """One completion's turns: where its latest text begins, and what was fed so far."""

    def __init__(self) -> None:
        self.start = 0
        self.fed: list[Fed] = []

    def look(self, tokenizer: PreTrainedTokenizerBase, ids: list[int], max_turns: int) -> Program | Ended | None:
        """What there is to do about a completion's tokens so far; None where it may go on.

        Only what was drawn since the last output is looked at. The place is that of the first token after the one that
        closes the block, so that tokens drawn beyond it may be dropped: it does not depend on how many were.
        """
        drawn = ids[self.start :]
        text = str(tokenizer.decode(drawn))
        if next_block(text) is None:
            return None
        # The first token at which there is a block: found from the end, where it nearly always is.
        count = len(drawn)
        while count > 1 and (found := next_block(str(tokenizer.decode(drawn[: count - 1])))) is not None:
            count -= 1
        found = next_block(str(tokenizer.decode(drawn[:count])))
        assert found is not None
        place = self.start + count
        if found.forged:
            return Ended(FORGED, place)
        if len(self.fed) >= max_turns:
            return Ended(OUT_OF_TURNS, place)
        return Program(found.program, place)

    def forged(self, tokenizer: PreTrainedTokenizerBase, ids: list[int], reason: str) -> bool:
        """Whether an ended completion has a block of output of its own, also one that it did not close."""
        drawn = ids[self.start : -1] if reason == "stop" else ids[self.start :]
        found = next_block(str(tokenizer.decode(drawn)))
        return found is not None and found.forged

    def note(self, num_before: int, num_fed: int, failed: str) -> None:
        """An output of so many tokens was fed after so many tokens."""
        self.fed.append(Fed(num_before, num_before + num_fed, failed))
        self.start = num_before + num_fed


def ends_line(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> bool:
    """Whether the token that closed a fence has the line's end in it."""
    return str(tokenizer.decode(ids[-1:])).endswith("\n")


def tokens_with_fences(tokenizer: PreTrainedTokenizerBase, num_real_tokens: int) -> list[int]:
    """Ids of the tokens that hold a backtick: only after one of them can a fence have begun or ended."""
    texts = tokenizer.batch_decode([[token] for token in range(num_real_tokens)])
    return [token for token, text in enumerate(texts) if FENCE[0] in text]
