"""The stage command from stage file to product, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import derivatives
from configs.settings.corpus import CorpusStage
from configs.stage import StageFile, StageInput, run_command
from corpora.build import run
from corpora.encode import question_hash
from corpora.product import source_names
from verifiers.tasks import split_of
from verifiers.tasks.split import question_digest

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"
CHAIN_SUM = {"name": "reasoning_gym/chain_sum", "count": 40, "params": {"max_terms": 3, "max_digits": 2}}


def build(folder: Path, stage: dict[str, Any], seed: int = 0) -> Path:
    """Run the stage in this process; returns its data folder."""
    out = folder / "out"
    assert run_command("corpus", run, "", [str(stage_file(folder, stage, seed)), str(out)]) == 0
    return out / "data"


def stage_file(folder: Path, stage: dict[str, Any], seed: int = 0) -> Path:
    base = {"base": StageInput(kind="base", path=str(SEEDLING))}
    resolved = StageFile(recipe="test", seed=seed, inputs=base, stage=CorpusStage(id="corpus", **stage))
    path = folder / "stage.json"
    path.write_text(resolved.model_dump_json())
    return path


def refused(folder: Path, stage: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a stage that ends with exit code 2; nothing may be published."""
    assert run_command("corpus", run, "", [str(stage_file(folder, stage)), str(folder / "out")]) == 2
    assert not (folder / "out" / "data").exists() and not (folder / "out" / "metrics.json").exists()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def jsonl(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tokens_are_documents_of_the_base_tokenizer_with_exact_accounts(tmp_path: Path) -> None:
    letters = jsonl(tmp_path, "letters.jsonl", [{"text": f"letter {i} abc\n"} for i in range(200)])
    digits = jsonl(tmp_path, "digits.jsonl", [{"text": f"{i} 123\n"} for i in range(5)])
    data = build(tmp_path, {"output": "tokens", "num_tokens": 1000, "sequence_length": 32, "sources": [
        {"name": letters, "weight": 3}, {"name": digits, "weight": 1}]})
    tokens = np.fromfile(data / "tokens.bin", dtype="<u4")
    offsets, owners = np.load(data / "documents.npy"), np.load(data / "sources.npy")
    report = json.loads((data / "report.json").read_text())
    tokenizer = Tokenizer.from_file(str(SEEDLING / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")

    assert (offsets.dtype, owners.dtype) == (np.int64, np.int16)
    assert offsets[0] == 0 and offsets[-1] == len(tokens) == report["tokens"] <= 1000
    assert (tokens[offsets[1:] - 1] == end).all() and (tokens == end).sum() == len(owners) == report["documents"]
    assert np.diff(offsets).max() <= 32
    for i, name in enumerate(report["source_names"]):
        assert np.diff(offsets)[owners == i].sum() == report["sources"][name]["tokens"]
        assert (owners == i).sum() == report["sources"][name]["documents"]
    texts = {tokenizer.decode(tokens[a:b - 1].tolist()) for a, b in zip(offsets[:-1], offsets[1:], strict=True)}
    assert texts <= {f"letter {i} abc\n" for i in range(200)} | {f"{i} 123\n" for i in range(5)}
    few = report["sources"]["digits.jsonl"]
    assert few["passes"] == 4 and few["documents"] == 20 and few["distinct_documents"] == 5
    assert few["tokens"] + few["shortfall_tokens"] == 250 and report["shortfalls"] == {
        "digits.jsonl": few["shortfall_tokens"]}
    assert report["sources"]["letters.jsonl"]["tokens"] > 750 - 32


def test_examples_keep_prompt_and_completion_and_drop_what_is_too_long(tmp_path: Path) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [
        {"prompt": "short", "completion": "yes"}, {"prompt": "long", "completion": "word " * 500},
        {"prompt": "short", "completion": "yes"}])
    chat = jsonl(tmp_path, "chat.jsonl", [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}])
    data = build(tmp_path, {"output": "examples", "sequence_length": 64, "sources": [{"name": mine}, {"name": chat}]})
    lines = sorted(read_lines(data / "examples.jsonl"), key=lambda line: line["id"])
    assert lines == [
        {"id": "chat.jsonl:1", "source": "chat.jsonl",
         "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"id": "mine.jsonl:1", "source": "mine.jsonl", "prompt": "short", "completion": "yes"}]
    report = json.loads((data / "report.json").read_text())
    assert report["dropped"] == {"exact_duplicate": 1, "too_long": 1}
    assert [(one["reason"], one["id"]) for one in read_lines(data / "dropped.jsonl")] == [
        ("exact_duplicate", "mine.jsonl:3"), ("too_long", "mine.jsonl:2")]
    expected = sorted(f"{question_hash(one):016x}" for one in ("short", "hi"))
    assert (data / "question_hashes.txt").read_text().split() == expected


def test_every_document_read_is_either_clean_or_dropped_for_a_reason(tmp_path: Path) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [{"text": text} for text in ("a b", "a  b", "", "c", "\n", "d")])
    data = build(tmp_path, {"output": "tokens", "sources": [{"name": mine}, {"name": mine}]})
    report = json.loads((data / "report.json").read_text())
    first, second = (report["sources"][name] for name in ("mine.jsonl", "mine.jsonl#2"))
    assert (first["read"], first["clean"], first["dropped"]) == (6, 3, {"empty": 2, "exact_duplicate": 1})
    assert (second["read"], second["clean"], second["dropped"]) == (6, 0, {"empty": 2, "exact_duplicate": 4})


def test_procedural_problems_never_hold_a_held_out_question(tmp_path: Path) -> None:
    heldout = {**CHAIN_SUM, "split": "heldout", "seed": 5}
    data = build(tmp_path, {"output": "problems", "sources": [CHAIN_SUM], "decontaminate": [heldout]})
    problems = read_lines(data / "problems.jsonl")
    assert len(problems) == 40 and {split_of(one["prompt"]) for one in problems} == {"train"}
    assert set(problems[0]) == {"id", "source", "prompt", "answer", "verifier", "metadata"}
    report = json.loads((data / "report.json").read_text())
    assert report["contamination"]["checked"] == ["reasoning_gym/chain_sum"]
    assert report["contamination"]["overlap"] == 0
    hashes = (data / "question_hashes.txt").read_text().split()
    assert hashes == sorted(f"{question_hash(one['prompt']):016x}" for one in problems)


def test_a_benchmark_question_in_the_users_file_is_dropped_by_name(tmp_path: Path) -> None:
    question = "Tom has three boxes with four pens each and gives five pens away; how many are left?"
    bench = jsonl(tmp_path, "bench.jsonl", [{"prompt": question, "answer": "7"}])
    mine = jsonl(tmp_path, "mine.jsonl", [{"text": f"See: {question} Seven."}, {"text": "Nothing of the kind."}])
    data = build(tmp_path, {"output": "tokens", "sources": [{"name": mine}], "decontaminate": [{"name": bench}]})
    report = json.loads((data / "report.json").read_text())
    assert report["dropped"] == {"contaminated:bench.jsonl": 1} and report["documents"] == 1


def test_problems_of_all_sources_are_spread_over_the_file(tmp_path: Path) -> None:
    files = [jsonl(tmp_path, f"{name}.jsonl", [{"prompt": f"{name} {i}", "answer": "1"} for i in range(50)])
             for name in ("a", "b")]
    data = build(tmp_path, {"output": "problems", "sources": [{"name": name} for name in files]})
    owners = [one["source"] for one in read_lines(data / "problems.jsonl")]
    assert all(owners[i:i + 10].count("a.jsonl") == 5 for i in range(0, 100, 10))


def test_half_of_a_surrogate_pair_is_kept_in_an_id_and_in_metadata(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "c\\ud800", "prompt": "d", "answer": "1", "metadata": {"e": "\\ud800"}}\n')
    data = build(tmp_path, {"output": "problems", "sources": [{"name": str(path)}]})
    [problem] = read_lines(data / "problems.jsonl")
    assert problem["id"] == "c\ud800" and problem["metadata"] == {"e": "\ud800"}


@pytest.mark.parametrize("column", ["path", "repository", "licence", "language"])
def test_half_of_a_surrogate_pair_in_what_is_written_or_counted_drops_the_document(tmp_path: Path, column: str) -> None:
    rows = [{"id": str(i), "text": f"text number {i}", "repository": "one"} | ({column: "a\ud800"} if i == 1 else {})
            for i in range(3)]
    source = {"name": jsonl(tmp_path, "mine.jsonl", rows), "level": "repository"}
    data = build(tmp_path, {"output": "tokens", "sources": [source]})
    assert json.loads((data / "report.json").read_text())["dropped"] == {"lone_surrogate": 1}


def test_worked_examples_become_text_and_their_questions_are_recorded(tmp_path: Path) -> None:
    data = build(tmp_path, {"output": "tokens", "sources": [CHAIN_SUM]})
    tokens, offsets = np.fromfile(data / "tokens.bin", dtype="<u4"), np.load(data / "documents.npy")
    text = Tokenizer.from_file(str(SEEDLING / "tokenizer.json")).decode(tokens[:offsets[1] - 1].tolist())
    question, _, solution = text.partition(" =\n")
    assert question.startswith("State the final answer") and "\\boxed{" in solution
    assert len((data / "question_hashes.txt").read_text().split()) == 40


def test_gsm8k_examples_end_in_the_boxed_answer_without_calculator_marks(tmp_path: Path, data_mirror: Path) -> None:
    data = build(tmp_path, {"output": "examples", "sources": [{"name": "gsm8k", "count": 50}],
                            "decontaminate": [{"name": "gsm8k", "split": "test"}]})
    lines = {line["id"]: line for line in read_lines(data / "examples.jsonl")}
    assert lines["gsm8k/train/0"]["completion"] == (
        "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May.\n\\boxed{72}")


def test_question_hashes_are_those_that_an_evaluation_computes() -> None:
    assert f"{question_hash('What is  3 - 4?'):016x}" == question_digest("what is 3-4") and question_hash("\ud800")


def test_another_seed_gives_another_order_and_the_same_documents(tmp_path: Path) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [{"prompt": f"q{i}", "completion": "a"} for i in range(50)])
    stage = {"output": "examples", "sources": [{"name": mine}]}
    first = (build(tmp_path, stage, seed=1) / "examples.jsonl").read_text().splitlines()
    second = (build(tmp_path, stage, seed=2) / "examples.jsonl").read_text().splitlines()
    assert first != second and sorted(first) == sorted(second)


def test_two_draws_from_one_source_have_two_names() -> None:
    stage = CorpusStage(id="c", output="tokens", sources=[
        {"name": "python_stdlib"}, {"name": "a/x.jsonl"}, {"name": "b/x.jsonl"}, {"name": "python_stdlib"}])
    assert source_names(stage) == ["python_stdlib", "x.jsonl", "x.jsonl#2", "python_stdlib#2"]


@pytest.mark.parametrize(("stage", "said"), [
    ({"output": "tokens", "sources": [{"name": "python_stlib"}]},
     "stage.sources[0].name: 'python_stlib' is no corpus source; did you mean 'python_stdlib'?"),
    ({"output": "tokens", "sources": [{"name": "reasoning_gym/chain_sun", "count": 3}]}, "did you mean"),
    ({"output": "tokens", "sources": [{"name": "nowhere/x.jsonl"}]}, "nowhere/x.jsonl: does not exist"),
    ({"output": "examples", "num_tokens": 5, "sources": [{"name": "python_stdlib"}]}, "stage.num_tokens: 5"),
    ({"output": "tokens", "sequence_length": 1, "sources": [{"name": "python_stdlib"}]}, "stage.sequence_length: 1"),
    ({"output": "tokens", "sources": [{"name": "python_stdlib", "split": "heldout"}]},
     "stage.sources[0].split: 'heldout' of 'python_stdlib' is kept for evaluation"),
    ({"output": "problems", "sources": [{"name": "python_stdlib"}]}, "'python_stdlib' has only text"),
    ({"output": "examples", "sources": [{"name": "asdiv", "split": "test"}]}, "'asdiv' has only answer, question"),
    ({"output": "problems", "sources": [{"name": "opc_sft2_evol"}]}, "'opc_sft2_evol' has only question, solution; al"),
    ({"output": "tokens", "sources": [{"name": "gsm8k", "split": "test"}]}, "'test' of 'gsm8k' is kept for evaluation"),
])
def test_what_cannot_be_built_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: dict[str, Any], said: str,
) -> None:
    assert said in refused(tmp_path, stage, capsys)


def test_nothing_left_names_the_most_frequent_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a", "completion": "word " * 99}, {"prompt": "b", "completion": "word " * 99}]
    rows.append({"prompt": "", "completion": "c"})
    mine = jsonl(tmp_path, "mine.jsonl", rows)
    said = refused(tmp_path, {"output": "examples", "sequence_length": 8, "sources": [{"name": mine}]}, capsys)
    assert "no documents are left of 3; the most frequent reason is too_long (2); raise sequence_length" in said


def test_a_budget_below_the_first_document_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [{"text": "word " * 20}])
    said = refused(tmp_path, {"output": "tokens", "num_tokens": 3, "sources": [{"name": mine}]}, capsys)
    assert "stage.num_tokens: 3 leaves every source less than its first document" in said


def test_a_failed_run_leaves_no_older_product_that_could_pass_for_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [{"text": "fine"}])
    build(tmp_path, {"output": "tokens", "sources": [{"name": mine}]})
    jsonl(tmp_path, "mine.jsonl", [{"txt": "wrong"}])
    assert run_command("corpus", run, "", [str(tmp_path / "stage.json"), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out" / "metrics.json").exists() and not (tmp_path / "out" / "data").exists()
    assert "text: is missing" in capsys.readouterr().err


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    mine = jsonl(tmp_path, "mine.jsonl", [{"prompt": f"question {i} " * 50, "answer": "1"} for i in range(2000)])
    path = stage_file(tmp_path, {"output": "problems", "sources": [{"name": mine}]})
    (tmp_path / "disk").mkdir()
    command = (f"mount -t tmpfs -o size=512k none {tmp_path}/disk || exit 99; "
               f"exec {sys.executable} -m corpora.build {path} {tmp_path}/disk/out")
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": _root()}, check=False)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()[:80]}")
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr and done.stderr.count("\n") == 1


def _root() -> str:
    return str(Path(derivatives.__file__).parent.parent)
