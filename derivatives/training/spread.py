"""A model that no single device or process need hold whole: opened, read and written by all ranks together.

`open_spread` builds the modules without memory for their weights; after `sharding.shard` has cut them, `read_rows` has
each rank read only its own block of every tensor from the safetensors files. `write_spread` gathers one tensor at a
time and writes a file when `FILE_BYTES` are together. So a rank holds, beside its share, one decoder layer or the
embeddings, and the first one a file's content while it writes.

Names of tensors must be those of the modules, as in Qwen2.5's checkpoints; what transformers would rename or fuse while
loading (mixtures of experts) is refused. Non-persistent buffers, which are in no file, are made by the rotary embedding
itself.

Not done: reading from pickled weights; several ranks that write files at once.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from configs.errors import UserError
from configs.settings.training import Lora
from derivatives.training import attention
from derivatives.training.checkpoint import disk_full_as_os_error
from derivatives.training.lora import BASE, FIRST, SECOND, merged_weights, save_adapter
from derivatives.training.model import (
    DTYPES,
    Precision,
    check_folder,
    check_vocabulary,
    first_line,
    load_tokenizer,
    replace_folder,
    save_model,
    sync_folder,
)
from derivatives.training.ranks import Ranks
from derivatives.training.tensor_parallel import gather_parts, piece_of

FILE_BYTES = 5_000_000_000
"""Largest file that is written, in bytes, but for a single tensor that is larger."""
HEAD = "lm_head.weight"
PROBE_VOCABULARY = 1024


def open_spread(
    folder: Path | str, precision: Precision, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `model.load_model`, but the weights have shapes and no memory. Raises UserError."""
    folder = Path(folder)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    check_folder(folder)
    tokenizer = load_tokenizer(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = _without_memory(config, DTYPES[precision], device)
    check_vocabulary(model, tokenizer, folder)
    attention.set_method(model, attention.choose(device, DTYPES[precision], attention.head_dim_of(model)))
    embedding: Any = model.get_input_embeddings()
    embedding.padding_idx = None  # as in load_model
    return model.eval(), tokenizer


def _without_memory(config: Any, dtype: torch.dtype, device: str) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention.REGISTERED_NAME, trust_remote_code=False
        )
    model.tie_weights()
    # One number stands for all of a weight: adapters find a CPU tensor of the right shape to go beside.
    _replace(model, lambda weight: torch.zeros((), dtype=weight.dtype).expand(weight.shape))
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is not None:
        model.base_model.rotary_emb = type(rotary)(model.config).to(device)
    unmade = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unmade:
        raise UserError(
            f"machine.num_processes: {type(model).__name__} has buffers that only its own loading makes "
            f"({', '.join(unmade[:3])}); allowed: models such as Qwen2ForCausalLM; choose a profile with one process"
        )
    return model


def give_memory(module: nn.Module, device: str) -> None:
    """Memory on a device for the weights of a module from `open_spread`, not written to; those it has stay as they are.

    On CPU untouched pages take no room, so that of a layer only the rows that are read are ever held.
    """

    def with_memory(weight: Tensor) -> Tensor | None:
        if isinstance(weight, DTensor) or not _has_no_memory(weight):
            return None
        dtype = torch.float32 if weight.requires_grad else weight.dtype
        return torch.empty(weight.shape, dtype=dtype, device=device)

    _replace(module, with_memory)


def _has_no_memory(weight: Tensor) -> bool:
    return weight.numel() > 1 and not any(weight.stride())


def _replace(module: nn.Module, made: Callable[[Tensor], Tensor | None]) -> None:
    """Put another tensor in the place of each weight that has one; those that were one stay one."""
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            if weight not in replaced and (tensor := made(weight)) is not None:
                replaced[weight] = nn.Parameter(tensor, requires_grad=weight.requires_grad)
            if weight in replaced:
                setattr(part, name, replaced[weight])


@torch.no_grad()
def read_rows(model: PreTrainedModel, folder: Path | str, precision: Precision, ranks: Ranks) -> None:
    """Read this rank's block of all weights of a model that was sharded, but for its adapters, which are in no file.

    Raises:
        UserError: A tensor is missing, of another shape, cannot be read, or is not finite.
    """
    folder, dtype = Path(folder), DTYPES[precision]
    unread: list[str] = []
    try:
        with ExitStack() as stack:
            tensors = _open_tensors(folder, stack)
            for name, weight in model.named_parameters():
                if FIRST in name or SECOND in name:
                    continue
                plain = name.replace(BASE, ".")
                block = piece_of(name, weight, ranks)
                there = tensors[plain].get_slice(plain) if plain in tensors else None
                if there is None or tuple(there.get_shape()) != block.whole:
                    unread.append(plain)
                    continue
                own = weight.to_local() if isinstance(weight, DTensor) else weight
                rows = there[block.slices()].to(dtype)
                own.copy_(rows)
                if not bool(torch.isfinite(rows).all()):
                    raise UserError(
                        f"model: {plain} in {folder} holds values that are not finite (NaN or infinity); "
                        "the checkpoint is spoilt; copy or download it again, or take an earlier one"
                    )
    except UserError:
        raise
    except Exception as error:  # safetensors', torch's and the OS's own
        raise UserError(
            f"model: the weights in {folder} cannot be read ({first_line(error)}); the file is damaged or cut short; "
            "copy or download the checkpoint again"
        ) from error
    if unread:
        raise UserError(
            f"model: {folder} lacks {len(unread)} tensors of the right shape ({', '.join(sorted(unread)[:3])}, ...); "
            "the checkpoint is incomplete; copy or download it again"
        )


def _open_tensors(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """The open file of each tensor of a folder, by its name."""
    files = [stack.enter_context(safe_open(path, framework="pt")) for path in sorted(folder.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def two_layers(model: PreTrainedModel, precision: Precision, device: str) -> PreTrainedModel:
    """A model with random weights and the shape of another one's layers, for the leak probe; draws nothing."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers, config.vocab_size = min(2, config.num_hidden_layers), PROBE_VOCABULARY
    config.pad_token_id = None
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = AutoModelForCausalLM.from_config(
            config, dtype=DTYPES[precision], attn_implementation=attention.REGISTERED_NAME
        )
    attention.set_method(made, attention.method_of(model))
    probed: PreTrainedModel = made.to(device).eval()
    return probed


def write_spread(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    lora: Lora | None,
    precision: Precision,
    ranks: Ranks,
) -> None:
    """Write `model/`, and `adapter/` where there are adapters, as one process would; every rank must call it.

    Raises:
        OSError: The disk is full, on the first rank.
    """
    adapters: dict[str, Tensor] = {}
    if lora is not None:
        adapters = dict(_gathered(model, ranks, DTYPES[precision], adapters=True))
        if ranks.first:
            save_adapter(adapters, lora, out / "adapter")
    partial = out / ".model.partial"
    if ranks.first:
        shutil.rmtree(partial, ignore_errors=True)
        save_model(model, tokenizer, partial, {})  # config, tokenizer, generation config
        for path in partial.glob("*.safetensors"):
            path.unlink()
    weights = _merged(_gathered(model, ranks, torch.bfloat16, adapters=False), adapters, lora)
    _write_files(weights, partial)
    if ranks.first:
        sync_folder(partial)
        replace_folder(partial, out / "model")


def _gathered(model: PreTrainedModel, ranks: Ranks, dtype: torch.dtype, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights one by one, whole on the CPU of the first rank; the others take part and get none."""
    for name, tensor in model.state_dict().items():
        if (FIRST in name or SECOND in name) != adapters or (name == HEAD and model.config.tie_word_embeddings):
            continue
        given = tensor.detach().to(dtype)  # rounded before it travels: half the bytes
        part = given.full_tensor() if isinstance(given, DTensor) else given
        whole = gather_parts(name, part, ranks)
        if ranks.first:
            yield name, whole.cpu()


def _merged(
    weights: Iterator[tuple[str, Tensor]], adapters: dict[str, Tensor], lora: Lora | None
) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights:
        if lora is None:
            yield name, weight
            continue
        module = name.partition(BASE)[0]
        own = {part: tensor for part, tensor in adapters.items() if part.startswith(f"{module}.lora_")}
        for plain, tensor in merged_weights({name: weight, **own}, lora).items():
            yield plain, tensor.to(torch.bfloat16)


def _write_files(weights: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """safetensors files of at most `FILE_BYTES`, with an index where there are several."""
    names: list[list[str]] = []
    held: dict[str, Tensor] = {}
    num_bytes = held_bytes = 0

    def write() -> None:
        with disk_full_as_os_error(folder):
            save_file(held, folder / f"part-{len(names):05d}.safetensors", metadata={"format": "pt"})
        names.append(list(held))
        held.clear()

    for name, tensor in weights:
        if held and held_bytes + tensor.nbytes > FILE_BYTES:
            write()
            held_bytes = 0
        held[name] = tensor.contiguous()
        held_bytes += tensor.nbytes
        num_bytes += tensor.nbytes
    if not held:
        return
    write()
    titles = [f"model-{number:05d}-of-{len(names):05d}.safetensors" for number in range(1, len(names) + 1)]
    if len(names) == 1:
        titles = ["model.safetensors"]
    for number, title in enumerate(titles):
        (folder / f"part-{number:05d}.safetensors").rename(folder / title)
    if len(names) > 1:
        places = {name: title for part, title in zip(names, titles, strict=True) for name in part}
        index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(places.items()))}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
