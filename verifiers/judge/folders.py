"""Models from folders in Hugging Face layout, for judges: opened without the network, without code of their own."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from configs.errors import UserError

_WEIGHTS = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Endings of the files that decide what a model says."""


@functools.lru_cache(maxsize=8)
def folder_digest(folder: Path) -> str:
    """12 hexadecimal digits of all files that decide what a model says. Reads them whole.

    Raises:
        UserError: The folder holds no model.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"folder: {folder} holds no config.json; give a model's folder in Hugging Face layout")
    digest = hashlib.sha256()
    for path in sorted(each for each in folder.iterdir() if each.suffix in _WEIGHTS):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()[:12]


def open_folder(folder: Path, kind: Any, **settings: Any) -> tuple[Any, Any]:
    """Model (fp32, on the CPU, for inference) and tokenizer; `kind` is a class of `transformers`.

    Raises:
        UserError: It cannot be loaded, has no chat template, or lacks weights that it needs.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, told = kind.from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True, **settings
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"folder: {folder} cannot be loaded as {kind.__name__}: {error}; mend the folder") from error
    if told["missing_keys"]:
        raise UserError(
            f"folder: {folder} has no weights for {', '.join(sorted(told['missing_keys'])[:4])}; allowed: a model that "
            f"was trained as {kind.__name__}"
        )
    if not tokenizer.chat_template:
        raise UserError(f"folder: {folder} has no chat template; add chat_template.jinja")
    return model.eval(), tokenizer
