"""A release as a GGUF file for llama.cpp, Ollama and what is built on them; written, read back, compared.

    write_gguf(release, out / "model.gguf", "q8_0")

`bf16` holds the very weights. `f16` rounds them, `q8_0` and `q4_0` keep 8 and 4 bits of each with one half-precision
scale for 32 of them (the quantisation is the `gguf` package's own); `q4_0` leaves the embedding, which is the head as
well where they are tied, at 8 bits. Norms and biases stay FP32, which llama.cpp wants.
The file is then read back: every tensor is compared with the release's, and the opened model's next-token
distributions with the release's on the texts of the export's probe (transformers reads GGUF by itself, through none of
this code).

Names and metadata are those of llama.cpp for Qwen2; tokens past the last real one, with which Qwen2.5 pads its
vocabulary, are written as unused, and so are never drawn.

Not done: importance matrices and mixtures of types (llama.cpp's own `llama-quantize` makes them from the bf16 file);
other architectures.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from configs.errors import UserError
from derivatives.export import END_OF_TEXT, END_OF_TURN
from derivatives.formats.opened import MAX_PROBED, distance
from derivatives.formats.weights import Weights, config_of, num_parameters, tensors

Kind = Literal["bf16", "f16", "q8_0", "q4_0"]
KINDS: tuple[Kind, ...] = ("bf16", "f16", "q8_0", "q4_0")
LARGEST_ERROR: dict[str, float] = {"bf16": 0.0, "f16": 2.0**-10, "q8_0": 0.01, "q4_0": 0.12}
"""Root mean square of a tensor's error over that of its weights, above which something else than rounding happened."""
BLOCK = 32
"""Weights with one scale."""
WRITTEN = ("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings")
TAKEN = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "partial_rotary_factor": 1.0}
"""Settings of the rotation that llama.cpp takes to be so where a file says nothing."""
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Written:
    """What was written, as measured on the file that was read back.

    Attributes:
        kind: Type of the weights.
        num_tensors: Tensors compared.
        size_bytes: Of the file.
        largest_error: Root mean square of the error over that of the weights, of the worst tensor.
        divergence: KL(release || file) in nats a token, mean over the probe; None where the model was not opened.
        same_token: Share of the probe's places where both find the same token likeliest.
    """

    kind: Kind
    num_tensors: int
    size_bytes: int
    largest_error: float
    divergence: float | None = None
    same_token: float | None = None


def write_gguf(
    release: Path,
    out: Path,
    kind: Kind,
    max_divergence: float = math.inf,
    check: Callable[[Path], None] | None = None,
) -> Written:
    """Write a release folder's model and tokenizer as one file, and prove it.

    Args:
        release: The folder.
        out: The file to write; it appears whole or not at all.
        kind: Type of the weights.
        max_divergence: KL(release || file) in nats a token above which nothing is written.
        check: Called with the file before it appears; what it raises leaves nothing.

    Raises:
        UserError: `gguf` is missing, the folder is no release of a Qwen2 model, the file exists, or it lost too much.
    """
    gguf = _package()
    if out.exists():
        raise UserError(f"--out: {out} exists; give a new file, or remove it")
    config = config_of(release)
    partial = out.with_name(f".{out.stem}.partial.gguf")
    partial.unlink(missing_ok=True)
    try:
        writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN2])
        _write_about(writer, gguf, release, config, kind)
        _write_vocabulary(writer, gguf, release, config)
        for name, weight in tensors(release, config):
            _write_tensor(writer, gguf, _own_name(gguf, config, name), weight, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        num, error = _compare(gguf, release, config, partial, kind)
        probed = num_parameters(release, config) <= MAX_PROBED
        divergence, same = distance(release, partial.parent, partial.name) if probed else (None, None)
        if divergence is not None and divergence > max_divergence:
            raise UserError(
                f"--max-divergence: with {kind} the model's next-token distributions differ from the release's by "
                f"{divergence:.3g} nats a token (allowed: {max_divergence:g}); take a type with more bits"
            )
        if check is not None:
            check(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return Written(kind, num, out.stat().st_size, error, divergence, same)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UserError(
            f"--to: gguf is needed and cannot be imported ({error}); install it with "
            "pip install 'derivative-factory[formats]'"
        ) from error
    return gguf


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Base and scaling, wherever this version of transformers has put them."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {**scaling, "rope_theta": scaling.get("rope_theta") or config.get("rope_theta") or 10_000.0}


def _write_about(writer: Any, gguf: Any, release: Path, config: dict[str, Any], kind: Kind) -> None:
    types = {"bf16": "MOSTLY_BF16", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    writer.add_name(_title(release))
    writer.add_file_type(gguf.LlamaFileType[types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind_of_rope = rope.get("rope_type", rope.get("type")) or "default"
    if kind_of_rope not in ("default", "yarn"):
        raise UserError(f"RELEASE: its positions are scaled by {kind_of_rope!r}; allowed: default and yarn")
    taken = {**TAKEN, "attention_factor": 0.1 * math.log(max(1.0, float(rope.get("factor") or 1.0))) + 1.0}
    for name, value in rope.items():
        if name not in WRITTEN and value is not None and not _equal(value, taken.get(name)):
            raise UserError(f"RELEASE: its positions are scaled with {name} {value!r}, which is not written here and "
                            f"which llama.cpp would take otherwise; allowed: {', '.join(WRITTEN)}")  # fmt: skip
    if config.get("use_sliding_window"):
        raise UserError("RELEASE: its config.json has use_sliding_window, which llama.cpp's Qwen2 leaves out; allowed: "
                        "models that see their whole context, as all of Qwen2.5 do")  # fmt: skip
    if kind_of_rope == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def _equal(value: Any, taken: float | None) -> bool:
    return taken is not None and isinstance(value, (int, float)) and math.isclose(value, taken, rel_tol=1e-3)


def _title(release: Path) -> str:
    try:
        about = json.loads((release / "lineage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return release.name
    return str(about.get("recipe") or release.name)


def _write_vocabulary(writer: Any, gguf: Any, release: Path, config: dict[str, Any]) -> None:
    try:
        given = json.loads((release / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary: dict[str, int] = given["model"]["vocab"]
        merges = [one if isinstance(one, str) else " ".join(one) for one in given["model"]["merges"]]
        added = {int(one["id"]): one for one in given["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"RELEASE: {release / 'tokenizer.json'} is no byte-level BPE tokenizer ({error})") from error
    normal, control, unused, own = (
        gguf.TokenType[name] for name in ("NORMAL", "CONTROL", "UNUSED", "USER_DEFINED")
    )
    tokens = {number: (text, normal) for text, number in vocabulary.items()}
    tokens |= {number: (str(one["content"]), control if one.get("special") else own) for number, one in added.items()}
    every = [tokens.get(number, (f"[PAD{number}]", unused)) for number in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")  # splits digits one by one, as this project's own tokenizer does
    writer.add_token_list([text for text, _ in every])
    writer.add_token_types([int(kind) for _, kind in every])
    writer.add_token_merges(merges)
    by_text = {str(one["content"]): number for number, one in added.items()}
    if END_OF_TURN in by_text:
        writer.add_eos_token_id(by_text[END_OF_TURN])
        writer.add_eot_token_id(by_text[END_OF_TURN])
    if END_OF_TEXT in by_text:
        writer.add_pad_token_id(by_text[END_OF_TEXT])
        writer.add_bos_token_id(by_text[END_OF_TEXT])
    writer.add_add_bos_token(False)
    template = release / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _own_name(gguf: Any, config: dict[str, Any], name: str) -> str:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(f"RELEASE: {name} is no tensor of a Qwen2 model; allowed: what a release stage writes")
    return str(found)


def _type_of(gguf: Any, name: str, weight: torch.Tensor, kind: Kind) -> Any:
    """FP32 for norms and biases; else the kind asked for, and FP16 for rows that no block of 32 divides. With 4 bits
    the embedding, which is the head as well where they are tied, keeps 8, as llama.cpp gives it more than the rest."""
    types = gguf.GGMLQuantizationType
    if weight.ndim == 1:
        return types.F32
    if kind == "q4_0" and name in (EMBEDDING, HEAD):
        kind = "q8_0"
    if kind in ("q8_0", "q4_0") and weight.shape[-1] % BLOCK:
        return types.F16
    return types[kind.upper()]


def _write_tensor(writer: Any, gguf: Any, name: str, weight: torch.Tensor, kind: Kind) -> None:
    found = _type_of(gguf, name, weight, kind)
    values = weight.float().numpy()
    packed = gguf.quants.quantize(values, found)
    writer.add_tensor(name, packed, raw_dtype=found)


def dequantised(release: Path, path: Path) -> Weights:
    """A file's tensors as FP32 under the release's names. Raises UserError for a file of another model."""
    gguf, config = _package(), config_of(release)
    try:
        there = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as GGUF ({error}); export it again") from error
    for name, weight in tensors(release, config):
        tensor = there.get(_own_name(gguf, config, name))
        if tensor is None or tensor.n_elements != weight.numel():
            raise UserError(f"{path}: {name} of {release} is not in it in this shape; give an export of this release")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        yield name, torch.from_numpy(np.array(values, dtype=np.float32))


def _compare(gguf: Any, release: Path, config: dict[str, Any], path: Path, kind: Kind) -> tuple[int, float]:
    """Every tensor of the file against the release's: how many there are, and the largest relative error."""
    there = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    worst, num = 0.0, 0
    for name, weight in tensors(release, config):
        tensor = there.pop(_own_name(gguf, config, name), None)
        if tensor is None:
            raise UserError(f"gguf: {name} is not in the file that was written; this is a fault of ours or of `gguf`")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        wanted = weight.float().numpy()
        size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
        error = float(np.sqrt(np.mean(np.square(values - wanted, dtype=np.float64)))) / (size or 1.0)
        if not error <= LARGEST_ERROR[kind]:
            raise UserError(f"gguf: {name} differs by {error:.2g} of its size after {kind}; allowed: "
                            f"{LARGEST_ERROR[kind]:g}; take bf16")  # fmt: skip
        worst, num = max(worst, error), num + 1
    if there:
        raise UserError(f"gguf: the file has tensors that the release has not ({', '.join(sorted(there)[:3])})")
    return num, worst
