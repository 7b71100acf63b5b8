"""`derive evaluate MODEL`: one checkpoint on held-out tasks, without a recipe, in this process, which loads torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError

if TYPE_CHECKING:  # `derive --help` loads neither pydantic nor YAML
    from configs.settings.common import TaskSource
    from configs.settings.corpus import CorpusSource
    from configs.settings.evaluation import EvaluateStage

NUM_PROCEDURAL = 200
"""Problems of a procedural set when no --limit is given: an interval of about 7 points to each side."""
DESCRIPTION = """Judge any Hugging Face checkpoint on held-out tasks, each figure with a 95% interval.

A task set is a name (`gsm8k`, `math500`, `reasoning_gym/gcd`, `functions/lists`, `twins/gsm8k`) or a JSONL file of
prompt and answer. Its problems are asked once, greedily: pass@1. Beside it, where asked for:

  --samples K    draws K answers to each problem. pass@K: one of them is right. maj@K: most agree on the right one.
  --budgets ...  closes a thought in <think> after so many tokens and lets the model answer: what thinking is worth.
  --kept SET     asks problems of another domain, judged by their own verifier, reported apart: what was lost.
  --text SOURCE  bits per byte of held-out text (`python_stdlib`, `sympy_examples`, `package_readmes`, a .jsonl).
  --probe        shows the beginnings of the problems: does the model go on from memory?
  --tools        runs the Python programs that an answer writes, in the sandbox, and feeds back what they print.
  --few-shot N   also asks plainly after N solved examples, as a base model wants it; the better format counts."""
EXAMPLES = """examples:
  derive evaluate release/ --tasks problems.jsonl --verifier math --samples 4
  derive evaluate Qwen/Qwen2.5-0.5B --tasks gsm8k --few-shot 4 --probe
  derive evaluate release/ --tasks reasoning_gym/gcd --samples 8 --budgets 32,64,128 --max-new-tokens 256
  derive evaluate release/ --tasks gsm8k --kept functions/lists --text python_stdlib --json > found.json"""
OPTIONS = {
    "evaluate.thinking_budgets": "--budgets", "evaluate.sampling.max_new_tokens": "--max-new-tokens",
    "evaluate.tools": "--tools",
}  # fmt: skip
"""What a stage calls a setting, and which option gives it here."""


def add_command(
    add: Callable[..., argparse.ArgumentParser], json_output: argparse.ArgumentParser,
    at_least: Callable[[float], Callable[[str], float]],
) -> None:  # fmt: skip
    """The parser of `derive evaluate`."""
    made = add("evaluate", "judge any Hugging Face checkpoint on held-out tasks", json_output)
    made.description, made.epilog = DESCRIPTION, EXAMPLES
    made.add_argument("model", metavar="MODEL", help="checkpoint folder, `seedling`, or hub id")
    add_options(made, at_least, tasks_required=True)


def add_options(
    made: argparse.ArgumentParser, at_least: Callable[[float], Callable[[str], float]], tasks_required: bool
) -> None:
    """What is asked, and how: the options of which `stage_of` makes a stage."""
    made.add_argument("--tasks", action="append", required=tasks_required, default=None, metavar="NAME_OR_FILE",
                      help="task set, or JSONL with prompt and answer; may be given more than once")  # fmt: skip
    made.add_argument("--verifier", metavar="NAME", help="judge of the tasks (default: each set's own)")
    made.add_argument("--kept", action="append", default=[], metavar="NAME_OR_FILE",
                      help="task set of another domain, reported apart; may be given more than once")  # fmt: skip
    made.add_argument("--text", action="append", default=[], metavar="SOURCE",
                      help="source of held-out text for bits per byte; may be given more than once")  # fmt: skip
    made.add_argument("--samples", type=at_least(0), default=0, metavar="K",
                      help="samples per problem for pass@K and maj@K (default: none)")  # fmt: skip
    made.add_argument("--temperature", type=at_least(0.0), default=1.0, metavar="T",
                      help="of the samples (default: %(default)s)")  # fmt: skip
    made.add_argument("--budgets", type=_numbers, default=(), metavar="N,N,...",
                      help="tokens that a thought may take, a figure for each")  # fmt: skip
    made.add_argument("--answer-tokens", type=at_least(1), default=128, metavar="N",
                      help="tokens of the answer after a thought, with --budgets (default: %(default)s)")  # fmt: skip
    made.add_argument("--few-shot", type=at_least(0), default=0, metavar="N",
                      help="also ask plainly after N solved examples; the better counts")  # fmt: skip
    made.add_argument("--style", choices=("plain", "published"), default="plain",
                      help="published: the prompts of the published reports (sets of the catalogue)")  # fmt: skip
    made.add_argument("--tools", action="store_true", help="run the programs that answers write")
    made.add_argument("--probe", action="store_true", help="look whether the model has read the problems before")
    made.add_argument("--max-new-tokens", type=at_least(1), default=512, metavar="N",
                      help="a longer answer is cut (default: %(default)s)")  # fmt: skip
    made.add_argument("--limit", type=at_least(1), metavar="N",
                      help=f"problems per task set (default: all; of a procedural set {NUM_PROCEDURAL})")  # fmt: skip
    made.add_argument("--machine", default="", help="launch profile")


def run(given: argparse.Namespace) -> int:
    """`derive evaluate`."""
    found = evaluate_checkpoint(given)
    if given.json:
        print(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False))
        return 0
    from derivatives.evaluation.table import print_table

    print_table(found)
    return 0


def evaluate_checkpoint(given: argparse.Namespace) -> dict[str, Any]:
    """Judge one checkpoint; the result has the shape of an evaluation's results.json, with the samples.

    Raises:
        UserError: for a model, task set, source or verifier that does not exist, or settings that do not fit.
    """
    from configs.load import default_machine_name, load_machine
    from configs.names import check_source, check_verifier
    from flows.base import resolve_base
    from flows.store import Store

    stage = stage_of(given)
    for option, sources in (("--tasks", stage.tasks), ("--kept", stage.kept_tasks), ("--text", stage.heldout_text)):
        for source in sources:
            check_source(option, source)
    if given.verifier:
        check_verifier("--verifier", given.verifier)
    base = resolve_base(given.model, None, Store(None), download=True)
    assert base.path is not None, "a downloaded base has a path"
    machine = load_machine(given.machine or default_machine_name())

    from derivatives.evaluate import evaluate_stage, protocol_of

    protocol = protocol_of(stage, seed=0)  # what is wrong with the problems is told before a model is read
    return evaluate_stage(given.model, base.path, stage, protocol, machine)


def stage_of(given: argparse.Namespace) -> EvaluateStage:
    """The options as an evaluate stage. Raises UserError that names the option."""
    from pydantic import ValidationError

    from configs.settings.common import Sampling
    from configs.settings.evaluation import EvaluateStage
    from configs.settings.tools import ToolUse
    from configs.suites import PREFIX as SUITE

    tasks, kept = (
        tuple(
            task_source(name, given.limit).model_copy(update={} if name.startswith(SUITE) else {"style": given.style})
            for name in names
        )
        for names in (given.tasks, given.kept)
    )
    try:
        return EvaluateStage(
            id="evaluate", models=(given.model,), tasks=tasks, kept_tasks=kept, judge=given.verifier or None,
            sampling=Sampling(temperature=given.temperature, max_new_tokens=given.max_new_tokens),
            num_samples=given.samples, few_shot=given.few_shot, thinking_budgets=given.budgets,
            answer_tokens=given.answer_tokens, tools=ToolUse() if given.tools else None,
            heldout_text=tuple(text_source(name) for name in given.text), probe=given.probe,
        )  # fmt: skip
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        for field, option in OPTIONS.items():
            said = said.replace(field, option)
        raise UserError(said) from error


def task_source(name: str, limit: int | None) -> TaskSource:
    """The held-out part of a task set: all of a file, the test split of a data set, held-out draws of a generator. A
    suite's sets say for themselves how they are drawn and put."""
    from configs.names import FIM, TWINS, is_generated
    from configs.settings.common import TaskSource
    from configs.suites import PREFIX as SUITE

    if name.endswith(".jsonl"):
        return TaskSource(name=str(Path(name).expanduser().resolve()), split="all", count=limit)
    if name.startswith(f"{TWINS}/"):
        return task_source(name.removeprefix(f"{TWINS}/"), limit).model_copy(update={"name": name})
    if name.startswith(SUITE):
        return TaskSource(name=name, count=limit)
    if is_generated(name) or name.startswith(f"{FIM}/"):
        return TaskSource(name=name, split="heldout", count=limit or NUM_PROCEDURAL)
    from configs.catalogue import dataset, dataset_names

    has_test = name in dataset_names() and "test" in dataset(name).splits
    return TaskSource(name=name, split="test" if has_test else "all", count=limit)


def text_source(name: str) -> CorpusSource:
    """The held-out part of a source of text; all of a file."""
    from configs.settings.corpus import CorpusSource

    if name.endswith(".jsonl"):
        return CorpusSource(name=str(Path(name).expanduser().resolve()), split="all")
    return CorpusSource(name=name, split="heldout")


def _numbers(text: str) -> tuple[int, ...]:
    """`32,64,128` as numbers; argparse tells where they are none."""
    found = tuple(int(part) for part in text.split(","))
    if any(number < 1 for number in found):
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: numbers of at least 1, with commas")
    return found


_numbers.__name__ = "list of numbers"  # argparse names the type in its message for what is none
