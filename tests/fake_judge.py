"""A chat server of the OpenAI shape on the loopback device, whose replies and faults are to order.

`reply` makes the text of a reply from the chat messages, or a fault: a status with a body, or one of `FAULTS`. `calls`
holds the bodies that came, `headers` their headers, `most_at_once` the most requests that were in work together.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Messages = Sequence[dict[str, str]]
Reply = str | tuple[int, str] | tuple[int, str, dict[str, str]]
FAULTS = ("<hang>", "<drop>", "<drip>", "<no json>", "<cut off>", "<huge>")


class FakeJudge:
    """Serves until it is closed."""

    def __init__(self, reply: Callable[[Messages], Reply], delay_s: float = 0.0) -> None:
        self.reply, self.delay_s = reply, delay_s
        self.calls: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self._lock, self._closed = threading.Lock(), threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    fake.calls.append(body)
                    fake.headers.append(dict(self.headers))
                    fake.at_once += 1
                    fake.most_at_once = max(fake.most_at_once, fake.at_once)
                try:
                    time.sleep(fake.delay_s)
                    self._answer(fake.reply(body["messages"]))
                except OSError:
                    pass  # the other side left
                finally:
                    with fake._lock:
                        fake.at_once -= 1

            def _answer(self, given: Reply) -> None:
                if isinstance(given, tuple):
                    self._send(given[0], given[1].encode(), given[2] if len(given) == 3 else {})
                elif given == "<hang>":
                    fake._closed.wait(60)
                elif given == "<drop>":
                    self.close_connection = True
                    self.connection.shutdown(2)
                elif given == "<drip>":
                    self.send_response(200)
                    self.end_headers()
                    while not fake._closed.wait(0.05):
                        self.wfile.write(b" ")
                elif given == "<no json>":
                    self._send(200, b"<html>")
                elif given == "<huge>":
                    self._send(200, b" " * 5_000_000)
                else:
                    finish = "length" if given == "<cut off>" else "stop"
                    choice = {"message": {"role": "assistant", "content": given}, "finish_reason": finish}
                    self._send(200, json.dumps({"choices": [choice]}).encode())

            def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *arguments: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; what hangs is let go."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
