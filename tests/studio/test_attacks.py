"""What someone may try through the page: refused, and nothing is read or written outside."""

from __future__ import annotations

import http.client
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from builders.pairs import put
from builders.studio import Served, served

from customize.errors import StudioError
from customize.studio.calm import CALM
from customize.studio.serve import MOST_BYTES, Door, check_door

gradio_client = pytest.importorskip("gradio_client", reason="the extra `studio` is not installed")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "secret.txt").write_text("outside")
    project = folder / "project"
    project.mkdir()
    with served(project) as running:
        yield running


@pytest.fixture(scope="module")
def client(studio: Served) -> Any:
    assert gradio_client is not None
    return gradio_client.Client(studio.url, verbose=False)


def asked(studio: Served, method: str, path: str, headers: Any = None, body: Any = None) -> Any:
    """Return status and text of one request, its path as it is written."""
    connection = http.client.HTTPConnection(urlparse(studio.url).netloc, timeout=120)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


@pytest.mark.parametrize("way", ["file=", "file/", "static/", "component_server/"])
def test_no_path_is_served(studio: Served, way: str) -> None:
    outside = studio.project.parent / "secret.txt"
    for path in (str(outside), "../secret.txt", "%2e%2e/secret.txt", "uploads/../../secret.txt"):
        status, text = asked(studio, "GET", f"/gradio_api/{way}{path}")
        assert status >= 400, (way, path)
        assert "outside" not in text.split()


def test_a_path_in_place_of_an_upload_is_refused(studio: Served, client: Any) -> None:
    outside = studio.project.parent / "secret.txt"
    stolen = [{"path": str(outside), "meta": {"_type": "gradio.FileData"}}]
    with pytest.raises(Exception, match=r"(?i)not.*(allowed|upload|cache|permi)|invalid|outside"):
        client.predict("stolen", stolen, "make it red", api_name="/added")
    assert not (studio.project / "pairs").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../b", "x" * 200])
def test_names_lead_nowhere_else(studio: Served, client: Any, name: str, tmp_path: Path) -> None:
    picture = gradio_client.handle_file(str(put(tmp_path / "1a.png")))
    with pytest.raises(Exception, match="expected small letters"):
        client.predict(name, [picture], "make it red", api_name="/added")
    before = {path.name for path in studio.project.parent.iterdir()}
    assert before == {"secret.txt", "project"}


def test_two_gigabytes_are_refused_before_they_are_read(studio: Served) -> None:
    headers = {"Content-Length": str(2 << 30), "Content-Type": "multipart/form-data; boundary=x"}
    connection = http.client.HTTPConnection(urlparse(studio.url).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    for key, value in headers.items():
        connection.putheader(key, value)
    connection.endheaders(b"--x\r\n")
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"64 MiB" in answer.read()


def test_an_upload_that_hides_its_length_is_cut_off(studio: Served) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    piece = b"\0" * (1 << 20)

    def body() -> Iterator[bytes]:
        yield head
        for _ in range((MOST_BYTES >> 20) + 4):
            yield piece
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Transfer-Encoding": "chunked"}
    try:
        status, _ = asked(studio, "POST", "/gradio_api/upload", headers, body())
    except (BrokenPipeError, ConnectionResetError):
        status = 413
    assert status == 413
    kept = sum(path.stat().st_size for path in studio.project.rglob("*.png"))
    assert kept < MOST_BYTES


def bomb(path: Path, side: int = 30_000) -> Path:
    """Write a PNG of one colour whose pixels would fill gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(b"\0" * (3 * side + 1)) for _ in range(200)) + packed.flush()
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    path.write_bytes(content)
    return path


def test_a_picture_bomb_is_refused(studio: Served, client: Any, tmp_path: Path) -> None:
    files = [gradio_client.handle_file(str(bomb(tmp_path / f"1{letter}.png"))) for letter in "ab"]
    with pytest.raises(Exception, match="pixels"):
        client.predict("bombed", files, "make it red", api_name="/added")
    assert not (studio.project / "pairs" / "bombed").exists()


def test_scripts_in_texts_are_shown_as_texts(client: Any, tmp_path: Path) -> None:
    files = [put(tmp_path / f"<b>1{letter}.png", index) for index, letter in enumerate("ab")]
    sent = [gradio_client.handle_file(str(file)) for file in files]
    evil = "make it <script>alert(1)</script> <img src=x onerror=alert(2)>"
    answer = client.predict("scripts", sent, evil, api_name="/added")
    shown = [part for part in answer if isinstance(part, str) and "<" in part]
    assert any("figure" in part for part in shown)
    for part in shown:
        if "<figure" in part or "role=" in part:
            assert "<script" not in part
            assert "<img src=x" not in part


def test_the_policy_lets_nothing_come_from_elsewhere(studio: Served) -> None:
    connection = http.client.HTTPConnection(urlparse(studio.url).netloc, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    page = answer.read()
    assert CALM in page
    assert len(page) < 250_000, "how to call each event from programs was half of it"


def test_others_need_a_password(tmp_path: Path) -> None:
    for door in (Door(share=True), Door(host="0.0.0.0"), Door(host="192.0.2.7")):
        with pytest.raises(StudioError, match="there is no password"):
            check_door(door)
        check_door(Door(door.host, share=door.share, password="long enough"))
    with pytest.raises(StudioError, match="expected 8 or more"):
        check_door(Door(password="short"))
    check_door(Door(host="::1"))
    with served(tmp_path, CUSTOMIZE_PASSWORD="long enough") as running:
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x"):
            assert asked(running, "GET", path)[0] in (401, 403), path
        wrong = {"Content-Type": "application/x-www-form-urlencoded"}
        assert asked(running, "POST", "/login", wrong, "username=studio&password=guess")[0] == 400
        status, text = asked(
            running, "POST", "/login", wrong, "username=studio&password=long%20enough"
        )
        assert (status, json.loads(text)["success"]) == (200, True)
