"""Near-duplicates and decontamination, measured: speed, recall and precision beside datatrove, memory, injections.

    python tests/benchmarks/bench_corpora.py speed   [--repeats 5] [--datatrove-python PYTHON]
    python tests/benchmarks/bench_corpora.py recall  [--documents 200] [--seeds 5] [--datatrove-python PYTHON]
    python tests/benchmarks/bench_corpora.py memory  [--megabytes 100 2000]
    python tests/benchmarks/bench_corpora.py contamination [--per-kind 200] [--clean 5000]

Each prints one JSON object a line. The text is the standard library's sources and docstrings of the interpreter that
runs it. `contamination` reads the benchmarks from DERIVE_DATA. datatrove runs in its own environment, named by its
interpreter (`bench_corpora_datatrove.py` says what to install there). Seconds are of processor time, so that a busy
machine changes them less; wall time is given beside.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from configs.settings.common import TaskSource  # noqa: E402
from configs.settings.corpus import CorpusSource  # noqa: E402
from corpora.contamination import self_test  # noqa: E402
from corpora.decontaminate import Decontaminator, load_benchmarks  # noqa: E402
from corpora.document import Document  # noqa: E402
from corpora.dropped import DropLog  # noqa: E402
from corpora.near_duplicates import NearDuplicateSettings, dropped_rows, plan, run  # noqa: E402
from corpora.ngrams import canonical, word_ngrams  # noqa: E402
from corpora.sources import open_source  # noqa: E402

PEER = Path(__file__).with_name("bench_corpora_datatrove.py")
EDITED_SHARES = (0.05, 0.1, 0.2)
LINES = (20, 400)
"""Fewest and most lines of a file that is edited."""
TRUE_JACCARD = 0.7
"""A drop counts as right when a kept document is at least so similar to it: 14 bands of 8 find half of such pairs."""
BENCHMARKS = [TaskSource(name="gsm8k", split="test"), TaskSource(name="math500", split="test"),
              TaskSource(name="asdiv", split="test"), TaskSource(name="aime24", split="test"),
              TaskSource(name="reasoning_gym/chain_sum", split="heldout", count=300)]
SHORTEST_CLEAN = 100
"""Characters below which a docstring is no document."""


def sources() -> dict[str, str]:
    """The standard library's modules: id -> text."""
    library = open_source(CorpusSource(name="python_stdlib"), "tokens", DropLog())
    return {document.id: document.text for document in library}


def write_shards(folder: Path, documents: dict[str, str], num_shards: int = 1) -> list[str]:
    """JSON lines files of these documents; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.jsonl" for i in range(num_shards)]
    for i, path in enumerate(paths):
        with path.open("w", encoding="utf-8") as file:
            for name in list(documents)[i::num_shards]:
                file.write(json.dumps({"id": name, "text": documents[name]}) + "\n")
    return [str(path) for path in paths]


def search(shards: Sequence[str], folder: Path, settings: NearDuplicateSettings) -> tuple[set[str], dict[str, float]]:
    """Ids that are dropped, and the seconds that it took; the kept ones are written out as the peer does."""
    start, start_cpu = time.perf_counter(), time.process_time()
    plan(shards, folder, settings)
    run(folder)
    dropped: set[str] = set()
    for number, shard in enumerate(shards):
        drops = dict(dropped_rows(folder, number))
        dropped |= {drop["id"] for drop in drops.values()}
        with Path(shard).open("rb") as file, (folder / f"kept-{number}.jsonl").open("wb") as out:
            out.writelines(line for row, line in enumerate(file) if row not in drops)
    return dropped, {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu}


def ask_peer(python: str, folder: Path) -> dict[str, Any]:
    """The peer's answer on the same files."""
    done = subprocess.run([python, str(PEER), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{PEER.name} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def speed(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """MB/s on one core over the standard library: read, search, write what is kept."""
    documents = sources()
    shards = write_shards(folder / "in", documents)
    megabytes = sum(len(text.encode()) for text in documents.values()) / 1e6
    for name, settings in (("bands", NearDuplicateSettings()), ("exact 0.75", NearDuplicateSettings(threshold=0.75))):
        times = []
        for i in range(arguments.repeats):
            dropped, taken = search(shards, folder / f"{name}-{i}", settings)
            times.append(taken)
        cpu = statistics.median(taken["cpu_seconds"] for taken in times)
        yield {"measure": "speed", "who": name, "documents": len(documents), "megabytes": round(megabytes, 2),
               "dropped": len(dropped), "repeats": len(times), "cpu_seconds": round(cpu, 3),
               "mb_per_cpu_second": round(megabytes / cpu, 1),
               "mb_per_second": round(megabytes / statistics.median(taken["seconds"] for taken in times), 1)}
    if arguments.datatrove_python:
        answer = ask_peer(arguments.datatrove_python, folder / "in")
        yield {"measure": "speed", "who": "datatrove", "dropped": len(documents) - len(answer["kept"]), "repeats": 1,
               "cpu_seconds": round(answer["cpu_seconds"], 1),
               "mb_per_cpu_second": round(megabytes / answer["cpu_seconds"], 2),
               "mb_per_second": round(megabytes / answer["seconds"], 2)}


def edited(text: str, share: float, foreign: Sequence[str], draw: random.Random) -> str:
    """The text with this share of its lines replaced, deleted, or followed by a line of another file."""
    lines = text.splitlines()
    for place in sorted(draw.sample(range(len(lines)), max(round(share * len(lines)), 1)), reverse=True):
        edit = draw.choice(("replace", "delete", "insert"))
        if edit == "delete":
            del lines[place]
        else:
            lines[place:place + (edit == "replace")] = [draw.choice(foreign)]
    return "\n".join(lines) + "\n"


def shingle_set(text: str) -> set[bytes]:
    """Word 5-grams as they are, without any hash."""
    return set(word_ngrams(canonical(text), NearDuplicateSettings.num_words))


def jaccard(one: set[bytes], other: set[bytes]) -> float:
    """Exact similarity."""
    return len(one & other) / max(len(one | other), 1)


def recall(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Edited copies beside their originals: how many pairs are found, and how many drops are right."""
    fewest, most = LINES
    everything = {name: text for name, text in sources().items() if fewest <= text.count("\n") <= most}
    originals = dict(list(everything.items())[:arguments.documents])
    foreign = [line for text in list(everything.values())[arguments.documents:] for line in text.splitlines()]
    if not foreign:
        sys.exit(f"--documents {arguments.documents}: allowed: below {len(everything)}, so that lines are left to "
                 "edit with; take fewer")
    for share in EDITED_SHARES:
        draw = random.Random(f"edit/{share}")
        copies = {f"copy/{name}": edited(text, share, foreign, draw) for name, text in originals.items()}
        documents = {**originals, **copies}
        sets = {name: shingle_set(text) for name, text in documents.items()}
        exact = {name: jaccard(sets[name], sets[f"copy/{name}"]) for name in originals}
        shards = write_shards(folder / f"{share}", documents)
        answers = {}
        for who, threshold in (("bands", None), (f"exact {TRUE_JACCARD}", TRUE_JACCARD)):
            # One seed's luck moves the recall by a few hundredths: the hash functions are drawn several times.
            answers[who] = [search(shards, folder / f"{share}-{who}-{seed}", NearDuplicateSettings(
                threshold=threshold, seed=seed))[0] for seed in range(arguments.seeds)]
        if arguments.datatrove_python:
            kept = set(ask_peer(arguments.datatrove_python, folder / f"{share}")["kept"])
            answers["datatrove"] = [set(documents) - kept]
        expected = statistics.mean(map(NearDuplicateSettings().chance_of_candidate, exact.values()))
        for who, drops in answers.items():
            scores = [score(set(documents), dropped, sets, exact) for dropped in drops]
            yield {"measure": "recall", "who": who, "edited_share": share, "pairs": len(originals),
                   "seeds": len(scores), "mean_jaccard": round(statistics.mean(exact.values()), 3),
                   "expected_of_bands": round(expected, 3),
                   **{name: round(statistics.mean(one[name] for one in scores), 3) for name in scores[0]}}


def score(names: set[str], dropped: set[str], sets: dict[str, set[bytes]], exact: dict[str, float]) -> dict[str, float]:
    """Recall over all pairs and over those that are truly similar; precision of the drops."""
    found = {name for name in exact if name in dropped or f"copy/{name}" in dropped}
    true = {name for name in exact if exact[name] >= TRUE_JACCARD}
    kept = [sets[name] for name in names - dropped]
    right = sum(any(jaccard(sets[name], other) >= TRUE_JACCARD for other in kept
                    if min(len(sets[name]), len(other)) >= TRUE_JACCARD * max(len(sets[name]), len(other)))
                for name in dropped)
    return {"found": len(found), "recall": round(len(found) / len(exact), 3), "true_pairs": len(true),
            "recall_of_true": round(len(found & true) / max(len(true), 1), 3), "dropped": len(dropped),
            "precision": round(right / max(len(dropped), 1), 3)}


def memory(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Peak resident memory of a search in its own process, over documents made of shuffled lines."""
    lines = [line for text in sources().values() for line in text.splitlines() if line]
    for megabytes in arguments.megabytes:
        path = folder / f"{megabytes}.jsonl"
        draw, size, number = random.Random(megabytes), 0, 0
        with path.open("w", encoding="utf-8") as file:
            while size < megabytes * 10**6:
                text = "\n".join(draw.choices(lines, k=150))
                # One document in ten comes twice, with a line of its own each time.
                for copy in range(1 + (number % 10 == 0)):
                    size += file.write(json.dumps({"id": f"{number}/{copy}", "text": f"{text}\n{copy}"}) + "\n")
                number += 1
        command = [sys.executable, __file__, "one-search", str(path), str(folder / f"out-{megabytes}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield {"measure": "memory", "megabytes": megabytes, **json.loads(done.stdout)}
        path.unlink()


def one_search(arguments: argparse.Namespace) -> None:
    """A search alone in a process."""
    before = peak_megabytes()
    start = time.process_time()
    plan([arguments.shard], arguments.out)
    report = run(arguments.out)
    print(json.dumps({"documents": report["documents"], "dropped": report["dropped"],
                      "cpu_seconds": round(time.process_time() - start, 1), "megabytes_at_start": before,
                      "megabytes_at_peak": peak_megabytes()}))


def peak_megabytes() -> int:
    """Peak resident memory of this process. `ru_maxrss` would hold that of the parent before the exec as well."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) // 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def docstrings() -> Iterator[Document]:
    """The standard library's docstrings, each a document."""
    for path, text in sources().items():
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found = ast.get_docstring(node)
                if found and len(found) >= SHORTEST_CLEAN:
                    name = f"{path}:{getattr(node, 'lineno', 1)}"
                    yield Document(name, "python_stdlib", "PSF-2.0", path, text=found)


def contamination(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The self-test of every rule."""
    if not os.environ.get("DERIVE_DATA"):
        sys.exit("DERIVE_DATA names no folder with the data mirror; set it")
    held = load_benchmarks(BENCHMARKS)
    questions = [self_test.Questions(one.name, one.questions, one.procedural) for one in held]
    modules = [Document(name, "python_stdlib", "PSF-2.0", name, text=text) for name, text in sources().items()]
    clean = [*modules, *docstrings()][:arguments.clean]
    ngrams = self_test.removed_by(Decontaminator(held, 13).remove)
    subsequence = self_test.subsequence_rule(questions)
    for who, detect in (("13-gram", ngrams), ("subsequence", subsequence),
                        ("either", self_test.either(ngrams, subsequence))):
        start = time.process_time()
        self_test._ask(detect, clean)
        seconds = time.process_time() - start
        result = self_test.measure(detect, questions, clean, per_kind=arguments.per_kind)
        megabytes = sum(len(document.text) for document in clean) / 1e6
        yield {"measure": "contamination", "who": who, "mb_per_cpu_second": round(megabytes / seconds, 1), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "recall"):
        commands.add_parser(name).add_argument("--datatrove-python", help="interpreter with datatrove installed")
    commands.choices["speed"].add_argument("--repeats", type=int, default=5)
    commands.choices["recall"].add_argument("--documents", type=int, default=200)
    commands.choices["recall"].add_argument("--seeds", type=int, default=5, help="draws of the hash functions")
    commands.add_parser("memory").add_argument("--megabytes", type=int, nargs="+", default=[100, 2000])
    self_test_command = commands.add_parser("contamination")
    self_test_command.add_argument("--per-kind", type=int, default=200, help="questions of each benchmark and kind")
    self_test_command.add_argument("--clean", type=int, default=20_000, help="clean documents at most")
    one = commands.add_parser("one-search")
    one.add_argument("shard")
    one.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "one-search":
        one_search(arguments)
        return
    measures = {"speed": speed, "recall": recall, "memory": memory, "contamination": contamination}
    with tempfile.TemporaryDirectory() as folder:
        for line in measures[arguments.command](arguments, Path(folder)):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
