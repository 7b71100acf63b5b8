"""Drawing on several ranks: each has the whole policy, completes a share of the problems, and hears of all groups.

The policy that is trained is spread over the ranks (`training/sharding.py`), and no engine can draw from that: a token
at a time, gathering each layer would take most of the time. So every rank keeps a second copy of the weights in the
working precision (2 bytes a parameter) and takes the new ones over before it draws. With adapters the frozen weights
are read once, and only the adapters travel. Where a server draws, the first rank alone keeps the copy, in host memory.

Which rank completes a problem changes none of its random numbers, and logits by rounding alone: those of a step depend
on what else is in the batch, as they do in one process.

Not done: drawing in process from a model whose whole copy does not fit into one device; ranks that help others out
whose completions are longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from configs import stall
from derivatives.rollout.audit import Auditor
from derivatives.rollout.judged import Group
from derivatives.training.loop import Trainer
from derivatives.training.lora import FIRST, SECOND, add_adapters
from derivatives.training.model import DTYPES, load_model
from derivatives.training.ranks import Ranks
from derivatives.training.spread import HEAD
from derivatives.training.tensor_parallel import cut_dim
from verifiers.api import Task, Verdict

PATIENCE_S = 7200.0
"""How long ranks wait for the longest completions of the others."""
Drawn = TypeVar("Drawn")


class WholePolicy:
    """The trainer's policy, whole on this rank, as of the last `refresh`.

    Args:
        trainer: Whose it is.
        for_server: It is only given on: the first rank has it, in host memory, and the others nothing.

    Attributes:
        model: What an engine draws from; its tensors stay the same objects.
    """

    def __init__(self, trainer: Trainer, for_server: bool = False) -> None:
        self.trainer, self.ranks = trainer, trainer.ranks
        self.model: PreTrainedModel | None = None
        self._own: dict[str, Tensor] = {}
        if for_server and not self.ranks.first:
            return
        stage_file, device = trainer.stage_file, "cpu" if for_server else trainer.device
        self.model, _ = load_model(stage_file.model_folder(), trainer.stage.precision, device)
        if trainer.lora is not None:
            add_adapters(self.model, trainer.lora, stage_file.seed)
        self.model.requires_grad_(False)
        self._own = dict(self.model.state_dict())

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the trainer's weights as they are now; every rank must call it."""
        tied = self.trainer.model.config.tie_word_embeddings
        for name, tensor in self.trainer.model.state_dict().items():
            if self.trainer.lora is not None and FIRST not in name and SECOND not in name:
                continue
            if name == HEAD and tied:
                continue
            # As the forward pass has it; the sharded weights are FP32 masters, twice the bytes.
            given = tensor.detach().to(DTYPES[self.trainer.stage.precision])
            whole = whole_tensor(name, given, self.ranks)
            if self._own:
                self._own[name].copy_(whole)


def whole_tensor(name: str, given: Tensor, ranks: Ranks) -> Tensor:
    """A whole weight on every rank, from what each keeps of it; every rank must call it."""
    part = given.full_tensor() if isinstance(given, DTensor) else given
    dim = cut_dim(name)
    if ranks.tensor == 1 or dim is None:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks.tensor)]
    dist.all_gather(parts, part.contiguous(), group=ranks.mesh.get_group("tensor"))
    return torch.cat(parts, dim)


def share_out(
    ranks: Ranks, num_problems: int, draw: Callable[[Sequence[int]], list[Drawn]], all_first: bool = False
) -> list[Drawn]:
    """What is drawn for all problems, on every rank; every rank must call it.

    Args:
        ranks: Who shares. Neighbouring problems go to different ranks.
        num_problems: How many there are.
        draw: Places of problems -> what is drawn for each; called with this rank's.
        all_first: The first rank draws everything (for a server, which is one for all).
    """
    if ranks.alone or all_first:
        if ranks.alone:
            return draw(range(num_problems)) if num_problems else []
        first = draw(range(num_problems)) if ranks.first and num_problems else []
        with stall.paused():
            every: list[Drawn] = ranks.gather(first)[0]
        return every
    own = range(ranks.rank, num_problems, ranks.num)
    drawn = draw(own) if own else []
    with stall.paused():  # waiting for the longest completions of others is no stall
        found: list[list[Drawn]] = ranks.gather(drawn)
    return [found[place % ranks.num][place // ranks.num] for place in range(num_problems)]


def audited(ranks: Ranks, auditor: Auditor, step: int, tasks: Sequence[Task], groups: list[Group]) -> list[Group]:
    """The groups with second verdicts, which the first rank asks for; the same on every rank, whatever clocks say."""
    if ranks.first:
        groups = auditor.judge(step, tasks, groups)
    if ranks.alone:
        return groups
    own: dict[tuple[int, int], Verdict] = {
        (p, g): one.audit for p, group in enumerate(groups) for g, one in enumerate(group) if one.audit is not None
    }
    given = ranks.gather(own if ranks.first else None)[0]
    return [
        [replace(one, audit=given.get((p, g))) for g, one in enumerate(group)] for p, group in enumerate(groups)
    ]
