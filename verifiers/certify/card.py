"""The card of a verifier: what was checked, what came of it, and how often it errs on labelled data.

A card is a JSON file. It belongs to one identity (name, version and source digest, `verifiers.registry.identity`): when
the verifier's source or version changes, the card is stale. `digest` covers everything but latencies and other measured
times and memory, the environment and the date, so that certifying the same verifier again gives the same digest; a card
whose digest does not fit its content was edited or damaged, and is refused.

The cards of the built-in verifiers lie in `verifiers/cards`, those of plugins where the store has them.

What this does not do: a digest is no signature. Whoever can write the file can write a card.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from configs.errors import UserError
from configs.stage import write_json_atomic

FORMAT = 1
"""Raised when the meaning of a field or the rules of a check change: cards of another format are no certificates."""
CONFIDENCE = 0.95
PACKAGED = Path(__file__).parents[1] / "cards"
"""Cards of the built-in verifiers."""

Status = Literal["passed", "failed", "skipped"]
_VOLATILE = frozenset(("digest", "latency", "environment", "made", "seconds"))


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes:
        check: Name of the check.
        status: Skipped is what does not apply to this verifier, or was not run; the sentence says which.
        sentence: What was seen, and what to do where it failed. Without measured times, which `measured` has.
        evidence: The smallest failing example; empty where there is none.
        measured: Figures that differ from run to run; no part of the card's digest.
    """

    check: str
    status: Status
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """How a verifier's verdicts compare with the labels of one file.

    Attributes:
        data: What the file is, for people.
        sha256: Digest of the file's bytes.
        right: Completions labelled correct, of which `accepted` were judged correct.
        wrong: Completions labelled incorrect, of which `wrongly_accepted` were judged correct.
        missing: Completions without a verdict; they count as not accepted.
    """

    data: str
    sha256: str
    right: int
    accepted: int
    wrong: int
    wrongly_accepted: int
    missing: int = 0

    @property
    def recall(self) -> dict[str, float]:
        """Share of the right completions that were accepted, with its interval."""
        return proportion(self.accepted, self.right)

    @property
    def false_positives(self) -> dict[str, float]:
        """Share of the wrong completions that were accepted, with its interval."""
        return proportion(self.wrongly_accepted, self.wrong)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a share of nothing is null."""
        return {
            **asdict(self),
            "recall": self.recall if self.right else None,
            "false_positive_rate": self.false_positives if self.wrong else None,
        }


@dataclass(frozen=True)
class Card:
    """What is known of one verifier.

    Attributes:
        identity: Name, version and source digest of the verifier (`registry.identity`).
        cases: Numbers of gold and near-miss cases, and the sha256 of their file.
        findings: One for each check, in the order in which they were run.
        labelled: Recall and false-positive rate on labelled data.
        labelled_note: Why there are none, where there are none.
        latency: Calls, and p50, p99 and the longest of them in milliseconds.
        limits: What the pool allowed (seconds and megabytes).
        environment: Python and platform.
        made: When, in UTC.
        seconds: How long certifying took.
        digest: Of all but what is measured in time and memory, the environment and the date.
    """

    identity: Mapping[str, str]
    cases: Mapping[str, Any]
    findings: tuple[Finding, ...]
    labelled: tuple[Labelled, ...] = ()
    labelled_note: str = ""
    latency: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    made: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Registry name of the verifier."""
        return self.identity["name"]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Checks that failed."""
        return tuple(finding for finding in self.findings if finding.status == "failed")

    @property
    def certified(self) -> bool:
        """Whether every check was run, or does not apply, and none failed."""
        from verifiers.certify.checks import CHECK_NAMES

        return tuple(finding.check for finding in self.findings) == CHECK_NAMES and not self.failed

    @property
    def digest(self) -> str:
        """The name of what this card says."""
        return _digest(self._plain())

    def current(self, identity: Mapping[str, str]) -> bool:
        """Whether the card speaks of the verifier as it is now."""
        return dict(self.identity) == dict(identity)

    def as_dict(self) -> dict[str, Any]:
        """The content of the file."""
        plain = self._plain()
        return {**plain, "digest": _digest(plain)}

    def rows(self) -> list[dict[str, str]]:
        """What is known, one row each: `what` (a check or a data set), `status`, `sentence`."""
        rows = [
            {"what": finding.check, "status": finding.status, "sentence": finding.sentence} for finding in self.findings
        ]
        for one in self.labelled:
            rows.append({"what": one.data, "status": "measured", "sentence": labelled_sentence(one)})
        if self.labelled_note:
            rows.append({"what": "labelled data", "status": "skipped", "sentence": self.labelled_note})
        if self.latency:
            told = ", ".join(f"{key.removesuffix('_ms')} {self.latency[key]:.3g} ms" for key in LATENCIES)
            sentence = f"{told} over {self.latency['calls']:,.0f} judgements"
            rows.append({"what": "latency", "status": "measured", "sentence": sentence})
        return rows

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json_atomic(path, self.as_dict())

    def _plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "identity": dict(self.identity),
            "certified": self.certified,
            "cases": dict(self.cases),
            "checks": [asdict(finding) for finding in self.findings],
            "labelled": [one.as_dict() for one in self.labelled],
            "labelled_note": self.labelled_note,
            "latency": dict(self.latency),
            "limits": dict(self.limits),
            "environment": dict(self.environment),
            "made": self.made,
            "seconds": self.seconds,
        }


LATENCIES = ("p50_ms", "p99_ms", "longest_ms")


def proportion(count: int, total: int) -> dict[str, float]:
    """A share with Wilson's interval at 95% (Wilson 1927), `value`, `low` and `high`; of nothing it is 0 in [0, 1].

    >>> {key: round(value, 4) for key, value in proportion(5, 10).items()}
    {'value': 0.5, 'low': 0.2366, 'high': 0.7634}
    """
    if total == 0:
        return {"value": 0.0, "low": 0.0, "high": 1.0}
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return {"value": round(share, 6), "low": round(low, 6), "high": round(high, 6)}


def percent(share: Mapping[str, float]) -> str:
    """A share and its interval, for people.

    >>> percent(proportion(5, 10))
    '50.0% [23.7, 76.3]'
    """
    value, low, high = (100 * share[key] for key in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def labelled_sentence(one: Labelled) -> str:
    """Recall and false positives on one data set, with what they are shares of."""
    parts = []
    if one.right:
        parts.append(f"recall {percent(one.recall)}: accepted {one.accepted:,} of {one.right:,} right completions")
    if one.wrong:
        parts.append(
            f"false positives {percent(one.false_positives)}: accepted {one.wrongly_accepted:,} of {one.wrong:,} wrong "
            "ones"
        )
    if one.missing:
        parts.append(f"{one.missing:,} without a verdict, counted as not accepted")
    return "; ".join(parts) or "no line"


def load_card(path: Path) -> Card:
    """The card in a file.

    Raises:
        UserError: It cannot be read, is of another format, or does not fit its digest.
    """
    again = f"write it anew with `derive verifiers certify {path.stem}`"
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"card: {path}: {error.strerror}; {again}") from error
    except ValueError as error:
        raise UserError(f"card: {path}: not whole JSON, cut off or damaged ({error}); {again}") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        found = plain.get("format") if isinstance(plain, dict) else type(plain).__name__
        raise UserError(f"card: {path}: format {found!r}; allowed: {FORMAT}; {again}")
    try:
        card = _read(plain)
        digest = card.digest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"card: {path}: a field is missing or of another kind ({error!r}); {again}") from error
    if plain.get("digest") != digest or plain.get("certified") != card.certified:
        raise UserError(f"card: {path}: its digest does not fit its content: it was edited or damaged; {again}")
    return card


def read_card(name: str, store_cards: Path | None = None, packaged: Path = PACKAGED) -> Card | None:
    """The card of a verifier: of those that are there the one that fits it as it is now, the store's first.

    Args:
        name: Registry name of the verifier.
        store_cards: Folder of the store's cards; None looks at the packaged ones alone.
        packaged: Folder of the cards of the built-in verifiers.

    Raises:
        UserError: A card cannot be read and no other one fits, or there is no such verifier.
    """
    from verifiers.registry import identity

    now = identity(name)
    found: list[Card] = []
    broken: list[UserError] = []
    for folder in (store_cards, packaged):
        path = None if folder is None else folder / f"{name}.json"
        if path is None or not path.is_file():
            continue
        try:
            card = load_card(path)
        except UserError as error:
            broken.append(error)
            continue
        if card.current(now):
            return card
        found.append(card)
    if broken:
        raise broken[0]
    return found[0] if found else None


def _read(plain: Mapping[str, Any]) -> Card:
    findings = [Finding(**each) for each in plain["checks"]]
    keys = ("data", "sha256", "right", "accepted", "wrong", "wrongly_accepted", "missing")
    labelled = [Labelled(**{key: each[key] for key in keys}) for each in plain["labelled"]]
    identity = {str(key): str(value) for key, value in plain["identity"].items()}
    if not {"name", "version", "source"} <= identity.keys():
        raise KeyError("identity")
    return Card(
        identity, dict(plain["cases"]), tuple(findings), tuple(labelled), str(plain["labelled_note"]),
        dict(plain["latency"]), dict(plain["limits"]), dict(plain["environment"]), str(plain["made"]),
        float(plain["seconds"]),
    )  # fmt: skip


def _digest(plain: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in plain.items() if key not in _VOLATILE}
    kept["checks"] = [{key: each[key] for key in each if key != "measured"} for each in plain["checks"]]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def summary_of(cards: Sequence[Card]) -> list[dict[str, str]]:
    """One row for each card: verifier, certified, recall, false positives, p99, digest; for tables."""
    rows = []
    for card in cards:
        rows.append(
            {
                "verifier": card.name,
                "version": card.identity["version"],
                "certified": "yes" if card.certified else "no",
                "recall": "; ".join(percent(one.recall) for one in card.labelled if one.right),
                "false positives": "; ".join(percent(one.false_positives) for one in card.labelled if one.wrong),
                "p99": f"{card.latency['p99_ms']:.3g} ms" if card.latency else "",
                "card": card.digest[:12],
            }
        )
    return rows
