"""The model card of a release: README.md with Hugging Face front matter, rendered from gathered facts.

Everything on the card comes from files of the line that made the model (manifests, corpus reports, the evaluation);
a fact that is not there is left out or named as unknown, never guessed. Paths of the machine are not printed.
The card renders facts; `derivatives.release` gathers them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from derivatives.export import Exported
from derivatives.gates import GateResult
from derivatives.licence import LicenceResult

SMALL_MODEL = 100_000_000
"""Parameters below which a model shows that the line works rather than being of use."""

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

KEY_SETTINGS = {
    "corpus": ("output", "num_tokens"),
    "pretrain": ("num_tokens", "batch_tokens", "learning_rate"),
    "sft": ("epochs", "batch_examples", "learning_rate"),
    "dpo": ("loss", "beta", "epochs", "batch_pairs", "learning_rate"),
    "rl": ("loss", "verifier", "steps", "prompts_per_step", "group_size", "learning_rate"),
    "evaluate": ("judge", "num_samples", "few_shot"),
}
"""Settings of each stage kind that the lineage table shows; lineage.json holds all."""


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    `stages` are lineage entries, `corpora` the report.json of each corpus stage, `verifiers` maps reward and judge
    to the identities of verifiers.
    """

    name: str
    recipe: str
    released: str
    base: Mapping[str, Any]
    licence: LicenceResult
    results: Mapping[str, Any]
    model_order: tuple[str, ...]
    gates: tuple[GateResult, ...]
    exported: Exported
    stages: tuple[Mapping[str, Any], ...] = ()
    corpora: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verifiers: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    command: str = ""
    question: str = "What is 12 + 30?"
    max_new_tokens: int = 256
    system: str | None = None
    evaluated_system: str | None = None


def render_card(facts: Facts) -> str:
    """The whole README.md."""
    sections = [
        front_matter(facts),
        _title(facts),
        _use(facts),
        _metrics(facts),
        _gates(facts),
        _lineage(facts),
        _data(facts),
        _verifiers(facts),
        _limitations(facts),
        _reproduce(facts),
    ]
    return "\n".join(section.rstrip() + "\n" for section in sections if section.strip())


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
    }
    if facts.licence.identifier == "other":
        fields["license_name"] = re.sub(r"[^a-z0-9.]+", "-", facts.licence.name.lower())
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _title(facts: Facts) -> str:
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

**Licence: {facts.licence.name}.** {facts.licence.sentence} This is arithmetic over names, not legal advice.
"""


def _use(facts: Facts) -> str:
    prompt = (
        f"\nThe chat template puts this system prompt before conversations that bring none: {_code(facts.system)}.\n"
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


def _metrics(facts: Facts) -> str:
    results = facts.results
    level = f"{100 * float(results.get('confidence', 0.95)):g}%"
    models = [name for name in facts.model_order if name in results["models"]]
    passes = {name: results["models"][name] for name in models}
    sampled = next((row["pass@k"]["k"] for row in passes.values() if row.get("pass@k")), None)
    header = [
        "model",
        "pass@1",
        *([f"pass@{sampled}"] if sampled else []),
        "problems",
        "mean tokens",
        "cut short",
        "prompt format",
    ]
    rows = [
        [
            _model_name(name, facts),
            interval(row.get("pass@1")),
            *([interval(row.get("pass@k"))] if sampled else []),
            _total(row.get("pass@1")),
            _number(row.get("mean_tokens")),
            percent(row.get("truncated_fraction")),
            prompt_format(row),
        ]
        for name, row in passes.items()
    ]
    floor = results.get("floor") or {}
    reasons = [best["reason"] for best in (floor.get("best_constant") or {}).values() if best.get("reason")]
    constant = _constant({"value": floor.get("value"), "reason": reasons[0] if reasons else None})
    if constant:
        rows.append(["best constant answer", constant, *([""] if sampled else []), "", "", "", ""])
    parts = [f"## Evaluation\n\nGreedy pass@1 on held-out problems, with {level} intervals.\n", table(header, rows)]
    bounds = [
        f"{name}: {interval_bounds(row['pass@1'])}"
        for name, row in passes.items()
        if (row.get("pass@1") or {}).get("no_verdict")
    ]
    parts.append(
        "No-verdicts count as wrong. "
        + (
            "Bounds if all of them were wrong, or all right: " + "; ".join(bounds) + ".\n"
            if bounds
            else "There were none.\n"
        )
    )
    parts += [_by_task(passes, facts), _gains(facts), _bits_per_byte(passes, facts), _overlap(facts)]
    return "\n".join(part for part in parts if part)


def _by_task(passes: Mapping[str, Any], facts: Facts) -> str:
    tasks = sorted({task for row in passes.values() for task in row.get("by_task") or {}})
    if not tasks:
        return ""
    constants = (facts.results.get("floor") or {}).get("best_constant") or {}
    rows = [
        [
            task,
            *(interval((row.get("by_task") or {}).get(task)) for row in passes.values()),
            _constant(constants.get(task) or {}),
        ]
        for task in tasks
    ]
    return "### By task\n\n" + table(["task", *passes, "best constant"], rows)


def _constant(best: Mapping[str, Any]) -> str:
    return f"none: {best['reason']}" if best.get("reason") else percent(best.get("value"))


def _gains(facts: Facts) -> str:
    gains = facts.results.get("gains") or {}
    names = [name for name in facts.model_order if name in gains]
    metrics = [metric for metric in ("pass@1", "pass@k") if any((gains[name] or {}).get(metric) for name in names)]
    if not metrics:
        return ""
    rows = [[name, *(interval(gains[name].get(metric), signed=True) for metric in metrics)] for name in names]
    return f"### Gain over {facts.model_order[0]}, in points\n\n" + table(["model", *metrics], rows)


def _bits_per_byte(passes: Mapping[str, Any], facts: Facts) -> str:
    texts = sorted({text for row in passes.values() for text in row.get("bits_per_byte") or {}})
    if not texts:
        return ""
    rows = [
        [text, *(_number((row.get("bits_per_byte") or {}).get(text), 3) for row in passes.values())] for text in texts
    ]
    return "### Bits per byte of held-out text (lower is better; a rise is forgetting)\n\n" + table(
        ["text", *passes], rows
    )


def _overlap(facts: Facts) -> str:
    overlap = facts.results.get("overlap") or {}
    if overlap.get("shared") is None:
        return "Overlap of training and held-out questions: not measured.\n"
    num_train, num_shared = overlap.get("train_questions") or 0, overlap["shared"]
    return f"Of {num_train:,} training questions, {num_shared:,} are among the held-out ones.\n"


def _gates(facts: Facts) -> str:
    if not facts.gates:
        return "## Gates\n\nThe recipe sets no gate: nothing was required of this model.\n"
    rows = [
        [
            gate.metric,
            gate.against,
            gate.measured() + (f" ({gate.detail})" if gate.detail else ""),
            f"more than {gate.required:+.3f}",
        ]
        for gate in facts.gates
    ]
    return (
        "## Gates\n\nAll held; otherwise nothing would have been released. "
        "For accuracies the lower end of the interval counts.\n\n"
        + table(["metric", "against", "measured", "required"], rows)
    )


def _lineage(facts: Facts) -> str:
    if not facts.stages:
        return "## Lineage\n\nThe stage was run by hand, without a lineage; lineage.json is empty.\n"
    rows = [
        [
            str(stage.get("id", "")),
            str(stage.get("kind", "")),
            f"`{str(stage.get('digest', ''))[:12]}`",
            key_settings(stage),
            _amount(stage),
            _number(stage.get("seconds"), 0),
        ]
        for stage in facts.stages
    ]
    return (
        "## Lineage\n\nEvery stage's output is addressed by the digest of all that went into it; "
        "lineage.json holds the whole.\n\n" + table(["stage", "kind", "digest", "settings", "done", "seconds"], rows)
    )


def key_settings(stage: Mapping[str, Any]) -> str:
    """The settings of a lineage entry that tell its story."""
    config = stage.get("config") or {}
    shown = [
        f"{key} {config[key]}" for key in KEY_SETTINGS.get(str(stage.get("kind")), ()) if config.get(key) is not None
    ]
    if stage.get("kind") == "evaluate":
        shown += [f"{task.get('name')} x {task.get('count') or 'all'}" for task in config.get("tasks") or []]
    return ", ".join(shown)


def _amount(stage: Mapping[str, Any]) -> str:
    """Steps, tokens, examples or documents that a stage went through, as its metrics say."""
    metrics = {str(key).rsplit("/", 1)[-1]: value for key, value in (stage.get("metrics") or {}).items()}
    counts = {word: metrics.get(word) for word in ("steps", "tokens", "examples", "pairs", "documents")}
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if isinstance(count, int) and count > 0)


def _data(facts: Facts) -> str:
    rows = [
        [
            stage,
            source,
            _number(row.get("documents"), 0),
            _number(row.get("tokens") or None, 0),
            percent(row.get("achieved_share")),
            str(row.get("licence") or "unknown"),
        ]
        for stage, report in facts.corpora.items()
        for source, row in (report.get("sources") or {}).items()
    ]
    if not rows:
        return "## Data\n\nNo corpus report was found for this line.\n"
    parts = ["## Data\n", table(["corpus", "source", "documents", "tokens", "share", "licence"], rows)]
    for stage, report in facts.corpora.items():
        dropped = {reason: count for reason, count in (report.get("dropped") or {}).items() if count}
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items())) or "nothing"
        checked = (report.get("contamination") or {}).get("checked") or []
        cleaned = (
            f"; decontaminated against {', '.join(_task_name(task) for task in checked)}, overlap left "
            f"{(report.get('contamination') or {}).get('overlap', 'unknown')}"
            if checked
            else ""
        )
        parts.append(f"- `{stage}` dropped: {_cell(reasons)}{cleaned}.")
    return "\n".join(parts) + "\n"


def _task_name(task: Any) -> str:
    return str(task.get("name", task)) if isinstance(task, dict) else str(task)


def _verifiers(facts: Facts) -> str:
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
    ['not asked for', '', '']
    """
    if not isinstance(brief, Mapping):
        return ["not asked for", "", ""]
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
    names = {role: {one.get("name") for one in identities} for role, identities in facts.verifiers.items()}
    shared = sorted(str(name) for name in names.get("reward", set()) & names.get("judge", set()))
    if not names.get("reward"):
        return "No reward was used in training."
    if not all(one.get("source") for identities in facts.verifiers.values() for one in identities):
        return "Whether the judge also gave the reward is not known."
    if shared:
        return f"The judge {', '.join(shared)} also gave the reward: a fault in it would raise both."
    return "The judge is not the verifier that gave the reward."


def _limitations(facts: Facts) -> str:
    released = facts.results["models"][facts.released]
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
            f"It was evaluated with {_prompt_name(facts.evaluated_system)}, while its chat template has "
            f"{_prompt_name(facts.system)}: the figures hold for the former."
        )
    return "## Limitations\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


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


def _prompt_name(system: str | None) -> str:
    return f"the system prompt {_code(system)}" if system else "no system prompt of its own"


def _reproduce(facts: Facts) -> str:
    environment = ", ".join(
        f"{key} {value}" for key, value in sorted(facts.environment.items()) if not isinstance(value, (dict, list))
    )
    commit = f"At commit `{facts.commit}`:\n\n" if facts.commit else ""
    return (
        f"## Reproduce\n\n{commit}```\n{facts.command}\n```\n\nEnvironment: {_cell(environment) or 'not recorded'}.\n"
    )


def _model_name(name: str, facts: Facts) -> str:
    return f"**{name}** (released)" if name == facts.released else name


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; cells cannot break out of it."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    """Inline code of any text."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"


def percent(value: Any) -> str:
    """A fraction as a percentage; empty when there is none.

    >>> percent(0.4125), percent(None)
    ('41.2%', '')
    """
    return f"{100 * value:.1f}%" if isinstance(value, (int, float)) else ""


def interval(row: Any, signed: bool = False) -> str:
    """A fraction with its interval in percent, or a gain in points.

    >>> interval({"value": 0.25, "low": 0.2, "high": 0.31})
    '25.0% [20.0, 31.0]'
    >>> interval({"value": 0.05, "low": -0.01, "high": 0.11}, signed=True)
    '+5.0 [-1.0, +11.0]'
    """
    if not isinstance(row, dict) or row.get("value") is None:
        return ""
    value, low, high = (100 * row.get(key, float("nan")) for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if signed else f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def interval_bounds(row: Mapping[str, Any]) -> str:
    """Both bounds of a figure with no-verdicts, and how many there were."""
    ends = f"{percent(row.get('low_bound'))} to {percent(row.get('high_bound'))}"
    return f"{ends} ({row.get('no_verdict')} of {row.get('total')})"


def prompt_format(row: Mapping[str, Any]) -> str:
    """The format that counted, and what the others reached.

    >>> prompt_format({"format": "few_shot", "formats": {"chat": 0.03, "few_shot": 0.05}})
    'few_shot (chat 3.0%)'
    """
    others = [
        f"{name} {percent(share)}" for name, share in (row.get("formats") or {}).items() if name != row.get("format")
    ]
    return str(row.get("format") or "") + (f" ({', '.join(others)})" if others else "")


def _total(row: Any) -> str:
    return f"{row['total']:,}" if isinstance(row, dict) and row.get("total") is not None else ""


def _number(value: Any, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, (int, float)) else ""


def base_name(base: Mapping[str, Any], folder: Path) -> str:
    """The base's public name: a hub id or `seedling`; of a local path only the last part."""
    name = str(base.get("name") or base.get("id") or base.get("base") or "")
    if not name:
        return "seedling" if folder.parent.name == "seedling" else folder.name
    return Path(name).name if name.startswith((".", "/", "~")) or name.count("/") > 1 else name
