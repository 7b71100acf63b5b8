"""`derive export RELEASE --to gguf`: a release in the format of another program, measured against the release."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from configs.errors import UserError

TYPES = ("bf16", "f16", "q8_0", "q4_0")
"""As in `derivatives/formats/gguf_file.py`, which is imported only when it is needed."""
MAX_DIVERGENCE = 0.1


def add_command(
    add: Callable[..., argparse.ArgumentParser],
    json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:
    """The parser of `derive export`."""
    made = add(
        "export",
        "a release as a GGUF file for llama.cpp and Ollama, compared with the release",
        json_output,
        example="derive export RELEASE --to gguf --type q8_0 --out model.gguf",
    )
    made.add_argument("release", type=Path, metavar="RELEASE", help="folder that a release stage wrote")
    made.add_argument("--to", choices=("gguf",), default="gguf", help="format (default: %(default)s)")
    made.add_argument("--type", choices=TYPES, default="bf16", help="of the weights; bf16 is exact (default)")
    made.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: RELEASE's name beside it)")
    made.add_argument(
        "--max-divergence",
        type=at_least(0.0),
        default=MAX_DIVERGENCE,
        metavar="NATS",
        help="largest KL(release || file) a token, on a few short texts, with which it is kept (default: %(default)s)",
    )


def run(given: argparse.Namespace) -> int:
    """`derive export`. Raises UserError."""
    from derivatives.formats.gguf_file import write_gguf, write_modelfile

    release = given.release / "release" if (given.release / "release" / "config.json").is_file() else given.release
    if not release.is_dir():
        raise UserError(f"RELEASE: {given.release} is no folder; give one that a release stage wrote")
    out = given.out or release.resolve().with_name(f"{release.resolve().name}-{given.type}.gguf")
    if not out.parent.is_dir():
        raise UserError(f"--out: {out.parent} is no folder; make it, or give another path")
    written = write_gguf(release, out, given.type, given.max_divergence)
    modelfile = write_modelfile(release, out)
    if given.json:
        print(json.dumps({**asdict(written), "file": str(out), "modelfile": str(modelfile)}, indent=2))
        return 0
    print(f"{out}: {written.size_bytes / 1e6:.1f} MB, {written.num_tensors} tensors, read back and compared")
    print(f"largest relative error of a tensor {written.largest_error:.2g} (root mean square)")
    if written.divergence is None:
        print("too large to be opened here as a model: tensors alone were compared")
    else:
        print(
            f"against the release: {written.divergence:.3g} nats a token apart, the same likeliest token at "
            f"{written.same_token:.1%} of the places of a short text; evaluate a release before it is quantised"
        )
    print(f"Ollama: ollama create NAME -f {modelfile}")
    return 0
