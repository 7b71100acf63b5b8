"""The rollout store: every completion of a stage with its log-probabilities, verdicts and reward.

    OUT/rollouts/problems.jsonl.gz      the stage's problems, numbered from 0
    OUT/rollouts/step-000012.npz        all that was rolled out at a step; plain numpy, compressed

A step's file is on the disk, whole, before the step's update begins. A run that is killed after that reads it instead
of drawing and judging again: no step is lost or doubled, and a verdict cannot turn out otherwise, whatever a verifier's
clock does. The bytes depend on what was rolled out alone (a verdict's seconds are left out), so that a resumed run
leaves the same files as one that ran through. Of a long stage some steps are dropped, spread evenly
(`stage.keep_rollouts`), but none that a checkpoint still needs.

`derivatives/rollout/stored.py` reads it for people and for other verifiers.

Arrays of a step, with P groups of G completions, N = P * G, T tokens and V verifiers (the stage's own, the further
ones, and last the audit's if there is one):

| name | shape | content |
|---|---|---|
| `problems` | P | number of each group's problem |
| `trained` | as many as were | places of the groups that the update saw |
| `lengths`, `finish` | N | tokens; place of the finish reason in `meta` |
| `token_ids`, `log_probs` | 4, T | as drawn, all completions in a row; int32 and float32 as `from_planes` reads them |
| `outcomes`, `scores`, `reasons`, `extracted` | V, N | verdicts; texts by their place in `meta`, -1 for none |
| `rewards` | N | what the update used, NaN where a completion has none |
| `fed` | F, 4 | only with tools: completion, first token, token after the last, place of the failure in `meta` |
| `faults` | N | only with tools: why the sandbox failed, by its place in `meta` |
| `meta` | | JSON as bytes: format, fingerprint, step, verifiers, texts |
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from derivatives.rollout.engine import Completion, text_of
from derivatives.rollout.judged import Group, Judged, Rolled
from derivatives.rollout.tools import Fed
from verifiers.api import Outcome, Task, Verdict

FOLDER = "rollouts"
PROBLEMS = "problems.jsonl.gz"
FORMAT = 1
NAME = re.compile(r"step-(\d{6,})\.npz")
OUTCOMES = (Outcome.INCORRECT, Outcome.CORRECT, Outcome.NO_VERDICT)
NOT_ASKED = -1
UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for a file that is cut or damaged."""


class RolloutStore:
    """Writes and reads back the steps of one run.

    Args:
        out: The stage's folder.
        fingerprint: Of the run; steps of another one are not given back.
        verifiers: Names of the verifiers whose verdicts make the reward.
        audit: Name of the independent one, if there is one.
    """

    def __init__(self, out: Path, fingerprint: str, verifiers: Sequence[str], audit: str | None = None) -> None:
        self.folder, self.fingerprint = out / FOLDER, fingerprint
        self.verifiers, self.audit = list(verifiers), audit

    def path(self, step: int) -> Path:
        """Where a step is."""
        return step_path(self.folder, step)

    def write_problems(self, tasks: Sequence[Task]) -> None:
        """Keep the stage's problems, so that the store can be read by itself; called once, before all else."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for torn in self.folder.glob(".*.partial"):  # of a write that a kill cut short
            torn.unlink()
        text = "".join(json.dumps(asdict(task), ensure_ascii=False) + "\n" for task in tasks)
        packed = gzip.compress(text.encode("utf-8", "surrogatepass"), 6, mtime=0)
        path = self.folder / PROBLEMS
        if not path.is_file() or path.read_bytes() != packed:
            write_bytes_atomic(path, packed)

    def write(self, step: int, rolled: Rolled, rewards: Sequence[Sequence[float | None]]) -> None:
        """Keep a step; on the disk when this returns.

        Args:
            step: Its number.
            rolled: What was rolled out; all groups are of one size.
            rewards: Of each group's completions; None where one has none.
        """
        every = [one for group in rolled.groups for one in group]
        texts: dict[str | None, int] = {None: -1}
        columns = [self._verdicts(one) for one in every]
        flat = [value for row in rewards for value in row]
        finish = sorted({one.completion.finish_reason for one in every})
        arrays: dict[str, Any] = {
            "problems": np.array(rolled.problems, np.int64),
            "trained": np.array(rolled.trained, np.int32),
            "lengths": np.array([len(one.completion.token_ids) for one in every], np.int32),
            "finish": np.array([finish.index(one.completion.finish_reason) for one in every], np.int8),
            "token_ids": planes([token for one in every for token in one.completion.token_ids], "<i4"),
            "log_probs": planes([value for one in every for value in one.completion.log_probs], "<f4"),
            "outcomes": np.array([[_outcome_code(v) for v in column] for column in columns], np.int8).T,
            "scores": np.array([[v.score if v else 0.0 for v in column] for column in columns], np.float64).T,
            "reasons": np.array(
                [[_number(texts, v.reason if v else None) for v in column] for column in columns], np.int32
            ).T,
            "extracted": np.array(
                [[_number(texts, v.extracted if v else None) for v in column] for column in columns], np.int32
            ).T,
            "rewards": np.array([np.nan if value is None else value for value in flat], np.float64),
        }
        if any(one.completion.fed or one.completion.fault for one in every):
            arrays["fed"] = np.array(
                [
                    [number, fed.start, fed.end, _number(texts, fed.failed)]
                    for number, one in enumerate(every)
                    for fed in one.completion.fed
                ],
                np.int32,
            ).reshape(-1, 4)
            arrays["faults"] = np.array([_number(texts, one.completion.fault or None) for one in every], np.int32)
        meta = {
            "format": FORMAT, "fingerprint": self.fingerprint, "step": step, "verifiers": self.verifiers,
            "audit": self.audit, "finish": finish, "texts": [text for text in texts if text is not None],
        }  # fmt: skip
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(self.path(step), compressed(arrays))

    def read(self, step: int, problems: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Rolled | None:
        """A step, if it is there whole, of this very run, and begins with these problems."""
        try:
            meta, rolled, _ = read_step(self.path(step), tokenizer)
        except UNREADABLE:
            return None
        same = meta["fingerprint"] == self.fingerprint and rolled.problems[: len(problems)] == list(problems)
        return rolled if same else None

    def drop(self, before: int, keep: int, num_steps: int) -> None:
        """Forget the steps before this one that are not among those to be kept.

        Args:
            before: The first step that a checkpoint may still ask for.
            keep: Steps to be kept of the whole stage.
            num_steps: Of the stage.
        """
        every = -(-num_steps // keep) if keep else 0
        for step in steps_of(self.folder):
            if step < before and (every == 0 or (step - 1) % every):
                self.path(step).unlink(missing_ok=True)

    def _verdicts(self, one: Judged) -> list[Verdict | None]:
        return [one.verdict, *one.more, *([one.audit] if self.audit else [])]


def read_step(path: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], Rolled, list[list[float]]]:
    """What a step's file says, what was rolled out, and the rewards (NaN where there is none).

    Raises:
        One of `UNREADABLE`: the file is missing, cut or of another format.
    """
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    tokens, values = (from_planes(arrays[name], kind) for name, kind in (("token_ids", "<i4"), ("log_probs", "<f4")))
    meta = json.loads(arrays["meta"].tobytes())
    if meta["format"] != FORMAT:
        raise ValueError(f"{path}: format {meta['format']}; this version reads {FORMAT}")
    texts: list[str | None] = [*meta["texts"], None]  # the last one is found at -1
    ends = np.cumsum(arrays["lengths"])
    starts = ends - arrays["lengths"]
    outcomes, scores = arrays["outcomes"].tolist(), arrays["scores"].tolist()
    reasons, extracted = arrays["reasons"].tolist(), arrays["extracted"].tolist()
    size = len(ends) // max(1, len(arrays["problems"]))
    fed: dict[int, tuple[Fed, ...]] = {}
    for number, start, end, failed in arrays["fed"].tolist() if "fed" in arrays else []:
        fed[number] = (*fed.get(number, ()), Fed(start, end, str(texts[failed] or "")))
    faults = arrays["faults"].tolist() if "faults" in arrays else [-1] * len(ends)

    def judged(n: int) -> Judged:
        ids = tokens[starts[n] : ends[n]].tolist()
        reason = meta["finish"][arrays["finish"][n]]
        log_probs = values[starts[n] : ends[n]].tolist()
        verdicts = [
            None
            if outcomes[v][n] == NOT_ASKED
            else Verdict(
                OUTCOMES[outcomes[v][n]], scores[v][n], texts[extracted[v][n]], str(texts[reasons[v][n]] or "")
            )
            for v in range(len(outcomes))
        ]
        audit = verdicts.pop() if meta["audit"] else None
        first, *more = [verdict for verdict in verdicts if verdict is not None]
        text, fault = text_of(tokenizer, ids, reason), str(texts[faults[n]] or "")
        return Judged(Completion(ids, log_probs, reason, text, fed.get(n, ()), fault), first, tuple(more), audit)

    every = [judged(n) for n in range(len(ends))]
    groups: list[Group] = [every[first : first + size] for first in range(0, len(every), size)]
    rewards = arrays["rewards"].reshape(len(groups), size).tolist()
    return meta, Rolled(arrays["problems"].tolist(), groups, arrays["trained"].tolist()), rewards


def planes(values: Sequence[float], kind: str) -> np.ndarray:
    """Numbers of 4 bytes as uint8 [4, N]: all first bytes, then all second ones.

    The high bytes of token ids and the exponents of log-probabilities then stand together, which deflate packs better
    and, at ids, many times faster than the numbers in a row.
    """
    return np.ascontiguousarray(np.array(values, kind).view(np.uint8).reshape(-1, 4).T)


def from_planes(array: np.ndarray, kind: str) -> np.ndarray:
    """The numbers [N] of which `planes` was given.

    >>> from_planes(planes([1, -70000], "<i4"), "<i4").tolist()
    [1, -70000]
    """
    return np.ascontiguousarray(array.T).view(kind).reshape(-1)


def compressed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """What `numpy.savez_compressed` writes, at deflate's fastest level: half the time for two percent of the size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            # Named by a ZipInfo, which has a fixed date: equal rollouts are equal bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, content.getvalue(), compresslevel=1)
    return buffer.getvalue()


def read_problems(folder: Path) -> list[Task]:
    """The problems of a store's folder, in their order."""
    with gzip.open(folder / PROBLEMS, "rt", encoding="utf-8", errors="surrogatepass") as file:
        return [Task(**json.loads(line)) for line in file]


def steps_of(folder: Path) -> list[int]:
    """Steps that are there, first to last."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))


def step_path(folder: Path, step: int) -> Path:
    """Where a step of a store's folder is."""
    return folder / f"step-{step:06d}.npz"


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        partial.unlink(missing_ok=True)


def _outcome_code(verdict: Verdict | None) -> int:
    return NOT_ASKED if verdict is None else OUTCOMES.index(verdict.outcome)


def _number(texts: dict[str | None, int], text: str | None) -> int:
    """The text's place among those seen so far."""
    return texts.setdefault(text, len(texts) - 1)
