"""A server of OpenAI's protocol on the loopback: answers as told, remembers the questions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[[dict[str, Any], int], Any]
"""From a request's body and number to a text, a status, a whole message or (seconds, text)."""


class ChatServer:
    """The server's address and the bodies of all requests so far."""

    def __init__(self, url: str) -> None:
        self.url, self.requests = url, list[dict[str, Any]]()


@contextmanager
def chat_server(answering: Answering) -> Iterator[ChatServer]:
    """Serve until the end of the block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.requests.append(body)
                number = len(seen.requests)
            answer = answering(body, number)
            if isinstance(answer, tuple):
                time.sleep(answer[0])
                answer = answer[1]
            self._send(*(_refusal(answer) if isinstance(answer, int) else (200, _chat(answer))))

        def _send(self, status: int, content: Any) -> None:
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client's patience may be over
                self.wfile.write(payload)

        def log_message(self, format: str, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()


def _refusal(status: int) -> tuple[int, Any]:
    told = "response_format is not supported" if status == 400 else f"status {status}"
    return status, {"error": {"message": told, "type": "error", "code": None}}


def _chat(answer: Any) -> Any:
    message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
    if not isinstance(message, dict):
        return answer
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
