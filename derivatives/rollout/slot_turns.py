"""Which slots of a running batch stand still for their programs, and what each is fed when it goes on.

The in-process engine (`engine.py`) keeps one `SlotTurns` for a generation with tools. A completion is known by its key
(the prompt's and the sample's index), since slots move. A slot goes on a fixed number of steps after its program was
closed; the batch waits for one that is not done by then. So no clock decides what lies in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from derivatives.rollout.tools import FAULT, FORGED, Ended, Fed, Program, Toolbox, Turns, ends_line
from verifiers.interpreter import Output
from verifiers.sandbox.host import SandboxFault

_STEPS_PER_PROGRAM = 4
"""Steps that a slot stands still for a program. A program of the sandbox takes a few milliseconds, as a step does."""

Key = tuple[int, int]


@dataclass(frozen=True)
class _Running:
    """A program that runs, and the step at which its slot goes on."""

    output: Future[Output]
    due: int


class SlotTurns:
    """The turns of one generation's completions."""

    def __init__(
        self, tools: Toolbox, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int], max_new_tokens: int
    ) -> None:
        self.tools, self.tokenizer, self.stop_ids, self.max_new_tokens = tools, tokenizer, stop_ids, max_new_tokens
        self._turns: dict[Key, Turns] = {}
        self._running: dict[Key, _Running] = {}
        self._ended: dict[Key, tuple[str, str]] = {}

    def runs(self, key: Key | None) -> bool:
        """Whether a program of this completion runs."""
        return key in self._running

    def goes_on(self, key: Key, ids: list[int], step: int, stop_texts: Sequence[str] = ()) -> bool:
        """Whether a completion that stands still is to draw on; else it ends, or its program runs from now on.

        Args:
            key: The completion.
            ids: Its tokens so far.
            step: Steps of the batch so far.
            stop_texts: Texts that end it.
        """
        if ids[-1] in self.stop_ids or len(ids) >= self.max_new_tokens:
            return False
        if stop_texts and any(stop in str(self.tokenizer.decode(ids)) for stop in stop_texts):
            return False
        found = self._turns.setdefault(key, Turns()).look(self.tokenizer, ids, self.tools.settings.turns)
        if isinstance(found, Program):
            self._running[key] = _Running(self.tools.submit(found.text), step + _STEPS_PER_PROGRAM)
        elif isinstance(found, Ended):
            self._ended[key] = found.reason, ""
        return found is None

    def due(self, keys: Sequence[Key], step: int, none_draws: bool) -> list[Key]:
        """Of the completions whose programs run, those that go on now: where nothing else draws, the next ones."""
        last = min((self._running[key].due for key in keys), default=step) if none_draws else step
        return [key for key in keys if self._running[key].due <= last]

    def fed(self, key: Key, ids: list[int]) -> list[int]:
        """What a program's output adds to its completion's tokens; nothing where that ends instead. Waits for it."""
        try:
            output = self._running.pop(key).output.result()
        except SandboxFault as error:
            self._ended[key] = FAULT, str(error)
            return []
        more = self.tools.fed_ids(self.tokenizer, output, ends_line(self.tokenizer, ids))
        if len(ids) + len(more) >= self.max_new_tokens:  # no room for it and one more token
            self._ended[key] = "length", ""
            return []
        self._turns[key].note(len(ids), len(more), output.failed)
        return more

    def ended(self, key: Key, ids: list[int], reason: str) -> tuple[str, tuple[Fed, ...], str]:
        """An ended completion's finish reason, what it was fed, and the sandbox's fault; it is forgotten.

        Args:
            key: The completion.
            ids: All of its tokens.
            reason: The finish reason that its tokens show.
        """
        turns = self._turns.pop(key, None)
        reason, fault = self._ended.pop(key, (reason, ""))
        if turns is None:
            return reason, (), fault
        return FORGED if turns.forged(self.tokenizer, ids, reason) else reason, tuple(turns.fed), fault
