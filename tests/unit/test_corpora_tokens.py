"""Text to token ids: special strings stay text, documents end, long ones are split at line ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from configs.errors import UserError
from corpora.tokens import Encoder, load_encoder

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(*specials: str) -> Tokenizer:
    """One token a byte, and the special tokens above them; FIM marks are added but not special, as in Qwen2.5."""
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(ALPHABET)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(one, special="fim" not in one, normalized=False) for one in specials])
    return tokenizer


QWEN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>")


def test_special_strings_in_a_text_become_ordinary_tokens() -> None:
    tokenizer = byte_tokenizer(*QWEN_MARKS)
    text = "".join(QWEN_MARKS)
    assert len(tokenizer.encode(text).ids) == len(QWEN_MARKS)  # what would happen to the text otherwise
    [ids] = Encoder(tokenizer).encode([text])
    assert len(ids) == len(text) and max(ids) < len(ALPHABET)
    assert tokenizer.decode(ids.tolist()) == text


def test_a_short_document_is_one_piece_that_ends_with_end_of_text() -> None:
    encoder = Encoder(byte_tokenizer(*QWEN_MARKS))
    [ids] = encoder.encode(["abc"])
    [piece] = encoder.pieces(ids, 4)
    assert piece.tolist() == [*ids.tolist(), encoder.end_id] and piece.dtype == np.dtype("<u4")


def test_a_long_document_is_split_after_the_last_line_feed_of_a_piece() -> None:
    tokenizer = byte_tokenizer(*QWEN_MARKS)
    encoder = Encoder(tokenizer)
    [ids] = encoder.encode(["one\ntwo two\nthree\n"])
    pieces = encoder.pieces(ids, 16)
    assert [tokenizer.decode(piece[:-1].tolist()) for piece in pieces] == ["one\ntwo two\n", "three\n"]
    assert all(piece[-1] == encoder.end_id for piece in pieces)


def test_a_line_feed_in_the_first_half_of_a_piece_does_not_shorten_it() -> None:
    tokenizer = byte_tokenizer(*QWEN_MARKS)
    encoder = Encoder(tokenizer)
    [ids] = encoder.encode(["a\nbcdefghijkl"])
    assert [tokenizer.decode(piece[:-1].tolist()) for piece in encoder.pieces(ids, 9)] == ["a\nbcdefg", "hijkl"]


def test_an_empty_text_has_no_pieces() -> None:
    encoder = Encoder(byte_tokenizer(*QWEN_MARKS))
    assert encoder.pieces(encoder.encode([""])[0], 8) == []


def test_a_tokenizer_without_end_of_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"<\|endoftext\|>"):
        Encoder(byte_tokenizer("<|im_end|>"))


def test_a_tokenizer_that_makes_specials_of_plain_text_is_refused() -> None:
    vocabulary = {"a": 0, "b": 1, "<|endoftext|>": 2, "[UNK]": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    with pytest.raises(UserError, match=r"'<\|endoftext\|>' into the special token 2"):
        Encoder(tokenizer)


def test_the_saved_tokenizer_of_a_checkpoint_is_read(tmp_path: Path) -> None:
    byte_tokenizer(*QWEN_MARKS).save(str(tmp_path / "tokenizer.json"))
    assert load_encoder(tmp_path, None).end_id == len(ALPHABET)


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        load_encoder(tmp_path / "absent", None)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 1}))
    with pytest.raises(UserError, match="cannot be read"):
        load_encoder(tmp_path, None)


@pytest.mark.slow
def test_the_real_qwen2_tokenizer_gives_the_same_ids_as_transformers(data_mirror: Path) -> None:
    from transformers import AutoTokenizer

    folder = data_mirror / "qwen2.5-tokenizer"
    text = "def f(x):\n\treturn x ** 2  # 3.14 – größer\n\n\\boxed{1,234}"
    ids, marks = load_encoder(folder, None).encode([text, "<|im_end|><|fim_prefix|><tool_call>"])
    assert ids.tolist() == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert max(marks) < 151_643
