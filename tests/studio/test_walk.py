"""A browser walks the whole road, from dropped pictures to a file that other programs load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builders.studio import INSTRUCTION, Served, pictures_to_drop, served

pytest.importorskip("gradio", reason="the extra `studio` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: chromium)"),
]
SHOTS = os.environ.get("CUSTOMIZE_SCREENSHOTS")
"""Folder to keep a screenshot of every step in, such as docs/studio."""
PATIENCE = 240_000


@dataclass
class Walk:
    """A browser on the page, its steps and what it asked of others."""

    page: Any
    studio: Served
    shots: Path
    strangers: list[str]
    taken: int = 0

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def field(self, place: str) -> Any:
        return self.page.locator(f"#{place} input, #{place} textarea").first

    def shot(self, name: str) -> None:
        """Take the page as it is at both widths."""
        self.taken += 1
        for width in (1440, 390):
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.wait_for_timeout(300)
            path = self.shots / f"{self.taken}_{name}_{width}.png"
            self.page.screenshot(path=path, full_page=True)
            beyond = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert beyond <= 1, f"{name} at {width}: {beyond} pixels wider than the window"
        self.page.set_viewport_size({"width": 1440, "height": 900})
        self.check()

    def check(self) -> None:
        """See that all pictures have words and no text is small."""
        silent = self.page.evaluate(
            "[...document.querySelectorAll('img')].filter(e => e.offsetParent && !e.alt).length"
        )
        assert silent == 0, f"{silent} pictures without alternative text"
        small = self.page.evaluate(
            """() => [...document.querySelectorAll('body *')].filter(e => e.offsetParent &&
            [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()) &&
            parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.textContent.slice(0, 40))"""
        )
        assert small == [], "texts under 12 px"

    def choose(self, place: str, value: str) -> None:
        """Choose from a dropdown as a person does: again, where its list was not there yet."""
        field = self.field(place)
        for _ in range(20):
            field.evaluate("e => e.scrollIntoView({block: 'center'})")  # scrolling closes the list
            field.click()
            field.fill(value)
            self.page.wait_for_timeout(1000)
            self.page.keyboard.press("Enter")
            field.blur()
            self.page.wait_for_timeout(500)
            chosen = self.page.locator(f"#{place}").inner_text() + field.input_value()
            if value in chosen:
                return
        self.page.screenshot(path=self.shots / f"missing_{place}.png", full_page=True)
        raise AssertionError(f"{place} does not list {value}")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    assert playwright is not None
    shots = Path(SHOTS).resolve() if SHOTS else tmp_path / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    project = tmp_path / "project"
    project.mkdir()
    with served(project) as studio, playwright.sync_playwright() as program:
        browser = program.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        page.set_default_timeout(PATIENCE)
        strangers: list[str] = []
        page.on("request", lambda asked: _note(strangers, asked.url, studio.url))
        page.goto(studio.url)
        yield Walk(page, studio, shots, strangers)
        browser.close()


def _note(strangers: list[str], url: str, own: str) -> None:
    if not url.startswith((own, own.replace("http", "ws"), "data:", "blob:")):
        strangers.append(url)


def test_the_whole_road(walk: Walk, tmp_path: Path) -> None:
    page, project = walk.page, walk.studio.project
    expect = playwright.expect
    expect.set_options(timeout=PATIENCE)

    # pairs: four are dropped, the one the wrong way round is flagged and mended
    name = walk.field("pairs-set")
    name.fill("brand")
    name.press("Enter")
    walk.field("pairs-instruction").fill(INSTRUCTION)
    page.locator("#pairs-upload input[type=file]").set_input_files(
        pictures_to_drop(tmp_path / "drop", swapped=2)
    )
    expect(page.locator("#pairs-said")).to_contain_text("4 pairs added")
    expect(page.locator("#pair-1-faults")).to_contain_text("likely reversed")
    expect(page.locator("#pair-0-faults")).to_contain_text("looks right")
    walk.shot("pairs_flagged")
    page.locator("#pair-1-swap").click()
    expect(page.locator("#pair-1-faults")).to_contain_text("looks right")
    walk.shot("pairs_mended")

    # recipe: twenty steps, checked as typed, memory said before anything loads
    walk.tab("Recipe")
    walk.field("recipe-name").fill("brand")
    walk.choose("recipe-pairs", "brand")
    walk.field("recipe-steps").fill("20")
    page.get_by_text("More", exact=True).click()
    walk.field("recipe-every").fill("10")
    expect(page.locator("#recipe-text")).to_contain_text("every: 10")
    expect(page.locator("#recipe-faults")).to_contain_text("The recipe is sound.")
    page.locator("#recipe-memory").click()
    expect(page.locator("#recipe-needs")).to_contain_text("expected peak of memory")
    page.locator("#recipe-save").click()
    expect(page.locator("#recipe-needs")).to_contain_text("saved: recipes/brand.yaml")
    walk.shot("recipe")

    # train: a preview appears, and the run ends
    walk.tab("Train")
    walk.choose("train-name", "brand")
    page.locator("#train-start").click()
    expect(page.locator("#train-said")).to_contain_text("started")
    expect(page.locator("#train-preview img")).to_be_visible()
    walk.shot("training")
    expect(page.locator("#train-state")).to_contain_text("finished")
    assert (project / "runs" / "brand" / "adapter.safetensors").is_file()
    walk.shot("trained")

    # compare
    walk.tab("Compare")
    walk.choose("compare-pairs", "brand")
    expect(walk.field("compare-instruction")).to_have_value(INSTRUCTION)
    walk.choose("compare-adapters", "brand")
    page.keyboard.press("Escape")
    page.locator("#compare-make").click()
    expect(page.locator("#compare-grid img")).to_have_count(2)
    expect(page.locator("#compare-scores table")).to_be_visible()
    page.locator("#compare-slider input[type=range]").press("ArrowRight")
    page.locator("#compare-judge").click()
    expect(page.locator("#compare-judged tbody tr")).to_have_count(2)
    expect(page.locator("#compare-judged")).to_contain_text("judged by")
    walk.shot("compared")

    # mix: a second adapter of the same base, then both in one
    _weaker(project, "brand", "weaker")
    walk.tab("Pairs")
    walk.tab("Mix")
    walk.choose("mix-pairs", "brand")
    walk.choose("mix-0", "brand")
    walk.choose("mix-1", "weaker")
    page.locator("#mix-look").click()
    expect(page.locator("#mix-shown img")).to_have_count(2)
    page.get_by_label("Merge by").click()
    page.get_by_role("option", name="linear", exact=True).click()
    page.locator("#mix-merge").click()
    expect(page.locator("#mix-merged")).to_contain_text("merged: runs/mixed/adapter.safetensors")
    walk.shot("mixed")

    # choose: five times, by keys
    walk.tab("Choose")
    walk.choose("choose-one", "brand")
    walk.choose("choose-other", "base alone")
    page.locator("#choose-begin").click()
    for count, key in enumerate(("1", "2", "=", "x", "1")):
        expect(page.locator("#choose-rates")).to_contain_text(f"so far: {count}")
        expect(page.locator("#choose-first")).to_be_enabled()
        if count == 1:
            walk.shot("choosing")
        page.locator("#choose-rates").click()
        page.keyboard.press(key)
    expect(page.locator("#choose-rates")).to_contain_text("so far: 5")
    assert len((project / "choices" / "choices.jsonl").read_text().splitlines()) == 5

    # refine
    walk.choose("choose-run", "brand")
    page.locator("#choose-steps input").fill("4")
    page.locator("#choose-refine").click()
    expect(page.locator("#choose-said")).to_contain_text("started")
    walk.shot("chosen")
    walk.tab("Train")
    walk.choose("train-name", "brand_refined")
    expect(page.locator("#train-state")).to_contain_text("finished · step 4 of 4")  # not brand's
    walk.shot("refined")

    # download the kohya file, which then loads
    walk.tab("Mix")
    walk.choose("mix-taken", "brand_refined")
    page.locator("#mix-export").click()
    link = page.locator("#mix-files a[download]").first
    expect(link).to_be_visible()
    walk.shot("exported")
    with page.expect_download() as coming:
        link.click()
    file = tmp_path / "downloaded.safetensors"
    coming.value.save_as(file)
    _loads(file)
    assert walk.strangers == [], "the page works without a network"


def _weaker(project: Path, run: str, name: str) -> None:
    """Write a second adapter: half of another one."""
    from customize.adapters.file import read_adapter, save_adapter

    adapter = read_adapter(project / "runs" / run / "adapter.safetensors")
    tensors = {key: tensor * 0.7 for key, tensor in adapter.tensors.items()}
    save_adapter(project / "runs" / name / "adapter.safetensors", adapter.header, tensors)


def _loads(file: Path) -> None:
    """Let diffusers, which wrote none of it, load the file."""
    from customize.families import open_pipeline
    from customize.families.base import resolve_base

    pipeline = open_pipeline(resolve_base("embedded"))
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    assert pipeline.get_active_adapters()
