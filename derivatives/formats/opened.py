"""An exported model as strangers open it, beside the release: how far apart their next-token distributions are.

Both are opened by transformers alone, with none of this project's attention or loading code, on the few short texts of
the export's probe (`derivatives/export.py`). It finds a file that opens as another model; what lost bits cost is
measured on problems and held-out texts by `quality.py`.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import torch

from configs.errors import UserError
from derivatives.export import PROBE_TEXTS

MAX_PROBED = 4e9
"""Parameters above which an export is not opened as a model here, which takes 4 bytes for each and the release's 4."""


@torch.no_grad()
def distance(release: Path, folder: Path, gguf_file: str | None = None) -> tuple[float, float]:
    """KL(release || other) in nats a token, mean over the probe; share of places with the same likeliest token.

    Args:
        release: The release's folder.
        folder: Of the other model.
        gguf_file: Its file in that folder, where it is one.

    Raises:
        UserError: The other one does not open, or its logits are not finite.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    how = {} if gguf_file is None else {"gguf_file": gguf_file}
    tokenizer = AutoTokenizer.from_pretrained(release, local_files_only=True)
    ours = AutoModelForCausalLM.from_pretrained(release, local_files_only=True, dtype=torch.float32).eval()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars of the formats' own libraries
            theirs = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, **how
            ).eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"export: what was written does not open in transformers ({said[:200]}); check its version, or "
                        "take another type") from error  # fmt: skip
    divergence = same = 0.0
    count = 0
    for text in PROBE_TEXTS:
        ids_1T = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        first_TV, second_TV = (
            model(input_ids=ids_1T, use_cache=False).logits[0, :, : len(tokenizer)].double().log_softmax(-1)
            for model in (ours, theirs)
        )
        divergence += float((first_TV.exp() * (first_TV - second_TV)).sum())
        same += float((first_TV.argmax(-1) == second_TV.argmax(-1)).sum())
        count += ids_1T.shape[1]
    if not math.isfinite(divergence):
        raise UserError("export: the opened copy gives logits that are not finite; take a type with more bits")
    return max(0.0, divergence) / count, same / count
