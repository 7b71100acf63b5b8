"""`python -m derivatives.seedling OUT/`: make the seedling from nothing but this machine's Python.

Writes OUT/tokenizer, OUT/data (token shards, made as they are needed), OUT/checkpoints, OUT/progress.jsonl
and, when done, OUT/model (Hugging Face layout) and OUT/metrics.json. Run again, it goes on where it
stopped. Nothing is downloaded.
"""

import argparse
import os
import sys
from pathlib import Path


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    summary, details = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(prog="python -m derivatives.seedling", description=summary, epilog=details)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the run; resumed if it holds a checkpoint")
    parser.add_argument("--tokens", type=int, default=100_000_000, help="tokens to train on (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        choices=(1, 2, 4),
        help="processes that share each step, one per idle core (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each worker (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    for name in ("tokens", "threads"):
        if getattr(options, name) < 1:
            print(
                f"--{name} is {getattr(options, name)}: it must be 1 or more; give a positive one",
                file=sys.stderr,
            )
            return 2
    if options.out.exists() and not options.out.is_dir():
        print(f"OUT is {options.out}, a file: it must be a folder; name another one", file=sys.stderr)
        return 2
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    from .train import pretrain

    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    pretrain(options.out, options.tokens, options.seed, options.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
