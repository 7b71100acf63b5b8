"""What is kept of an export: `formats.json` beside it, a section of its folder's card, and answers side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import write_json_atomic, write_text_atomic
from derivatives.formats.quality import Answered, Asked, Quality

FORMATS_FILE = "formats.json"
HEADING = "## Fewer bits"
IN_VLLM = {
    "int4": "and in vLLM, which computes from the packed weights.",
    "int8": "and, on GPUs, in vLLM, which has no kernels for it on CPUs. It was not tried there.",
}


def keep(export: Path, written: Mapping[str, Any], found: Quality | None) -> Path:
    """Add an export to `formats.json` in its folder, under its name; what was there of other exports stays.

    Args:
        export: The file or folder.
        written: What writing it measured.
        found: What it cost; None where the weights are the release's, bit for bit.
    """
    path = export.with_name(FORMATS_FILE)
    kept = kept_beside(export)
    kept[export.name] = {**written, "quality": "the same weights" if found is None else found.as_dict()}
    write_json_atomic(path, kept)
    return path


def kept_beside(export: Path) -> dict[str, Any]:
    """What `formats.json` in an export's folder holds. Raises UserError where it is there and cannot be read: writing
    it anew would lose what is known of the other exports."""
    path = export.with_name(FORMATS_FILE)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"--out: {path} cannot be read ({error}); mend it, move it away, or give another folder") \
            from error  # fmt: skip
    if not isinstance(kept, dict):
        raise UserError(f"--out: {path} holds no exports by name; move it away, or give another folder")
    return kept


def append_to_card(folder: Path, kind: str, written: Mapping[str, Any], found: Quality) -> None:
    """Say on the card of an exported folder what it is and what it cost, and how it is opened. A hub's results
    (`model-index`) go: they are the release's, and were not measured with these weights."""
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    card = without_results(card)
    card = card.partition(f"\n{HEADING}")[0].rstrip()
    write_text_atomic(path, "\n\n".join(part for part in (card, section(kind, written, found)) if part) + "\n")


def without_results(card: str) -> str:
    """A card whose front matter claims no results.

    >>> without_results("---\\nlicense: mit\\nmodel-index:\\n- name: x\\n  results: []\\ntags:\\n- a\\n---\\n# x\\n")
    '---\\nlicense: mit\\ntags:\\n- a\\n---\\n# x\\n'
    """
    found = re.match(r"---\n.*?^---\n", card, re.DOTALL | re.MULTILINE)
    if found is None:
        return card
    front = re.sub(r"^model-index:.*\n(?:[ -].*\n)*", "", found[0][4:-4], flags=re.MULTILINE)
    return f"---\n{front}---\n{card[found.end():]}"


def section(kind: str, written: Mapping[str, Any], found: Quality) -> str:
    """The section in Markdown."""
    group = written.get("group_size")
    scale = f"each {group} weights of a row" if group else "each row"
    difference = found.pass_at_1["difference"]
    rows = [
        f"| pass@1 on {found.problems:,} held-out problems | {found.pass_at_1['release']:.1%} | "
        f"{found.pass_at_1['export']:.1%} | {100 * difference['value']:+.1f} points "
        f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}] | above "
        f"{-100 * found.limits.pass_at_1:g} points |"
    ]
    for name, one in found.texts.items():
        rise = one["rise"]
        ends = "" if rise["high"] is None else f" [{rise['low']:+.2%}, {rise['high']:+.2%}]"
        rows.append(
            f"| bits per byte of {name} | {one['release']:.4f} | {one['export']:.4f} | {rise['value']:+.2%}{ends} | "
            f"at most {found.limits.bits_per_byte:+.2%} |"
        )
    loosened = [f"{name} (usually {default:g})" for name, default in found.loosened.items()]
    return "\n".join([
        HEADING,
        "",
        f"This folder holds the release above with {kind} weights in attention and MLP (compressed-tensors, "
        f"`pack-quantized`, one scale for {scale}); embeddings, head, norms and biases are bf16. The figures before "
        "this section are the release's. What fewer bits cost, on the same problems and texts, with paired intervals:",
        "",
        f"| | release | {kind} | change | allowed |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Both wrote the very same answer to {found.same_answers:.1%} of the problems."
        + (f" **The limit was loosened by hand: {', '.join(loosened)}.**" if loosened else ""),
        "",
        "It opens with `pip install compressed-tensors` in transformers (which unpacks the weights to bf16 in memory), "
        + IN_VLLM[kind],
    ])  # fmt: skip


def side_by_side(asked: Asked, answered: Mapping[str, Answered]) -> dict[str, Any]:
    """The answers of several formats to the same problems; the first is what the others are compared with."""
    names = list(answered)
    rows: list[dict[str, Any]] = []
    for place, task in enumerate(asked.tasks):
        answers = {name: one.answers[place] for name, one in answered.items()}
        first = answers[names[0]]
        rows.append({
            "task": task.id, "source": task.source, "prompt": task.prompt, "gold": task.answer,
            "answers": {
                name: {"text": one.completion, "extracted": one.extracted, "correct": one.correct,
                       "same_text": one.completion == first.completion}
                for name, one in answers.items()
            },
        })  # fmt: skip
    share = {
        name: {
            "correct": _share([row["answers"][name]["correct"] for row in rows]),
            "same_text": _share([row["answers"][name]["same_text"] for row in rows]),
            "same_verdict": _share(
                [row["answers"][name]["correct"] == row["answers"][names[0]]["correct"] for row in rows]
            ),
        }
        for name in names
    }
    return {"formats": share, "problems": rows}


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
