"""The loss on each source of a corpus is recorded while it is trained on, and is the loss that training then has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.settings.training import PretrainStage
from configs.stage import StageInput, read_progress
from derivatives import pretrain
from tests.training_fixtures import stage_file, write_checkpoint

NAMES = ["counting.jsonl", "reasoning_gym/noise"]
LENGTH = 20


def write_corpus(folder: Path, num: int, names: list[str] | None = None, labels: list[int] | None = None) -> None:
    """Documents that count up, and as many of drawn tokens, by turns, each of 20 tokens."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = [np.arange(LENGTH) + 10 if i % 2 == 0 else draw.integers(10, 200, LENGTH) for i in range(num)]
    np.concatenate(rows).astype("<u4").tofile(folder / "tokens.bin")
    np.save(folder / "documents.npy", np.arange(num + 1) * LENGTH)
    if names is not None:
        np.save(folder / "sources.npy", np.array([i % 2 for i in range(num)] if labels is None else labels, "<i2"))
        (folder / "report.json").write_text(json.dumps({"source_names": names}))


def trained(tmp_path: Path, names: list[str] | None, steps: int = 6) -> list[dict[str, float]]:
    """The progress lines of a short run, measured at every step."""
    base = write_checkpoint(tmp_path / "base")
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus" / "data", 60, names)
    file = stage_file(base, kind="pretrain", data=["corpus"], num_tokens=steps * 160, batch_tokens=160,
                      evaluate_every=1)
    file = file.model_copy(update={"inputs": {
        **file.inputs, "corpus": StageInput(kind="corpus", path=str(tmp_path / "corpus"))}})
    out = tmp_path / "out"
    out.mkdir()
    pretrain.run(file, out)
    return read_progress(out)


def test_the_sources_losses_together_are_the_next_steps_loss(tmp_path: Path) -> None:
    lines = trained(tmp_path, NAMES)
    compared = 0
    for line, following in zip(lines, lines[1:], strict=False):
        parts = {name: line[f"pretrain/loss_of/{name}"] for name in ("counting.jsonl", "reasoning_gym.noise")
                 if f"pretrain/loss_of/{name}" in line}
        if len(parts) == 2:
            # Eight documents of equal length a step: some eighths are of the one source, the rest of the other.
            one, other = parts.values()
            eighths = 8 * (following["pretrain/loss"] - other) / (one - other)
            assert eighths == pytest.approx(round(eighths), abs=0.01) and 0 < round(eighths) < 8
            compared += 1
    assert compared >= 3
    # What counts up is learned, what is drawn cannot be.
    assert lines[-1]["pretrain/loss_of/counting.jsonl"] < lines[-1]["pretrain/loss_of/reasoning_gym.noise"] - 0.3


@pytest.mark.parametrize("names", [None, ["one"]])
def test_a_corpus_of_one_source_has_no_loss_of_its_own(tmp_path: Path, names: list[str] | None) -> None:
    write_corpus(tmp_path / "corpus", 4, names, [0] * 4)
    corpus = pretrain.read_corpus(tmp_path / "corpus")
    source_of, num_sources = pretrain.sources_of(["corpus"], [corpus])
    assert num_sources == 1 and source_of(3) == (names or ["all"])[0]


def test_labels_of_several_corpora_are_told_apart_and_must_fit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_corpus(tmp_path / name, 4, NAMES)
    corpora = [pretrain.read_corpus(tmp_path / name) for name in ("a", "b")]
    source_of, num_sources = pretrain.sources_of(["files", "more"], corpora)
    assert num_sources == 4
    assert [source_of(i) for i in (0, 1, 4, 7)] == [
        "files.counting.jsonl", "files.reasoning_gym.noise", "more.counting.jsonl", "more.reasoning_gym.noise"]
    for wrong in ([0, 1, 0], [0, 1, 0, 2]):
        np.save(tmp_path / "a" / "sources.npy", np.array(wrong, "<i2"))
        with pytest.raises(UserError, match="sources.npy does not fit"):
            pretrain.read_corpus(tmp_path / "a")


def test_packed_corpora_are_taken_by_whole_sequences(tmp_path: Path) -> None:
    begins = [0, 2, 3, 6]
    for name in ("a", "b"):
        write_corpus(tmp_path / name, 6, NAMES)
        np.save(tmp_path / name / "sequences.npy", np.array(begins))
    offsets = np.arange(7) * LENGTH
    offsets[4] = offsets[3]  # the fourth document is empty, which no row can be
    np.save(tmp_path / "b" / "documents.npy", offsets)
    corpora = [pretrain.read_corpus(tmp_path / name) for name in ("a", "b")]
    lengths = np.concatenate([corpus.lengths for corpus in corpora])
    stream = pretrain.Stream(corpora, lengths, 1)
    whole = {(0, 1), (2,), (3, 4, 5), (6, 7), (8,), (9, 10)}
    taken = [tuple(stream.documents_between(first, first + 1)) for first in range(stream.epoch_tokens)]
    assert {one for one in taken if one} == whole and sum(map(bool, taken)) == len(whole)
    assert sorted(stream.documents_between(0, stream.epoch_tokens)) == list(range(11))
    assert stream.documents_between(0, 100) + stream.documents_between(100, 240) == stream.documents_between(0, 240)
    # Beside a corpus that was not packed, documents are taken one by one.
    (tmp_path / "b" / "sequences.npy").unlink()
    corpora = [pretrain.read_corpus(tmp_path / name) for name in ("a", "b")]
    alone = pretrain.Stream(corpora, lengths, 1)
    assert max(len(alone.documents_between(first, first + 1)) for first in range(alone.epoch_tokens)) == 1
    np.save(tmp_path / "a" / "sequences.npy", np.array([0, 2, 7]))
    with pytest.raises(UserError, match="sequences.npy does not fit"):
        pretrain.read_corpus(tmp_path / "a")


@pytest.mark.parametrize("packed", [False, True])
def test_a_rest_in_which_nothing_begins_is_no_step(tmp_path: Path, packed: bool) -> None:
    write_corpus(tmp_path / "data", 60)
    if packed:
        np.save(tmp_path / "data" / "sequences.npy", np.arange(0, 61, 2))
    corpus = pretrain.read_corpus(tmp_path / "data")
    stream = pretrain.Stream([corpus], corpus.lengths, seed=3)
    length = 2 * LENGTH if packed else LENGTH
    assert stream.longest == length

    def steps(num_tokens: int, batch_tokens: int) -> int:
        stage = PretrainStage(id="p", data=("c",), learning_rate=1e-3, num_tokens=num_tokens, batch_tokens=batch_tokens)
        return pretrain.num_steps(stage, stream)

    # Two steps of 150 end inside what begins at 280; the next begins at 320 (or 300, where they are not packed).
    assert (steps(300, 150), steps(305, 150)) == (2, 2 if packed else 3)
    assert steps(321, 150) == 3 and steps(5, 150) == 1
    with pytest.raises(UserError, match=rf"stage.batch_tokens: {length - 1} is less than .* \({length} tokens\)"):
        steps(300, length - 1)
