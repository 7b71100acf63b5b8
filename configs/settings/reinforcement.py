"""Reinforcement learning from verdicts, and sampling by them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from configs.errors import UserError
from configs.settings.common import Fraction, Frozen, NonNegativeFloat, Sampling, StageBase, TaskSource
from configs.settings.tools import ToolUse, check_room
from configs.settings.training import Optimization
from configs.suites import expand


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


class PassRates(Frozen):
    """How often each problem was solved before the stage, as a sample stage measured it."""

    stage: str = Field(description="Sample stage that measured every problem of the stage's data.")
    between: tuple[Fraction, Fraction] = Field(
        default=(0.0, 1.0), description="Smallest and largest pass rate of the problems that are trained on."
    )

    @model_validator(mode="after")
    def _in_order(self) -> PassRates:
        low, high = self.between
        if low > high:
            raise ValueError(
                f"pass_rates.between: [{low:g}, {high:g}] has no rate in it; allowed: the smaller one first; swap them"
            )
        return self


class ForkPoint(Frozen):
    """The state that a stage goes on from; `derive fork` writes it."""

    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Digest of the stage begun first.")
    step: PositiveInt = Field(description="Its last step that both have in common.")


CONTROL_VERIFIERS: dict[str, str] = {
    "control_random": "random", "control_box": "format", "control_program": "format", "format": "format",
}  # fmt: skip
"""Verifiers that a control arm may be paid by, and the arm. All but `format` are nothing but controls: no list shows
them, and no recipe can name them without saying that the stage is a control."""


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
    control: Literal["random", "format"] | None = Field(
        default=None,
        description="Says that this stage is the control of another: paid by a coin, or for form alone. Written by "
        "`controls` of the recipe; needs no certificate and cannot be released.",
    )
    steps: PositiveInt = Field(description="Optimizer phases: one rollout batch each.")
    prompts_per_step: PositiveInt = Field(default=32, description="Distinct problems in a rollout batch.")
    group_size: Annotated[int, Field(ge=2)] = Field(
        default=8, description="Completions per problem; the advantage is relative to them."
    )
    updates_per_step: PositiveInt = Field(
        default=1, description="Optimizer updates per rollout batch; 1 is exactly on-policy."
    )
    sampling: Sampling = Field(default=Sampling(), description="How rollouts are drawn.")
    tools: ToolUse | None = Field(
        default=None,
        description="Run the programs that a completion writes and feed back what they print; `{}` takes the defaults. "
        "What is fed is in no loss.",
    )
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
    pass_rates: PassRates | None = Field(
        default=None,
        description="Pass rates that a sample stage measured, from which the curriculum starts; empty starts it with "
        "every problem unknown.",
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
    importance_cap: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = Field(
        default=2.0,
        description="Where a server draws (rollout of the machine profile): largest weight of a token in the policy "
        "loss, which is its probability under the trainer over that under the server (truncated importance sampling, "
        "see derivatives/losses/importance.py).",
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
    allow_uncertified: bool = Field(
        default=False,
        description="Train on a reward whose verifier has no card, a stale one, or one that it failed "
        "(`derive verifiers certify`).",
    )

    @model_validator(mode="after")
    def _a_control_is_no_reward(self) -> RlStage:
        arm = CONTROL_VERIFIERS.get(self.verifier)
        if self.control is None and arm is not None and self.verifier != "format":
            raise ValueError(
                f"{self.id}.verifier: {self.verifier!r} knows no right answer and is for controls alone; allowed: a "
                f"verifier that judges answers; for a control write `controls: [{{of: {self.id}, arm: {arm}}}]`"
            )
        if self.control is not None and arm != self.control:
            fitting = ", ".join(name for name, one in CONTROL_VERIFIERS.items() if one == self.control)
            raise ValueError(
                f"{self.id}.verifier: {self.verifier!r} was given with control {self.control}; allowed: {fitting}; "
                f"change it, or remove {self.id}.control"
            )
        if self.control is not None and (self.more_rewards or self.partial_credit):
            raise ValueError(
                f"{self.id}.control: {self.control} was given with more rewards or partial credit, which would pay for "
                "something else; allowed: neither; remove them"
            )
        return self

    @model_validator(mode="after")
    def _curriculum_fits(self) -> RlStage:
        if self.retire_after is not None and not self.curriculum:
            raise ValueError(
                f"{self.id}.retire_after: {self.retire_after} was given with curriculum off, which draws every problem "
                f"once an epoch; allowed: only with curriculum; set {self.id}.curriculum=true"
            )
        if self.pass_rates is not None and not self.curriculum and self.pass_rates.between == (0.0, 1.0):
            raise ValueError(
                f"{self.id}.pass_rates: with curriculum off and no bounds the rates of {self.pass_rates.stage} change "
                f"nothing; allowed: curriculum, or bounds; set {self.id}.pass_rates.between=[0.1, 0.9]"
            )
        check_room(self.id, self.tools, min([*self.length_stages, self.sampling.max_new_tokens]))
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
    tools: ToolUse | None = Field(
        default=None,
        description="Run the programs that a completion writes and feed back what they print; `{}` takes the defaults.",
    )
    max_examples: PositiveInt = Field(
        default=4, description="Correct, distinct completions of a problem that become examples, at most."
    )
    max_pairs: Annotated[int, Field(ge=0)] = Field(
        default=1,
        description="Pairs of a right and a wrong completion of a problem, at most.",
    )
    pairs_by: Literal["length", "likelihood"] = Field(
        default="length",
        description="Which completions are paired: those nearest in length; or for each right one, the likeliest "
        "first, the wrong one that the model finds likeliest per token (its habit) among those of like length, at most "
        "a quarter longer or shorter.",
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

    _suites = field_validator("decontaminate")(expand)

    @model_validator(mode="after")
    def _some_difficulty(self) -> SampleStage:
        check_room(self.id, self.tools, self.sampling.max_new_tokens)
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"{self.id}.min_pass_rate: {self.min_pass_rate} is above max_pass_rate {self.max_pass_rate}, which no "
                f"problem can meet; allowed: up to {self.max_pass_rate}; lower it"
            )
        return self


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
    if stage.lora is not None and stage.lora.dropout > 0:
        raise UserError(
            f"{stage.id}.lora.dropout: {stage.lora.dropout} makes the policy that is trained another one than the one "
            f"that drew; allowed in RL: 0; set {stage.id}.lora.dropout=0"
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
