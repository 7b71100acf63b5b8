"""What a finished training stage leaves to be read: `metrics.json` and its curves as SVG in `plots/`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.stage import read_progress, write_json_atomic, write_text_atomic


def write_metrics(out: Path, kind: str, more: dict[str, Any]) -> None:
    """Sum up the progress log of a stage of this kind into `metrics.json`, with what the stage adds."""
    lines = read_progress(out)
    losses = [line[f"{kind}/loss"] for line in lines]
    last = losses[-max(1, len(losses) // 10) :]
    num_tokens = sum(line[f"{kind}/tokens"] for line in lines)
    seconds = lines[-1]["seconds"]
    write_json_atomic(
        out / "metrics.json",
        {
            f"{kind}/steps": lines[-1]["step"],
            f"{kind}/seconds": seconds,
            f"{kind}/tokens": num_tokens,
            f"{kind}/trained_tokens": sum(line[f"{kind}/trained_tokens"] for line in lines),
            f"{kind}/tokens_per_s": round(num_tokens / max(seconds, 1e-9), 1),
            **_typical(lines, kind, "mfu", statistics.median),
            **_typical(lines, kind, "peak_memory_gb", max),
            **_typical(lines, kind, "skipped", sum),
            **{name: value for line in lines for name, value in line.items() if name.startswith(f"{kind}/heldout")},
            f"{kind}/first_loss": losses[0],
            f"{kind}/last_loss": sum(last) / len(last),
            **more,
        },
    )


def _typical(lines: list[dict[str, Any]], kind: str, name: str, of: Callable[[list[float]], float]) -> dict[str, float]:
    """One number for a whole run of what some or all of its steps say; nothing where none does."""
    values = [line[f"{kind}/{name}"] for line in lines if f"{kind}/{name}" in line]
    return {f"{kind}/{name}": of(values)} if values else {}


def plot_curves(out: Path, names: list[str]) -> None:
    """One SVG per metric of the progress log, over steps: `plots/loss.svg` for `sft/loss`."""
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = read_progress(out)
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel=name, title=name)
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.grid(alpha=0.3)
        with rc_context({"svg.hashsalt": name}), io.StringIO() as text:  # the same curve gives the same bytes
            figure.savefig(text, format="svg", metadata={"Date": None})
            write_text_atomic(out / "plots" / f"{name.split('/')[-1]}.svg", text.getvalue())
