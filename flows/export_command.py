"""`derive export RELEASE --to gguf|int8|int4` and `derive formats RELEASE EXPORT ...`: fewer bits, and their cost."""

from __future__ import annotations

import argparse
import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.errors import UserError

TYPES = ("bf16", "f16", "q8_0", "q4_0")
"""As in `derivatives/formats/gguf_file.py`, which is imported only when it is needed."""
METRICS = ("pass@1", "bits_per_byte")
GROUP_SIZES = (32, 64, 128)
MAX_DIVERGENCE = 0.1
NUM_PROBLEMS = 1000
NUM_SHOWN = 20
HELP = """Write a release with fewer bits, or for another program, and measure what that costs before it is kept.

  --to gguf   one file for llama.cpp and Ollama, with a Modelfile: --type bf16 (the very weights), f16, q8_0, q4_0
  --to int8   a Hugging Face folder (compressed-tensors) that transformers and, on GPUs, vLLM open; a scale for each row
  --to int4   the same with 4 bits and a scale for each --group-size weights; vLLM opens it on CPUs as well

The export answers held-out problems of the release's own evaluation and reads its held-out texts, beside the release.
It is refused, and nothing is left, where the lower end of the interval of its pass@1 less the release's is not above
-2 points (int8, q8_0, f16) or -5 points (int4, q4_0), or where the upper end of the rise of bits per byte is above 1%
or 3%. --allow-loss loosens a limit; the card and formats.json, beside the export, say so."""
EXAMPLES = """examples:
  derive export RELEASE --to int4 --out release-int4
  derive export RELEASE --to gguf --type q8_0 --out model.gguf
  derive export RELEASE --to int4 --allow-loss pass@1=0.08 --problems 2000
  derive formats RELEASE release-int4 model.gguf    the same problems answered by each, side by side"""


def add_command(
    add: Callable[..., argparse.ArgumentParser],
    json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:
    """The parsers of `derive export` and `derive formats`."""
    made = add("export", "a release with fewer bits or as GGUF, refused where that costs too much", json_output)
    made.description, made.epilog = HELP, EXAMPLES
    made.add_argument("release", type=Path, metavar="RELEASE", help="folder that a release stage wrote")
    made.add_argument("--to", choices=("gguf", "int8", "int4"), default="gguf", help="format (default: %(default)s)")
    made.add_argument("--type", choices=TYPES, default="bf16", help="of a GGUF file's weights; bf16 is exact (default)")
    made.add_argument("--group-size", type=int, choices=GROUP_SIZES, default=GROUP_SIZES[0],
                      help="weights with one scale, for int4; smaller loses less (default: %(default)s)")  # fmt: skip
    made.add_argument("--out", type=Path, metavar="PATH", help="what to write (default: RELEASE's name beside it)")
    made.add_argument("--allow-loss", action="append", default=[], metavar="METRIC=SHARE",
                      help=f"another limit for {' or '.join(METRICS)}: 0.08 is 8 points, or a rise by 8%%; "
                      "repeatable")  # fmt: skip
    made.add_argument(
        "--max-divergence",
        type=at_least(0.0),
        default=MAX_DIVERGENCE,
        metavar="NATS",
        help="largest KL(release || export) a token, on a few short texts, with which it is measured at all "
        "(default: %(default)s)",
    )
    _add_problems(made, at_least, NUM_PROBLEMS, "fewer make the interval wider")
    made = add(
        "formats",
        "a release and its exports answering the same held-out problems, side by side",
        json_output,
        example="derive formats RELEASE release-int4 model-q8_0.gguf --problems 20",
    )
    made.add_argument("release", type=Path, metavar="RELEASE", help="folder that a release stage wrote")
    made.add_argument("exports", type=Path, nargs="+", metavar="EXPORT", help="what `derive export` wrote of it")
    _add_problems(made, at_least, NUM_SHOWN, "all are shown")


def _add_problems(made: argparse.ArgumentParser, at_least: Any, count: int, why: str) -> None:
    made.add_argument("--problems", type=at_least(1), default=count, metavar="N",
                      help=f"held-out problems, first of each set in turn; {why} (default: %(default)s)")  # fmt: skip
    made.add_argument("--tasks", action="append", default=[], metavar="NAME_OR_FILE",
                      help="these problems instead of those of the release's evaluation; repeatable")  # fmt: skip
    made.add_argument("--machine", default="", help="launch profile")


def run(given: argparse.Namespace) -> int:
    """`derive export`. Raises UserError."""
    release = release_folder(given.release)
    kind = given.type if given.to == "gguf" else given.to
    suffix = ".gguf" if given.to == "gguf" else ""
    out = given.out or release.resolve().with_name(f"{release.resolve().name}-{kind}{suffix}")
    if not out.parent.is_dir():
        raise UserError(f"--out: {out.parent} is no folder; make it, or give another path")
    if given.to == "gguf" and out.suffix != ".gguf":
        raise UserError(f"--out: {out} does not end with .gguf, by which programs know such a file; add it")
    if out.exists():
        raise UserError(f"--out: {out} exists; give a new path, or remove it")
    allowed = allowed_losses(given.allow_loss)

    from derivatives.formats.quality import LossCheck
    from derivatives.formats.record import append_to_card, keep, kept_beside

    kept_beside(out)  # a file that cannot be read is told before any work
    check = None if kind == "bf16" else LossCheck(release, _asked(release, given), kind, _machine(given), allowed)
    if given.to == "gguf":
        from derivatives.formats.gguf_file import write_gguf
        from derivatives.formats.modelfile import modelfile as modelfile_text
        from derivatives.formats.modelfile import write_modelfile

        modelfile_text(release, out.name)  # what cannot be written in one is told before any work
        with full_disk_is_the_users(out):
            written = asdict(write_gguf(release, out, kind, given.max_divergence, check))
            modelfile: Path | None = write_modelfile(release, out)
    else:
        from derivatives.formats.packed import write_packed

        assert check is not None

        def check_and_tell(folder: Path) -> None:
            check(folder)
            assert check.found is not None
            append_to_card(folder, kind, {"group_size": given.group_size if kind == "int4" else None}, check.found)

        with full_disk_is_the_users(out):
            written = asdict(write_packed(release, out, kind, given.group_size, given.max_divergence, check_and_tell))
        modelfile = None
    found = None if check is None else check.found
    with full_disk_is_the_users(out):
        formats = keep(out, written, found)
    if given.json:
        told = {**written, "out": str(out), "formats": str(formats), "quality": found.as_dict() if found else None}
        print(json.dumps({**told, **({"modelfile": str(modelfile)} if modelfile else {})}, indent=2))
        return 0
    print(f"{out}: {written['size_bytes'] / 1e6:.1f} MB, {written['num_tensors']} tensors read back and compared, "
          f"largest relative error {written['largest_error']:.2g}")  # fmt: skip
    if written["divergence"] is None:
        print("too large to be opened by transformers here: tensors alone were compared")
    else:
        print(f"as transformers opens it: {written['divergence']:.3g} nats a token apart from the release, the same "
              f"likeliest token at {written['same_token']:.1%} of the places of a few short texts")  # fmt: skip
    print("the very weights of the release, so nothing is lost" if found is None else _in_words(found))
    print(f"written down in {formats}")
    if modelfile is not None:
        print(f"Ollama: ollama create NAME -f {modelfile}")
    return 0


@contextmanager
def full_disk_is_the_users(out: Path) -> Iterator[None]:
    """Turn a full disk into a UserError that names where was written; safetensors hides the number in its text, and
    numpy, by which `gguf` writes, says only how much of an array went."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        unsaid = number is None and re.search(r"os error 28|\d+ requested and \d+ written", str(error))
        if number in (errno.ENOSPC, errno.EDQUOT) or unsaid:
            raise UserError(
                f"--out: the disk of {out.parent} is full; nothing was kept. Free space there, or give another path"
            ) from error
        raise


def _in_words(found: Any) -> str:
    difference = found.pass_at_1["difference"]
    lines = [
        f"pass@1 on {found.problems} held-out problems: {found.pass_at_1['release']:.1%} -> "
        f"{found.pass_at_1['export']:.1%}, {100 * difference['value']:+.1f} points "
        f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}] "
        f"(must stay above {-100 * found.limits.pass_at_1:g}); {found.same_answers:.1%} word for word the same"
    ]
    for name, one in found.texts.items():
        lines.append(
            f"bits per byte of {name}: {one['release']:.4f} -> {one['export']:.4f}, {one['rise']['value']:+.2%} "
            f"(at most {found.limits.bits_per_byte:+.2%})"
        )
    if found.loosened:
        lines.append(f"limits loosened by hand: {', '.join(found.loosened)}")
    return "\n".join(lines)


def formats(given: argparse.Namespace) -> int:
    """`derive formats RELEASE EXPORT ...`. Raises UserError."""
    release = release_folder(given.release)
    for export in given.exports:
        if not export.exists():
            raise UserError(f"EXPORT: {export} is not there; give what `derive export` wrote")

    from derivatives.formats.quality import answer
    from derivatives.formats.record import side_by_side
    from derivatives.formats.weights import exported

    asked, machine = _asked(release, given, texts=False), _machine(given)
    answered = {"release": answer(asked, release, machine)}
    for export in given.exports:
        name = export.name if export.name not in answered else str(export)
        answered[name] = answer(asked, release, machine, exported(release, export))
    found = side_by_side(asked, answered)
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    """A table of the shares, then every problem with each format's final answer, and texts where they differ."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    names = list(found["formats"])
    shares = Table("", "correct", "the release's verdict", "the release's very text", title=f"{len(found['problems'])} "
                   "problems")  # fmt: skip
    for name, one in found["formats"].items():
        shares.add_row(escape(name), *(f"{one[key]:.0%}" for key in ("correct", "same_verdict", "same_text")))
    table = Table("problem", "right answer", *map(escape, names), show_lines=True)
    for row in found["problems"]:
        prompt = " ".join(row["prompt"].split())
        cells = []
        for name in names:
            one = row["answers"][name]
            mark = "[green]right[/]" if one["correct"] else "[red]wrong[/]"
            differs = "" if one["same_text"] else " [yellow](other text)[/]"
            cells.append(f"{mark} {escape(_short(one['extracted'] or '-'))}{differs}")
        table.add_row(escape(_both_ends(prompt)), escape(_short(row["gold"])), *cells)
    console.print(table, shares)


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _both_ends(text: str, most: int = 72) -> str:
    """Problems of one set often begin alike and end with their numbers."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 3]} ... {text[3 - half :]}"


def release_folder(given: Path) -> Path:
    """A release folder, also by the stage's folder that holds it. Raises UserError."""
    release = given / "release" if (given / "release" / "config.json").is_file() else given
    if not release.is_dir():
        raise UserError(f"RELEASE: {given} is no folder; give one that a release stage wrote")
    return release


def allowed_losses(given: list[str]) -> dict[str, float]:
    """`--allow-loss METRIC=SHARE`, as numbers. Raises UserError."""
    found: dict[str, float] = {}
    for entry in given:
        name, _, value = entry.partition("=")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name not in METRICS or not 0.0 <= share <= 1.0:
            raise UserError(f"--allow-loss: {entry!r}; allowed: {' or '.join(METRICS)}, =, and a share from 0 to 1, "
                            "such as pass@1=0.08 for 8 points")  # fmt: skip
        found[name] = share
    return found


def _asked(release: Path, given: argparse.Namespace, texts: bool = True) -> Any:
    from configs.names import check_source
    from derivatives.formats.quality import questions_of
    from flows.evaluate_command import task_source

    sources = [task_source(name, int(given.problems)) for name in given.tasks]
    for source in sources:
        check_source("--tasks", source)
    return questions_of(release, int(given.problems), sources, texts)


def _machine(given: argparse.Namespace) -> Any:
    from configs.load import default_machine_name, load_machine

    return load_machine(given.machine or default_machine_name())
