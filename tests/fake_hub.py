"""A stand-in for a model hub on loopback: repositories, large files by the basic LFS protocol, commits.

It keeps what it is sent, checks digests as a hub does, and can break a connection in the middle of an upload. Requests
are those that huggingface_hub makes without `hf_xet`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-for-tests"


@dataclass
class Hub:
    """What the hub knows.

    Attributes:
        address: Where it listens.
        repositories: OWNER/NAME -> how it was made.
        branches: OWNER/NAME -> branch -> files by name.
        large: Large files by digest.
        uploads: Digest of each large file that was sent, in order.
        requests: Method and path of each request.
        break_uploads: So many uploads of large files end in the middle.
        refuse: Status with which commits are answered, where it is not 0.
    """

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    break_uploads: int = 0
    refuse: int = 0


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """A hub that listens until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.requests.append(f"POST {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        parts = path.removeprefix("/api/models/").split("/")
        name, action, revision = "/".join(parts[:2]), parts[2], "/".join(parts[3:])
        if action == "branch":
            if revision in self.state.branches[name]:
                return self._answer(409, {"error": "Reference already exists"})
            self.state.branches[name][revision] = {}
            return self._answer(200, {})
        if action == "preupload":
            files = json.loads(body)["files"]
            told = [{"path": one["path"], "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular",
                     "shouldIgnore": False} for one in files]  # fmt: skip
            return self._answer(200, {"files": told})
        if action == "commit":
            return self._commit(name, revision, body)
        if action == "paths-info":
            return self._paths(name, body)
        return self._answer(404, {"error": "no such address"})

    def do_PUT(self) -> None:
        self.state.requests.append(f"PUT {self.path}")
        digest, size = self.path.rpartition("/")[2], int(self.headers["Content-Length"])
        if self.state.break_uploads:
            self.state.break_uploads -= 1
            self.rfile.read(size // 2)
            self.close_connection = True
            self.connection.close()
            return
        content = self.rfile.read(size)
        if hashlib.sha256(content).hexdigest() != digest:
            return self._answer(400, {"error": "wrong digest"})
        self.state.large[digest] = content
        self.state.uploads.append(digest)
        self._answer(200, {})

    def do_GET(self) -> None:
        self.state.requests.append(f"GET {self.path}")
        name = self.path.partition("?")[0].removeprefix("/api/models/")
        if name in self.state.repositories:
            private = self.state.repositories[name].get("visibility") == "private"
            return self._answer(200, {"id": name, "private": private, "siblings": []})
        self._answer(404, {"error": "no such address"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.state.repositories
        self.state.repositories.setdefault(name, asked)
        self.state.branches.setdefault(name, {"main": {}})
        self._answer(409 if known else 200, {"url": f"{self.state.address}/{name}", "id": name})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            href = {"upload": {"href": f"{self.state.address}/lfs/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.state.large else {"actions": href})})
        self._answer(200, {"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")

    def _commit(self, name: str, revision: str, body: bytes) -> None:
        if self.state.refuse:
            return self._answer(self.state.refuse, {"error": "You have no write access to this repository"})
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            elif one["key"] == "lfsFile":
                files[one["value"]["path"]] = self.state.large[one["value"]["oid"]]
        self.state.branches[name][revision].update(files)
        self._answer(200, {"commitUrl": f"{self.state.address}/{name}/commit/abc", "commitOid": "a" * 40})

    def _paths(self, name: str, body: bytes) -> None:
        from urllib.parse import parse_qs

        wanted = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
        every = {path: one for files in self.state.branches[name].values() for path, one in files.items()}
        told = []
        for path in wanted:
            if path in every:
                digest = hashlib.sha256(every[path]).hexdigest()
                about = {"oid": digest, "size": len(every[path]), "pointerSize": 134}
                large = {"lfs": about} if path.endswith("safetensors") else {}
                told.append({"type": "file", "path": path, "size": len(every[path]), "oid": "b" * 40, **large})
        self._answer(200, told)

    def _answer(self, status: int, content: Any, kind: str = "application/json") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
