"""What a derivative is made of: the `Recipe` and one frozen model per stage kind.

A recipe is data. It is read from a YAML preset by `configs.load`, checked here, and handed stage by
stage to the stage commands (`configs.stage`). Unknown keys, wrong types and dangling stage references
are rejected. Every field's description says its unit and its effect; `derive show` prints them.

Nothing here imports torch or prefect.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.errors import UserError

STAGE_KINDS = ("corpus", "pretrain", "sft", "sample", "dpo", "rl", "evaluate", "release")
MODEL_KINDS = ("pretrain", "sft", "dpo", "rl")
"""Stage kinds whose folder holds a model under `model/`."""
RANKED_KINDS = ("pretrain", "sft", "dpo")
"""Stage kinds that run on all processes of a machine profile; every other kind runs in one."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StageId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Frozen(BaseModel):
    """Base of all configuration: immutable, unknown keys rejected, no silent type coercion of strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class TaskSource(Frozen):
    """A draw of problems from a named task set (`verifiers/tasks`) or from the user's own JSONL."""

    name: str = Field(
        description="Task set (`gsm8k`, `math500`, `asdiv`, `reasoning_gym/chain_sum`, `functions/lists`, ...) or a "
        'path ending in .jsonl whose lines are {"prompt": ..., "answer": ...}.'
    )
    split: Literal["train", "heldout", "test", "all"] = Field(
        default="train",
        description="Part of the set. Procedural sets are split by the hash of the normalised question "
        "text, so train and heldout can never share a question, whatever the seed.",
    )
    count: PositiveInt | None = Field(
        default=None, description="Problems to draw; empty takes all (procedural sets need it)."
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of a procedural generator, "
        "e.g. {max_terms: 3}. Unknown names are rejected by the generator.",
    )
    seed: Seed = Field(default=0, description="Seed of the draw.")


class FillInTheMiddle(Frozen):
    """How often and where documents of a source are cut for fill in the middle (`corpora/fim.py`)."""

    rate: Fraction = Field(default=0.5, description="Share of the documents that are cut (StarCoder 0.5).")
    character: NonNegativeFloat = Field(default=1.0, description="Weight of cuts between any two characters.")
    line: NonNegativeFloat = Field(default=1.0, description="Weight of cuts at starts of lines.")
    syntax: NonNegativeFloat = Field(default=1.0, description="Weight of cuts around a node of the syntax tree.")
    min_characters: PositiveInt = Field(default=30, description="Shorter documents are not cut.")

    @model_validator(mode="after")
    def _some_level(self) -> FillInTheMiddle:
        if self.character + self.line + self.syntax == 0:
            raise ValueError("fim: character, line and syntax are 0, 0 and 0; at least one must be above 0; "
                             "set character: 1")
        return self


class NearDuplicates(Frozen):
    """What counts as a near-duplicate (`corpora/near_duplicates`); the defaults are FineWeb's (arXiv 2406.17557)."""

    num_words: int = Field(default=5, ge=1, le=64, description="Words in a shingle.")
    num_bands: int = Field(default=14, ge=1, le=1024, description="Bands of the MinHash signature; sharing one makes "
                           "two documents a candidate pair.")
    num_rows: int = Field(default=8, ge=1, le=64, description="Hashes in a band.")
    threshold: float | None = Field(default=None, gt=0.0, le=1.0, description="Exact Jaccard similarity that a "
                                    "candidate pair must have; empty takes every candidate pair, as FineWeb does.")
    seed: Seed = Field(default=0, description="Chooses the hash functions.")


RedactKind = Literal["private_key", "key", "password", "email", "ip_address", "phone_number"]


class CorpusSource(Frozen):
    """One source of a corpus and its share."""

    name: str = Field(
        description="`python_stdlib`, `python_packages` (those installed beside this project), `sympy_examples`, a "
        "task set with worked solutions (`reasoning_gym/...`, `functions/...`, `gsm8k`), a catalogue data set, or a "
        "path: a file ending in .jsonl, .jsonl.gz, .jsonl.zst or .parquet, or, with a slash in front or after "
        "(`./notes.txt`, `src/`), a plain file, a folder, a git checkout or a folder of checkouts."
    )
    split: Literal["train", "heldout", "test", "all"] = Field(default="train", description="Part of the source.")
    weight: PositiveFloat = Field(
        default=1.0, description="Share of this source in the mixture, in tokens (relative)."
    )
    count: PositiveInt | None = Field(
        default=None, description="Documents to draw at most; procedural sources need it."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="Settings of a procedural generator.")
    seed: Seed = Field(default=0, description="Seed of a procedural draw.")
    style: Literal["plain", "think"] = Field(
        default="plain",
        description="How worked solutions are written: plain is steps, then the boxed answer; think puts the "
        "steps between <think> and </think> (a cold start for reasoning; only `reasoning_gym/...`).",
    )
    licences: tuple[str, ...] | None = Field(
        default=None,
        description="Licences to admit (`[mit, apache-2.0]`; `permissive`: all that ask for no more than naming the "
        "author); what a file's header says goes before what its repository says. Empty admits all and reads none.",
    )
    filters: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Quality rules (docs/corpora/filters.md): a set of them (`code`, `math`, `prose`), a list of "
        "filters in the order in which they are asked, or filters with their settings, "
        "`{code: {}, line_shape: {max_line: 500}}`.",
    )
    redact: tuple[RedactKind, ...] = Field(
        default=(), description="Replace secrets and personal data by placeholders: true for all kinds, or their names."
    )
    level: Literal["file", "repository"] = Field(
        default="file",
        description="repository: the files of one repository make one document, dependencies first, as long as "
        "they fit into sequence_length (output tokens, sources that know repositories).",
    )
    fim: FillInTheMiddle | None = Field(
        default=None, description="Cut documents for fill in the middle (output tokens); at level repository only "
        "the last file of a document. `{}` takes the defaults.",
    )

    @field_validator("licences", mode="before")
    @classmethod
    def _one_licence(cls, given: Any) -> Any:
        # A tuple, because what is read from JSON is taken strictly after a validator.
        return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given

    @field_validator("filters", mode="before")
    @classmethod
    def _named_filters(cls, given: Any) -> Any:
        names = [given] if isinstance(given, str) else given
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return {name: {} for name in names}
        return given

    @field_validator("redact", mode="before")
    @classmethod
    def _all_kinds(cls, given: Any) -> Any:
        if isinstance(given, bool):
            return get_args(RedactKind) if given else ()
        return tuple(given) if isinstance(given, list) else given


class StageBase(Frozen):
    """What every stage has."""

    id: StageId = Field(description="Name by which later stages and overrides refer to this stage.")


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


class Supervised(Frozen):
    """Fields that the stages share which train on given texts."""

    lora: Lora | None = Field(
        default=None,
        description="Train adapters alone and merge them into the written model; empty trains all weights. Needs peft "
        "(extra `lora`). Learning rates are usually ten times those of full training.",
    )
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
        "set's verifier (sft and dpo on one process, not with lora).",
    )
    probe_tokens: PositiveInt = Field(default=128, description="Longest answer to such a problem.")


class CorpusStage(StageBase):
    """Sources to clean data: packed tokens, supervised examples, or problems with gold answers."""

    kind: Literal["corpus"] = "corpus"
    output: Literal["tokens", "examples", "problems"] = Field(
        description="tokens: documents tokenised and packed for pretraining. examples: prompt and completion for "
        "SFT. problems: prompt and gold answer for RL."
    )
    sources: tuple[CorpusSource, ...] = Field(
        min_length=1, description="Sources in order of precedence for duplicates."
    )
    num_tokens: PositiveInt | None = Field(
        default=None,
        description="Token budget of the mixture (output tokens only); the "
        "achieved count per source is recorded beside the asked one.",
    )
    sequence_length: PositiveInt = Field(
        default=512,
        description="Longest packed document in tokens; longer ones are split "
        "(tokens) or dropped with a named reason (examples).",
    )
    deduplicate: bool = Field(default=True, description="Drop exact duplicates (by normalised text), first one wins.")
    near_duplicates: NearDuplicates | None = Field(
        default=None,
        description="Drop near-duplicates over all sources; of a cluster the longest text is kept, whichever source "
        "it is of. true takes the defaults; empty or false does not look for them.",
    )
    decontaminate: tuple[TaskSource, ...] = Field(
        default=(),
        description="Benchmarks that must not be seen: natural ones by 13-gram overlap, short items and "
        "procedural ones by exact normalised question.",
    )
    ngram: PositiveInt = Field(
        default=13, description="Words in the n-gram of the decontamination of natural benchmarks."
    )
    subsequence: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Also drop a document that has a common subsequence with a benchmark question of at least 13 words "
        "and this share of the shorter one (Qwen2.5: 0.6), or a short question behind a label; empty does not look.",
    )
    self_test: bool = Field(
        default=False,
        description="Inject benchmark questions into clean documents of this corpus and report how many are found.",
    )

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _near_duplicates_by_word(cls, given: Any) -> Any:
        return ({} if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _cleaning_fits(self) -> CorpusStage:
        for index, source in enumerate(self.sources):
            for field, given in (("fim", source.fim is not None), ("level", source.level == "repository")):
                if given and self.output != "tokens":
                    raise ValueError(f"{self.id}.sources[{index}].{field}: was set with output {self.output!r}; "
                                     f"allowed: only with output tokens; remove {field}")
        if self.near_duplicates and not self.deduplicate:
            raise ValueError(f"{self.id}.near_duplicates: was set with deduplicate: false; allowed: only beside exact "
                             "duplicates; remove deduplicate")
        if self.self_test and not self.decontaminate:
            raise ValueError(f"{self.id}.self_test: was set without decontaminate, so that there is nothing to look "
                             "for; name benchmarks there, or remove self_test")
        return self


class PretrainStage(StageBase, Optimization, Supervised):
    """Continued pretraining on packed tokens; every token is trained on."""

    kind: Literal["pretrain"] = "pretrain"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[StageId, ...] = Field(min_length=1, description="Corpus stages with output tokens.")
    num_tokens: PositiveInt = Field(description="Tokens to train on; the data is repeated in a new order if shorter.")
    batch_tokens: PositiveInt = Field(default=16384, description="Tokens in one optimizer step.")


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


class Sampling(Frozen):
    """How completions are drawn."""

    temperature: NonNegativeFloat = Field(default=1.0, description="Softmax temperature; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="Nucleus: smallest set with this probability."
    )
    top_k: Annotated[int, Field(ge=0)] = Field(default=0, description="Keep the k most likely tokens; 0 keeps all.")
    min_p: Fraction = Field(
        default=0.0, description="Drop tokens less likely than this share of the most likely one; 0 keeps all."
    )
    max_new_tokens: PositiveInt = Field(
        default=128, description="Tokens after which a completion is cut (finish reason `length`)."
    )


class Reward(Frozen):
    """One more verifier whose score is added to the reward."""

    verifier: str = Field(description="Verifier (registry name).")
    weight: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=1.0, description="What its score, in [0, 1], is multiplied by; the stage's own verifier has 1."
    )


class Audit(Frozen):
    """An independent verifier that looks at samples of what earns the reward."""

    verifier: str = Field(description="Second verifier (registry name); best one that shares no code with the first.")
    every: PositiveInt = Field(default=1, description="Steps between audits.")
    samples: PositiveInt = Field(default=16, description="Completions that an audit judges a second time.")
    max_gap: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.1,
        description="Alarm when the reward has risen by more than this (a share of the samples) beyond what the "
        "second verifier confirms, and by more than chance explains.",
    )


class ForkPoint(Frozen):
    """The state that a stage goes on from; `derive fork` writes it."""

    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Digest of the stage begun first.")
    step: PositiveInt = Field(description="Its last step that both have in common.")


class RlStage(StageBase, Optimization):
    """Reinforcement learning from verifier rewards (GRPO) with in-process rollouts."""

    kind: Literal["rl"] = "rl"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[str, ...] = Field(
        min_length=1,
        description="Corpus stages with output problems, or paths of JSONL files with `prompt` and `answer`.",
    )
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo"] = Field(
        default="grpo",
        description="Policy loss: grpo averages over tokens of each completion, then completions; dapo over all tokens "
        "of the step; dr_grpo divides by neither length nor deviation; gspo clips a ratio per completion; cispo keeps "
        "clipped tokens' gradients; rloo is REINFORCE against the group's others.",
    )
    verifier: str = Field(default="math", description="Verifier that gives the reward (registry name).")
    steps: PositiveInt = Field(description="Optimizer phases: one rollout batch each.")
    prompts_per_step: PositiveInt = Field(default=32, description="Distinct problems in a rollout batch.")
    group_size: Annotated[int, Field(ge=2)] = Field(
        default=8, description="Completions per problem; the advantage is relative to them."
    )
    updates_per_step: PositiveInt = Field(
        default=1, description="Optimizer updates per rollout batch; 1 is exactly on-policy."
    )
    sampling: Sampling = Field(default=Sampling(), description="How rollouts are drawn.")
    clip_low: Fraction | None = Field(
        default=None, description="Lower clip of the probability ratio (1 - clip_low); empty takes the loss's own."
    )
    clip_high: NonNegativeFloat | None = Field(
        default=None, description="Upper clip of the probability ratio (1 + clip_high); empty takes the loss's own."
    )
    kl_coefficient: NonNegativeFloat = Field(
        default=0.0, description="Weight of the KL to the starting model; 0 keeps no reference."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        default="k3", description="How the KL is estimated from each drawn token (see derivatives/losses/kl.py)."
    )
    entropy_coefficient: NonNegativeFloat = Field(
        default=0.0, description="Weight of the entropy bonus, per nat; the first one where there is an entropy_target."
    )
    entropy_target: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Entropy in nats per token below which the bonus acts and grows by 0.005 a step; "
        "above it, it shrinks and does not act. Empty keeps the coefficient as it is.",
    )
    scale_advantages: bool = Field(
        default=True, description="Divide advantages by the group's standard deviation (GRPO); off is Dr. GRPO."
    )
    truncated: Literal["mask", "wrong", "shaped"] = Field(
        default="wrong",
        description="A completion cut at max_new_tokens is masked from the loss, or scored 0, or scored -1 with "
        "completions near the limit on the way to it.",
    )
    overlong_buffer: PositiveInt | None = Field(
        default=None,
        description="Tokens before max_new_tokens over which truncated=shaped takes away reward; "
        "empty takes a fifth of max_new_tokens.",
    )
    curriculum: bool = Field(
        default=True, description="Draw problems that were neither always nor never solved more often."
    )
    retire_after: PositiveInt | None = Field(
        default=None,
        description="Visits in a row after which a problem that all (or none) of its completions solve is drawn no "
        "more, unless too few others are left; empty only draws it less often. Needs curriculum.",
    )
    length_stages: tuple[PositiveInt, ...] = Field(
        default=(),
        description="max_new_tokens of the first parts of the stage, growing; the steps are split evenly among these "
        "and sampling.max_new_tokens, which comes last.",
    )
    replacement_rounds: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Times that a step's groups without spread are replaced by groups of other problems (DAPO's "
        "dynamic sampling); those still left, or all with 0, are counted and give no gradient.",
    )
    more_rewards: tuple[Reward, ...] = Field(
        default=(),
        description="Verifiers beside `verifier`: the reward is the sum of all scores, each times its weight. Without "
        "one of the verdicts a completion has none.",
    )
    partial_credit: bool = Field(
        default=False,
        description="Reward an incorrect completion by its score, where the verifier gives parts of 1 (tests passed, "
        "constraints followed, a puzzle's own scoring). Off, an incorrect one is worth 0.",
    )
    audit: Audit | None = Field(
        default=None, description="Second opinion on samples of the rollouts, with an alarm when reward and truth part."
    )
    keep_rollouts: Annotated[int, Field(ge=0)] = Field(
        default=1000,
        description="Steps of which every completion is kept in rollouts/, spread evenly over the stage; about 2 to 5 "
        "bytes a token.",
    )
    fork_every: PositiveInt | None = Field(
        default=None,
        description="Steps between checkpoints that are kept for `derive fork` (a multiple of checkpoint_every); 12 "
        "bytes per parameter each. Empty keeps none beyond the stage's end.",
    )
    fork: ForkPoint | None = Field(default=None, description="Where to go on from; set by `derive fork`.")
    system: str | None = Field(default=None, description="System prompt of every rollout.")
    max_no_verdict: Fraction = Field(
        default=0.05, description="The stage stops when more than this share of the latest verdicts is missing."
    )

    @model_validator(mode="after")
    def _curriculum_fits(self) -> RlStage:
        if self.retire_after is not None and not self.curriculum:
            raise ValueError(
                f"{self.id}.retire_after: {self.retire_after} was given with curriculum off, which draws every problem "
                f"once an epoch; allowed: only with curriculum; set {self.id}.curriculum=true"
            )
        limits = [*self.length_stages, self.sampling.max_new_tokens]
        if any(longer <= shorter for shorter, longer in zip(limits, limits[1:], strict=False)):
            raise ValueError(
                f"{self.id}.length_stages: {list(self.length_stages)} before sampling.max_new_tokens {limits[-1]} does "
                f"not grow; allowed: increasing, and below {limits[-1]}; change it"
            )
        if self.fork_every is not None and self.fork_every % self.checkpoint_every:
            raise ValueError(
                f"{self.id}.fork_every: {self.fork_every} is no multiple of checkpoint_every {self.checkpoint_every}; "
                f"allowed: a multiple; set {self.id}.checkpoint_every={self.fork_every}"
            )
        names = [self.verifier, *(reward.verifier for reward in self.more_rewards)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"{self.id}.more_rewards: {', '.join(names[1:])} beside verifier {names[0]}; allowed: each verifier "
                "once; give one weight to each"
            )
        if self.audit is not None and self.audit.verifier in names:
            raise ValueError(
                f"{self.id}.audit.verifier: {self.audit.verifier!r} gives the reward; allowed: another one, which "
                "shares no code with it; name another"
            )
        return self


class SampleStage(StageBase):
    """Rejection sampling by a verifier: examples for sft, pairs for dpo, problems of fitting difficulty for rl."""

    kind: Literal["sample"] = "sample"
    model: str | None = Field(default=None, description="Stage id or `base`; empty takes the nearest earlier model.")
    data: tuple[str, ...] = Field(
        min_length=1,
        description="Corpus stages with output problems, or paths of JSONL files with `prompt` and `answer`.",
    )
    verifier: str = Field(default="math", description="Verifier that decides what is right (registry name).")
    num_samples: PositiveInt = Field(default=8, description="Completions per problem.")
    sampling: Sampling = Field(default=Sampling(), description="How completions are drawn.")
    max_examples: PositiveInt = Field(
        default=4, description="Correct, distinct completions of a problem that become examples, at most."
    )
    max_pairs: Annotated[int, Field(ge=0)] = Field(
        default=1,
        description="Pairs of a right and a wrong completion of a problem, at most; those nearest in length.",
    )
    min_pass_rate: Fraction = Field(
        default=0.0, description="A problem of which a smaller share of the completions is right is left out."
    )
    max_pass_rate: Fraction = Field(
        default=1.0, description="A problem of which a larger share of the completions is right is left out."
    )
    decontaminate: tuple[TaskSource, ...] = Field(
        default=(), description="Benchmarks that must not be seen, in problems and completions; as of corpora."
    )
    ngram: PositiveInt = Field(
        default=13, description="Words in the n-gram of the decontamination of natural benchmarks."
    )
    subsequence: float | None = Field(
        default=None, gt=0.0, le=1.0, description="Rule of the longest common subsequence besides; as of corpora."
    )
    batch_problems: PositiveInt = Field(
        default=64, description="Problems completed at once; at most this much work is lost to a kill."
    )
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Type of the weights.")
    system: str | None = Field(default=None, description="System prompt of every completion.")
    max_no_verdict: Fraction = Field(
        default=0.05, description="The stage stops when more than this share of the latest verdicts is missing."
    )

    @model_validator(mode="after")
    def _some_difficulty(self) -> SampleStage:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"{self.id}.min_pass_rate: {self.min_pass_rate} is above max_pass_rate {self.max_pass_rate}, which no "
                f"problem can meet; allowed: up to {self.max_pass_rate}; lower it"
            )
        return self


class EvaluateStage(StageBase):
    """Models side by side on held-out tasks, each figure with an interval."""

    kind: Literal["evaluate"] = "evaluate"
    models: tuple[str, ...] = Field(
        min_length=1,
        description="Stage ids or `base`, in the table's order; the first is "
        "what the others are compared with, the last is what is released.",
    )
    tasks: tuple[TaskSource, ...] = Field(min_length=1, description="Held-out problems.")
    judge: str | None = Field(default=None, description="Verifier that judges; empty takes each task set's own.")
    sampling: Sampling = Field(
        default=Sampling(),
        description="How the k samples of pass@k are drawn; greedy pass@1 ignores all but max_new_tokens.",
    )
    num_samples: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Samples per problem for unbiased pass@k; 0 skips it."
    )
    num_sampled_problems: PositiveInt | None = Field(
        default=None, description="Problems (the first ones) sampled for pass@k; empty is all."
    )
    few_shot: Annotated[int, Field(ge=0)] = Field(
        default=4,
        description="Solved examples before each problem for the base model, "
        "in the best of its formats (plain few-shot and chat are both tried).",
    )
    few_shot_tasks: tuple[TaskSource, ...] = Field(
        default=(),
        description="Where few-shot examples come from (train split); empty takes the tasks' own train split.",
    )
    heldout_text: tuple[CorpusSource, ...] = Field(
        default=(), description="Texts for bits per byte, which shows what was forgotten."
    )
    system: str | None = Field(default=None, description="System prompt for chat models.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(default=0.95, description="Level of all intervals.")
    max_no_verdict: Fraction = Field(
        default=0.1, description="The stage stops when more than this share of the latest verdicts is missing."
    )


class Gate(Frozen):
    """One condition of release."""

    metric: Literal["pass@1", "pass@k", "bits_per_byte"] = Field(description="What is compared.")
    against: str = Field(default="base", description="Stage id or `base` that the released model is compared with.")
    min_gain: float = Field(
        default=0.0,
        description="The interval's lower end of the gain must exceed this (accuracy: fraction; "
        "bits per byte: a fall counts as a gain, so -0.5 allows a rise of 0.5).",
    )


class ReleaseStage(StageBase):
    """Gates, then a Hugging Face folder with a model card, or a named refusal."""

    kind: Literal["release"] = "release"
    model: str | None = Field(
        default=None, description="Stage id of what is released; empty takes the nearest earlier model."
    )
    evaluation: StageId = Field(description="Evaluate stage whose figures the gates read.")
    gates: tuple[Gate, ...] = Field(
        default=(), description="All must hold; otherwise nothing is released and the command says why."
    )
    name: str = Field(description="Name of the derivative on its card.")
    system: str | None = Field(
        default=None, description="System prompt written into the chat template's default, if any."
    )


Stage = Annotated[
    CorpusStage | PretrainStage | SftStage | SampleStage | DpoStage | RlStage | EvaluateStage | ReleaseStage,
    Field(discriminator="kind"),
]


class Expected(Frozen):
    """A published or measured figure that the preset should reach."""

    metric: str = Field(description="Which figure, on which data.")
    value: float = Field(description="Its value.")
    source: str = Field(description="Paper section, or docs/benchmarks.md for our own.")


class Recipe(Frozen):
    """From a base checkpoint to a released derivative, as a list of stages read top to bottom."""

    name: str = Field(description="Preset name, e.g. math/tiny.")
    title: str = Field(description="One line for a form or a table.")
    description: str = Field(default="", description="What it builds, from what, for whom; Markdown.")
    status: Literal["released", "stepped at true shape", "validated only"] = Field(
        description="What has really been run: to a release, a few steps at the true shape, or only checked."
    )
    expected: tuple[Expected, ...] = Field(
        default=(), description="Figures this preset should reach, with their source."
    )
    base: str = Field(
        default="seedling", description="Checkpoint to start from: seedling, a local folder, or a hub id."
    )
    base_revision: str | None = Field(
        default=None, description="Commit of the hub checkpoint; empty is recorded at first download."
    )
    seed: Seed = Field(default=0, description="Seed of every random choice of the run.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="Stages, top to bottom.")

    @model_validator(mode="after")
    def _references_resolve(self) -> Recipe:
        check_references(self)
        return self

    def stage(self, stage_id: str) -> Stage:
        """The stage with this id; KeyError if there is none."""
        for stage in self.stages:
            if stage.id == stage_id:
                return stage
        raise KeyError(stage_id)


def stage_inputs(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """Names of what a stage reads, in order, without repeats: stage ids, or `base`. Paths are not listed."""
    earlier = _earlier(recipe, stage)
    names: list[str] = []
    if isinstance(stage, CorpusStage):
        names = ["base"] if stage.output != "problems" else []  # the base's tokenizer counts and packs
    elif isinstance(stage, EvaluateStage):
        names = [*stage.models, "base"]
    else:
        names = [resolved_model(recipe, stage)]
        if isinstance(stage, ReleaseStage):
            names += ["base", stage.evaluation]
        else:
            names += [ref for ref in stage.data if not ref.endswith(".jsonl")]
    known = [*earlier, "base"]
    return tuple(dict.fromkeys(name for name in names if name in known))


def resolved_model(
    recipe: Recipe, stage: PretrainStage | SftStage | SampleStage | DpoStage | RlStage | ReleaseStage
) -> str:
    """The model a stage starts from: what it names, else the nearest earlier stage that made one, else `base`."""
    if stage.model is not None:
        return stage.model
    for other in reversed(list(_earlier(recipe, stage).values())):
        if other.kind in MODEL_KINDS:
            return other.id
    return "base"


def _earlier(recipe: Recipe, stage: Stage) -> dict[str, Stage]:
    ids = [other.id for other in recipe.stages]
    return {other.id: other for other in recipe.stages[: ids.index(stage.id)]}


DATA_OF = {"pretrain": "tokens", "sft": "examples", "sample": "problems", "rl": "problems"}
"""What output of a corpus stage each training stage reads; no corpus stage makes the pairs of dpo."""


def check_references(recipe: Recipe) -> None:
    """Every reference names an earlier stage of the right kind. Raises ValueError with path, value and choices."""
    seen: dict[str, Stage] = {}
    for stage in recipe.stages:
        if stage.id in seen:
            raise ValueError(f"{stage.id}.id: {stage.id!r} is used twice; allowed: one stage of that id; rename one")
        if stage.id in Recipe.model_fields:  # an override such as seed=3 would be ambiguous
            raise ValueError(
                f"{stage.id}.id: {stage.id!r} is the name of a field of the recipe; allowed: any other name; "
                "rename the stage"
            )
        if isinstance(stage, EvaluateStage):
            _check_names(f"{stage.id}.models", stage.models, _models(seen))
        elif isinstance(stage, ReleaseStage):
            _check_release(recipe, stage, seen)
        elif not isinstance(stage, CorpusStage):
            _check_training(stage, seen)
        seen[stage.id] = stage


def _check_training(
    stage: PretrainStage | SftStage | SampleStage | DpoStage | RlStage, seen: dict[str, Stage]
) -> None:
    if stage.model is not None:
        _check_names(f"{stage.id}.model", [stage.model], _models(seen))
    if isinstance(stage, Supervised) and stage.probe_tasks and (stage.kind == "pretrain" or stage.lora is not None):
        why = "is not taught to answer" if stage.kind == "pretrain" else "has adapters, which a rollout leaves out"
        raise ValueError(
            f"{stage.id}.probe_tasks: {len(stage.probe_tasks)} were given to a {stage.kind} stage, whose model {why}; "
            f"allowed: none; use {stage.id}.heldout_text, or an evaluate stage"
        )
    if isinstance(stage, DpoStage):
        _check_dpo(stage, [other.id for other in seen.values() if isinstance(other, SampleStage)])
        return
    fitting = [s.id for s in seen.values() if isinstance(s, CorpusStage) and s.output == DATA_OF[stage.kind]]
    if isinstance(stage, (SftStage, RlStage)):  # a sample stage makes what both read
        fitting += [other.id for other in seen.values() if isinstance(other, SampleStage)]
    files_allowed = stage.kind != "pretrain"
    named = [ref for ref in stage.data if not (files_allowed and ref.endswith(".jsonl"))]
    _check_names(f"{stage.id}.data", named, fitting, f"names no earlier corpus with output {DATA_OF[stage.kind]}")
    if isinstance(stage, RlStage):
        check_rl_settings(stage)


def _check_dpo(stage: DpoStage, samples: list[str]) -> None:
    named = [name for name in stage.data if not name.endswith(".jsonl")]
    _check_names(f"{stage.id}.data", named, samples, "names no earlier sample stage and no path ending in .jsonl")
    for index, name in enumerate(stage.heldout_pairs):
        if not name.endswith(".jsonl"):
            raise ValueError(
                f"{stage.id}.heldout_pairs[{index}]: {name!r} is no JSONL file; allowed: paths ending in .jsonl whose "
                "lines have prompt, chosen and rejected"
            )
    shared = sorted({*stage.data} & {*stage.heldout_pairs})
    if shared:
        raise ValueError(
            f"{stage.id}.heldout_pairs: {shared[0]!r} is trained on as well; allowed: other files; split it"
        )
    if stage.loss == "ipo" and stage.label_smoothing > 0:
        raise ValueError(
            f"{stage.id}.label_smoothing: {stage.label_smoothing} was given with loss ipo, which has none; allowed: 0; "
            f"set {stage.id}.label_smoothing=0, or {stage.id}.loss=sigmoid"
        )


def check_rl_settings(stage: RlStage) -> None:
    """No setting of a stage of RL contradicts another, and the policy that is trained is the one that draws.

    A recipe is checked so when it is read, and the stage checks the file that it is given.

    Raises:
        UserError: With the field, its value, what is allowed and what to set.
    """
    sampling = stage.sampling
    if sampling.temperature == 0.0:
        raise UserError(
            f"{stage.id}.sampling.temperature: 0 makes all completions of a group equal, so there is nothing to "
            f"learn from; allowed: above 0; set {stage.id}.sampling.temperature=1.0"
        )
    for name, value, wanted in (
        ("top_p", sampling.top_p, 1), ("top_k", sampling.top_k, 0), ("min_p", sampling.min_p, 0),
    ):  # fmt: skip
        if value != wanted:
            raise UserError(
                f"{stage.id}.sampling.{name}: {value} draws from another distribution than the one that is trained; "
                f"allowed in RL: {wanted}; set {stage.id}.sampling.{name}={wanted}"
            )
    if stage.loss == "dapo" and stage.kl_coefficient > 0:
        raise UserError(
            f"{stage.id}.kl_coefficient: {stage.kl_coefficient} was given, but dapo has no KL term; allowed: 0; "
            f"set {stage.id}.kl_coefficient=0, or {stage.id}.loss=grpo"
        )
    if stage.loss == "rloo" and stage.updates_per_step > 1:
        raise UserError(
            f"{stage.id}.updates_per_step: {stage.updates_per_step} was given, but rloo has no ratio for a policy that "
            f"has moved; allowed: 1; set {stage.id}.updates_per_step=1, or {stage.id}.loss=grpo"
        )
    buffer, limit = stage.overlong_buffer, sampling.max_new_tokens
    if buffer is not None and (stage.truncated != "shaped" or buffer > limit):
        raise UserError(
            f"{stage.id}.overlong_buffer: {buffer} was given with truncated {stage.truncated} and max_new_tokens "
            f"{limit}; allowed: up to {limit}, with truncated shaped; set {stage.id}.truncated=shaped"
        )


def _check_release(recipe: Recipe, stage: ReleaseStage, seen: dict[str, Stage]) -> None:
    evaluations = {s.id: s for s in seen.values() if isinstance(s, EvaluateStage)}
    if stage.model is not None:
        _check_names(f"{stage.id}.model", [stage.model], _models(seen))
    _check_names(f"{stage.id}.evaluation", [stage.evaluation], list(evaluations), "names no earlier evaluate stage")
    measured = evaluations[stage.evaluation]
    for name in ("base", resolved_model(recipe, stage)):
        if name not in measured.models:
            raise ValueError(
                f"{measured.id}.models: {name!r} is missing, which {stage.id} needs; given: "
                f"{', '.join(measured.models)}; add {name} to {measured.id}.models"
            )
    for index, gate in enumerate(stage.gates):
        path, problem = f"{stage.id}.gates[{index}]", f"is not among the models of {measured.id}"
        _check_names(f"{path}.against", [gate.against], list(measured.models), problem)
        unmeasured = {"pass@k": measured.num_samples == 0, "bits_per_byte": not measured.heldout_text}
        if unmeasured.get(gate.metric):
            missing = "num_samples" if gate.metric == "pass@k" else "heldout_text"
            raise ValueError(
                f"{path}.metric: {gate.metric!r} is not measured by {measured.id}; allowed: pass@1; remove the gate "
                f"or set {measured.id}.{missing}"
            )


def _models(seen: dict[str, Stage]) -> list[str]:
    return ["base", *(stage.id for stage in seen.values() if stage.kind in MODEL_KINDS)]


def _check_names(
    path: str, values: Sequence[str], allowed: list[str], problem: str = "names no earlier stage with a model"
) -> None:
    for value in values:
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path}: {value!r} {problem}{hint}; allowed: {', '.join(allowed) or 'none'}")


class Machine(Frozen):
    """A launch profile: how a stage runs, never what it computes beyond stated rounding."""

    name: str = Field(description="Profile name: cpu, one-gpu, eight-gpu.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where tensors live.")
    num_processes: PositiveInt = Field(default=1, description="Ranks of pretrain, sft and dpo; others run in one.")
    num_threads: PositiveInt | None = Field(
        default=None,
        description="CPU threads of torch per process; empty takes all cores. "
        "Bit-exact resume needs the same number.",
    )
    num_verifier_workers: PositiveInt = Field(default=2, description="Killable verifier processes per rank.")
    peak_tflops: PositiveFloat | None = Field(
        default=None,
        description="Peak of one device in TFLOP/s, dense, in the working precision, of which `mfu` in progress lines "
        "is the share that was used; empty takes the known figure of the GPU for bf16, and on CPU leaves mfu out.",
    )
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        default=(),
        description="Where the lines of progress.jsonl go as well, through accelerate's trackers; one that fails is "
        "left with a warning.",
    )
    launcher: tuple[str, ...] = Field(
        default=(),
        description="Words put before the command of a stage that runs on several processes, e.g. accelerate launch "
        "...; empty runs plain python -m.",
    )

    def for_kind(self, kind: str) -> Machine:
        """The profile as a stage of this kind uses it: one process without a launcher, but for `RANKED_KINDS`."""
        return self if kind in RANKED_KINDS else self.model_copy(update={"num_processes": 1, "launcher": ()})
