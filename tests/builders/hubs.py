"""A stand-in for the model hub on loopback: what `huggingface_hub` asks of one, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Model:
    """A model's revisions, each a folder of files; `token` is what reading it takes.

    `gated` models exist for everyone, and give their files to nobody without the token.
    """

    revisions: dict[str, Path]
    token: str | None = None
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """Return the 40 digits of a branch, a tag or a commit; None for an unknown one."""
        commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in self.revisions}
        return commits.get(revision) or (revision if revision in commits.values() else None)

    def folder(self, commit: str) -> Path:
        """Return the files of a commit."""
        return next(f for name, f in self.revisions.items() if self.commit(name) == commit)


@dataclass
class HubServer:
    """A running hub: its address, its models by id, and what was asked of it.

    `sent` counts the bytes of files sent by path; files in `cut` break off after that many bytes,
    the next time only; every request to a path in `failing` is answered with that status.
    """

    address: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)

    def files_sent(self) -> list[str]:
        """List the paths of the files of which anything was sent."""
        return sorted(self.sent)


@contextmanager
def hub_server(**models: Model) -> Iterator[HubServer]:
    """Serve models, `owner__name=Model(...)`, on a free port of loopback while inside."""
    hub = HubServer(models={name.replace("__", "/"): model for name, model in models.items()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers `/api/models/ID/revision/REV`, `/api/models/ID/tree/REV`, `/ID/resolve/REV/PATH`."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.requests.append((self.command, "/".join(parts)))
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        model = self.hub.models.get(f"{owner}/{name}")
        refused = self._refusal(model, gives_files=not is_api)
        if refused or model is None:
            self._error(*(refused or (404, "RepoNotFound")))
            return
        action, revision, *path = [*rest, "main"] if len(rest) == 1 else rest or ["", "main"]
        commit = model.commit(revision)
        if commit is None:
            self._error(404, "RevisionNotFound")
        elif action == "tree":
            self._json(_tree(model.folder(commit)))
        elif action == "resolve":
            self._file(model.folder(commit), "/".join(path), commit)
        else:
            self._json({"id": f"{owner}/{name}", "sha": commit, "siblings": []})

    def _refusal(self, model: Model | None, *, gives_files: bool) -> tuple[int, str] | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given == "hf_broken":
            return 401, "Invalid credentials in Authorization header"
        if model is None or (model.token and not model.gated and given != model.token):
            return 401, "RepoNotFound"
        if model.gated and gives_files and given != model.token:
            return 403 if given else 401, "GatedRepo"
        return None

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        is_code = " " not in code
        self.send_header("X-Error-Code" if is_code else "X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, folder: Path, path: str, commit: str) -> None:
        if path in self.hub.failing:
            self._error(self.hub.failing[path], "Something broke")
            return
        if not (folder / path).is_file():
            self._error(404, "EntryNotFound")
            return
        body, start = (folder / path).read_bytes(), 0
        if (wanted := self.headers.get("Range")) and self.command == "GET":
            self.hub.ranges.append(f"{path} {wanted}")
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.command == "GET":
            self._send(path, body[start:])

    def _send(self, path: str, body: bytes) -> None:
        if (most := self.hub.cut.pop(path, None)) is not None:
            body = body[:most]
            self.close_connection = True
        self.hub.sent[path] = self.hub.sent.get(path, 0) + len(body)
        self.wfile.write(body)


def _tree(folder: Path) -> list[dict[str, object]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]
