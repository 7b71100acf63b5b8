"""A release's scores in lm-eval beside ours, from the same prompts: `make check-lm-eval RELEASE=FOLDER`.

    python tests/benchmarks/lm_eval_check.py RELEASE [--problems 200] [--parts ours text gsm8k] [--out FILE]

lm-eval opens the release's folder by itself (`hf`, bf16, CPU), in an environment of its own (`peers.py`), offline, with
tasks written here as YAML over local files:

- `ours`: problems of the release's own evaluation as chats. lm-eval takes the last box as the answer and compares text;
  ours is the evaluation's own judge.
- `gsm8k`: the first test problems after 5 solved ones, as lm-eval's own task has it (prompt, stop texts, both filters);
  ours is the verifier `math`. Needs DERIVE_DATA; left out without.
- `text`: bits per byte by `loglikelihood_rolling`, of documents that fit one window, and whole.

It fails where a prompt differs by a character, where lm-eval's score is outside our interval (Wilson), or where bits
per byte of one-window documents differ by more than 0.1%. Bits of whole documents are told and not judged: our windows
start anew after an end of text, lm-eval's after the last token of the window before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from configs.settings.common import Sampling, TaskSource  # noqa: E402 - needs the path above
from configs.settings.corpus import CorpusSource  # noqa: E402
from corpora.dropped import DropLog  # noqa: E402
from corpora.sources import open_source  # noqa: E402
from derivatives.evaluation.statistics import wilson  # noqa: E402
from derivatives.evaluation.texts import WINDOW_TOKENS, bits_per_byte, document_costs  # noqa: E402
from derivatives.formats.quality import Asked, questions_of  # noqa: E402
from derivatives.rollout.engine import RolloutEngine  # noqa: E402
from derivatives.training.chat import END_OF_TEXT, conversation, encode_chat, encode_text, token_id  # noqa: E402
from derivatives.training.model import load_model  # noqa: E402
from tests.benchmarks.interop import PEERS  # noqa: E402
from tests.benchmarks.peers import interpreter  # noqa: E402
from verifiers.api import Task  # noqa: E402
from verifiers.pool import VerifierPool  # noqa: E402
from verifiers.tasks import load_tasks  # noqa: E402

PARTS = ("ours", "text", "gsm8k")
NUM_SHOTS, GSM8K_TOKENS = 5, 96
NEXT = "Question:"
SAME_BITS = 1e-3
BOXED = r"\\boxed\{([^{}]*)\}"


def task_file(folder: Path, name: str, rows: Sequence[dict[str, Any]], **settings: Any) -> None:
    """A local task of lm-eval: its YAML, and its rows as JSON lines."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(folder / f"{name}.jsonl"), **settings.pop("files", {})}
    about = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**about, **settings}, sort_keys=False))


def run_lm_eval(folder: Path, release: Path, tasks: Sequence[str], more: Sequence[str], **model: Any) -> dict[str, Any]:
    """Run lm-eval on tasks in `folder`; for each its results and its logged samples. Raises RuntimeError."""
    arguments = {"pretrained": release, "dtype": "bfloat16", **model}
    python = Path(interpreter(PEERS["lm-eval"]))
    out = folder / f"out-{tasks[0]}"
    command = [str(python.parent / "lm-eval"), "run", "--model", "hf", "--model_args",
               ",".join(f"{key}={value}" for key, value in arguments.items()), "--device", "cpu", "--include_path",
               str(folder), "--tasks", ",".join(tasks), "--batch_size", "8", "--log_samples", "--output_path", str(out),
               *more]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"),
                   "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"lm-eval ended with {done.returncode}:\n{done.stderr[-3000:]}")
    results = json.loads(next(out.glob("**/results_*.json")).read_text())["results"]
    found: dict[str, Any] = {}
    for name in tasks:
        lines = next(out.glob(f"**/samples_{name}_*.jsonl")).read_text().splitlines()
        samples = sorted((json.loads(line) for line in lines), key=lambda one: one["doc_id"])
        found[name] = {"results": results[name], "samples": samples}
    return found


def compare(name: str, ours: Sequence[bool], texts: Sequence[str], theirs: dict[str, Any], metric: str,
            prompts: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """Both scores with intervals, answers in common; raises RuntimeError where prompts or scores do not agree."""
    samples = [one for one in theirs["samples"] if one.get("filter", "none") == metric.partition(",")[2]]
    for number, (one, prompt) in enumerate(zip(samples, prompts, strict=True)):
        given = one["arguments"]["gen_args_0"]["arg_0"]
        if given != prompt:
            raise RuntimeError(f"{name}: prompt {number} differs:\n{given!r}\n{prompt!r}")
    their_score = float(theirs["results"][metric])
    count = len(ours)
    low, high = wilson(sum(ours), count, 0.95)
    agree = sum(bool(a) == bool(one["exact_match"]) for a, one in zip(ours, samples, strict=True)) / count
    same = sum(a == one["resps"][0][0] for a, one in zip(texts, samples, strict=True)) / count
    found = {"problems": count, "ours": sum(ours) / count, "low": low, "high": high, "lm_eval": their_score,
             "same_text": same, "same_verdict": agree}  # fmt: skip
    if not low <= their_score <= high:
        raise RuntimeError(f"{name}: lm-eval has {their_score:.3f}, ours is {found['ours']:.3f} "
                           f"[{low:.3f}, {high:.3f}]")  # fmt: skip
    return found


def check(release: Path, num_problems: int, parts: Sequence[str], folder: Path) -> dict[str, Any]:
    """All figures. Raises RuntimeError where they do not agree."""
    asked = questions_of(release, num_problems)
    model, tokenizer = load_model(release, "bf16")
    found: dict[str, Any] = {"release": release.name}
    if "ours" in parts:
        found["ours"] = check_own(release, asked, RolloutEngine(model, tokenizer), folder)
        print("ours", json.dumps(found["ours"]), flush=True)
    if "text" in parts:
        documents = [text for texts in asked.texts.values() for text in texts]
        found |= check_texts(release, documents, model, tokenizer, folder)
    if "gsm8k" in parts and os.environ.get("DERIVE_DATA"):
        found["gsm8k"] = check_gsm8k(release, num_problems, RolloutEngine(model, tokenizer), folder)
        print("gsm8k", json.dumps(found["gsm8k"]), flush=True)
    return found


def check_own(release: Path, asked: Asked, engine: RolloutEngine, folder: Path) -> dict[str, Any]:
    """Problems of the release's evaluation, as chats."""
    prompts = [encode_chat(engine.tokenizer, conversation(task.prompt, asked.system)) for task in asked.tasks]
    greedy = Sampling(temperature=0.0, max_new_tokens=asked.max_new_tokens)
    texts = [group[0].text for group in engine.generate(prompts, 1, greedy)]
    task_file(folder, "ours", [{"question": task.prompt, "answer": task.answer} for task in asked.tasks],
              output_type="generate_until", doc_to_text="{{question}}", doc_to_target="{{answer}}",
              generation_kwargs={"until": ["<|im_end|>", "<|endoftext|>"], "do_sample": False,
                                 "max_gen_toks": asked.max_new_tokens},
              filter_list=[{"name": "boxed", "filter": [
                  {"function": "regex", "regex_pattern": BOXED, "group_select": -1}, {"function": "take_first"}]}],
              metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}])  # fmt: skip
    told = ["--apply_chat_template", *(["--system_instruction", asked.system] if asked.system else [])]
    theirs = run_lm_eval(folder, release, ["ours"], told)["ours"]
    rendered = [engine.tokenizer.decode(ids) for ids in prompts]
    return compare("ours", judge(asked.tasks, texts, asked.judge), texts, theirs, "exact_match,boxed", rendered)


def check_texts(release: Path, documents: list[str], model: Any, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Bits per byte of one-window documents and of whole ones. lm-eval is told to work out its softmax in fp32: in
    bf16, its default, each log-probability is rounded to 8 bits."""
    found: dict[str, Any] = {}
    both = {"text_short": [one_window(tokenizer, text) for text in documents], "text_whole": documents}
    for name, texts in both.items():
        task_file(folder, name, [{"text": text} for text in texts], output_type="loglikelihood_rolling", doc_to_text="",
                  doc_to_target="{{text}}", metric_list=[{"metric": "bits_per_byte"}])  # fmt: skip
    theirs = run_lm_eval(folder, release, list(both), [], prefix_token_id=token_id(tokenizer, END_OF_TEXT),
                         max_length=WINDOW_TOKENS - 1, softmax_dtype="float32")  # fmt: skip
    for name, texts in both.items():
        own = bits_per_byte(document_costs(model, tokenizer, texts))
        other = float(theirs[name]["results"]["bits_per_byte,none"])
        found[name] = {"documents": len(texts), "ours": own, "lm_eval": other, "relative": other / own - 1}
        print(name, json.dumps(found[name]), flush=True)
    if abs(found["text_short"]["relative"]) > SAME_BITS:
        raise RuntimeError(f"bits per byte differ by {found['text_short']['relative']:.2%}")
    return found


def check_gsm8k(release: Path, num_problems: int, engine: RolloutEngine, folder: Path) -> dict[str, Any]:
    """The first test problems after solved ones, as lm-eval's own task asks and scores them."""
    problems = load_tasks(TaskSource(name="gsm8k", split="test", count=num_problems))
    shots = solved(NUM_SHOTS)
    plain = "".join(f"Question: {one['question']}\nAnswer: {one['answer']}\n\n" for one in shots)
    (folder / "shots.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shots))
    task_file(folder, "gsm8k_local", [{"question": one.prompt, "answer": one.answer} for one in problems],
              files={"train": str(folder / "shots.jsonl")}, training_split="train", fewshot_split="train",
              num_fewshot=NUM_SHOTS, fewshot_config={"sampler": "first_n"}, output_type="generate_until",
              doc_to_text="Question: {{question}}\nAnswer:", doc_to_target="{{answer}}",
              generation_kwargs={"until": [NEXT, "</s>", "<|im_end|>"], "do_sample": False,
                                 "max_gen_toks": GSM8K_TOKENS},
              filter_list=[{"name": "flexible-extract", "filter": [
                  {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                  {"function": "take_first"}]}],
              metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True,
                            "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}])  # fmt: skip
    theirs = run_lm_eval(folder, release, ["gsm8k_local"], [])["gsm8k_local"]
    asking = [f"{plain}Question: {one.prompt}\nAnswer:" for one in problems]
    greedy = Sampling(temperature=0.0, max_new_tokens=GSM8K_TOKENS)
    groups = engine.generate([encode_text(engine.tokenizer, text) for text in asking], 1, greedy, stop_text=NEXT)
    texts = [group[0].text.partition(NEXT)[0] for group in groups]
    return compare("gsm8k", judge(problems, texts, "math"), texts, theirs, "exact_match,flexible-extract", asking)


def judge(tasks: Sequence[Task], texts: Sequence[str], verifier: str | None) -> list[bool]:
    """What our verifier says."""
    with VerifierPool(2, verifier=verifier) as pool:
        return [verdict.score == 1.0 for verdict in pool.judge(list(zip(tasks, texts, strict=True)))]


def one_window(tokenizer: Any, text: str) -> str:
    """The beginning of a text that one window of ours holds, at a line's end where it has one."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    if len(ids["input_ids"]) < WINDOW_TOKENS:
        return text
    cut = text[: ids["offset_mapping"][WINDOW_TOKENS - 50][0]]
    return cut[: cut.rfind("\n") + 1] or cut


def solved(count: int) -> list[dict[str, str]]:
    """The first training problems of GSM8K with their worked solutions."""
    drawn = open_source(CorpusSource(name="gsm8k", split="train", count=count), "shots", DropLog())
    return [{"question": one.prompt, "answer": one.completion} for one in drawn]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=Path("build/lm-eval.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = check(given.release.resolve(), given.problems, given.parts, Path(folder))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
