"""Best-fit packing: nothing is cut, nothing is lost, little room is left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import derivatives
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput, run_command
from corpora import fim
from corpora.build import run
from corpora.packing import best_fit, concatenated_and_cut, described
from corpora.tokens import load_encoder

SEEDLING = Path(derivatives.__file__).parent / "seedling" / "checkpoint"


def packed(lengths: list[int], capacity: int, **given: int) -> list[list[int]]:
    order, bounds = best_fit(np.array(lengths, dtype=np.int64), capacity, **given)
    return [order[a:b].tolist() for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def test_the_fullest_sequence_with_room_is_taken() -> None:
    # 6 and 5 open two sequences of 10; 4 fills the first, not the second, which has more room; 3 then goes there.
    assert sorted(packed([3, 6, 4, 5], 10)) == [[0, 3], [1, 2]]


def test_by_hand_it_needs_fewer_cuts_than_concatenating_and_cutting() -> None:
    lengths = np.array([7, 6, 3, 4])
    assert concatenated_and_cut(lengths, 10) == {"sequences": 2, "padding": 0, "cut": 1}  # 6 lies at 7 to 13
    order, bounds = best_fit(lengths, 10)
    assert described(lengths[order], bounds, 10) == {
        "sequence_length": 10, "sequences": 2, "tokens": 20, "padding": 0, "padding_share": 0.0, "cut": 0,
        "concatenated_and_cut": concatenated_and_cut(lengths[order], 10)}


@given(st.lists(st.integers(min_value=0, max_value=40), max_size=200), st.integers(min_value=1, max_value=50),
       st.integers(min_value=0, max_value=3))
def test_every_record_is_in_one_sequence_once_and_none_is_too_full(lengths: list[int], window: int, seed: int) -> None:
    sequences = packed(lengths, 40, window=window, seed=seed)
    assert sorted(i for one in sequences for i in one) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in one) <= 40 for one in sequences)
    # Within a window no two sequences could be one.
    for first in range(0, len(lengths), window):
        filled = [sum(lengths[i] for i in one) for one in sequences if first <= one[0] < first + window]
        assert sum(a + b <= 40 for i, a in enumerate(filled) for b in filled[:i]) == 0
    assert packed(lengths, 40, window=window, seed=seed) == sequences


def test_documents_of_many_lengths_leave_hardly_any_room_at_32k() -> None:
    draw = np.random.default_rng(0)
    lengths = np.minimum(draw.lognormal(7.2, 1.4, 20_000).astype(np.int64) + 1, 32_768)
    order, bounds = best_fit(lengths, 32_768)
    found = described(lengths[order], bounds, 32_768)
    assert found["padding_share"] < 0.002 and found["cut"] == 0
    assert found["concatenated_and_cut"]["cut"] > 0.8 * found["sequences"]


def test_windows_keep_the_order_of_the_mixture() -> None:
    lengths = np.full(30_000, 100, dtype=np.int64)
    order, _ = best_fit(lengths, 1000, window=1000)
    assert (order // 1000 == np.arange(30_000) // 1000).all() and (np.diff(order) < 0).any()


def build(folder: Path, rows: list[dict[str, Any]], status: int = 0, name: str = "out", **given: Any) -> Path:
    """Run a corpus stage over the rows; returns its data folder."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": str(folder / "rows.jsonl"), **given.pop("source", {})}
    stage = CorpusStage(**{"id": "corpus", "output": "tokens", "sources": [source], **given})
    base = {"base": StageInput(kind="base", path=str(SEEDLING))}
    path = folder / f"{name}.json"
    path.write_text(StageFile(recipe="test", inputs=base, stage=stage,
                              machine=Machine(name="cpu", num_threads=1)).model_dump_json())
    assert run_command("corpus", run, "", [str(path), str(folder / name)]) == status
    return folder / name / "data"


def documents_of(data: Path) -> list[bytes]:
    tokens, ends = np.fromfile(data / "tokens.bin", dtype="<u4"), np.load(data / "documents.npy")
    return [tokens[a:b].tobytes() for a, b in zip(ends[:-1], ends[1:], strict=True)]


def some_rows(num: int, **given: str) -> list[dict[str, Any]]:
    """Documents of 10 to 700 words, unlike one another."""
    sizes = [10 + 37 * i % 690 for i in range(num)]
    return [{"id": str(i), "text": " ".join(f"w{i}x{k}" + "\n" * (k % 9 == 8) for k in range(size)), **given}
            for i, size in enumerate(sizes)]


def report_of(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "report.json").read_text())
    return found


@pytest.mark.parametrize("level", ["file", "repository"])
def test_every_token_of_every_document_is_in_the_packed_product_once(tmp_path: Path, level: str) -> None:
    rows = some_rows(40)
    for i, row in enumerate(rows):
        row |= {"repository": f"r{i % 7}", "path": f"m{i}.py"}
    settings: dict[str, Any] = {"sequence_length": 512, "source": {"level": level}}
    plain = build(tmp_path, rows, name="plain", **settings)
    packed = build(tmp_path, rows, name="packed", packing="best_fit", **settings)
    assert sorted(documents_of(plain)) == sorted(documents_of(packed)) and documents_of(plain) != documents_of(packed)
    encoder = load_encoder(SEEDLING, 1)
    texts = [row["text"] for row in rows]
    if level == "repository":
        marks = {mark: encoder.added_id(mark.value) for mark in fim.Mark}
        written = np.concatenate([np.frombuffer(one, dtype="<u4") for one in documents_of(packed)])
        counts = np.bincount(written, minlength=1 << 16)
        assert counts[marks[fim.Mark.FILE]] == 40
        plain_text = Tokenizer.from_file(str(SEEDLING / "tokenizer.json")).decode(written.tolist())
        assert all(plain_text.count(f"w{i}x{k} ") + plain_text.count(f"w{i}x{k}\n") == 1
                   for i in range(40) for k in (0, 5)), "a word is there once"
    else:
        expected = Counter(piece.tobytes() for ids in encoder.encode(texts) for piece in encoder.pieces(ids, 512))
        assert Counter(documents_of(packed)) == expected
        long = [ids for ids in encoder.encode(texts) if len(ids) > 511]
        ledger = report_of(packed)["truncation"]["rows.jsonl"]
        assert (ledger["split"], ledger["split_tokens"]) == (len(long), sum(map(len, long))) and len(long) > 3
        assert (ledger["cut_off_tokens"], ledger["left_out_tokens"]) == (0, 0)
    ends, begins = np.load(packed / "documents.npy"), np.load(packed / "sequences.npy")
    assert begins[0] == 0 and begins[-1] == len(ends) - 1 and (np.diff(begins) > 0).all()
    sizes = np.diff(ends[begins])
    assert sizes.max() <= 512
    found = report_of(packed)["packing"]
    assert found["padding"] == 512 * len(sizes) - sizes.sum() and found["cut"] == 0 and found["padding_share"] < 0.1
    assert found["concatenated_and_cut"]["cut"] > 10 and report_of(plain)["packing"] is None


def test_a_small_source_is_repeated_no_more_often_than_it_may_be(tmp_path: Path) -> None:
    rows = some_rows(12)
    once = report_of(build(tmp_path, rows, sequence_length=2048))["sources"]["rows.jsonl"]
    clean = once["tokens"]
    assert (once["epochs"], once["most_repeats"]) == (1.0, 1)
    for most in (1, 2, 6):
        data = build(tmp_path, rows, name=f"out{most}", sequence_length=2048, num_tokens=5 * clean,
                     source={"max_epochs": most})
        found = report_of(data)["sources"]["rows.jsonl"]
        assert max(Counter(documents_of(data)).values()) == found["most_repeats"] == min(most, 5)
        assert found["shortfall_tokens"] == max(5 - most, 0) * clean and found["epochs"] == pytest.approx(min(most, 5))


def test_a_shortage_stops_the_stage_where_it_is_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"sequence_length": 2048, "num_tokens": 10**6, "source": {"max_epochs": 2}}
    build(tmp_path, some_rows(5), name="noted", **settings)
    build(tmp_path, some_rows(5), status=2, name="stopped", on_shortage="stop", **settings)
    assert "stage.sources[0].max_epochs: 2 passes over rows.jsonl give" in capsys.readouterr().err
    wrong: dict[str, Any] = {"id": "c", "output": "problems", "packing": "best_fit", "sources": [{"name": "x.jsonl"}]}
    with pytest.raises(ValueError, match="only with output tokens"):
        CorpusStage(**wrong)
