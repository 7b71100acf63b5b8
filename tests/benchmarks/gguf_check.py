"""A release's GGUF files opened by llama.cpp itself: `make check-gguf RELEASE=FOLDER`.

    python tests/benchmarks/gguf_check.py RELEASE [--problems 20] [--types bf16 q8_0 q4_0] [--out build/gguf.json]

Each file is written, opened by llama-cpp-python, and compared with the release: tokens of texts on which tokenizers
disagree and of the problems, greedy answers to the problems of the release's own evaluation from the same tokens, and
the same with the chat rendered by llama.cpp from the template in the file. An answer may differ where two tokens are
nearly as likely: llama.cpp computes in other types, and rounds activations to 8 bits beside quantised weights. Then the
margin of the release at the first different token is told. llama-cpp-python runs in an environment of its own
(`peers.py`), built from source, which takes a compiler, cmake and some minutes; `--python` names another one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from configs.settings.common import Sampling  # noqa: E402 - needs the path above
from derivatives.export import PROBE_TEXTS  # noqa: E402
from derivatives.formats.gguf_file import write_gguf  # noqa: E402
from derivatives.formats.quality import questions_of  # noqa: E402
from derivatives.rollout.engine import RolloutEngine  # noqa: E402
from derivatives.training.chat import conversation, encode_chat  # noqa: E402
from derivatives.training.model import load_model  # noqa: E402
from tests.benchmarks.peers import LLAMA_CPP, interpreter  # noqa: E402

TOKENS = 96


def check(release: Path, kinds: list[str], num_problems: int, python: str) -> dict[str, Any]:
    """Figures by type."""
    asked = questions_of(release, num_problems)
    model, tokenizer = load_model(release, "bf16")
    prompts = [encode_chat(tokenizer, conversation(task.prompt, asked.system)) for task in asked.tasks]
    greedy = Sampling(temperature=0.0, max_new_tokens=TOKENS)
    ours = [group[0] for group in RolloutEngine(model, tokenizer).generate(prompts, 1, greedy)]
    texts = [*PROBE_TEXTS, *(task.prompt for task in asked.tasks)]
    own_tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    questions = [task.prompt for task in asked.tasks] if asked.system is None else []
    found: dict[str, Any] = {"release": release.name, "problems": len(prompts), "types": {}}
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        request.write_text(json.dumps({"texts": texts, "prompts": prompts, "questions": questions,
                                       "max_tokens": TOKENS}))  # fmt: skip
        for kind in kinds:
            path = Path(folder) / f"{kind}.gguf"
            write_gguf(release, path, kind)
            script = Path(__file__).with_name("gguf_llama_cpp.py")
            said = subprocess.run([python, str(script), str(path), str(request)], check=True,
                                  capture_output=True, text=True)  # fmt: skip
            theirs = json.loads(said.stdout)
            found["version"] = theirs["version"]
            same = [one.text == other["text"] for one, other in zip(ours, theirs["answers"], strict=True)]
            margins = [
                margin(model, tokenizer, prompt, one.token_ids, other["text"])
                for prompt, one, other, equal in zip(prompts, ours, theirs["answers"], same, strict=True)
                if not equal
            ]
            found["types"][kind] = {
                "same_tokens": sum(a == b for a, b in zip(own_tokens, theirs["tokens"], strict=True)),
                "texts": len(texts),
                "same_answers": sum(same),
                "same_from_template": sum(
                    one["text"] == other["text"] for one, other in zip(theirs["answers"], theirs["chats"], strict=False)
                ),
                "margins": [round(one, 3) for one in margins],
            }
            print(kind, json.dumps(found["types"][kind]), flush=True)
    return found


@torch.inference_mode()
def margin(model: Any, tokenizer: Any, prompt: list[int], ids: list[int], other: str) -> float:
    """Nats by which the release prefers its own token to the other's, at the first place where both differ."""
    theirs = tokenizer(other, add_special_tokens=False)["input_ids"]
    place = next((n for n, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b), min(len(ids), len(theirs)))
    logits_V = model(input_ids=torch.tensor([[*prompt, *ids[:place]]]), use_cache=False).logits[0, -1].float()
    first, second = logits_V.topk(2).values
    return float(first - second)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--types", nargs="+", default=["bf16", "q8_0", "q4_0"])
    parser.add_argument("--python", help="interpreter that has llama-cpp-python")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = check(given.release, given.types, given.problems, given.python or interpreter(LLAMA_CPP))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
