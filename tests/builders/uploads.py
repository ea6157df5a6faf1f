"""A stand-in for a model hub that takes uploads, on this machine's loopback alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Hub:
    """What was received: files by their path, the tokens of the requests, repositories made.

    `refusal` is the status that every request gets instead.
    """

    refusal: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    made: list[dict[str, object]] = field(default_factory=list)
    address: str = ""


@contextmanager
def upload_hub(refusal: int | None = None) -> Iterator[Hub]:
    """Serve a hub at `hub.address` while inside."""
    hub = Hub(refusal)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            hub.tokens.add(self.headers.get("Authorization", ""))
            status = hub.refusal or 200
            answer = {"error": "refused"} if hub.refusal else respond(hub, self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def _chunks(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return b""
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def respond(hub: Hub, path: str, body: bytes) -> dict[str, object]:
    """Answer the four requests an upload makes, as the hub's API does."""
    if path == "/api/repos/create":
        asked = json.loads(body)
        hub.made.append(asked)
        name = f"{asked.get('organization', 'me')}/{asked['name']}"
        return {"url": f"{hub.address}/{name}", "name": name, "id": name}
    if path == "/api/validate-yaml":
        assert json.loads(body)["content"].startswith("---\n")
        return {"errors": [], "warnings": []}
    if "/preupload/" in path:
        files = json.loads(body)["files"]
        return {
            "files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
        }
    if "/commit/" in path:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                hub.files[value["path"]] = base64.b64decode(value["content"])
        name = path.removeprefix("/api/models/").partition("/commit/")[0]
        oid = "0" * 40
        return {"commitUrl": f"{hub.address}/{name}/commit/{oid}", "commitOid": oid}
    return {}
