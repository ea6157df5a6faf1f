"""Serve the page: to this machine alone, or to others behind a password; what it may reach."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize.errors import StudioError
from customize.studio.calm import CALM
from customize.studio.project import UPLOADS, Project

USER = "studio"
PASSWORD_VARIABLE = "CUSTOMIZE_PASSWORD"
SHORTEST = 8
MOST_BYTES = 64 << 20
"""Of one upload."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'self'; base-uri 'self'"
)
"""Browsers load nothing from elsewhere, whatever the page's parts ask for."""


@dataclass(frozen=True)
class Door:
    """Who may come in, and by which way."""

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    password: str | None = None


def check_door(door: Door) -> None:
    """Refuse doors that are open to others without a password; raises StudioError."""
    if door.password is not None and len(door.password) < SHORTEST:
        raise StudioError(
            f"the password has {len(door.password)} letters; expected {SHORTEST} or more; set "
            f"another in {PASSWORD_VARIABLE}"
        )
    asked = "--share" if door.share else None if _is_own(door.host) else f"--host {door.host}"
    if asked and door.password is None:
        raise StudioError(
            f"{asked}: others could use this machine through the page, and there is no password; "
            f"expected one; set it in the environment as {PASSWORD_VARIABLE}"
        )


def serve(
    folder: Path,
    door: Door,
    *,
    device: str | None = None,
    judge: tuple[str | None, str | None] = (None, None),
    wait: bool = True,
) -> Any:
    """Serve the page of the project `folder` until it is stopped; raises StudioError.

    `judge` is a model and its server, who judges on the page: named here, as whoever opens the page
    may not choose what this machine asks. With `wait` False return gradio's page while it is being
    served by threads.
    """
    check_door(door)
    if not folder.is_dir():
        raise StudioError(f"{folder}: no folder; expected the project's; make it first")
    project = Project(folder.resolve())
    os.chdir(project.root)  # recipes and runs are named from here on, as on the command line
    os.environ["GRADIO_TEMP_DIR"] = str(project.root / UPLOADS)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise StudioError(
            'the page needs the package `gradio`; expected it to be installed; run `pip install "'
            'customize[studio]"`'
        ) from None
    from starlette.middleware import Middleware

    from customize.studio.judged import Asked
    from customize.studio.open_editor import OpenEditor
    from customize.studio.page import CSS, KEYS, THEME, build_page
    from customize.studio.studio import Studio

    page = build_page(Studio(project, OpenEditor(device), Asked(*judge)))
    try:
        page.launch(
            server_name=door.host,
            server_port=door.port,
            share=door.share,
            auth=(USER, door.password) if door.password else None,
            max_file_size=MOST_BYTES,
            app_kwargs={"middleware": [Middleware(Guard)]},
            theme=THEME,
            css=CSS,
            head=KEYS,
            show_error=True,
            ssr_mode=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=not wait,
        )
    except OSError as error:
        raise StudioError(
            f"port {door.port}: {error}; expected a free one; choose another (--port)"
        ) from None
    return page


class Guard:
    """Stands before the page: refuses what is too large before it is read, and sets the policy.

    To the page itself it adds `CALM`.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Take the application behind it."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, unless its head says that it is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > 2 * MOST_BYTES:
            head = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": head})
            text = f"too large: expected {MOST_BYTES >> 20} MiB a file at most".encode()
            await send({"type": "http.response.body", "body": text})
            return

        tail = b""

        async def answer(message: Any) -> None:
            nonlocal tail
            if message["type"] == "http.response.start":
                heads = dict(message["headers"])
                if scope["path"] == "/" and b"text/html" in heads.get(b"content-type", b""):
                    tail = CALM if b"content-encoding" not in heads else b""
                policy = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                sized = [
                    (name, b"%d" % (int(value) + len(tail)) if name == b"content-length" else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": [*sized, *policy]}
            elif not message.get("more_body"):
                message = {**message, "body": message.get("body", b"") + tail}
            await send(message)

        await self._app(scope, receive, answer)


def _is_own(host: str) -> bool:
    """Tell whether only this machine reaches the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
