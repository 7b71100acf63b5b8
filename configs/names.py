"""Which names a recipe may use: verifiers, task sets and corpus sources, each found without importing its code.

Verifiers come from the metadata of installed distributions (entry points), so that a plug-in's verifier is known
too; procedural families and their settings are read from the generator package's sources. The checks here only
read names; whether a set really holds enough problems is found out by the stage that draws them.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.catalogue import dataset, dataset_names
from configs.errors import UserError, printable
from configs.judges import own_verifiers
from configs.schema import Recipe
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource, CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import Supervised

VERIFIER_GROUP = "derivative_factory.verifiers"
BUILT_IN_VERIFIERS = (
    "choice", "code", "code_hidden", "counterpart", "exact", "fim", "format", "instructions",
    "instructions_loose", "json_schema", "math", "puzzles", "table", "think_math", "think_own", "think_puzzles",
)  # fmt: skip
OPTIONAL_VERIFIERS = ("math_verify",)
"""Built in as well, but of no use without a package of an extra: judges."""
BUILT_IN_SOURCES = ("python_stdlib", "python_packages", "package_readmes", "sympy_examples")
FILTERS = (
    "characters", "comments", "encoded_data", "language", "line_shape", "math_content", "origin", "prose_lines",
    "prose_words", "python_shape", "python_syntax", "repetition", "runs",
)  # fmt: skip
"""Quality filters of `corpora/filters`."""
FILTER_SETS = ("code", "math", "prose")
"""Names for several of them."""
ROW_FILES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Endings of the user's files of which every row is a document."""
PATH_STARTS = ("/", "./", "../", "~")
"""How the name of a source begins that is a file or folder of the machine; one that ends in `/` is a folder too."""
PROCEDURAL = "reasoning_gym"
FUNCTIONS = "functions"
"""Function tasks, made by `verifiers.tasks.functions`."""
FUNCTION_FAMILIES = ("lists", "mixed", "numbers", "texts")
FUNCTION_SETTINGS = ("min_steps", "max_steps", "num_shown")
STRUCTURED = "structured"
"""Tasks of structured output, made by `verifiers.tasks.structured`."""
STRUCTURED_FAMILIES = ("orders", "tables")
STRUCTURED_SETTINGS: dict[str, tuple[str, ...]] = {
    "orders": ("min_items", "max_items"),
    "tables": ("min_rows", "max_rows"),
}
INSTRUCTIONS = "instructions"
"""Tasks of checkable instructions, made by `verifiers.tasks.instructions`."""
INSTRUCTION_FAMILIES = ("form", "simple")
INSTRUCTION_SETTINGS = ("min_rules", "max_rules")
GENERATED = (f"{PROCEDURAL}/", f"{FUNCTIONS}/", f"{STRUCTURED}/", f"{INSTRUCTIONS}/")
"""How the names of sets begin that are drawn from a generator: they need a count, and are split by the question."""
FIM = "fim"
"""Fill-in-the-middle tasks, cut from source files by `verifiers.tasks.fim`."""
FIM_SPANS = ("python_stdlib", "python_stdlib_lines", "python_stdlib_span")
FIM_SETTINGS = ("max_prefix", "max_suffix")
PUBLISHED_STYLES = ("aime24", "aime25", "asdiv", "gsm8k", "humaneval", "ifeval", "math", "math500", "mbpp",
                    "mbpp_sanitized")  # fmt: skip
"""Task sets with a published protocol of their own (`derivatives/evaluation/styles.py`); their twins share it."""
OWN_VERIFIER_ONLY = ("fim", "ifeval")
"""Sets, by the first part of their names, that no verifier but their own kind can judge."""
JUDGED_BY = {
    "code": ("code", "code_hidden", "counterpart", "think_own"), "json_schema": ("json_schema", "think_own"),
    "table": ("table", "think_own"),
    "instructions": ("counterpart", "instructions", "instructions_loose", "think_own"),
}  # fmt: skip
"""Which verifiers of this project can judge what another one is the own of: no other knows programs, documents, rules.
"""
TWINS = "twins"
"""Sets of problems that nobody can have seen, each the twin of another set's, made by `verifiers.tasks.twins`."""
TWINNED = ("gsm8k", "asdiv")
"""Catalogue sets whose problems are renumbered; beside them every generated set has twins."""
HASHED_SPLITS = ("train", "heldout", "all")
"""Splits of sources that have none of their own: an item's hash says to which part it belongs."""
MAX_LISTED = 12
"""A longer list of allowed names is cut in messages."""

_REGISTRATION = re.compile(r"^register_dataset\(\s*(\S+?)\s*,\s*(\w+)\s*,\s*(\w+)", re.MULTILINE)
_SET_BY_DRAW = ("seed", "size")


def nearest(value: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest allowed name, or nothing."""
    close = difflib.get_close_matches(value, list(allowed), 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(path: str, value: str, what: str, allowed: Sequence[str]) -> UserError:
    """The error for a name that is not among the allowed ones, with the nearest of them."""
    rest = f" and {len(allowed) - MAX_LISTED} more" if len(allowed) > MAX_LISTED else ""
    listed = ", ".join(printable(name) for name in allowed[:MAX_LISTED]) + rest
    return UserError(f"{path}: {value!r} is no {what}{nearest(value, allowed)}; allowed: {listed or 'none'}")


def verifier_names() -> tuple[str, ...]:
    """Names of the verifiers of all installed distributions; the built-in ones also in a plain checkout."""
    found = {point.name for point in importlib.metadata.entry_points(group=VERIFIER_GROUP)}
    return tuple(sorted(found | {*BUILT_IN_VERIFIERS, *OPTIONAL_VERIFIERS}))


@functools.cache
def _procedural_files() -> dict[str, tuple[Path, str]]:
    """Family -> the source file and the name of its settings class; empty when the generators are not installed."""
    spec = importlib.util.find_spec(PROCEDURAL)
    if spec is None or spec.origin is None:
        return {}
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for family, _, settings in _REGISTRATION.findall(text):
            name = family.strip("\"'")
            if name == family:  # a constant of the file rather than a literal
                value = re.search(rf"^{re.escape(family)}\s*=\s*[\"'](\w+)[\"']", text, re.MULTILINE)
                name = value[1] if value else name
            found[name] = (path, settings)
    return found


def procedural_families() -> tuple[str, ...]:
    """Names of the procedural families, without the `reasoning_gym/` before them."""
    return tuple(sorted(_procedural_files()))


def is_path(name: str) -> bool:
    """Whether a corpus source of this name is the user's own file or folder.

    >>> [name for name in ("a.jsonl.gz", "src/", "./notes.txt", "gsm8k", "reasoning_gym/chain_sum") if is_path(name)]
    ['a.jsonl.gz', 'src/', './notes.txt']
    """
    return name.endswith((*ROW_FILES, "/")) or name.startswith(PATH_STARTS)


def is_generated(name: str) -> bool:
    """Whether a set of this name is drawn from a generator."""
    return name.startswith(GENERATED)


@functools.cache
def procedural_settings(family: str) -> tuple[str, ...]:
    """Names of the settings that a family's generator takes."""
    path, settings = _procedural_files()[family]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == settings:
            fields = [item.target.id for item in node.body
                      if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
            return tuple(name for name in fields if name not in _SET_BY_DRAW)
    return ()


def natural_task_sets() -> tuple[str, ...]:
    """Catalogue data sets whose rows are problems that can be judged, by gold answers, tests or constraints."""
    return tuple(name for name in dataset_names() if dataset(name).is_task_set)


def question_sets() -> tuple[str, ...]:
    """Catalogue data sets whose rows hold a question, with an answer or not: what a corpus can be cleaned of."""
    return tuple(name for name in dataset_names() if "question" in dataset(name).columns)


def check_names(recipe: Recipe, copies: tuple[str, ...] = ()) -> None:
    """Every verifier, task set, corpus source, split and generator setting that a recipe names exists.

    Args:
        recipe: The recipe.
        copies: Paths that repeat another part of the recipe, which is checked (and named) in its place.

    Raises:
        UserError: One does not; names the dotted path, the value, the nearest name and the allowed ones.
    """
    for stage in recipe.stages:
        if isinstance(stage, CorpusStage):
            for index, corpus_source in enumerate(stage.sources):
                check_source(f"{stage.id}.sources[{index}]", corpus_source)
            for index, tasks in enumerate(stage.decontaminate if f"{stage.id}.decontaminate" not in copies else ()):
                check_source(f"{stage.id}.decontaminate[{index}]", tasks, question_sets())
        elif isinstance(stage, SampleStage):
            check_verifier(f"{stage.id}.verifier", stage.verifier)
            for index, tasks in enumerate(stage.decontaminate if f"{stage.id}.decontaminate" not in copies else ()):
                check_source(f"{stage.id}.decontaminate[{index}]", tasks, question_sets())
        elif isinstance(stage, RlStage):
            if stage.control is None:  # those of controls are in no list, and checked by the stage itself
                check_verifier(f"{stage.id}.verifier", stage.verifier)
            for index, reward in enumerate(stage.more_rewards):
                check_verifier(f"{stage.id}.more_rewards[{index}].verifier", reward.verifier)
            if stage.audit is not None:
                check_verifier(f"{stage.id}.audit.verifier", stage.audit.verifier)
        if isinstance(stage, Supervised):
            for field in ("heldout_text", "probe_tasks"):
                for index, given in enumerate(getattr(stage, field)):
                    check_source(f"{stage.id}.{field}[{index}]", given)
        elif isinstance(stage, EvaluateStage):
            if stage.judge is not None:
                check_verifier(f"{stage.id}.judge", stage.judge)
                _check_judge(stage.id, stage.judge, stage.tasks)
            if stage.audit is not None:
                check_verifier(f"{stage.id}.audit", stage.audit)
            for field in ("tasks", "kept_tasks", "few_shot_tasks", "heldout_text"):
                for index, drawn in enumerate(getattr(stage, field)):
                    check_source(f"{stage.id}.{field}[{index}]", drawn)


def check_verifier(path: str, name: str) -> None:
    """Raises UserError when no installed distribution has a verifier of this name."""
    if name not in BUILT_IN_VERIFIERS and name not in verifier_names():  # reading all metadata takes a while
        raise unknown(path, name, "verifier", verifier_names())


def _check_judge(stage_id: str, judge: str, sources: Sequence[TaskSource]) -> None:
    """One judge for all cannot read every set: said here rather than by verdicts that are missing."""
    for source in sources:
        own = own_verifiers(source.model_copy(update={"verifier": None}))
        ours = judge in (*BUILT_IN_VERIFIERS, *OPTIONAL_VERIFIERS)
        able = not ours or any(judge in JUDGED_BY.get(one, (judge,)) for one in own)
        if source.name.split("/")[0] in OWN_VERIFIER_ONLY or not able:
            raise UserError(f"{stage_id}.judge: {judge!r} cannot judge {source.name!r}, which only its own kind of "
                            f"verifier can; allowed: no judge for the whole; remove {stage_id}.judge, and give "
                            f"`verifier: {judge}` to the task sources that need it")


def check_source(path: str, source: TaskSource | CorpusSource, sets: tuple[str, ...] | None = None) -> None:
    """A source's name, split and settings exist. Raises UserError with the nearest name.

    Args:
        sets: Data sets that problems may be of; empty is those with gold answers.
    """
    _check_style(path, source)
    if isinstance(source, TaskSource) and source.verifier is not None:
        check_verifier(f"{path}.verifier", source.verifier)
    for name in source.filters if isinstance(source, CorpusSource) else ():
        if name not in (*FILTER_SETS, *FILTERS):
            raise unknown(f"{path}.filters", name, "filter", (*FILTER_SETS, *FILTERS))
    if source.name.endswith(".jsonl"):
        return  # the user's own file: the stage that reads it says what is wrong with it, with the line
    if isinstance(source, CorpusSource) and is_path(source.name):
        if source.params:
            raise UserError(f"{path}.params: {_short(source.params)} was given to {source.name!r}, which takes none; "
                            "allowed: nothing; remove params")
        if source.split not in HASHED_SPLITS:
            raise UserError(f"{path}.split: {source.split!r} is no split of {source.name!r}; allowed: "
                            f"{', '.join(HASHED_SPLITS)}; set {path}.split=train")
        return
    if source.name.startswith(f"{TWINS}/") and not isinstance(source, CorpusSource):
        inner = source.name.removeprefix(f"{TWINS}/")
        if not is_generated(inner) and inner not in TWINNED:
            allowed = [f"{TWINS}/{name}" for name in (*TWINNED, *_generated_names())]
            raise unknown(f"{path}.name", source.name, "task set", allowed)
        check_source(path, source.model_copy(update={"name": inner}), sets)
        return
    if source.name.startswith(f"{FIM}/") and not isinstance(source, CorpusSource):
        _check_fim(path, source)
        return
    if is_generated(source.name):
        _check_generated(path, source)
        return
    text = isinstance(source, CorpusSource)
    names = (*BUILT_IN_SOURCES, *dataset_names()) if text else sets or natural_task_sets()
    if source.name not in names:
        paths = "a path ending in .jsonl" + (", .jsonl.gz, .jsonl.zst or .parquet; ./FILE; FOLDER/" if text else "")
        allowed = [*names, *_generated_names(), paths]
        raise unknown(f"{path}.name", source.name, "corpus source" if text else "task set", allowed)
    if source.params:
        takers = " and ".join(f"{start}..." for start in GENERATED)
        raise UserError(f"{path}.params: {_short(source.params)} was given to {source.name!r}, which takes none; "
                        f"allowed: nothing (only {takers} sets take settings); remove params")
    splits = HASHED_SPLITS if source.name in BUILT_IN_SOURCES else (*dataset(source.name).splits, "all")
    if source.split not in splits:
        raise UserError(f"{path}.split: {source.split!r} is no split of {source.name!r}; allowed: {', '.join(splits)}; "
                        f"set {path}.split={splits[0]}")


STYLES = {"think": (f"{PROCEDURAL}/", f"{FUNCTIONS}/", f"{INSTRUCTIONS}/"), "tools": (f"{PROCEDURAL}/",)}
"""Sets whose worked solutions can be written in a style other than plain."""


def _check_style(path: str, source: TaskSource | CorpusSource) -> None:
    if source.style == "plain":
        return
    if not isinstance(source, CorpusSource):
        if source.name.removeprefix(f"{TWINS}/") not in PUBLISHED_STYLES:
            raise UserError(f"{path}.style: published was given to {source.name!r}, which has no published protocol "
                            f"here; allowed: plain (published for {', '.join(PUBLISHED_STYLES)}); remove style")
        return
    takers = STYLES[source.style]
    if not source.name.startswith(takers):
        written = " and ".join(f"{start}..." for start in takers)
        raise UserError(f"{path}.style: {source.style!r} was given to {source.name!r}; allowed: plain (only the worked "
                        f"solutions of {written} can be written otherwise); remove style")


def _check_fim(path: str, source: TaskSource) -> None:
    span = source.name.removeprefix(f"{FIM}/")
    if span not in FIM_SPANS:
        raise unknown(f"{path}.name", source.name, "task set", [f"{FIM}/{name}" for name in FIM_SPANS])
    if source.split not in HASHED_SPLITS:
        raise UserError(f"{path}.split: {source.split!r} is no split of {source.name!r}; allowed: train, heldout, all; "
                        f"files are divided by the hash of their path: set {path}.split=heldout")
    if source.count is None:
        raise UserError(f"{path}.count: empty was given to {source.name!r}, whose files can be cut in many places; "
                        f"allowed: a whole number of at least 1; set {path}.count=500")
    for name in source.params:
        if name not in FIM_SETTINGS:
            raise unknown(f"{path}.params.{printable(name)}", name, f"setting of {source.name}", FIM_SETTINGS)


def _check_generated(path: str, source: TaskSource | CorpusSource) -> None:
    group, _, family = source.name.partition("/")
    ours = {FUNCTIONS: FUNCTION_FAMILIES, STRUCTURED: STRUCTURED_FAMILIES, INSTRUCTIONS: INSTRUCTION_FAMILIES}
    families = ours[group] if group in ours else procedural_families()
    if family not in families:
        if not families:
            raise UserError(f"{path}.name: {source.name!r} needs the package reasoning-gym, which is not installed; "
                            "allowed: catalogue sets and .jsonl paths; run pip install reasoning-gym")
        raise unknown(f"{path}.name", source.name, "task set", [f"{group}/{name}" for name in families])
    if source.split not in HASHED_SPLITS:
        raise UserError(f"{path}.split: {source.split!r} is no split of {source.name!r}; allowed: train, heldout, all; "
                        f"procedural sets are divided by the hash of the question: set {path}.split=heldout")
    if source.count is None:
        raise UserError(f"{path}.count: empty was given to {source.name!r}, which has no end; allowed: a whole number "
                        f"of at least 1; set {path}.count=200")
    ours_take = {**dict.fromkeys(FUNCTION_FAMILIES, FUNCTION_SETTINGS), **STRUCTURED_SETTINGS,
                 **dict.fromkeys(INSTRUCTION_FAMILIES, INSTRUCTION_SETTINGS)}
    settings = ours_take[family] if group in ours else procedural_settings(family)
    for name in source.params:
        if name not in settings:
            raise unknown(f"{path}.params.{printable(name)}", name, f"setting of {source.name}", settings)


def _generated_names() -> list[str]:
    """Every generated set by its full name."""
    functions = [f"{FUNCTIONS}/{family}" for family in FUNCTION_FAMILIES]
    functions += [f"{STRUCTURED}/{family}" for family in STRUCTURED_FAMILIES]
    functions += [f"{INSTRUCTIONS}/{family}" for family in INSTRUCTION_FAMILIES]
    return [*functions, *(f"{PROCEDURAL}/{family}" for family in procedural_families())]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
