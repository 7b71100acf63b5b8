"""One grader of math answers, in its own environment, asked over standard input: one JSON object a line each way.

    PYTHON tests/benchmarks/scoreboard_graders.py GRADER [FOLDER]

A line in: `gold`, `completion`, `question`. A line out: `said` (true, false, or null where the grader says that it
cannot judge this pair), `raised` (the name of an exception, which counts as a no), `processor_s`, `wall_s`, and `ran`:
whether an answer that holds a program had it run. The first line out is `ready`, after imports and a warm-up.

With FOLDER, an empty folder, the process is confined first (`hostile_peers.py` says how), with that folder as the only
place to write: so are the hostile answers judged. A grader's own output is thrown away.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
RAN = "it-ran"
"""File that the programs in hostile answers make (`scoreboard_hacks.py`)."""
WARM_UP = (("\\frac{1}{2}", "So the answer is $\\boxed{0.5}$."), ("18", "2 * 9 = 18\n#### 18"), ("x^2", "\\boxed{x^3}"))
MEMORY = 3 << 30
"""Bytes of address space that a confined grader may take."""
_MARKED = re.compile(r"(?<!\\)\$|\\boxed")
"""What tells that a gold answer stands in math delimiters or in a box already; `\\$5` does not."""
Judge = Callable[[Any], Any]
Prepare = Callable[[str, str, str], Any]
Grader = tuple[Prepare, Judge]


def ours(with_question: bool = True) -> Grader:
    """Our math verifier; the question is part of its task."""
    sys.path.insert(0, str(ROOT))
    api, math = importlib.import_module("verifiers.api"), importlib.import_module("verifiers.math")
    verifier = math.MathVerifier()
    verifier.warm_up()

    def prepare(gold: str, completion: str, question: str) -> Any:
        return api.Task("row", question if with_question else "", gold), completion

    def judge(pair: Any) -> bool | None:
        outcome = verifier.judge(*pair).outcome.value
        return None if outcome == "no_verdict" else bool(outcome == "correct")

    return prepare, judge


def math_verify() -> Grader:
    """Math-Verify as its README uses it: the gold answer in dollar signs, a box before all else."""
    module = importlib.import_module("math_verify")
    how = (module.LatexExtractionConfig(boxed_match_priority=0), module.ExprExtractionConfig())

    def prepare(gold: str, completion: str, question: str) -> Any:
        return (gold if _MARKED.search(gold) else f"${gold}$"), completion

    def judge(pair: Any) -> bool | None:
        gold = module.parse(pair[0], extraction_config=how)
        return bool(module.verify(gold, module.parse(pair[1], extraction_config=how))) if gold else None

    return prepare, judge


def lighteval() -> Grader:
    """lighteval's extractive match with the settings of its metric `pass@k` for math (MATH-500, AIME)."""
    sys.meta_path.append(_Absent())
    metrics = importlib.import_module("lighteval.metrics.dynamic_metrics")
    doc = importlib.import_module("lighteval.tasks.requests").Doc
    response = importlib.import_module("lighteval.models.model_output").ModelResponse
    targets = [metrics.ExprExtractionConfig(), metrics.LatexExtractionConfig()]
    metric = metrics.MultilingualExtractiveMatchMetric(
        language=metrics.Language.ENGLISH, gold_extraction_target=targets, pred_extraction_target=targets, precision=6
    )

    def prepare(gold: str, completion: str, question: str) -> Any:
        gold = gold if _MARKED.search(gold) else f"$\\boxed{{{gold}}}$"  # as MATH's solutions have it
        return doc(query=question, choices=[f"ANSWER: {gold}"], gold_index=0), response(text=[completion])

    def judge(pair: Any) -> bool:
        return bool(metric.compute(*pair) == 1.0)

    return prepare, judge


def qwen() -> Grader:
    """Qwen2.5-Math's grader, both sides normalised as its evaluation does."""
    grader = module_of(importlib.metadata.distribution("evalscope").locate_file("evalscope/metrics/math_parser.py"))

    def prepare(gold: str, completion: str, question: str) -> Any:
        return gold, completion

    def judge(pair: Any) -> bool:
        gold, completion = pair
        is_solution = any(mark in completion for mark in ("\\boxed", "\n", "nswer is"))
        answer = grader.extract_answer(completion) if is_solution else completion
        return bool(grader.math_equal(grader.strip_answer_string(answer), grader.strip_answer_string(gold)))

    return prepare, judge


def inspect_scorer(name: str, **options: Any) -> Callable[[], Grader]:
    """A scorer of inspect_ai; one that says it cannot read the gold answer cannot judge."""

    def make() -> Grader:
        scorers = importlib.import_module("inspect_ai.scorer")
        state = importlib.import_module("inspect_ai.solver").TaskState
        output = importlib.import_module("inspect_ai.model").ModelOutput
        scorer = getattr(scorers, name)(**options)

        def prepare(gold: str, completion: str, question: str) -> Any:
            made = output.from_content("model", completion)
            if gold.count("$") == 2 and gold.startswith("$") and gold.endswith("$"):
                gold = gold[1:-1]  # its targets stand bare, as in its documentation
            return state(model="model", sample_id=1, epoch=1, input=question, messages=[], output=made), gold

        async def judge(pair: Any) -> bool | None:
            try:
                score = await scorer(pair[0], scorers.Target(pair[1]))
            except ValueError as error:
                if "Could not parse any mathematical target" in str(error):
                    return None
                raise
            return None if score.value not in ("C", "I") else bool(score.value == "C")

        return prepare, judge

    return make


GRADERS: dict[str, Callable[[], Grader]] = {
    "ours": ours, "ours_blind": lambda: ours(with_question=False), "math_verify": math_verify, "lighteval": lighteval,
    "qwen": qwen, "inspect_math": inspect_scorer("math"), "inspect_match": inspect_scorer("match", numeric=True),
    "inspect_answer": inspect_scorer("answer", pattern="line"),
}  # fmt: skip


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for what lighteval imports beside its math graders and is not installed here. Asking one for a
    name gives an empty class, which serves as a base or an annotation and for nothing else."""

    names = frozenset((
        "accelerate", "aenum", "bert_score", "datasets", "git", "hf_xet", "huggingface_hub", "langcodes", "nltk",
        "pandas", "pydantic", "pytablewriter", "requests", "rich", "rouge_score", "sacrebleu", "scipy", "sklearn",
        "spacy", "termcolor", "torch", "transformers", "typer",
    ))  # fmt: skip

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """A module of that name, where nothing else had one."""
        if name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """An empty module."""
        module = ModuleType(spec.name)
        module.__path__ = []

        def missing(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        module.__getattr__ = missing  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def module_of(path: Any) -> Any:
    """The module in a file, whatever packages of the same name are installed beside it."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, str(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def serve(name: str, read: Any, write: Any, ran: Path | None) -> None:
    """Judge what is asked, line after line, until the input ends."""
    prepare, judge = GRADERS[name]()
    for gold, completion in WARM_UP:
        await _judged(judge, prepare(gold, completion, ""))
    write.write(json.dumps({"ready": True}) + "\n")
    for line in read:
        row = json.loads(line)
        pair = prepare(row["gold"], row["completion"], row.get("question", ""))
        wall, processor = time.perf_counter(), time.process_time()
        said, raised = await _judged(judge, pair)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        answer = {"said": said, "raised": raised, "processor_s": processor, "wall_s": wall, "ran": False}
        if ran is not None and ran.exists():
            ran.unlink()
            answer["ran"] = True
        write.write(json.dumps(answer) + "\n")


async def _judged(judge: Judge, pair: Any) -> tuple[bool | None, str]:
    try:
        said = judge(pair)
        return (await said if inspect.isawaitable(said) else said), ""
    except Exception as error:
        return False, type(error).__name__


def confine(folder: str) -> None:
    """Leave the user and the namespaces that others share; the caller goes on as pid 1 of its own.

    The process above waits for it and ends as it ends.
    """
    peers = module_of(Path(__file__).with_name("hostile_peers.py"))
    kernel = peers.kernel
    peers._leave(folder)
    _end_with_parent()  # another user forgets it
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _end_with_parent()
    os.chdir(folder)
    os.environ.update(TMPDIR=folder, HOME=folder)
    ruleset = kernel.Ruleset()
    ruleset.allow(["/"], kernel.READ_FILE | kernel.READ_DIR | 1)  # and execute
    ruleset.allow([folder, "/dev/shm"], ruleset.handled)
    ruleset.allow([os.devnull], kernel.READ_FILE | kernel.WRITE_FILE)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    ruleset.enforce()
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_NPROC, 64), (resource.RLIMIT_FSIZE, 32 << 20),
                       (resource.RLIMIT_CORE, 0)):  # fmt: skip
        resource.setrlimit(what, (most, most))


def _end_with_parent() -> None:
    """Have the kernel kill this process when the one that asks it ends, however that ends."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def main() -> None:
    """The command line."""
    _end_with_parent()
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    name, folder = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
    read = os.fdopen(os.dup(0), encoding="utf-8")
    write = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    if folder is not None:
        confine(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if "SCOREBOARD_SHOW_ERRORS" not in os.environ:
        os.dup2(nothing, 2)
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(name, read, write, Path(folder, RAN) if folder is not None else None))


if __name__ == "__main__":
    main()
