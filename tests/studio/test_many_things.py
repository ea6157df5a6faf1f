"""A project with 200 pairs and 50 adapters: quick to open, idle when left alone, all by keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_header
from builders.pairs import put, put_rows
from builders.studio import served

from customize.adapters.file import save_adapter

pytest.importorskip("gradio", reason="the extra `studio` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"),
]
PAIRS, ADAPTERS = 200, 50
COUNTING = """
window.framesDrawn = 0;
const draw = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (call) => { window.framesDrawn += 1; return draw(call); };
"""
FOCUSABLE = "button, input, textarea, select, a[href], summary, [contenteditable=true]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(PAIRS):
        put(folder / "pairs" / "many" / f"{number}s.png", 2 * number)
        put(folder / "pairs" / "many" / f"{number}t.png", 2 * number + 1)
    rows = [
        {"source": f"{n}s.png", "instruction": f"make it red {n}", "edited": f"{n}t.png"}
        for n in range(PAIRS)
    ]
    put_rows(folder / "pairs" / "many" / "pairs.jsonl", *rows)
    for number in range(ADAPTERS):
        path = folder / "runs" / f"run_{number:02}" / "adapter.safetensors"
        header = toy_header(base_name="embedded")
        save_adapter(path, header, {"denoiser.a.delta": torch.ones(2, 2)})
    return folder


@pytest.fixture(scope="module")
def opened(project: Path) -> Iterator[tuple[Any, int, float]]:
    """Return the page, the server's process and the seconds until the first page was there."""
    assert playwright is not None
    with served(project) as studio, playwright.sync_playwright() as program:
        browser = program.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        page.add_init_script(COUNTING)
        start = time.monotonic()
        page.goto(studio.url)
        page.locator("#pairs-set input").first.wait_for()
        yield page, studio.process.pid, time.monotonic() - start
        browser.close()


def test_the_page_opens_lists_and_then_rests(opened: tuple[Any, int, float]) -> None:
    import psutil

    page, pid, seconds = opened
    print(f"first page after {seconds:.1f} s")
    start = time.monotonic()
    page.locator("#pair-0 img").first.wait_for()
    print(f"six of {PAIRS} pairs, all linted, after {time.monotonic() - start:.1f} s more")
    start = time.monotonic()
    page.get_by_role("button", name="Later pairs").click()
    page.get_by_label("Instruction 7", exact=True).wait_for()
    print(f"the next six after {time.monotonic() - start:.1f} s")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_timeout(3000)
    page.locator("#compare-adapters input").first.click()
    page.get_by_role("option", name="run_49", exact=True).wait_for()
    page.keyboard.press("Escape")
    server = psutil.Process(pid)
    page.wait_for_timeout(3000)
    server.cpu_percent()
    frames = page.evaluate("framesDrawn")
    page.wait_for_timeout(10_000)
    busy, frames = server.cpu_percent(), page.evaluate("framesDrawn") - frames
    print(f"left alone the server takes {busy:.1f} % of a core, the browser draws {frames} frames")
    assert seconds < 60, "three where nothing else runs"
    assert busy < 3
    assert frames < 200, "gradio draws 60 a second for ever, unless it is stopped"


@pytest.mark.parametrize("tab", ["Pairs", "Recipe", "Train", "Compare", "Mix", "Choose"])
def test_keys_reach_all_there_is(opened: tuple[Any, int, float], tab: str) -> None:
    page, *_ = opened
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(1500)
    wanted = page.evaluate(
        f"""() => {{
            const all = [...document.querySelectorAll('{FOCUSABLE}')].filter(e => e.offsetParent
                && !e.disabled && e.tabIndex >= 0 && getComputedStyle(e).visibility != 'hidden');
            all.forEach((e, i) => e.dataset.wanted = i);
            document.body.focus();
            return all.map(e => e.ariaLabel || e.innerText || e.outerHTML.slice(0, 90));
        }}"""
    )
    reached: set[int] = set()
    for _ in range(2 * len(wanted) + 20):
        page.keyboard.press("Escape")  # leaves the code editor, where Tab indents
        page.keyboard.press("Tab")
        number = page.evaluate("document.activeElement?.dataset?.wanted ?? null")
        if number is not None:
            reached.add(int(number))
    missed = [name for number, name in enumerate(wanted) if number not in reached]
    assert len(wanted) > 5
    assert not missed
