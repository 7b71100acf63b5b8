"""What looks like a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path


def write_base(folder: Path) -> Path:
    """What looks like a checkpoint to whoever does not load it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"weight": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    return folder
