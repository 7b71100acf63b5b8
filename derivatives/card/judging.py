"""Who judged: the verifiers of reward and evaluation, with what their cards say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.judges import implementations, read_alike
from derivatives.card.facts import Facts
from derivatives.card.markdown import interval, table


def verifiers(facts: Facts) -> str:
    rows = [
        [
            role,
            str(one.get("name", "")),
            str(one.get("version", "")),
            f"`{str(one.get('source') or 'unknown')[:12]}`",
            *certificate(one.get("card")),
        ]
        for role, identities in facts.verifiers.items()
        for one in identities
    ]
    if not rows:
        return ""
    header = ["role", "name", "version", "source digest", "card", "recall", "false positives"]
    return "## Verifiers\n\n" + table(header, rows) + f"\n{judge_sentence(facts)}\n"


def certificate(brief: Any) -> list[str]:
    """A verifier's card in three cells: its digest, recall and false positives on each labelled data set.

    >>> share = {"value": 0.25, "low": 0.2, "high": 0.31}
    >>> row = {"data": "sums", "recall": share, "false_positive_rate": None}
    >>> certificate({"digest": "0123456789abcdef", "certified": True, "labelled": [row]})
    ['`0123456789ab`', 'sums: 25.0% [20.0, 31.0]', '']
    >>> certificate(None)
    ['none', '', '']
    """
    if not isinstance(brief, Mapping):
        return ["none", "", ""]
    digest = str(brief.get("digest") or "")
    named = f"`{digest[:12]}`" if digest else ""
    told = named if brief.get("certified") else f"**not certified** {named}".rstrip()
    shares = [
        "; ".join(f"{row.get('data')}: {interval(row[key])}" for row in brief.get("labelled") or [] if row.get(key))
        for key in ("recall", "false_positive_rate")
    ]
    return [told, *shares]


def judge_sentence(facts: Facts) -> str:
    """Whether the evaluation's judge is another than the one that gave the reward."""
    names = {role: {str(one.get("name")) for one in identities} for role, identities in facts.verifiers.items()}
    rewards, judges = names.get("reward", set()) | names.get("selection", set()), names.get("judge", set())
    shared = sorted(
        judge for judge in judges if any(implementations(judge) & implementations(reward) for reward in rewards)
    )
    if not rewards:
        return "No verifier gave a reward or chose samples in training."
    roles = ("reward", "selection", "judge")
    if not all(one.get("source") for role in roles for one in facts.verifiers.get(role, ())):
        return "Whether the judge also gave the reward is not known."
    if shared:
        allowed = " The recipe allows that (`allow_same_judge`)." if facts.same_judge_allowed else ""
        return (
            f"**The judge {', '.join(shared)} also gave the reward, or shares its code: a fault in it would raise both."
            f"**{allowed}"
        )
    if judges & {"code_hidden"} and rewards & {"code", "think_own"}:
        return "The judge runs programs as the reward did, against tests that were never paid for."
    if any(read_alike(judge, reward) for judge in judges for reward in rewards):
        return (
            "The judge is not the verifier that gave the reward, and decides by other code; both find the answer in a "
            "text by the same code, so that a fault there would raise both."
        )
    return "The judge is not the verifier that gave the reward, and does not judge by its code."
