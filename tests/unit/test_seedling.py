"""The seedling: its tokenizer, its checkpoint, its mixture and its training forward."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from derivatives.seedling import SEEDLING_PATH, train
from derivatives.seedling.__main__ import main
from derivatives.seedling.mixture import SOURCES, TokenStream, source_documents
from derivatives.seedling.model import Seedling, Shape, hugging_face_model
from derivatives.seedling.sources import arithmetic, functions, items, word_problems
from derivatives.seedling.tokenizer import CODE_TOKENS, CONTROL_TOKENS
from derivatives.seedling.train import load_checkpoint, new_run, rate, save_checkpoint, train_step

TINY = Shape(
    vocab_size=96,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    intermediate_size=48,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small products on several threads wait for one another for ages where cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SEEDLING_PATH)


@pytest.fixture(scope="module")
def checkpoint():
    return AutoModelForCausalLM.from_pretrained(SEEDLING_PATH, dtype=torch.float32)


def test_special_tokens_are_one_id_each_and_survive_a_round_trip(tokenizer):
    for token in [*CONTROL_TOKENS, *CODE_TOKENS]:
        assert len(tokenizer(token)["input_ids"]) == 1
    text = "<|fim_prefix|>def f(<|fim_suffix|>):<|fim_middle|>x<|endoftext|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_control_tokens_are_skipped_in_decoding_and_code_tokens_are_not(tokenizer):
    ids = tokenizer("<|im_start|>a<|fim_middle|>b<|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<|fim_middle|>b"


def test_digits_are_split_one_by_one(tokenizer):
    assert tokenizer.tokenize("1024") == ["1", "0", "2", "4"]


def test_think_tags_are_plain_text(tokenizer):
    ids = tokenizer("<think>so</think>")["input_ids"]
    assert len(ids) > 3 and tokenizer.decode(ids, skip_special_tokens=True) == "<think>so</think>"


@pytest.mark.parametrize("text", ["naïve – 日本語 🌱\r\n\tx", "  two  spaces ", "a\n\n\nb", "\\boxed{-3}"])
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template_is_chatml(tokenizer):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_vocabulary_is_padded_past_the_last_real_token_as_in_qwen(tokenizer, checkpoint):
    assert len(tokenizer) < checkpoint.config.vocab_size == 2048
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_checkpoint_is_a_small_tied_qwen2_that_ends_with_endoftext(tokenizer, checkpoint):
    assert checkpoint.config.model_type == "qwen2" and checkpoint.config.tie_word_embeddings
    assert (
        checkpoint.config.eos_token_id
        == tokenizer.convert_tokens_to_ids("<|endoftext|>")
        == tokenizer.eos_token_id
    )
    assert 4e6 <= sum(p.numel() for p in checkpoint.parameters()) <= 7e6
    assert (SEEDLING_PATH / "model.safetensors").stat().st_size <= 20e6


def test_training_forward_equals_hugging_face():
    torch.manual_seed(0)
    model = Seedling(TINY)
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn_like(parameter)
    ids = torch.randint(0, TINY.vocab_size, (2, 150))
    expected = hugging_face_model(model, 0)(ids).logits
    torch.testing.assert_close(model(ids, torch.float32), expected, rtol=1e-4, atol=1e-4)


def test_learning_rate_warms_up_stays_and_decays_to_nothing():
    # 100 steps of warm-up, the last fifth of 10M tokens decays.
    assert rate(49 * train.TOKENS_PER_STEP, 10_000_000) == pytest.approx(50 / 100)
    assert rate(7_900_000, 10_000_000) == 1
    assert rate(9_500_000, 10_000_000) == pytest.approx(0.5e6 / 2e6)
    assert rate(10_000_000, 10_000_000) == 0


class CountingStream:
    """A stream whose token at place i is i modulo the vocabulary."""

    def read(self, start: int, count: int) -> np.ndarray:
        return (np.arange(start, start + count) % TINY.vocab_size).astype(np.uint16)


def test_resumed_training_equals_uninterrupted_training(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "TOKENS_PER_STEP", 1024)
    monkeypatch.setattr(train, "TOKENS_PER_MICRO_BATCH", 512)
    stream = CountingStream()
    one = new_run(seed=1, shape=TINY)
    train_step(one, one.model.loss, stream, 100_000)
    save_checkpoint(one, tmp_path / "latest.pt")
    expected = train_step(one, one.model.loss, stream, 100_000)

    other = new_run(seed=2, shape=TINY)
    load_checkpoint(other, tmp_path / "latest.pt")
    assert other.num_tokens == 1024
    assert train_step(other, other.model.loss, stream, 100_000) == expected
    for ours, theirs in zip(other.model.parameters(), one.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from pathlib import Path
from derivatives.seedling import train
from derivatives.seedling.model import Shape

class CountingStream:
    def read(self, start, count):
        return (np.arange(start, start + count) * 7 % 96).astype(np.uint16)

rank, num_workers, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
train.TOKENS_PER_STEP, train.TOKENS_PER_MICRO_BATCH = 1024, 512
if num_workers > 1:
    dist.init_process_group("gloo", init_method=(out / "meeting").as_uri(), rank=rank, world_size=num_workers)
shape = Shape(96, 32, 2, 2, 1, 16, 48)
run = train.new_run(1, shape, rank, num_workers)
losses = [train.train_step(run, run.model.loss, CountingStream(), 100_000) for _ in range(3)]
train.save_checkpoint(run, out / f"workers-{num_workers}.pt")
if rank == 0:
    torch.save(losses, out / f"losses-{num_workers}.pt")
"""


def test_two_workers_train_what_one_trains(tmp_path):
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(train.__file__).parents[2])}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(num_workers), str(tmp_path)], env=environment
        )
        for rank, num_workers in ((0, 1), (0, 2), (1, 2))
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert torch.load(tmp_path / "losses-2.pt") == pytest.approx(torch.load(tmp_path / "losses-1.pt"), rel=1e-4)
    one, two = (torch.load(tmp_path / f"workers-{n}.pt", weights_only=True) for n in (1, 2))
    for name, weights in one["model"].items():  # bf16 products; Muon's first updates amplify what they round.
        torch.testing.assert_close(two["model"][name], weights, rtol=0.02, atol=3e-3, msg=name)
    muon_one, muon_two = one["optimizers"][0]["state"], two["optimizers"][0]["state"]
    assert muon_one.keys() == muon_two.keys()
    for index, state in muon_one.items():
        torch.testing.assert_close(muon_two[index]["momentum_buffer"], state["momentum_buffer"], rtol=0.05, atol=1e-3)


def test_workers_that_cannot_share_a_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 workers cannot share 4 micro-batches"):
        train.pretrain(tmp_path, 100_000, 0, num_workers=3)


def test_stream_reads_across_shards(tmp_path):
    for shard in range(3):
        np.save(tmp_path / f"shard-{shard:05d}.npy", np.full(1 << 20, shard, dtype=np.uint16))
    stream = TokenStream(SEEDLING_PATH / "tokenizer.json", tmp_path, seed=0)
    try:
        assert stream.read((1 << 20) - 2, 4).tolist() == [0, 0, 1, 1]
    finally:
        stream.close()


def test_documents_depend_on_seed_and_shard_alone(tokenizer):
    core = tokenizer.backend_tokenizer
    first = source_documents(core, 3, 5, "english")
    assert first == source_documents(core, 3, 5, "english")
    assert first[:5] != source_documents(core, 3, 6, "english")[:5]
    assert all(document[-1] == tokenizer.eos_token_id for document in first)


EQUATION = re.compile(r"(?<![-+*x/=\d.] )(?<![\d.(\[-])(-?\d+) ([-+*x]) (-?\d+) = (-?\d+)(?![\d.]| [-+*x/%])")


@pytest.mark.parametrize("make", [arithmetic.document, word_problems.document])
def test_every_equation_in_generated_documents_is_true(make):
    rng, num_checked = Random(1), 0
    for _ in range(400):
        for a, sign, b, result in EQUATION.findall(make(rng)):
            a, b = int(a), int(b)
            value = {"+": a + b, "-": a - b, "*": a * b, "x": a * b}[sign]
            assert value == int(result), (a, sign, b, result)
            num_checked += 1
    assert num_checked > 1000


def test_chain_ends_in_the_value_of_its_expression():
    rng = Random(2)
    for _ in range(200):
        item = arithmetic.chain(rng)
        assert item.steps[-1].endswith(f"= {item.answer}")


@pytest.mark.parametrize(
    ("number", "words"), [(0, "zero"), (13, "thirteen"), (80, "eighty"), (342, "three hundred and forty-two")]
)
def test_numbers_in_words(number, words):
    assert items.in_words(number) == words


def test_generated_functions_do_what_their_calls_say():
    rng = Random(3)
    for _ in range(500):
        made = functions.function(rng)
        space = {}
        exec(made.source, space)
        for arguments, result in made.calls:
            assert repr(eval(f"{made.name}({arguments})", space)) == result


HELD_OUT_TEMPLATES = re.compile(
    r"State the final answer to the following arithmetic problem|Solve the following multiplication"
    r"|Your task is to count how many legs|how many legs are there in total if you have"
    r"|Find the Greatest Common Divisor|Find the Least Common Multiple"
    r"|(What is|Solve|Calculate|Compute|Evaluate:) [-(\d ]+[-+*/)(\d ]+[.?]",
)


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "code"])
def test_no_template_of_the_held_out_questions_is_in_the_mixture(source):
    rng = Random(4)
    for _ in range(1500):
        assert not HELD_OUT_TEMPLATES.search(SOURCES[source][1](rng))


def test_every_source_writes_non_empty_documents_and_shares_add_up():
    assert sum(share for share, _ in SOURCES.values()) == pytest.approx(1)
    for _, make in SOURCES.values():
        assert all(make(Random(seed)).strip() for seed in range(20))


def test_a_senseless_number_of_tokens_is_refused_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--tokens", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_output_that_is_a_file_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main([str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_card_states_the_trained_tokens():
    card = SEEDLING_PATH / "README.md"
    if not card.exists():
        pytest.skip("the card is written with the final weights")
    config = json.loads((SEEDLING_PATH / "config.json").read_text())
    assert f"{config['vocab_size']:,}" in card.read_text()
