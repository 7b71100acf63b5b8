"""The model card of a release: README.md with Hugging Face front matter, rendered from gathered facts.

Everything on the card comes from files of the line that made the model (manifests, corpus reports, the evaluation);
a fact that is not there is left out or named as unknown, never guessed. Paths of the machine are not printed.
The card renders facts; `derivatives.release` gathers them.
"""

from __future__ import annotations

from derivatives.card.conditions import controls, gates
from derivatives.card.facts import Facts, base_name
from derivatives.card.figures import evaluation
from derivatives.card.header import front_matter, title, use
from derivatives.card.judging import certificate, verifiers
from derivatives.card.limits import limitations, unproven
from derivatives.card.markdown import table
from derivatives.card.origin import data, lineage, reproduce

__all__ = ["Facts", "base_name", "certificate", "front_matter", "render_card", "table", "unproven"]


def render_card(facts: Facts) -> str:
    """The whole README.md."""
    sections = [
        front_matter(facts),
        title(facts),
        use(facts),
        evaluation(facts),
        gates(facts),
        controls(facts),
        lineage(facts),
        data(facts),
        verifiers(facts),
        limitations(facts),
        reproduce(facts),
    ]
    return "\n".join(section.rstrip() + "\n" for section in sections if section.strip())
