"""Between another tool's rows and a verifier: what the modules that `derive verifiers export` writes are made of.

A row is a mapping with `completion`, the problem's `prompt`, and what the verifier needs (the keys of a line of
`verifiers/judging.py`). All judging is in a `VerifierPool`, which opens at the first call and once in each process, so
that a module can be imported, forked and sent to other processes. Calls from threads and from a running event loop are
safe: no signal is used, and no clock but the pool's.

What this does not do: it is no tool's own type. It imports none of them, and no torch.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from verifiers.api import Outcome, Task, Verdict
from verifiers.judging import as_task
from verifiers.pool import VerifierPool


class Bridge:
    """Judges rows with one verifier.

    Args:
        verifier: Registry name; a plugin must be installed where the tool runs.
        gold: Field of a row that holds the gold answer.
        partial_credit: Whether an incorrect completion is worth its score instead of 0.
        num_workers: Worker processes.
        max_no_verdict: Share of the latest verdicts that may be missing, in [0, 1]; beyond it every call raises
            `TooManyNoVerdicts` with the worst reason, so that a broken verifier cannot quietly starve a training.
    """

    def __init__(
        self, verifier: str, gold: str = "answer", partial_credit: bool = False, num_workers: int = 2,
        max_no_verdict: float = 0.05,
    ) -> None:  # fmt: skip
        self.verifier, self.gold, self.partial_credit = verifier, gold, partial_credit
        self.num_workers, self.max_no_verdict = num_workers, max_no_verdict
        self._lock = threading.Lock()
        self._pool: VerifierPool | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def judge(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Verdicts of all rows, in order.

        Raises:
            UserError: A row lacks what the verifier needs, or is of another type; names the row and the field.
            TooManyNoVerdicts: More of the latest verdicts are missing than may be.
        """
        return self._opened().judge(self._pairs(rows))

    async def judge_async(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """The same, while the event loop goes on. Raises like `judge`."""
        pool = self._opened()
        return list(await asyncio.gather(*(pool.judge_async(*pair) for pair in self._pairs(rows))))

    def worth(self, verdict: Verdict) -> float | None:
        """1 for correct, 0 (or the score) for incorrect, None where there is no verdict."""
        if verdict.outcome is Outcome.NO_VERDICT:
            return None
        return verdict.score if self.partial_credit or verdict.outcome is Outcome.CORRECT else 0.0

    def close(self) -> None:
        """End the workers; the next call starts others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _opened(self) -> VerifierPool:
        with self._lock:
            if self._pool is None:
                self._pool = VerifierPool(
                    self.num_workers, verifier=self.verifier, max_no_verdict=self.max_no_verdict
                )
            return self._pool

    def _forget(self) -> None:
        """In a forked process: its parent's workers are not its own, and a lock that another thread held stays held."""
        self._lock = threading.Lock()
        self._pool = None

    def _pairs(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Task, str]]:
        return [as_task(self._row(row), f"row {number}", self.verifier) for number, row in enumerate(rows)]

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its gold answer as `gold`; another field that is called so is no gold answer."""
        fields = {key: plain(value) for key, value in row.items()}
        found = fields.pop(self.gold, None)
        for name in ("gold", "answer"):
            fields.pop(name, None)
        return fields if found is None else {**fields, "gold": found}


def rows_of(
    prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a batch that is given by columns. What is no list of the batch's length is no column.

    Args:
        prompts: Texts or lists of chat messages.
        completions: The same.
        columns: The data set's other columns by name.
    """
    fitting = {
        name: values for name, values in columns.items() if isinstance(values, list) and len(values) == len(completions)
    }
    return [
        {
            **{name: values[number] for name, values in fitting.items()},
            "prompt": text_of(prompt, "user"),
            "completion": text_of(completion, "assistant"),
        }
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def text_of(given: Any, role: str) -> str:
    """A text as it is; of chat messages the last one of the role, "" where there is none.

    >>> text_of([{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}], "user")
    '2 + 2?'
    """
    if isinstance(given, str):
        return given
    for message in reversed(list(given or [])):
        content = message.get("content")
        if message.get("role") == role and content is not None:
            parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
            return "".join(parts)
    return ""


def fields_of(truth: Any) -> dict[str, Any]:
    """What a single field that stands for all the truth holds: a gold answer, or an object (also as JSON) of fields.

    >>> fields_of("42"), fields_of('{"entry_point": "f", "tests": "assert f(1)"}')["entry_point"]
    ({'answer': '42'}, 'f')
    """
    value = given = plain(truth)
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            value = json.loads(given)
        except (ValueError, RecursionError):  # a set, a program, LaTeX
            value = given
    return value if isinstance(value, dict) and value else {"answer": given}


def plain(value: Any) -> Any:
    """The value in JSON's own types (arrays as lists); what has none becomes None, which is as good as not there."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else None
