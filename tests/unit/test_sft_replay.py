"""Supervised fine-tuning that also trains on documents of token corpora."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.schema import Recipe, stage_inputs
from configs.stage import StageFile, read_progress
from derivatives import sft
from tests.training_fixtures import VOCABULARY, sft_file, write_checkpoint, write_sums

LENGTHS = (5, 20, 7, 16)


def write_tokens(folder: Path) -> Path:
    """A corpus stage's packed tokens: four documents."""
    (folder / "data").mkdir(parents=True)
    np.save(folder / "data" / "documents.npy", np.cumsum([0, *LENGTHS]))
    (np.arange(sum(LENGTHS)) % VOCABULARY).astype("<u4").tofile(folder / "data" / "tokens.bin")
    return folder


def with_corpus(given: StageFile, folder: Path) -> StageFile:
    plain = given.model_dump(mode="json")
    plain["inputs"]["corpus"] = {"kind": "corpus", "path": str(folder)}
    return StageFile.model_validate(plain)


def run(tmp_path: Path, name: str, **stage: object) -> list[dict[str, float]]:
    base, data = write_checkpoint(tmp_path / "base"), write_sums(tmp_path / "sums.jsonl", 16)
    corpus = tmp_path / "corpus"
    given = with_corpus(sft_file(base, data, **stage), corpus if corpus.exists() else write_tokens(corpus))
    (tmp_path / name).mkdir()
    sft.run(given, tmp_path / name)
    return read_progress(tmp_path / name)


def test_each_step_trains_on_the_asked_tokens_of_documents_besides(tmp_path: Path) -> None:
    plain = run(tmp_path, "plain")
    mixed = run(tmp_path, "mixed", replay={"data": ["corpus"], "batch_tokens": sum(LENGTHS)})
    for without, with_replay in zip(plain, mixed, strict=True):  # an epoch of the corpus in each of the two steps
        assert with_replay["sft/tokens"] - without["sft/tokens"] == sum(LENGTHS)
        assert with_replay["sft/trained_tokens"] - without["sft/trained_tokens"] == sum(LENGTHS) - len(LENGTHS)
    assert len(plain) == 2 and plain[1]["sft/loss"] != mixed[1]["sft/loss"]


def test_a_replayed_token_counts_for_its_weight(tmp_path: Path) -> None:
    steps = [run(tmp_path, str(weight), replay={"data": ["corpus"], "batch_tokens": sum(LENGTHS), "weight": weight})[0]
             for weight in (1.0, 0.25, 1e-9)]  # fmt: skip
    replayed, answers = sum(LENGTHS) - len(LENGTHS), steps[2]["sft/trained_tokens"]
    assert [step["sft/trained_tokens"] - answers for step in steps[:2]] == pytest.approx([replayed, 0.25 * replayed])
    sums = [step["sft/loss"] * step["sft/trained_tokens"] for step in steps]
    assert sums[1] - sums[2] == pytest.approx(0.25 * (sums[0] - sums[2]), rel=1e-2)


def test_a_document_longer_than_a_step_is_taken_whole_and_the_next_step_goes_without(tmp_path: Path) -> None:
    mixed = run(tmp_path, "mixed", epochs=24, replay={"data": ["corpus"], "batch_tokens": 2})
    plain = run(tmp_path, "plain", epochs=24)
    more = [a["sft/tokens"] - b["sft/tokens"] for a, b in zip(mixed, plain, strict=True)]
    assert sum(more) == 2 * sum(LENGTHS)  # 48 steps of two tokens are two epochs of 48
    assert set(more) <= {0, *LENGTHS, *(a + b for a in LENGTHS for b in LENGTHS)}


def test_what_cannot_be_replayed_is_told(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "data").mkdir(parents=True)
    np.save(tmp_path / "corpus" / "data" / "documents.npy", np.array([0, 300]))
    np.zeros(300, dtype="<u4").tofile(tmp_path / "corpus" / "data" / "tokens.bin")
    with pytest.raises(UserError, match=r"256 is less than the longest document \(300 tokens\)"):
        run(tmp_path, "long", replay={"data": ["corpus"], "batch_tokens": 8})


@pytest.mark.parametrize(
    ("named", "complaint"), [("examples", "names no earlier corpus with output tokens"), ("tokens", "")]
)
def test_replay_names_an_earlier_corpus_of_tokens_and_makes_it_an_input(named: str, complaint: str) -> None:
    source = [{"name": "functions/lists", "count": 3}]
    recipe = {
        "name": "x", "title": "x", "status": "validated only",
        "stages": [
            {"id": "tokens", "kind": "corpus", "output": "tokens", "sources": source, "num_tokens": 10},
            {"id": "examples", "kind": "corpus", "output": "examples", "sources": source},
            {"id": "sft", "kind": "sft", "data": ["examples"], "learning_rate": 1e-5,
             "replay": {"data": [named], "batch_tokens": 8}},
        ],
    }  # fmt: skip
    if complaint:
        with pytest.raises(ValueError, match=complaint):
            Recipe.model_validate_json(json.dumps(recipe))
        return
    made = Recipe.model_validate_json(json.dumps(recipe))
    assert stage_inputs(made, made.stage("sft")) == ("base", "examples", "tokens")
