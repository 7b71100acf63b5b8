"""The top of a card: front matter for the hub, what the model is, and how it is used."""

from __future__ import annotations

import re
from typing import Any

import yaml

from derivatives.card.facts import Facts
from derivatives.card.markdown import code, interval, total
from derivatives.gates import gain_between

USAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its id on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
messages = [{{"role": "user", "content": {question}}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens={max_new_tokens})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```
"""


def front_matter(facts: Facts) -> str:
    """YAML that the Hugging Face hub reads."""
    kinds = [word for word in re.split(r"[^a-z0-9]+", facts.recipe.lower()) if word.isalpha()]
    fields: dict[str, Any] = {
        "license": facts.licence.identifier,
        "base_model": facts.base.get("name") or "unknown",
        "base_model_relation": "finetune",
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": list(dict.fromkeys(["derivative-factory", "qwen2", *kinds])),
        "datasets": hub_data(facts),
        "model-index": [{"name": facts.name, "results": indexed(facts)}],
    }
    if "/" not in str(fields["base_model"]):  # no name of the hub, which would look for a model of it
        del fields["base_model"], fields["base_model_relation"]
    fields = {name: value for name, value in fields.items() if value != []}
    if facts.licence.identifier == "other":
        fields["license_name"] = re.sub(r"[^a-z0-9.]+", "-", facts.licence.name.lower())
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def hub_data(facts: Facts) -> list[str]:
    """Hub ids of the catalogue's data sets that training read."""
    from configs.catalogue import dataset, dataset_names

    used = {source for report in facts.corpora.values() for source in report.get("sources") or {}}
    return sorted({dataset(name).hub for name in used if name in dataset_names() and dataset(name).hub})


def indexed(facts: Facts) -> list[dict[str, Any]]:
    """Greedy pass@1 of the released model on each task set, in percent, as the hub's `model-index` has results."""
    own = (facts.results["models"].get(facts.released) or {}).get("by_task") or {}
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": name, "type": name},
            "metrics": [
                {
                    "type": "pass@1",
                    "name": f"pass@1, greedy, {100 * float(facts.results.get('confidence', 0.95)):g}% interval "
                    f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
                    "value": round(100 * row["value"], 2),
                }
            ],
        }
        for name, row in sorted(own.items())
        if all(isinstance(row.get(key), (int, float)) for key in ("value", "low", "high"))
    ]


def title(facts: Facts) -> str:
    base = facts.base.get("name") or "an unnamed base"
    revision = f" (revision `{facts.base['revision']}`)" if facts.base.get("revision") else ""
    size = facts.exported
    padded = size.vocab_size - size.num_tokens
    padding = f", of which {padded:,} rows are padding" if padded else ""
    tied = "tied" if size.tied_embeddings else "separate"
    shape = f"{tied} input and output embeddings{f', context of {size.context}' if size.context else ''}"
    return f"""# {facts.name}

A derivative of **{base}**{revision}, made by the recipe `{facts.recipe}`: the model of its stage `{facts.released}`.

{size.num_parameters:,} parameters in bf16, vocabulary {size.vocab_size:,}{padding}, {shape}.

{in_short(facts)}
**Licence: {facts.licence.name}.** {facts.licence.sentence} This is arithmetic over names, not legal advice.
"""


def in_short(facts: Facts) -> str:
    """What it reaches beside its base, and what is left of the gain over its strongest control."""
    models = facts.results["models"]
    own, before = models[facts.released].get("pass@1"), (models.get("base") or {}).get("pass@1")
    if not own or not before or facts.released == "base":
        return ""
    told = (
        f"Solves {interval(own)} of {total(own)} held-out problems where the base solves {interval(before)} "
        f"(greedy, {100 * float(facts.results.get('confidence', 0.95)):g}% intervals)."
    )
    arms = [str(one.get("stage")) for one in facts.controls if str(one.get("stage")) in models]
    over = {name: gain_between(dict(facts.results), "pass@1", name, facts.released) for name in arms}
    known = {name: found for name, found in over.items() if found is not None}
    if known:
        name, found = min(known.items(), key=lambda item: item[1][0])
        row = dict(zip(("value", "low", "high"), found, strict=True))
        told += f" Over its strongest control (`{name}`): {interval(row, signed=True)} points."
    return told + "\n"


def use(facts: Facts) -> str:
    prompt = (
        f"\nThe chat template puts this system prompt before conversations that bring none: {code(facts.system)}.\n"
        if facts.system
        else ""
    )
    return (
        "## How to use\n\n"
        + USAGE.format(question=_literal(facts.question), max_new_tokens=facts.max_new_tokens)
        + prompt
        + "\nGeneration stops at `<|im_end|>` or `<|endoftext|>` and is greedy, as in the evaluation below.\n"
    )


def _literal(text: str) -> str:
    """A Python string literal that cannot end the code block it stands in."""
    return repr(text).replace("`", "\\x60")
