"""A release with 8 or 4 bits for each weight, as a Hugging Face folder that transformers and vLLM open by themselves.

    write_packed(release, out, "int4")

The layout is `pack-quantized` of compressed-tensors (the vLLM project's own format and library, which transformers
reads): the projections of attention and MLP hold whole numbers of 8 or 4 bits, packed, with a bf16 scale for each row
(int8) or for each `group_size` weights of a row (int4). Embeddings, head, norms and biases stay as they are, so tied
embeddings stay tied. Weights are rounded to the nearest; the folder is read back, every weight compared, and opened by
transformers before it is shown. Two refinements were tried on a tiny model and left out: scales that leave the smallest
squared error (no gain), and zero points (a fifth less loss of bits per byte, but transformers 5.23 does not open them).

torchao, whose formats transformers opens as well, was tried first: none of the int4 layouts of its release 0.18 can be
made on a CPU, and the one that runs there holds each 4-bit number in 8 bits.

Not done: 8-bit activations; scales fitted to activations (GPTQ, AWQ), for which llm-compressor is the tool.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from configs.errors import UserError
from derivatives.export import flush_folder
from derivatives.formats.opened import MAX_PROBED, distance
from derivatives.formats.weights import config_of, num_parameters, package, packed_scheme, read_packed, tensors

Bits = Literal["int8", "int4"]
NUM_BITS: dict[str, int] = {"int8": 8, "int4": 4}
GROUP_SIZES = (32, 64, 128)
"""Those that vLLM has kernels for."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LARGEST_ERROR = {"int8": 0.02, "int4": 0.2}
"""Root mean square of a tensor's error over that of its weights, above which something else than rounding happened."""
COPIED = ("*.jinja", "tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
          "generation_config.json", "README.md", "lineage.json", "evaluation.json", "LICENSE*", "NOTICE*")  # fmt: skip
SHARD = "5GB"


@dataclass(frozen=True)
class Packed:
    """What was written, as measured on the folder that was read back.

    Attributes:
        kind: Bits of a weight.
        group_size: Weights with one scale; None is a whole row.
        num_tensors: Tensors compared.
        num_packed: Of them, those with fewer bits.
        size_bytes: Of the weights' files.
        largest_error: Root mean square of the error over that of the weights, of the worst tensor.
        divergence: KL(release || folder) in nats a token, mean over the probe; None where the model was not opened.
        same_token: Share of the probe's places where both find the same token likeliest.
    """

    kind: Bits
    group_size: int | None
    num_tensors: int
    num_packed: int
    size_bytes: int
    largest_error: float
    divergence: float | None = None
    same_token: float | None = None


def write_packed(
    release: Path,
    out: Path,
    kind: Bits,
    group_size: int = GROUP_SIZES[0],
    max_divergence: float = math.inf,
    check: Callable[[Path], None] | None = None,
) -> Packed:
    """Write a release with fewer bits to the new folder `out`, and prove it.

    Args:
        release: The folder.
        out: The folder to make; it appears whole or not at all.
        kind: Bits of a weight.
        group_size: Weights with one scale, for int4.
        max_divergence: KL(release || folder) in nats a token above which nothing is written.
        check: Called with the folder before it appears; what it raises leaves nothing.

    Raises:
        UserError: compressed-tensors is missing, the folder is no release of a Qwen2 model, `out` exists, a width that
            the group does not divide, or too much was lost.
    """
    group = group_size if kind == "int4" else None
    if out.exists():
        raise UserError(f"--out: {out} exists; give a new folder, or remove it")
    config = config_of(release)
    if "quantization_config" in config:
        raise UserError(f"RELEASE: {release} has fewer bits already; give the bf16 release that it was made from")
    settings = _settings(kind, group)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for pattern in COPIED:
            for path in release.glob(pattern):
                shutil.copyfile(path, partial / path.name)
        _write_weights(release, config, partial, packed_scheme(settings), group)
        text = json.dumps({**config, "quantization_config": settings}, indent=2, sort_keys=True)
        (partial / "config.json").write_text(text + "\n", encoding="utf-8")
        written = _proven(release, config, partial, kind, group)
        if written.divergence is not None and written.divergence > max_divergence:
            raise UserError(
                f"--max-divergence: with {kind} the model's next-token distributions differ from the release's by "
                f"{written.divergence:.3g} nats a token (allowed: {max_divergence:g}); take more bits or smaller groups"
            )
        if check is not None:
            check(partial)
        flush_folder(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def _settings(kind: Bits, group: int | None) -> dict[str, Any]:
    """`quantization_config` of config.json."""
    package()
    from compressed_tensors.quantization import QuantizationConfig

    weights = {"num_bits": NUM_BITS[kind], "type": "int", "symmetric": True,
               "strategy": "group" if group else "channel", "group_size": group}  # fmt: skip
    made = QuantizationConfig.model_validate({
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
    })  # fmt: skip
    settings: dict[str, Any] = json.loads(made.model_dump_json())
    return settings


def _write_weights(release: Path, config: dict[str, Any], folder: Path, scheme: Any, group: int | None) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    state: dict[str, torch.Tensor] = {}
    for name, weight in tensors(release, config):
        module = name.removesuffix(".weight")
        if module != name and module.rpartition(".")[2] in PROJECTIONS:
            for part, value in _packed(name, weight, scheme, group).items():
                state[f"{module}.{part}"] = value.contiguous()
        else:
            state[name] = weight
    split = split_torch_state_dict_into_shards(state, max_shard_size=SHARD)
    for file, names in split.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors leaves its file to its owner alone
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _packed(name: str, weight: torch.Tensor, scheme: Any, group: int | None) -> dict[str, torch.Tensor]:
    """The parts that stand for one projection [out, in], by name; scales in the weight's own type."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    width = weight.shape[1]
    if group and width % group:
        fitting = [str(size) for size in GROUP_SIZES if width % size == 0]
        raise UserError(f"--group-size: {name} is {width} wide, which {group} does not divide; allowed here: "
                        f"{', '.join(fitting) or 'none: take int8'}")  # fmt: skip
    grouped_OGI = weight.float().unflatten(1, (-1, group or width))
    scale_OG, _ = calculate_qparams(grouped_OGI.amin(-1), grouped_OGI.amax(-1), scheme.weights)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    scale_OG = scale_OG.to(weight.dtype)
    # In fp32: a bf16 quotient has 8 bits, which is half a step at the ends of int8.
    made: dict[str, torch.Tensor] = compressor.compress(
        {"weight": weight.float(), "weight_scale": scale_OG.float()}, scheme
    )
    made["weight_scale"] = scale_OG
    return {part: made[part] for part in compressor.compression_param_names(scheme)}


def _proven(release: Path, config: dict[str, Any], folder: Path, kind: Bits, group: int | None) -> Packed:
    """Every tensor of the folder against the release's, and the opened model's distributions."""
    there = dict(read_packed(folder))
    worst, num, packed = 0.0, 0, 0
    for name, weight in tensors(release, config):
        found = there.pop(name, None)
        if found is None or found.shape != weight.shape:
            raise UserError(f"export: {name} did not come back as it was written; this is a fault of ours or of "
                            "compressed-tensors")  # fmt: skip
        size = float(weight.float().square().mean().sqrt())
        error = float((found.float() - weight.float()).square().mean().sqrt()) / (size or 1.0)
        if not error <= LARGEST_ERROR[kind]:
            raise UserError(f"export: {name} differs by {error:.2g} of its size after {kind}; allowed: "
                            f"{LARGEST_ERROR[kind]:g}; take more bits")  # fmt: skip
        worst, num, packed = max(worst, error), num + 1, packed + (error > 0)
    if there:
        raise UserError(f"export: the folder has tensors that the release has not ({', '.join(sorted(there)[:3])})")
    probed = num_parameters(release, config) <= MAX_PROBED
    divergence, same = distance(release, folder) if probed else (None, None)
    size_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Packed(kind, group, num, packed, size_bytes, worst, divergence, same)
