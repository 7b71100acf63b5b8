"""A training's progress bar on a terminal: step, time left, and the most telling figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOWN = ("loss", "reward", "lr", "grad_norm", "tokens_per_s", "mfu", "peak_memory_gb")
Show = Callable[[int, dict[str, float]], None]


@contextmanager
def progress_bar(title: str, done: int, total: int, shown: bool) -> Iterator[Show]:
    """A progress bar on a terminal's stderr; elsewhere nothing, since progress.jsonl says it all."""
    if not (shown and sys.stderr.isatty()):
        yield lambda step, quantities: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    texts = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def show(step: int, quantities: dict[str, float]) -> None:
            names = [name for name in SHOWN if name in quantities]
            bar.update(task, completed=step, note="  ".join(f"{name} {quantities[name]:.4g}" for name in names))

        yield show
