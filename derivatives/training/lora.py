"""Low-rank adapters through peft: trained in place of the weights, merged into a plain checkpoint at the end.

peft puts a module with the frozen linear map and its adapter in the place of each target, inside the very model that
was loaded, so the packed forward pass, recomputation and sharding know nothing of it. What must not happen is that code
reads such a module's `weight`, which is the frozen one alone: `merged_weights` is for that. The first product of an
adapter is random from the run's seed, the second is 0, so training starts from the model as it was.

In rl the rollout engine reads the adapters where they lie (`adapter_of`), and the reference of a KL term is the same
model with them off (`adapters_off`).

Only adapters are trained, have masters and moments, and are in checkpoints; the frozen weights come from the model
folder again. Dropout draws from a seed of run, step and rank (`seed_step`), so that a resumed run draws the same.

Source: LoRA (arXiv:2106.09685). Departure: merging is in FP32 and rounded once, to the bf16 that is written; a change
smaller than half a bf16 step of a weight is lost there, which full training would lose as well. Not done: quantised
frozen weights (QLoRA), adapters on embeddings.

Shape letters: O outputs and I inputs of a linear map, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.errors import UserError
from configs.settings.training import Lora
from derivatives.training.recompute import decoder_layers

ADAPTER = "default"
"""peft's name of the one adapter."""
BASE, FIRST, SECOND = ".base_layer.", f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."


class Adapter(NamedTuple):
    """What an adapter adds to its linear map's result: x `first`' `second`' times `scale`."""

    first: Tensor  # [R, I]
    second: Tensor  # [O, R]
    scale: float


def adapter_of(module: nn.Module) -> Adapter | None:
    """The adapter of a linear map, its own tensors; None where it has none."""
    if not hasattr(module, "lora_A"):
        return None
    first, second = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight  # type: ignore[index, union-attr]
    return Adapter(first, second, module.scaling[ADAPTER])  # type: ignore[index, arg-type]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """For as long as this lasts, the model computes as it was before it got adapters; not for a backward pass."""
    adapted = [module for module in model.modules() if adapter_of(module) is not None]
    try:
        for module in adapted:
            module.enable_adapters(False)  # type: ignore[operator]
        yield
    finally:
        for module in adapted:
            module.enable_adapters(True)  # type: ignore[operator]


def add_adapters(model: PreTrainedModel, lora: Lora, seed: int) -> None:
    """Freeze a model and put adapters on its targets. Raises UserError without peft, or for a target it has not."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            f"stage.lora: peft is needed and cannot be imported ({error}); install it with "
            "pip install 'derivative-factory[lora]', or leave stage.lora out to train all weights"
        ) from error
    layers = decoder_layers(model)
    known = sorted({name.rpartition(".")[2] for name, part in layers[0].named_modules() if isinstance(part, nn.Linear)})
    for index, target in enumerate(lora.targets):
        if target not in known:
            raise UserError(
                f"stage.lora.targets[{index}]: {target!r} is no linear map of this model's layers; "
                f"allowed: {', '.join(known)}"
            )
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none"
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    set_dropout(model, False)  # peft leaves it on, whatever the model's mode


def set_dropout(model: nn.Module, on: bool) -> None:
    """Turn the adapters' dropout on for training, off for everything else; a model is loaded with it off."""
    for name, module in model.named_modules():
        if name.endswith(f".lora_dropout.{ADAPTER}"):
            module.train(on)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for what a step draws, by numbers that a resumed run has again."""
    (drawn,) = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(drawn >> np.uint64(1)))


@torch.no_grad()
def merged_weights(weights: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The weights of a plain model, by its own names: W + (alpha / rank) * B A, worked out in FP32.

    Args:
        weights: All tensors of the model with adapters (its `state_dict`, whole).
        lora: What the adapters were made with.
    """
    plain: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if FIRST in name or SECOND in name:
            continue
        module, base, _ = name.partition(BASE)
        if base and name.endswith(".weight"):
            first_RI, second_OR = weights[f"{module}{FIRST}weight"], weights[f"{module}{SECOND}weight"]
            weight = weight.float() + (second_OR.float() @ first_RI.float()) * (lora.alpha / lora.rank)
        plain[name.replace(BASE, ".")] = weight
    return plain


@torch.no_grad()
def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A model's weights by a plain model's names, in their own precision; merged one by one where it has adapters."""
    for name, weight in model.state_dict().items():
        if FIRST in name or SECOND in name:
            continue
        module, base, _ = name.partition(BASE)
        if base and name.endswith(".weight"):
            adapter = adapter_of(model.get_submodule(module))
            assert adapter is not None
            change_OI = (adapter.second.float() @ adapter.first.float()) * adapter.scale
            weight = (weight.float() + change_OI).to(weight.dtype)
        yield name.replace(BASE, "."), weight


def save_adapter(weights: Mapping[str, Tensor], lora: Lora, folder: Path) -> None:
    """Write the adapters in peft's own layout, for `PeftModel.from_pretrained` on the model the stage started from."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": weight.detach().to("cpu").contiguous()
        for name, weight in weights.items()
        if FIRST in name or SECOND in name
    }
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        bias="none", task_type="CAUSAL_LM", inference_mode=True,
    )  # fmt: skip
    config.save_pretrained(str(folder))
