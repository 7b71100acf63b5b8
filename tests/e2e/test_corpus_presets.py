"""`derive corpus` of presets of real sizes, on a stand-in for the hub: snapshots with the same columns, made up here.

The seedling takes the place of the base, and budgets are small; sources, filters, licences, mixture and levels are the
presets' own.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from flows.cli import main

SENTENCE = ("the value of a number that we have is with this sum and for each part to be in it there are more than two "
            "lines which can then show how they fit as one")
WORDS = SENTENCE.split()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mirror"
    monkeypatch.setenv("DERIVE_DATA", str(folder))
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DERIVE_MACHINE", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = random.Random(0)
    snapshot(folder, "stack_v3", [repository(draw, i) for i in range(24)])
    snapshot(folder, "fineweb_edu", [{"text": prose(draw, 12), "url": f"https://example.org/{i}"} for i in range(120)])
    snapshot(folder, "finemath", [{"text": prose(draw, 8) + f"\n\nLet $x = {i}$, so that $x + 1 = {i + 1}$.",
                                   "url": f"https://example.org/m/{i}"} for i in range(80)])
    for name in ("opc_sft1_diverse", "opc_sft1_realuser", "opc_sft2_educational", "opc_sft2_evol", "opc_sft2_mceval",
                 "opc_sft2_package"):
        snapshot(folder, name, [{"instruction": f"Write {name} number {i}.", "output": f"def f():\n    return {i}\n"}
                                for i in range(20)])
    traces = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i), "solution": "",
               "generations": [f"<think>{i} and {i}</think>\n\\boxed{{{2 * i}}}"],
               "is_reasoning_complete": [i % 5 != 0], "correctness_math_verify": [True], "correctness_llama": None}
              for i in range(20)]
    snapshot(folder, "openr1_math_traces", traces)
    snapshot(folder, "open_code_reasoning", [{"input": f"Print {i}.", "output": f"<think>so</think>\nprint({i})"}
                                             for i in range(20)])
    snapshot(folder, "deepscaler", [{"problem": f"Find {i} times 3.", "answer": str(3 * i), "solution": ""}
                                    for i in range(20)])
    benchmarks(folder)
    return folder


def snapshot(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name / "train").mkdir(parents=True)
    half = len(rows) // 2
    for i, part in enumerate((rows[:half], rows[half:])):
        parquet.write_table(pyarrow.Table.from_pylist(part), folder / name / "train" / f"{i:05d}-of-00002.parquet")


def benchmarks(folder: Path) -> None:
    def put(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        text = json.dumps(rows) if name.endswith(".json") else lines
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    long = " ".join(f"unlikely{i}" for i in range(30))
    put("humaneval/HumanEval.jsonl.gz", [{"prompt": f"def one(): {long}", "canonical_solution": "x"}])
    tasks = [{"task_id": 11, "text": f"Write two {long}", "code": "x"}]
    for i, word in enumerate(WORDS[:10]):  # of the part that may be trained on
        tasks.append({"task_id": 601 + i, "text": f"Write a function to {word} {i}.", "test_setup_code": "",
                      "code": f"def f(x): return x + {i}", "test_list": [f"assert f({n}) == {n + i}" for n in range(3)],
                      "challenge_test_list": []})
    put("mbpp/mbpp.jsonl", tasks)
    put("gsm8k/test.jsonl", [{"question": f"How many {long}?", "answer": "#### 1"}])
    put("gsm8k/train.jsonl", [{"question": f"How many are {i} and 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"}
                              for i in range(20)])
    put("math/math500.json", [{"prompt": [{"value": f"Which {long}?"}], "final_answer": "1"}])
    put("ifeval/ifeval.jsonl", [{"prompt": f"Write {long}", "instruction_id_list": ["punctuation:no_comma"],
                                 "kwargs": [{}]}])
    for name in ("aime24", "aime25"):
        put(f"aime/{name}.jsonl", [{"prompt": f"Prove {name} {long}", "answer": 1}])


def prose(draw: random.Random, sentences: int) -> str:
    return " ".join(" ".join(draw.choices(WORDS, k=14)).capitalize() + "." for _ in range(sentences))


def repository(draw: random.Random, number: int) -> dict[str, Any]:
    """Four files that import one another; those of every third repository are under no known licence."""
    licences = [] if number % 3 == 0 else ["MIT"]
    files = []
    for name, needs in (("shapes", "areas"), ("areas", "names"), ("names", ""), ("tests/check", "shapes")):
        body = [f"import {needs}\n"] if needs else []
        for i in range(5):
            first, second = draw.sample(WORDS, 2)
            body.append(f"def {first}_{i}_{second}(left, right):\n    # {prose(draw, 1)}\n    total = left * {i + 2}\n"
                        f"    for part in right:\n        total += part - {draw.randint(1, 999)}\n    return total\n\n")
        files.append({"content": "".join(body), "file_path": f"{name}.py", "language": "Python",
                      "license_type": "permissive" if licences else "no_license", "detected_licenses": licences})
    return {"repo_path": f"me/tool{number}", "num_files": len(files), "files": files}


def corpora(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["corpus", *words, "--base", "seedling", "--no-prefect", "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["stages"]
    for one in found.values():
        assert all(source["read"] == source["clean"] + sum(source["dropped"].values())
                   for source in one["sources"].values())
    return found


@pytest.mark.slow
def test_a_coder_s_corpora_hold_licensed_code_text_and_mathematics_in_the_published_shares(
    hub: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    built = corpora(capsys, "coder/0.5b", "--set", "corpus.num_tokens=20000", "--set", "repositories.num_tokens=20000",
                    "--set", "problems.sources[*].count=5", "--set", "repositories.sequence_length=4096")
    for stage in ("corpus", "repositories"):
        one = built[stage]
        report = json.loads((Path(one["folder"]) / "data" / "report.json").read_text())
        shares = {name: source["achieved_share"] for name, source in report["sources"].items()}
        assert shares == pytest.approx({"stack_v3": 0.7, "fineweb_edu": 0.2, "finemath": 0.1}, abs=0.06)
        code = report["sources"]["stack_v3"]
        assert code["licences"] == {"mit": code["clean"]} and code["dropped"]["licence_unknown"] > 0
        assert code["licence"] == "odc-by" and code["cuts"]["cut_for_fim"] > 0
        assert report["contamination"]["questions"]["humaneval/test"] == 1
    assert built["examples_broad"]["documents"] == 40 and built["examples"]["documents"] == 80
    assert built["problems"]["documents"] == 20


@pytest.mark.slow
def test_a_reasoning_model_s_corpora_hold_right_traces_and_problems(
    hub: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    built = corpora(capsys, "reasoning/7b", "--set", "problems.sources[*].count=5",
                    "--set", "problems_math_code.sources[*].count=5")
    assert built["examples"]["sources"]["openr1_math_traces"]["dropped"] == {"no_worked_solution": 4}
    first = json.loads(Path(built["examples"]["product"]).read_text().splitlines()[0])
    assert "<think>" in first["completion"]
    assert built["problems_math_code"]["documents"] == 35 and built["problems"]["documents"] == 45
