"""A vLLM server as the trainer sees it: started as a child or found at an address, and asked over HTTP.

A started server listens on the loopback device, leads a process group of its own, writes to `OUT/vllm.log`, and is
ended with all its processes when the stage leaves; when the stage is killed, the kernel sends it SIGTERM. Its key is
drawn anew and handed over through the environment, never a command line.

What is wrong with the settings or the server's is a UserError (exit 2); a server that is dead, silent or broken is a
RetryableError (exit 75) with the last lines of its log. Developed against vLLM 0.32, whose endpoints for new weights
come with `VLLM_SERVER_DEV_MODE=1`; these ask for no key, so any user of the machine may call them. Nothing is asked
again here: the stage ends, and what it has stored is not drawn twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configs.errors import RetryableError, UserError
from configs.settings.rollout import RolloutServer

MODEL_NAME = "policy"
"""What a started server calls the model."""
LOG_FILE = "vllm.log"
GRACE_S = 15.0
"""Seconds between SIGTERM and SIGKILL; the server needs some to end its workers and to free shared memory."""
_POLL_S = 0.25
_ASK_TIMEOUT_S = 30.0
"""For requests that only look something up."""
_NUM_LOG_LINES = 12
_LOG_TAIL_BYTES = 16384
_PR_SET_PDEATHSIG = 1
_CPU_OPTIONS = ("--no-enable-chunked-prefill",)
"""vLLM 0.32 on CPU ends when a prompt with a seed is read in parts (\"CPU Generator does not use offset\")."""
_DEV_PATHS = ("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache")
RECEIVER = "derive_receiver.WeightsReceiver"
"""What a started server mixes into its workers, so that they can take weights by a collective."""
IN_SERVER = Path(__file__).parent / "in_server"


class VllmServer:
    """One server. Close it, always.

    Attributes:
        model: The name by which it calls the model.
        max_length: Tokens of a prompt and its completion together, at most.
    """

    def __init__(self, settings: RolloutServer, out: Path) -> None:
        self.settings, self.log_path = settings, out / LOG_FILE
        self.model, self.max_length = MODEL_NAME, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._key = os.environ.get(settings.key_variable) if settings.address else secrets.token_hex(16)
        self._address = settings.address or ""
        self._open: set[http.client.HTTPConnection] = set()
        self._lock, self._ended = threading.Lock(), False

    @property
    def starts(self) -> bool:
        """Whether the server is a child of this process, not one that runs anyway."""
        return self.settings.address is None

    def start(self, folder: Path, dtype: str, device: str) -> None:
        """Start the server on a checkpoint and wait until it answers; `device` is the trainer's.

        Raises:
            UserError: The command does not exist or cannot be run.
            RetryableError: It ended, or was not ready in time.
        """
        port = self.settings.port or _free_port()
        self._address = f"http://127.0.0.1:{port}"
        words = [
            *self.settings.command, str(folder), "--host", "127.0.0.1", "--port", str(port),
            "--served-model-name", MODEL_NAME, "--dtype", dtype,
            "--logprobs-mode", "processed_logprobs",  # of the distribution that was drawn from
            "--generation-config", "vllm",  # else penalties of the checkpoint's own file apply
            "--disable-uvicorn-access-log", *(_CPU_OPTIONS if device == "cpu" else ()),
            *(("--worker-extension-cls", RECEIVER) if self.settings.weights != "disk" else ()),
            *self.settings.arguments,
        ]  # fmt: skip
        self._process = _start_child(words, self._environment(), self.log_path)
        deadline = time.monotonic() + self.settings.start_timeout_s
        while not self._is_ready():
            if self._process.poll() is not None:
                raise RetryableError(f"vllm: the server ended with status {self._process.returncode}; {self._said()}")
            if time.monotonic() > deadline:
                raise RetryableError(
                    f"vllm: not ready after rollout.start_timeout_s {self.settings.start_timeout_s:g}; {self._said()}"
                )
            time.sleep(_POLL_S)
        self.describe(str(folder))

    def describe(self, folder: str | None = None) -> None:
        """Learn the model's name and its longest length; of a started server also that it is the one started.

        Raises:
            UserError: What answers is no vLLM server, or serves something else.
        """
        found = self.ask("GET", "/v1/models", timeout_s=_ASK_TIMEOUT_S)
        try:
            (first, *_) = found["data"]
            self.model, self.max_length, root = str(first["id"]), int(first["max_model_len"]), first.get("root")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"rollout.address: {self._address} does not list its model as vLLM does; give the address of a "
                "`vllm serve`"
            ) from error
        if folder is not None and root != folder:
            raise UserError(
                f"rollout.port: another server answers at {self._address} (it serves {root}); leave the port empty "
                "or name a free one"
            )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = 60.0) -> Any:
        """What the server answers, as parsed JSON; None for an empty answer. May be called from several threads.

        Raises:
            UserError: It refuses the request for a reason that will not pass.
            RetryableError: It cannot be reached, is too slow, failed, or answered what is no JSON.
        """
        status, content = self._exchange(method, path, body, timeout_s)
        if status in (401, 403):
            raise UserError(
                f"rollout.key_variable: the server at {self._address} refuses the key (status {status}); put the right "
                f"one into the variable {self.settings.key_variable}"
            )
        if status == 404 and path.partition("?")[0] in _DEV_PATHS:
            raise UserError(
                f"rollout.address: {self._address} has no {path.partition('?')[0]}, which new weights need; start that "
                "server with VLLM_SERVER_DEV_MODE=1, in a version that has it (0.32 does)"
            )
        if 400 <= status < 500 and status not in (408, 429):
            raise UserError(f"rollout: {self._address}{path} refuses the request (status {status}): {_text(content)}")
        if status >= 300:
            raise RetryableError(f"vllm: {path} failed with status {status}: {_text(content)}; {self._said()}")
        if not content.strip():
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise RetryableError(f"vllm: {path} answered no JSON but {_text(content)!r}; {self._said()}") from error

    def interrupt(self) -> None:
        """End all requests that still wait, so that their threads return; none is made after this."""
        with self._lock:
            self._ended = True
            waiting = list(self._open)
        for connection in waiting:
            if connection.sock is not None:
                with contextlib.suppress(OSError):  # it ended by itself
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End a started server and all its processes; one at an address is left as it is."""
        self.interrupt()
        if self._process is None:
            return
        group, process, self._process = self._process.pid, self._process, None
        _signal_group(group, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        _signal_group(group, signal.SIGKILL)  # what the server itself left running, too
        process.wait()

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> tuple[int, bytes]:
        parts = urlsplit(self._address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            self._admit(connection)
            connection.connect()
            self._admit(connection)  # again, as what had no socket yet could not be ended
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                return answer.status, answer.read()
        except TimeoutError as error:
            raise RetryableError(
                f"vllm: {self._address}{path} did not answer in {timeout_s:g} seconds; {self._said()}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RetryableError(
                f"vllm: the server at {self._address} cannot be reached ({type(error).__name__}: {error}); "
                f"{self._said()}"
            ) from error
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _admit(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._ended:
                raise RetryableError("vllm: the requests were ended")
            self._open.add(connection)

    def _is_ready(self) -> bool:
        try:
            return self._exchange("GET", "/health", None, _ASK_TIMEOUT_S)[0] == 200
        except RetryableError:
            return False

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it has its own python
        path = [str(IN_SERVER)] if self.settings.weights != "disk" else []
        path += [self.settings.environment["PYTHONPATH"]] if "PYTHONPATH" in self.settings.environment else []
        return {
            "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **inherited, **self.settings.environment,
            "VLLM_SERVER_DEV_MODE": "1", "VLLM_API_KEY": self._key or "",
            **({"PYTHONPATH": os.pathsep.join(path)} if path else {}),
        }  # fmt: skip

    def _said(self) -> str:
        """How the server is, and the end of its log, in one line."""
        if not self.starts:
            return f"look at the log of the server at {self._address}, then run the same command again"
        status = self._process.poll() if self._process is not None else None
        ended = f"it ended with status {status}; " if status is not None else ""
        return f"{ended}end of {self.log_path}: {' | '.join(_last_lines(self.log_path)) or 'nothing'}"


def _start_child(words: list[str], environment: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own; it gets SIGTERM when this process dies. Raises UserError."""
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    with log_path.open("ab") as log:
        try:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=in_child,
                process_group=0,
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"rollout.command: {words[0]} cannot be started ({error.strerror}); give the path of the `vllm` of an "
                "environment that has it"
            ) from error


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # nothing of it is left
        os.killpg(group, number)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _text(content: bytes) -> str:
    """The beginning of an answer, in one line: the message of an error object, else whatever it is."""
    text = content.decode("utf-8", errors="replace")
    try:
        found = json.loads(text)["error"]
        text = str(found["message"]) if isinstance(found, dict) else str(found)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:300]


def _last_lines(path: Path) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [" ".join(line.split())[:200] for line in lines if line.strip()][-_NUM_LOG_LINES:]
