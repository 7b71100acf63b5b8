"""Corpora: where documents come from and what becomes of them."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.settings.common import Fraction, Frozen, NonNegativeFloat, Seed, StageBase, TaskSource
from configs.suites import expand


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
            raise ValueError(
                "fim: character, line and syntax are 0, 0 and 0; at least one must be above 0; set character: 1"
            )
        return self


class NearDuplicates(Frozen):
    """What counts as a near-duplicate (`corpora/near_duplicates`); the defaults are FineWeb's (arXiv 2406.17557)."""

    num_words: int = Field(default=5, ge=1, le=64, description="Words in a shingle.")
    num_bands: int = Field(
        default=14,
        ge=1,
        le=1024,
        description="Bands of the MinHash signature; sharing one makes two documents a candidate pair.",
    )
    num_rows: int = Field(default=8, ge=1, le=64, description="Hashes in a band.")
    threshold: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Exact Jaccard similarity that a "
        "candidate pair must have; empty takes every candidate pair, as FineWeb does.",
    )
    seed: Seed = Field(default=0, description="Chooses the hash functions.")


RedactKind = Literal["private_key", "key", "password", "email", "ip_address", "phone_number"]


class CorpusSource(Frozen):
    """One source of a corpus and its share."""

    name: str = Field(
        description="`python_stdlib`, `python_packages` (those installed beside this project), `package_readmes`, "
        "`sympy_examples`, a task set with worked solutions (`reasoning_gym/...`, `functions/...`, `gsm8k`), a "
        "catalogue data set, or a path: a file ending in .jsonl, .jsonl.gz, .jsonl.zst or .parquet, or, with a slash "
        "in front or after (`./notes.txt`, `src/`), a plain file, a folder, a git checkout or a folder of checkouts."
    )
    split: Literal["train", "heldout", "test", "all"] = Field(default="train", description="Part of the source.")
    weight: PositiveFloat = Field(default=1.0, description="Share of this source in the mixture, in tokens (relative).")
    max_epochs: PositiveInt = Field(
        default=4,
        description="Times at most that a document of this source is repeated to fill its part of num_tokens; up to "
        "four are nearly as good as new data (arXiv 2305.16264). What is missing then is a shortfall (on_shortage).",
    )
    count: PositiveInt | None = Field(
        default=None, description="Documents to draw at most; procedural sources need it."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="Settings of a procedural generator.")
    seed: Seed = Field(default=0, description="Seed of a procedural draw.")
    style: Literal["plain", "think", "tools"] = Field(
        default="plain",
        description="How worked solutions are written: plain is steps, then the boxed answer; think puts the "
        "steps between <think> and </think> (a cold start for reasoning); tools is a program, what it prints, and the "
        "boxed answer (a cold start for tool use). The last two only of `reasoning_gym/...`.",
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
        default=None,
        description="Cut documents for fill in the middle (output tokens); at level repository only "
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
    on_shortage: Literal["note", "stop"] = Field(
        default="note",
        description="What a source does that cannot fill its part of num_tokens in max_epochs: note names the "
        "shortfall in the report and leaves the other parts as asked; stop ends the stage.",
    )
    sequence_length: PositiveInt = Field(
        default=512,
        description="Longest packed document in tokens; longer ones are split "
        "(tokens) or dropped with a named reason (examples).",
    )
    packing: Literal["none", "best_fit"] = Field(
        default="none",
        description="best_fit: write documents sequence by sequence, each of at most sequence_length tokens, none cut "
        "to fill one up (arXiv 2404.10830), and where sequences begin to sequences.npy (output tokens). Training "
        "then takes whole sequences.",
    )
    deduplicate: bool = Field(default=True, description="Drop exact duplicates (by normalised text), first one wins.")
    near_duplicates: NearDuplicates | None = Field(
        default=None,
        description="Drop near-duplicates over all sources; of two the longer text is kept, of more the one that most "
        "resemble, whichever source it is of. true takes the defaults; empty or false does not look for them.",
    )
    duplicate_repositories: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Drop repositories as a whole (forks, mirrors, vendored copies) of whose bytes at least this share "
        "stands in one other, larger one. true takes 0.7; empty or false does not look for them.",
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

    _suites = field_validator("decontaminate")(expand)

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _near_duplicates_by_word(cls, given: Any) -> Any:
        return ({} if given else None) if isinstance(given, bool) else given

    @field_validator("duplicate_repositories", mode="before")
    @classmethod
    def _repositories_by_word(cls, given: Any) -> Any:
        return (0.7 if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _cleaning_fits(self) -> CorpusStage:
        for index, source in enumerate(self.sources):
            for field, given in (("fim", source.fim is not None), ("level", source.level == "repository")):
                if given and self.output != "tokens":
                    raise ValueError(
                        f"{self.id}.sources[{index}].{field}: was set with output {self.output!r}; "
                        f"allowed: only with output tokens; remove {field}"
                    )
        if self.packing != "none" and self.output != "tokens":
            raise ValueError(
                f"{self.id}.packing: {self.packing!r} was set with output {self.output!r}; allowed: only with output "
                "tokens; remove packing"
            )
        if self.duplicate_repositories and not self.deduplicate:
            raise ValueError(
                f"{self.id}.duplicate_repositories: was set with deduplicate: false; allowed: only beside exact "
                "duplicates; remove deduplicate"
            )
        if self.near_duplicates and not self.deduplicate:
            raise ValueError(
                f"{self.id}.near_duplicates: was set with deduplicate: false; allowed: only beside exact "
                "duplicates; remove deduplicate"
            )
        if self.self_test and not self.decontaminate:
            raise ValueError(
                f"{self.id}.self_test: was set without decontaminate, so that there is nothing to look "
                "for; name benchmarks there, or remove self_test"
            )
        return self
