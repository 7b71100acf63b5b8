"""What the figures do not show, and what the model fails at."""

from __future__ import annotations

from typing import Any

from configs.judges import TWINS
from configs.names import is_generated
from derivatives.card.facts import Facts
from derivatives.card.markdown import code, interval, percent, table

SMALL_MODEL = 100_000_000
"""Parameters below which a model shows that the line works rather than being of use."""


NUM_WORST = 3
"""Task sets that are named as the worst."""
LONGEST_SAMPLE = 700
"""Characters of a wrong answer with its question."""

def limitations(facts: Facts) -> str:
    released = facts.results["models"][facts.released]
    purpose = _purpose(facts)
    tasks = ", ".join(sorted(released.get("by_task") or {})) or "the tasks above"
    lines = [
        *unproven(facts),
        f"Measured on {tasks} only; nothing is known about other uses, languages or longer conversations.",
        "No safety training or red teaming is part of the recipe.",
    ]
    if facts.exported.num_parameters < SMALL_MODEL:
        lines.append("With so few parameters it shows that the line works; it is not meant for use.")
    if facts.exported.vocab_size > facts.exported.num_tokens:
        lines.append(
            f"Ids {facts.exported.num_tokens:,} to {facts.exported.vocab_size - 1:,} are padding. "
            "generation_config.json suppresses them; an engine that ignores `suppress_tokens` must mask them itself."
        )
    if (released.get("truncated_fraction") or 0) > 0.01:
        lines.append(f"{percent(released['truncated_fraction'])} of its evaluated answers were cut at the token limit.")
    if facts.system != facts.evaluated_system:
        lines.append(
            f"It was evaluated with {prompt_name(facts.evaluated_system)}, while its chat template has "
            f"{prompt_name(facts.system)}: the figures hold for the former."
        )
    parts = [
        "## Intended use and limitations\n",
        purpose,
        "\n".join(f"- {line}" for line in lines) + "\n",
        worst_tasks(facts),
        wrong_answers(facts),
    ]
    return "\n".join(part for part in parts if part)


def _purpose(facts: Facts) -> str:
    """What it was made for, by what it was measured on."""
    asked = ", ".join(sorted(facts.results["models"][facts.released].get("by_task") or {})) or "its tasks"
    return (
        f"For research on {asked}: single questions in English as in the example above. Not for decisions about "
        "people, and not for use without checking its answers.\n"
    )


def worst_tasks(facts: Facts) -> str:
    """The task sets it does worst at, and those at which it is no better than the base."""
    models = facts.results["models"]
    own = models[facts.released].get("by_task") or {}
    before = (models.get("base") or {}).get("by_task") or {}
    rows = sorted(own.items(), key=lambda item: (item[1].get("value", 0.0), item[0]))
    named = [name for name, row in rows if row.get("value", 0.0) <= (before.get(name) or {}).get("value", -1.0)]
    shown = [[name, interval(row), interval(before.get(name))] for name, row in rows[:NUM_WORST]]
    if not shown:
        return ""
    worse = f"\nNo better than the base at: {', '.join(named)}.\n" if named else ""
    return "### Worst tasks\n\n" + table(["task", "released", "base"], shown) + worse


def wrong_answers(facts: Facts) -> str:
    """A few wrong answers, whole where they are short; of public benchmarks no text, which would spread them."""
    if not facts.wrong:
        return ""
    parts = ["### Wrong answers\n"]
    for sample in facts.wrong:
        source = str(sample.get("source") or "")
        said = sample.get("extracted")
        reason = f"{sample.get('reason') or 'no reason'}{', cut at the token limit' if sample.get('truncated') else ''}"
        if is_generated(source.removeprefix(TWINS)):
            parts.append(f"{source}, expected {code(shortened(sample.get('answer'), 80))} ({reason}):\n")
            parts.append(quoted(f"{sample.get('prompt')}\n>>> {sample.get('completion')}"))
        else:
            parts.append(f"{source}, problem {code(str(sample.get('task')))}: answered {code(shortened(said, 80))} "
                         f"({reason}). Texts of public benchmarks are not repeated here.\n")  # fmt: skip
    return "\n".join(parts)


def shortened(text: Any, most: int) -> str:
    """A text of at most this many characters; `nothing` for none."""
    flat = " ".join(str(text).split()) if text not in (None, "") else "nothing"
    return flat if len(flat) <= most else flat[: most - 3] + "..."


def quoted(text: str) -> str:
    """A block of any text, cut, that it cannot end itself."""
    kept = text if len(text) <= LONGEST_SAMPLE else text[: LONGEST_SAMPLE - 3] + "..."
    return "\n".join(f"    {line.rstrip()}" for line in kept.splitlines()) + "\n"


def unproven(facts: Facts) -> list[str]:
    """What a reader may take for granted and the figures do not show: to beat the base, to beat a constant answer."""
    lines = []
    first, results = facts.model_order[0], facts.results
    gain = ((results.get("gains") or {}).get(facts.released) or {}).get("pass@1") or {}
    if isinstance(gain.get("low"), (int, float)) and gain["low"] <= 0:
        lines.append(
            f"**It is not shown to be better than {first}**: the gain's interval reaches {100 * gain['low']:+.1f}."
        )
    floor, low = (
        (results.get("floor") or {}).get("value"),
        (results["models"][facts.released].get("pass@1") or {}).get("low"),
    )
    if isinstance(floor, (int, float)) and isinstance(low, (int, float)) and low <= floor:
        lines.append("**It is not shown to beat the best constant answer**, which takes no understanding at all.")
    return lines


def prompt_name(system: str | None) -> str:
    return f"the system prompt {code(system)}" if system else "no system prompt of its own"
