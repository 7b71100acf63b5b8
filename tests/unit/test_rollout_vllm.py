"""The vLLM engine against a small server that answers like one: what is asked, what is believed, what goes wrong."""

from __future__ import annotations

import copy
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from configs.errors import EXIT_RETRY, RetryableError, UserError
from configs.settings.common import Sampling
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.rollout import RolloutServer
from configs.stage import StageFile, StageInput, read_progress, run_command
from derivatives import rl, sample
from derivatives.losses.importance import truncated_weights
from derivatives.rollout import vllm_server
from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Judged
from derivatives.rollout.noise import stream_of
from derivatives.rollout.policy_update import PolicyUpdate
from derivatives.rollout.vllm_engine import VllmEngine, drawn
from derivatives.rollout.vllm_server import VllmServer
from derivatives.training.forward import hidden_states
from derivatives.training.model import load_model, load_tokenizer, save_model, stop_ids
from derivatives.training.ranks import ALONE
from tests.fake_vllm import FakeVllm
from tests.training_fixtures import NUM_TOKENS, VOCABULARY, tiny_model, write_tokenizer
from verifiers.api import correct, incorrect

ROOT = Path(rl.__file__).parents[1]
PROMPTS = [[65, 66, 67, 68], [70, 71]]
SAMPLING = Sampling(max_new_tokens=5, temperature=0.9)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with padding ids that are likelier than all others, if they may be drawn."""
    folder = tmp_path_factory.mktemp("base")
    write_tokenizer(folder / "tokenizer")
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[NUM_TOKENS:] *= 20.0
    save_model(model, load_tokenizer(folder / "tokenizer"), folder / "model")
    return folder / "model"


@pytest.fixture
def fake(checkpoint: Path) -> Iterator[FakeVllm]:
    server = FakeVllm(checkpoint)
    yield server
    server.close()


@pytest.fixture
def engine(fake: FakeVllm, checkpoint: Path, tmp_path: Path) -> Iterator[VllmEngine]:
    with make_engine(checkpoint, tmp_path, address=fake.address) as found:
        yield found


load_once = functools.cache(load_model)


def make_engine(checkpoint: Path, out: Path, **settings: Any) -> VllmEngine:
    model, tokenizer = load_once(checkpoint, "fp32")
    return VllmEngine(copy.deepcopy(model), tokenizer, RolloutServer(**settings), out)


def perturb(engine: VllmEngine, scale: float) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.mul_(1.0 + scale * torch.randn_like(parameter))


def trainer_log_probs(engine: VllmEngine, prompt: list[int], ids: list[int], temperature: float) -> list[float]:
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits
    real = logits[0, len(prompt) - 1 : -1, :NUM_TOKENS] / temperature
    return real.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).squeeze(1).tolist()


def test_what_comes_back_is_what_was_drawn_under_the_trainers_own_weights(engine: VllmEngine, fake: FakeVllm) -> None:
    perturb(engine, 0.3)  # other weights than the server was started with
    engine.sync(0)
    told: dict[tuple[int, int], Completion] = {}
    found = engine.generate(PROMPTS, 3, SAMPLING, 7, ["a", "b"], lambda i, s, one: told.update({(i, s): one}))
    assert [len(group) for group in found] == [3, 3]
    assert told == {(i, s): found[i][s] for i in range(2) for s in range(3)}
    for prompt, group in zip(PROMPTS, found, strict=True):
        for one in group:
            expected = trainer_log_probs(engine, prompt, one.token_ids, SAMPLING.temperature)
            assert one.log_probs == pytest.approx(expected, abs=1e-5)
            assert max(one.token_ids) < NUM_TOKENS
    assert len({tuple(one.token_ids) for group in found for one in group}) > 1
    assert found == engine.generate(PROMPTS, 3, SAMPLING, 7, ["a", "b"])


def test_a_request_leaves_nothing_to_the_servers_defaults(engine: VllmEngine, fake: FakeVllm) -> None:
    engine.sync(0)
    fake.calls.clear()
    sampling = Sampling(max_new_tokens=2, temperature=0.7, top_p=0.9, top_k=3, min_p=0.1)
    engine.generate([PROMPTS[0]], 2, sampling, 5, ["key"], stop_text="\n\n")
    first, second = sorted(fake.asked("/v1/completions"), key=lambda body: body["seed"])
    seeds = sorted(stream_of(5, "key", sample) % 2**63 for sample in range(2))
    assert [first.pop("seed"), second.pop("seed")] == seeds
    assert first == second
    assert first == {
        "model": "policy", "prompt": PROMPTS[0], "n": 1, "max_tokens": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 3,
        "min_p": 0.1, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "logit_bias": {str(token): -100 for token in range(NUM_TOKENS, VOCABULARY)},
        "stop_token_ids": stop_ids(engine.tokenizer), "ignore_eos": True, "stop": ["\n\n"],
        "skip_special_tokens": False, "logprobs": 0, "return_token_ids": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "reason", "text"), [([72, 73, None], "stop", "HI"), ([72, None, 73], "length", None), ([72], "length", "H")]
)
def test_how_a_completion_ended_is_read_from_its_last_token(
    engine: VllmEngine, fake: FakeVllm, ids: list[int | None], reason: str, text: str | None
) -> None:
    engine.sync(0)
    letters = engine.tokenizer.convert_tokens_to_ids(list("HI"))
    named = dict(zip((72, 73), letters, strict=True))
    stop = stop_ids(engine.tokenizer)[0]
    tokens = [stop if token is None else named[token] for token in ids]
    fake.change = {
        "token_ids": tokens, "logprobs": {"token_logprobs": [-1.0] * len(tokens)}, "finish_reason": "stop",
    }  # fmt: skip
    ((one,),) = engine.generate([[65]], 1, SAMPLING)
    assert (one.token_ids, one.finish_reason) == (tokens, reason)
    assert text is None or one.text == text


def test_a_sync_writes_untied_weights_and_empties_the_cache_before_requests_go_on(
    engine: VllmEngine, fake: FakeVllm, tmp_path: Path
) -> None:
    engine.sync(0)
    perturb(engine, 0.1)
    fake.calls.clear()
    engine.sync(0)
    assert fake.calls == []
    engine.sync(3)
    paths = [path for path, _ in fake.calls]
    assert paths == ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/resume", "/v1/completions"]
    (folder,) = (tmp_path / "vllm").iterdir()
    assert fake.asked("/collective_rpc")[0]["kwargs"] == {"weights_path": str(folder.resolve())}
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    written = load_file(folder / "model.safetensors")
    embedding = engine.model.model.embed_tokens.weight.detach()
    assert torch.equal(written["model.embed_tokens.weight"], embedding)
    assert torch.equal(written["lm_head.weight"][:NUM_TOKENS], embedding[:NUM_TOKENS])
    assert not written["lm_head.weight"][NUM_TOKENS:].any() and bool(embedding[NUM_TOKENS:].any())
    assert engine.figures["sync_distance"] < 1e-5
    engine.close()
    assert not (tmp_path / "vllm").exists()


@pytest.mark.parametrize(("scale", "message"), [(1e-6, "it has the old weights"), (0.3, "it has other weights")])
def test_a_sync_that_does_nothing_is_found_out(engine: VllmEngine, fake: FakeVllm, scale: float, message: str) -> None:
    engine.sync(0)
    fake.ignore_reload = True
    perturb(engine, scale)
    with pytest.raises(UserError, match=message):
        engine.sync(1)


def test_a_cache_that_cannot_be_emptied_ends_the_sync_but_not_the_server(engine: VllmEngine, fake: FakeVllm) -> None:
    fake.replace["/reset_prefix_cache"] = 200, b'{"success": false}'
    with pytest.raises(RetryableError, match="prefix cache"):
        engine.sync(0)
    assert fake.calls[-1][0] == "/resume"


def test_raw_log_probabilities_are_found_out(engine: VllmEngine, fake: FakeVllm) -> None:
    fake.raw = True
    with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
        engine.sync(0)


@pytest.mark.parametrize(
    ("path", "answer", "error", "message"),
    [
        ("/v1/models", (200, b"<html>a web site</html>"), RetryableError, "answered no JSON"),
        ("/v1/models", (200, b'{"data": []}'), UserError, "does not list its model"),
        ("/pause", (404, b'{"detail": "Not Found"}'), UserError, "VLLM_SERVER_DEV_MODE=1"),
        ("/collective_rpc", (500, b'{"error": {"message": "no such file"}}'), RetryableError, "500: no such file"),
        ("/v1/completions", (400, b'{"error": {"message": "too long"}}'), UserError, "too long"),
        ("/v1/completions", (200, b'{"choices": [{}]}'), UserError, "no log-probabilities of a prompt"),
        ("/v1/completions", (429, b""), RetryableError, "429"),
    ],
)
def test_a_server_that_is_not_fit_ends_the_first_sync(
    engine: VllmEngine, fake: FakeVllm, path: str, answer: tuple[int, bytes], error: type[Exception], message: str
) -> None:
    fake.replace[path] = answer
    with pytest.raises(error, match=message):
        engine.sync(0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logprobs": None}, UserError, "lacks token ids or their log-prob"),
        ({"token_ids": None}, UserError, "lacks token ids"),
        ({"token_ids": [1, 2]}, UserError, "2 tokens and 1 log-prob"),
        ({"token_ids": [1] * 6, "logprobs": {"token_logprobs": [-1.0] * 6}}, UserError, "for up to 5"),
        ({"token_ids": []}, UserError, "0 tokens"),
        ({"token_ids": ["x"]}, UserError, "not all numbers"),
        ({"logprobs": {"token_logprobs": [None]}}, UserError, "lacks token ids or their"),
        ({"logprobs": {"token_logprobs": [float("nan")]}}, UserError, "not finite"),
        ({"token_ids": [NUM_TOKENS]}, UserError, "padding of the vocabulary"),
        ({"prompt_token_ids": [1]}, UserError, "another prompt"),
        ({"finish_reason": "abort"}, RetryableError, "'abort'"),
    ],
)
def test_an_answer_that_lacks_something_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    whole = {
        "finish_reason": "length", "prompt_token_ids": [5], "token_ids": [1], "logprobs": {"token_logprobs": [-0.5]},
    }  # fmt: skip
    assert drawn({"choices": [whole]}, [5], 5, NUM_TOKENS) == ([1], [-0.5])
    with pytest.raises(error, match=message):
        drawn({"choices": [{**whole, **change}]}, [5], 5, NUM_TOKENS)


def test_a_wrong_name_of_the_model_is_told(engine: VllmEngine) -> None:
    engine.sync(0)
    engine.server.model = "other"
    with pytest.raises(UserError, match="`other` does not exist"):
        engine.generate(PROMPTS, 1, SAMPLING)


def test_a_prompt_beyond_the_servers_length_is_refused_before_it_is_sent(engine: VllmEngine, fake: FakeVllm) -> None:
    engine.sync(0)
    fake.calls.clear()
    with pytest.raises(UserError, match="makes 257 tokens; the server takes 256"):
        engine.generate([[65] * 252], 1, SAMPLING)
    assert fake.calls == []


def test_a_refused_key_names_the_variable(
    checkpoint: Path, fake: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.key = "right"
    monkeypatch.setenv("MY_VLLM_KEY", "wrong")
    with make_engine(checkpoint, tmp_path, address=fake.address, key_variable="MY_VLLM_KEY") as engine:
        with pytest.raises(UserError, match="MY_VLLM_KEY") as raised:
            engine.sync(0)
        assert "wrong" not in str(raised.value)
    monkeypatch.setenv("MY_VLLM_KEY", "right")
    with make_engine(checkpoint, tmp_path, address=fake.address, key_variable="MY_VLLM_KEY") as engine:
        engine.sync(0)


def test_nobody_at_the_address_is_worth_a_retry(checkpoint: Path, tmp_path: Path) -> None:
    engine = make_engine(checkpoint, tmp_path, address="http://127.0.0.1:9")
    with engine, pytest.raises(RetryableError, match="127.0.0.1:9 cannot be reached .ConnectionRefusedError"):
        engine.sync(0)


def test_a_server_that_is_too_slow_is_left(checkpoint: Path, fake: FakeVllm, tmp_path: Path) -> None:
    with make_engine(checkpoint, tmp_path, address=fake.address, request_timeout_s=0.2) as engine:
        engine.sync(0)
        fake.delay_s = 1.0
        with pytest.raises(RetryableError, match="did not answer in 0.2 seconds"):
            engine.generate(PROMPTS, 4, SAMPLING)


def test_one_failure_ends_the_requests_that_still_wait(checkpoint: Path, fake: FakeVllm, tmp_path: Path) -> None:
    with make_engine(checkpoint, tmp_path, address=fake.address) as engine:
        engine.sync(0)
        fake.delay_s = 30.0

        slow = engine.server.ask

        def ask(method: str, path: str, body: Any = None, timeout_s: float = 60.0) -> Any:
            if body["prompt"] == PROMPTS[1]:
                time.sleep(0.2)  # the others are under way by then
                raise RetryableError("gone")
            return slow(method, path, body, timeout_s)

        engine.server.ask = ask  # type: ignore[method-assign]
        began = time.monotonic()
        with pytest.raises(RetryableError, match="gone"):
            engine.generate(PROMPTS, 2, SAMPLING)
        assert time.monotonic() - began < 25.0


# What a started server does and says: a script stands for the command.
READY = """
import http.server, json, os, subprocess, sys
folder, port = sys.argv[1], int(sys.argv[sys.argv.index("--port") + 1])
child = subprocess.Popen(["sleep", "300"])
print("words", sys.argv[1:], "key of", len(os.environ["VLLM_API_KEY"]), os.environ["VLLM_SERVER_DEV_MODE"], flush=True)
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        models = {"data": [{"id": "policy", "max_model_len": 64, "root": folder}]}
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(models).encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def started(out: Path, script: str, **settings: Any) -> VllmServer:
    return VllmServer(RolloutServer(command=(sys.executable, "-c", script), **settings), out)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if is_running(pid)] == []


def test_a_started_server_is_ended_with_all_its_processes_and_its_key_is_nowhere_to_be_read(tmp_path: Path) -> None:
    server = started(tmp_path, READY, arguments=("--max-model-len", "64"))
    try:
        server.start(tmp_path / "weights", "float32", "cpu")
        assert server.max_length == 64
        log = (tmp_path / "vllm.log").read_text()
        words, child = log.splitlines()
        assert "'--logprobs-mode', 'processed_logprobs'" in words and "'--dtype', 'float32'" in words
        assert words.index("'--dtype'") < words.index("'--max-model-len', '64'")
        assert words.endswith("key of 32 1") and server._key not in log
        assert server._process is not None
        pids = [server._process.pid, int(child.split()[1])]
        assert server._key.encode() not in Path(f"/proc/{pids[0]}/cmdline").read_bytes()  # type: ignore[union-attr]
        assert all(map(is_running, pids))
    finally:
        server.close()
    wait_until_gone(pids)


@pytest.mark.parametrize(("weights", "has_receiver"), [("auto", True), ("collective", True), ("disk", False)])
def test_a_started_server_gets_the_class_that_takes_weights_and_its_module_is_found(
    tmp_path: Path, weights: str, has_receiver: bool
) -> None:
    importing = "import importlib.util; print('found', importlib.util.find_spec('derive_receiver') is not None)\n"
    server = started(tmp_path, importing + READY, weights=weights, environment={"PYTHONPATH": str(tmp_path)})
    try:
        server.start(tmp_path / "weights", "float32", "cpu")
        found, words, _ = (tmp_path / "vllm.log").read_text().splitlines()
        assert ("'--worker-extension-cls', 'derive_receiver.WeightsReceiver'" in words) == has_receiver
        assert found == f"found {has_receiver}"
    finally:
        server.close()


def test_a_started_server_ends_when_the_stage_is_killed(tmp_path: Path) -> None:
    (tmp_path / "ready.py").write_text(READY)
    program = (
        "import sys, time; from pathlib import Path; from configs.settings.rollout import RolloutServer\n"
        "from derivatives.rollout.vllm_server import VllmServer\n"
        f"out = Path({str(tmp_path)!r})\n"
        "server = VllmServer(RolloutServer(command=(sys.executable, str(out / 'ready.py'))), out)\n"
        "server.start(out, 'float32', 'cpu'); print(server._process.pid, flush=True); time.sleep(300)\n"
    )
    stage = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert stage.stdout is not None
        pid = int(stage.stdout.readline())
        assert is_running(pid)
    finally:
        stage.kill()
        stage.communicate()
    wait_until_gone([pid])
    child = int((tmp_path / "vllm.log").read_text().split("child ")[1])
    if is_running(child):  # the script, unlike vLLM, leaves its child behind
        os.kill(child, signal.SIGKILL)


def test_a_server_that_dies_or_never_gets_ready_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "GRACE_S", 0.5)
    died = started(tmp_path, "import sys; print('loading'); print('no memory for the cache'); sys.exit(3)")
    with pytest.raises(RetryableError, match=r"status 3; .*loading \| no memory for the cache"):
        died.start(tmp_path, "float32", "cpu")
    died.close()
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('still loading', flush=1); time.sleep(99)"
    slow = started(tmp_path, script, start_timeout_s=2.0)
    with pytest.raises(RetryableError, match=r"start_timeout_s 2; .*still loading"):
        slow.start(tmp_path, "float32", "cpu")
    assert slow._process is not None
    pid = slow._process.pid
    slow.close()
    wait_until_gone([pid])


def test_a_command_that_does_not_exist_is_the_users_error(tmp_path: Path) -> None:
    server = VllmServer(RolloutServer(command=("no-such-vllm", "serve")), tmp_path)
    with pytest.raises(UserError, match="no-such-vllm cannot be started"):
        server.start(tmp_path, "float32", "cpu")


def test_another_server_on_the_port_is_not_taken_for_the_started_one(fake: FakeVllm, tmp_path: Path) -> None:
    port = int(fake.address.rpartition(":")[2])
    server = started(tmp_path, "import time; time.sleep(60)", port=port)
    try:
        with pytest.raises(UserError, match="another server answers"):
            server.start(tmp_path, "float32", "cpu")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "http://me:secret@host:1"}, "password"),
        ({"address": "host:8000"}, "no address of a server"),
        ({"address": "http://host:1/v1"}, "no address of a server"),
        ({"environment": {"HF_TOKEN": "x"}}, "HF_TOKEN looks like a secret"),
        ({"arguments": ("--api-key", "x")}, "can be read by every user"),
        ({"arguments": ("--api-key=x",)}, "can be read by every user"),
        ({"command": ()}, "no word"),
        ({"importance_cap": 2.0}, "is in no digest; allowed: in the recipe's rl stage; .* set rl.importance_cap=2.0"),
    ],
)
def test_settings_that_cannot_work_or_would_leak_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RolloutServer(**given)


def test_weights_are_the_ratio_of_the_two_engines_up_to_the_cap() -> None:
    trainer_T = torch.tensor([0.5, 0.3, 0.9, 0.2]).log().requires_grad_()
    sampler_T = torch.tensor([0.5, 0.6, 0.3, 0.1]).log()
    weights_T = truncated_weights(trainer_T, sampler_T, 2.5)
    torch.testing.assert_close(weights_T, torch.tensor([1.0, 0.5, 2.5, 2.0]))  # 0.9 / 0.3 = 3 is cut
    assert not weights_T.requires_grad


def test_an_rl_stage_draws_at_the_server_is_stopped_by_its_end_and_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    lines = [{"id": str(n), "prompt": f"{n} + 1 =", "answer": "."} for n in range(4)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = RlStage(
        id="rl", data=(str(tmp_path / "p.jsonl"),), steps=3, prompts_per_step=2, group_size=2, learning_rate=1e-2,
        sampling=Sampling(max_new_tokens=4), precision="fp32", max_no_verdict=1.0, checkpoint_every=1,
        truncated="shaped", overlong_buffer=4, verifier="exact", importance_cap=1.0,
    )  # fmt: skip

    def run(address: str) -> int:
        machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1, rollout=RolloutServer(address=address))
        inputs = {"base": StageInput(kind="base", path=str(checkpoint))}
        file = StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine)
        (tmp_path / "stage.json").write_text(file.model_dump_json())
        return run_command("rl", rl.run, "", [str(tmp_path / "stage.json"), str(tmp_path / "out")])

    first = FakeVllm(checkpoint)
    answered = first.answer

    def dies_after_the_second_sync(path: str, body: Any) -> tuple[int, bytes]:
        num_syncs = len(first.asked("/collective_rpc"))
        drawing = path == "/v1/completions" and "prompt_logprobs" not in body and body["max_tokens"] > 1
        return (500, b"gone") if num_syncs == 2 and drawing else answered(path, body)

    first.answer = dies_after_the_second_sync  # type: ignore[method-assign]
    assert run(first.address) == EXIT_RETRY
    first.close()
    assert len(read_progress(tmp_path / "out")) == 1 and not (tmp_path / "out" / "vllm").exists()

    second = FakeVllm(checkpoint)
    assert run(second.address) == 0
    second.close()
    assert len(second.asked("/collective_rpc")) == 2  # for steps 2 and 3
    log = read_progress(tmp_path / "out")
    assert [line["step"] for line in log] == [1, 2, 3]
    assert any(line["rl/grad_norm"] > 0 for line in log)
    for line in log:
        assert line["rl/mismatch"] < 1e-5 and line["rl/mismatch_kl"] < 1e-5 and line["rl/sync_distance"] < 1e-5
        assert line["rl/importance"] == pytest.approx(1.0, abs=1e-4)
    assert max(line["rl/importance_capped"] for line in log) > 0  # weights above the stage's cap of 1, by rounding


def test_a_token_counts_in_the_gradient_by_its_weight(checkpoint: Path) -> None:
    model, tokenizer = load_model(checkpoint, "fp32")
    plain, _ = load_model(checkpoint, "fp32")

    def log_probs(one: Any, ids: list[int]) -> torch.Tensor:
        logits = one(input_ids=torch.tensor([[65, *ids]]), use_cache=False).logits[0, :-1, :NUM_TOKENS]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).squeeze(1)

    class Taker:
        model, tokenizer, device, ranks = None, None, "cpu", ALONE

        def update(self, batches: Any, loss: Any, divisor: float, keys: Any) -> dict[str, float]:
            for batch in batches:
                (loss(hidden_states(model, batch), batch) / divisor).backward()
            return {"loss": 0.0, "grad_norm": 1.0, "lr": 1.0}

    # The sampler gave the first token half, the second five times, the third the same probability as the trainer does:
    # weights 2, 1 / 5 and 1; with a cap of 1.5 the first is cut.
    ids = [[70, 71, 72], [80]]
    factors = [[1 / 2, 5.0, 1.0], [1.0]]
    with torch.no_grad():
        pairs = zip(ids, factors, strict=True)
        sampled = [(log_probs(plain, one) + torch.tensor(factor).log()).tolist() for one, factor in pairs]
    group = [
        Judged(Completion(one, values, "stop", ""), verdict)
        for one, values, verdict in zip(ids, sampled, (correct(), incorrect("wrong")), strict=True)
    ]
    stage = RlStage(
        id="rl", data=("p.jsonl",), steps=1, group_size=2, learning_rate=1.0, loss="dapo", precision="fp32",
        scale_advantages=False, sampling=Sampling(max_new_tokens=4),
    )  # fmt: skip
    taker = Taker()
    taker.model, taker.tokenizer = model, tokenizer  # type: ignore[assignment]
    update = PolicyUpdate(taker, stage, SimpleNamespace())  # type: ignore[arg-type]
    update.importance_cap = 1.5
    found = update.step([[65]], [group])

    # Rewards 1 and 0: advantages 1/2 and -1/2; four tokens count.
    weights = torch.tensor([1.5, 0.2, 1.0])
    (-(0.5 * weights * log_probs(plain, ids[0])).sum() / 4).backward()
    (0.5 * log_probs(plain, ids[1]).sum() / 4).backward()
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert found["importance"] == pytest.approx((1.5 + 0.2 + 1.0 + 1.0) / 4, rel=1e-4)
    assert found["importance_capped"] == 1 / 4
    # k3 with r = trainer / sampler: r - 1 - log r for r = 2, 1/5, 1, 1.
    kl = ((2 - 1 - 0.693147) + (0.2 - 1 + 1.609438)) / 4
    assert found["mismatch_kl"] == pytest.approx(kl, rel=1e-3)


def test_a_sample_stage_draws_at_the_server_with_the_weights_of_its_model(
    checkpoint: Path, fake: FakeVllm, tmp_path: Path
) -> None:
    lines = [{"id": str(n), "prompt": f"{n} + 1 =", "answer": "."} for n in range(3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = SampleStage(
        id="picked", data=(str(tmp_path / "p.jsonl"),), num_samples=2, sampling=Sampling(max_new_tokens=3),
        verifier="exact", batch_problems=2, precision="fp32", max_no_verdict=1.0,
    )  # fmt: skip
    machine = Machine(name="cpu", num_threads=1, num_verifier_workers=1, rollout=RolloutServer(address=fake.address))
    inputs = {"base": StageInput(kind="base", path=str(checkpoint))}
    file = StageFile(recipe="t", stage=stage, model="base", inputs=inputs, machine=machine)
    sample.run(file, tmp_path / "out")
    assert len(fake.asked("/collective_rpc")) == 1  # two batches, one set of weights
    drawn_at_server = [body for body in fake.asked("/v1/completions") if body["max_tokens"] == 3]
    assert len(drawn_at_server) == 6 and len({body["seed"] for body in drawn_at_server}) == 6
    assert len((tmp_path / "out" / "data" / "problems.jsonl").read_text().splitlines()) == 3
