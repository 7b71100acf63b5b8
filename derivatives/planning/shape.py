"""The shape of a Qwen2 model, and what follows from it alone: parameters, FLOPs, bytes of the key-value cache.

The shapes of Qwen2.5 are known here, so that a plan needs no download; a checkpoint's own config.json counts more.
FLOPs are those of `derivatives/training/throughput.py`, whose formula is written there (a test holds the two equal).
Without torch.

Source of the shapes: Qwen2.5 Technical Report (arXiv:2412.15115), table 1, and the published config.json files. Those
of Qwen2.5-Coder and of Qwen2.5-Math are the same, but for their positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError

QWEN_VOCABULARY = 151_665
"""Tokens that Qwen2.5's tokenizer really has; the embedding is padded past them."""
BF16, FP32 = 2, 4
"""Bytes."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BACKWARD = 2
"""FLOPs of a backward pass over those of the forward one; one of the two parts is the gradient of the weights."""


@dataclass(frozen=True)
class Shape:
    """Numbers of a Qwen2 config.json that decide what a model costs."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    max_positions: int = 32_768

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    def linear_maps(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear maps of a layer, by name."""
        sizes = {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.kv_width),
            "v_proj": (self.hidden, self.kv_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }
        assert tuple(sizes) == TARGETS
        return sizes

    def cut_sizes(self) -> dict[str, int]:
        """The numbers that a machine profile's `tensor_parallel` must divide, by their names in config.json."""
        return {
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
        }

    @property
    def layer_weights(self) -> int:
        """Weights of the linear maps of a layer."""
        return sum(inputs * outputs for inputs, outputs in self.linear_maps().values())

    @property
    def layer_parameters(self) -> int:
        """All of a layer: linear maps, biases of queries, keys and values, two norms."""
        return self.layer_weights + self.query_width + 2 * self.kv_width + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        """The output projection, which is the embedding where they are tied."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; tied ones count once."""
        embeddings = self.head_parameters * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    def adapter_parameters(self, rank: int, targets: tuple[str, ...] = TARGETS) -> int:
        """Parameters of low-rank adapters on these linear maps of every layer."""
        sizes = self.linear_maps()
        return self.layers * sum(rank * sum(sizes[name]) for name in targets if name in sizes)

    def kv_bytes_per_token(self, bytes_each: int = BF16) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_width * bytes_each

    def forward_flops(self, tokens: float, squares: float, headed: float) -> float:
        """FLOPs of one forward pass.

        Args:
            tokens: Tokens of all documents.
            squares: Sum of the squares of the documents' lengths.
            headed: Tokens that the output projection is applied to.
        """
        attention = 2 * self.layers * self.query_width * squares
        return 2 * tokens * self.layers * self.layer_weights + attention + 2 * headed * self.head_parameters

    def training_flops(self, tokens: float, squares: float, trained: float, rank: int | None = None) -> float:
        """FLOPs of forward and backward passes; with adapters of a rank, all else is frozen.

        A frozen weight needs no gradient of its own, so its backward pass costs once the forward one.
        """
        if rank is None:
            return (1 + BACKWARD) * self.forward_flops(tokens, squares, trained)
        frozen = self.forward_flops(tokens, 0, trained)
        attention = self.forward_flops(0, squares, 0)
        adapters = 2 * tokens * self.adapter_parameters(rank)
        return 2 * frozen + (1 + BACKWARD) * (attention + adapters)


def _qwen(
    hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int, tied: bool
) -> Shape:
    # Plain bases: 3B and below say 32,768 positions, the larger ones 131,072.
    positions = 32_768 if layers <= 36 and hidden <= 2048 else 131_072
    return Shape(hidden, layers, heads, kv_heads, hidden // heads, intermediate, vocabulary, tied, positions)


QWEN_SHAPES = {
    "0.5B": _qwen(896, 24, 14, 2, 4864, 151_936, True),
    "1.5B": _qwen(1536, 28, 12, 2, 8960, 151_936, True),
    "3B": _qwen(2048, 36, 16, 2, 11_008, 151_936, True),
    "7B": _qwen(3584, 28, 28, 4, 18_944, 152_064, False),
    "14B": _qwen(5120, 48, 40, 8, 13_824, 152_064, False),
    "32B": _qwen(5120, 64, 40, 8, 27_648, 152_064, False),
    "72B": _qwen(8192, 80, 64, 8, 29_568, 152_064, False),
}
HUB_NAME = re.compile(r"Qwen/Qwen2\.5(?P<line>-Coder|-Math)?-(?P<size>[\d.]+B)(?P<tuned>-Instruct)?")
MATH_POSITIONS, TUNED_POSITIONS = 4096, 32_768
"""As their config.json files say: Qwen2.5-Math of any kind; Qwen2.5-Coder (bases too) and all instruct models, which go
beyond with YaRN alone. Qwen2.5-Coder-14B said 131,072 until commit 9763f22 of its repository mended it."""


def shape_of(name: str, folder: Path | None) -> Shape:
    """The shape of a base: its folder's config.json, else what is known of its hub id.

    Raises:
        UserError: A config.json that is not a Qwen2 model's, or a name that is not known.
    """
    if folder is not None:
        return read_shape(folder)
    match = HUB_NAME.fullmatch(name)
    known = QWEN_SHAPES.get(match["size"]) if match else None
    if match is None or known is None:
        raise UserError(
            f"base: the shape of {name!r} is not known without its files; allowed: a folder, or "
            f"Qwen/Qwen2.5-SIZE with SIZE of {', '.join(QWEN_SHAPES)}; download it and give its folder with --base"
        )
    positions = known.max_positions
    if match["line"] == "-Math":
        positions = MATH_POSITIONS
    elif match["line"] or match["tuned"]:
        positions = min(positions, TUNED_POSITIONS)
    return Shape(**{**vars(known), "max_positions": positions})


def read_shape(folder: Path) -> Shape:
    """The shape that a checkpoint's config.json states. Raises UserError that names the field."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"base: {path} cannot be read ({error}); copy or download the checkpoint again") from error
    if not isinstance(config, dict):
        raise UserError(f"base: {path} holds no object; copy or download the checkpoint again")
    return from_config(config, str(path))


def from_config(config: Mapping[str, Any], where: str) -> Shape:
    """The shape in a config.json's content; `where` is how messages call it. Raises UserError that names the field."""
    found: dict[str, int] = {}
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        found[name] = _positive(config, name, where)
    heads = found["num_attention_heads"]
    kv_heads = _positive(config, "num_key_value_heads", where, heads)
    head_dim = _positive(config, "head_dim", where, max(1, found["hidden_size"] // heads))
    return Shape(
        hidden=found["hidden_size"],
        layers=found["num_hidden_layers"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=found["intermediate_size"],
        vocabulary=found["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        max_positions=_positive(config, "max_position_embeddings", where, 32_768),
    )


def _positive(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"base: {where}: {name}: {str(value)[:40]!r} was found; allowed: a whole number above 0; "
            "give the config.json that belongs to the weights"
        )
    return value
