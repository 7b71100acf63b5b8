"""Weights of a release and of what was exported from it, one by one, under the release's names, as floating point.

An export's weights are what its whole numbers and scales stand for, worked out by the format's own library, so that
they can be put into the release's model and evaluated by the engine that evaluated the release.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from configs.errors import UserError

Weights = Iterator[tuple[str, torch.Tensor]]


def config_of(release: Path) -> dict[str, Any]:
    """config.json of a Qwen2 model. Raises UserError."""
    path = release / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"RELEASE: {path} cannot be read ({error}); give a folder that a release stage wrote"
        ) from error
    if config.get("model_type") != "qwen2":
        raise UserError(f"RELEASE: {release} holds a {config.get('model_type')!r} model; allowed: qwen2")
    return config


def tensors(release: Path, config: dict[str, Any]) -> Weights:
    """The release's own, without a head that is the embedding again. Raises UserError."""
    tied = bool(config.get("tie_word_embeddings"))
    check_shards(release)
    try:
        for path in sorted(release.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if not (tied and name == "lm_head.weight"):
                        yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"RELEASE: the weights in {release} cannot be read ({error}); write the release again"
        ) from error


def check_shards(folder: Path) -> None:
    """Every file that the index of the weights names is there. Raises UserError: what is missing would else be left
    out of an export without a word."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        named = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"RELEASE: {index} cannot be read ({error}); write the release again") from error
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise UserError(f"RELEASE: {', '.join(missing[:3])} of {len(named)} files of weights is missing in {folder}; "
                        "take the whole folder from its store again")  # fmt: skip


def num_parameters(release: Path, config: dict[str, Any]) -> int:
    """Parameters, tied ones once."""
    return sum(weight.numel() for _, weight in tensors(release, config))


def exported(release: Path, export: Path) -> Weights:
    """The weights of an export of this release: a GGUF file, a folder with packed weights, or one of plain weights.

    Raises:
        UserError: It is none of them.
    """
    if export.suffix == ".gguf":
        return read_gguf(release, export)
    config = config_of(export)
    return read_packed(export) if "quantization_config" in config else tensors(export, config)


def read_gguf(release: Path, path: Path) -> Weights:
    """The tensors of a GGUF file, which must be those of this release."""
    from derivatives.formats.gguf_file import dequantised

    return dequantised(release, path)


def read_packed(folder: Path) -> Weights:
    """The tensors of a folder with packed weights. Raises UserError."""
    package()
    from compressed_tensors.compressors import BaseCompressor

    settings = config_of(folder)["quantization_config"]
    if settings.get("quant_method") != "compressed-tensors" or settings.get("format") != "pack-quantized":
        raise UserError(
            f"{folder}: its weights are {settings.get('quant_method')!r} in format {settings.get('format')!r}; "
            "allowed: what `derive export` writes"
        )
    scheme = packed_scheme(settings)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    names = compressor.compression_param_names(scheme)
    check_shards(folder)
    places = _places(folder)
    for name in sorted(places):
        module, _, part = name.rpartition(".")
        if part == "weight_packed":
            parts = {key: _read(places, f"{module}.{key}") for key in names}
            yield f"{module}.weight", compressor.decompress(parts, scheme)["weight"]
        elif part not in names:
            yield name, _read(places, name)


def package() -> Any:
    """compressed-tensors, which packs and unpacks. Raises UserError where it is missing."""
    try:
        import compressed_tensors
    except ImportError as error:
        raise UserError(
            f"export: compressed-tensors is needed and cannot be imported ({error}); install it with "
            "pip install 'derivative-factory[formats]'"
        ) from error
    return compressed_tensors


def packed_scheme(settings: dict[str, Any]) -> Any:
    """The one scheme of a `quantization_config`."""
    from compressed_tensors.quantization import QuantizationScheme

    (group,) = settings["config_groups"].values()
    return QuantizationScheme.model_validate(group)


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def _read(places: dict[str, Path], name: str) -> torch.Tensor:
    with safe_open(places[name], framework="pt") as file:
        found: torch.Tensor = file.get_tensor(name)
    return found
