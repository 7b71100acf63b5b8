"""Training on given text: pretraining, supervised examples, preferences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.settings.common import Decay, Fraction, Frozen, NonNegativeFloat, StageBase, StageId, TaskSource
from configs.settings.corpus import CorpusSource
from configs.suites import expand


class Spikes(Frozen):
    """When a step counts as gone wrong, against the steps before it, and what is done then."""

    action: Literal["stop", "skip", "ignore"] = Field(
        default="stop",
        description="stop ends the stage before the update and keeps the rows in anomaly.json; skip leaves the update "
        "out, counts it and goes on; ignore updates. A loss or gradient that is not finite always stops.",
    )
    deviations: PositiveFloat = Field(
        default=8.0,
        description="A loss is a spike if it is more than this many standard deviations (of one step from the next) "
        "above the mean of the last 64 steps, and more than `nats` above it. Not looked at in rl, whose loss has no "
        "level.",
    )
    nats: PositiveFloat = Field(default=0.5, description="Least rise of the loss above that mean, in nats.")
    grad_ratio: PositiveFloat = Field(
        default=50.0,
        description="A gradient norm is a spike if it is more than this many times the median of the last 64 steps, "
        "and more than 10 times max_grad_norm.",
    )


class Lora(Frozen):
    """Low-rank adapters (arXiv:2106.09685) that are trained in place of the weights, which stay as they are."""

    rank: PositiveInt = Field(default=16, description="Inner dimension of each adapter.")
    alpha: PositiveInt = Field(default=32, description="An adapter's product is multiplied by alpha / rank.")
    dropout: Decay = Field(default=0.0, description="Share of an adapter's inputs that are set to 0 in training.")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Linear maps of each layer that get an adapter, by the last part of their names.",
    )


class Optimization(Frozen):
    """Fields that the training stages share (AdamW over FP32 masters)."""

    learning_rate: PositiveFloat = Field(description="Peak learning rate of AdamW.")
    min_lr_fraction: Fraction = Field(default=0.1, description="Final learning rate as a fraction of the peak.")
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        default="cosine", description="Learning-rate schedule after warm-up; wsd decays linearly over the last fifth."
    )
    warmup_fraction: Fraction = Field(
        default=0.05, description="Share of the steps over which the learning rate rises from 0."
    )
    weight_decay: NonNegativeFloat = Field(
        default=0.0, description="Decoupled weight decay of matrices (not of norms and biases)."
    )
    beta1: Decay = Field(default=0.9, description="Decay of AdamW's first moment.")
    beta2: Decay = Field(default=0.95, description="Decay of AdamW's second moment.")
    max_grad_norm: PositiveFloat = Field(default=1.0, description="Gradients are scaled down to this global L2 norm.")
    micro_batch_tokens: PositiveInt = Field(
        default=8192,
        description="Tokens in one packed row (forward and backward pass); "
        "bounds memory, changes results only by rounding.",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="Which activations of a layer the backward pass makes again instead of keeping: none; selective, "
        "all but the results of matrix products and attention; full, all. Saves memory, changes no result.",
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="Type of the working weights and activations; masters and optimizer state are always FP32.",
    )
    checkpoint_every: PositiveInt = Field(
        default=50, description="Steps between checkpoints; at most this much work is lost."
    )
    spikes: Spikes = Field(default=Spikes(), description="Steps that are stopped at or left out.")
    lora: Lora | None = Field(
        default=None,
        description="Train adapters alone and merge them into the written model; empty trains all weights. Needs peft "
        "(extra `lora`). Learning rates are usually ten times those of full training. In rl without dropout.",
    )


class Yarn(Frozen):
    """Rotary frequencies that are slowed down by how often each turns within the context of before."""

    factor: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = Field(
        description="New context over the one of before; Qwen2.5 publishes 4, for 131,072 tokens."
    )
    original: PositiveInt = Field(
        description="Tokens of context that the model was trained on; Qwen2.5 32,768, whatever its config says."
    )


class Context(Frozen):
    """A longer context, from the first step on: how many tokens, and one way to turn queries and keys there."""

    length: PositiveInt = Field(
        description="Tokens of context that the written model has (`max_position_embeddings`); more than its base has."
    )
    rope_base: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="New base of the rotary frequencies (`rope_theta`, arXiv:2309.16039). Qwen2.5 went from 10,000 at "
        "4,096 tokens to 1,000,000 at 32,768 (arXiv:2412.15115). Needs training.",
    )
    yarn: Yarn | None = Field(
        default=None,
        description="YaRN (arXiv:2309.00071): frequencies that turn less than once within the old context are divided "
        "by the factor, those above 32 turns stay, and attention gets sharper.",
    )

    @model_validator(mode="after")
    def _one_way_of_that_length(self) -> Context:
        if (self.rope_base is None) == (self.yarn is None):
            given = "none was given" if self.yarn is None else "both were given"
            raise ValueError(f"context: {given} of rope_base and yarn; allowed: exactly one; set one of them")
        if self.yarn is not None and self.yarn.factor * self.yarn.original != self.length:
            raise ValueError(
                f"context.length: {self.length} is not yarn.factor * yarn.original = {self.yarn.factor:g} * "
                f"{self.yarn.original} = {self.yarn.factor * self.yarn.original:g}; allowed: their product; change one"
            )
        return self


class Supervised(Frozen):
    """Fields that the stages share which train on given texts."""

    evaluate_every: PositiveInt = Field(
        default=100, description="Steps between measurements on held-out data, where any is given."
    )
    heldout_text: tuple[CorpusSource, ...] = Field(
        default=(),
        description="Texts that are not trained on, a domain each, whose bits per byte are measured before the first "
        "step and then every `evaluate_every` steps.",
    )
    max_forgetting: NonNegativeFloat = Field(
        default=0.1,
        description="Rise of a domain's bits per byte, as a share of what it was before the first step, that sets off "
        "the alarm.",
    )
    on_forgetting: Literal["warn", "stop"] = Field(default="warn", description="What the alarm does.")
    probe_tasks: tuple[TaskSource, ...] = Field(
        default=(),
        description="Held-out problems that are answered greedily every `evaluate_every` steps and judged by each "
        "set's verifier (sft and dpo on one process).",
    )
    probe_tokens: PositiveInt = Field(default=128, description="Longest answer to such a problem.")

    _suites = field_validator("probe_tasks")(expand)


class PretrainStage(StageBase, Optimization, Supervised):
    """Continued pretraining on packed tokens; every token is trained on."""

    kind: Literal["pretrain"] = "pretrain"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[StageId, ...] = Field(min_length=1, description="Corpus stages with output tokens.")
    num_tokens: PositiveInt = Field(description="Tokens to train on; the data is repeated in a new order if shorter.")
    batch_tokens: PositiveInt = Field(default=16384, description="Tokens in one optimizer step.")
    context: Context | None = Field(
        default=None,
        description="Move the model to a longer context; empty leaves it as it is. Later stages take it over.",
    )


class Replay(Frozen):
    """Documents that every step of supervised fine-tuning trains on besides, so that what the base knew stays."""

    data: tuple[StageId, ...] = Field(min_length=1, description="Corpus stages with output tokens.")
    batch_tokens: PositiveInt = Field(
        description="Tokens of whole documents in one optimizer step, on top of its examples; all are trained on. The "
        "documents are repeated in a new order when all were shown."
    )
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        default=1.0,
        description="What a token of theirs counts for beside one of an answer. Many that count for little disturb "
        "what is learnt less than few that count in full.",
    )


class SftStage(StageBase, Optimization, Supervised):
    """Supervised fine-tuning on prompt and completion; loss on completions only."""

    kind: Literal["sft"] = "sft"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[str, ...] = Field(
        min_length=1,
        description="Corpus stages with output examples, or paths of JSONL "
        "files with `prompt`/`completion` or `messages`.",
    )
    epochs: PositiveFloat = Field(default=1.0, description="Passes over the examples, each in a new order.")
    batch_examples: PositiveInt = Field(default=64, description="Examples in one optimizer step.")
    max_length: PositiveInt = Field(
        default=1024, description="Tokens of prompt and completion; longer examples are dropped and counted."
    )
    system: str | None = Field(default=None, description="System prompt put before every conversation that has none.")
    learn_outputs: bool = Field(
        default=False,
        description="Train also on what an interpreter said in an answer (```output right after ```python). Off, it is "
        "context alone: the model reads it, and learns not to make it up.",
    )
    replay: Replay | None = Field(
        default=None,
        description="Train on documents of token corpora in each step too, against forgetting; empty trains on the "
        "examples alone.",
    )
    context: Context | None = Field(
        default=None,
        description="Move the model to a longer context; empty leaves it as it is. Later stages take it over.",
    )


class DpoStage(StageBase, Optimization, Supervised):
    """Direct preference optimization on pairs of a better and a worse completion."""

    kind: Literal["dpo"] = "dpo"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[str, ...] = Field(
        min_length=1,
        description="Sample stages, or paths of JSONL files with `prompt`, `chosen` and `rejected`.",
    )
    loss: Literal["sigmoid", "ipo"] = Field(
        default="sigmoid",
        description="sigmoid is DPO's; ipo draws each margin to 1 / (2 beta) instead of ever further.",
    )
    beta: PositiveFloat = Field(
        default=0.1, description="Pull to the starting model, per nat: the larger, the less it moves away."
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        default=0.0, description="Share of pairs taken to be the wrong way round (sigmoid only)."
    )
    normalize_length: bool = Field(
        default=False,
        description="Divide log-probabilities by the completion's tokens, so that long ones gain nothing by length; "
        "beta is then usually 2 to 10.",
    )
    nll_weight: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the chosen completion's cross-entropy per token, added to each pair's loss, so that its "
        "likelihood does not fall with the rejected one's (iterative RPO 1, Llama 3 0.2); 0 is plain DPO.",
    )
    epochs: PositiveFloat = Field(default=1.0, description="Passes over the pairs, each in a new order.")
    batch_pairs: PositiveInt = Field(default=32, description="Pairs in one optimizer step.")
    max_length: PositiveInt = Field(
        default=1024, description="Tokens of prompt and completion; pairs with a longer one are dropped and counted."
    )
    system: str | None = Field(default=None, description="System prompt put before every prompt.")
    heldout_pairs: tuple[str, ...] = Field(
        default=(),
        description="Paths of JSONL files like `data`, never trained on; their loss, margin and accuracy are measured "
        "every `evaluate_every` steps and at the end.",
    )
