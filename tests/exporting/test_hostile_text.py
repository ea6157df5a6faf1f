"""The worst texts an adapter may hold, through every output: none becomes markup or a command."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders.bases import toy_header, toy_resolved
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught
from customize.cli.main import main
from customize.drawing.contact_sheet import contact_sheet
from customize.drawing.escape import code, fenced, markdown, visible
from customize.drawing.heat_map import heat_map
from customize.drawing.table import table
from customize.exporting import export_all
from customize.exporting.sharing.model_card import CardPicture, card_text
from customize.scoring.html_report import write_score_report
from customize.scoring.items import Item, Scores
from customize.scoring.summary import Scored

WORST = (
    "</title></style><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1)) ![b](http://evil.example/x.png)",
    "<http://evil.example> http://evil.example www.evil.example a@evil.example",
    "[a]: http://evil.example",
    '"; touch /tmp/pwned; echo "$(touch /tmp/pwned)`touch /tmp/pwned`\'; touch /tmp/pwned',
    "```\n# a heading\n---\nlicense: mit\n---\n- a list\n> a quote\n\n    code",
    "~~~\n| a | b |\n| --- | --- |\n",
    "--- \n...\n!!python/object/apply:os.system [id]",
    "| a | b ``` c ~~~ \\| \\` \\",
    "\x1b[2J\x1b]8;;http://evil.example\x07link\x1b]8;;\x07\x1b[31m",
    "a\rcustomize: all is well\n\x85\u2028\u2029b",
    "\u202egnp.exe\u202c \u2066x\u2069 \ufeff\u00ad\U000e0041",
    "&lt;b&gt; &#x3c;script&#x3e; {{7*7}} ${7*7} %s {0}",
    "* bold * **b** __c__ ~~d~~ # e",
    "1. one\n2) two\n+ three\n= four",
    "--output=/tmp/pwned",
    "x" * 5000,
)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\U000e0041]")
MARKUP = {"script", "img", "a", "style", "h1", "h2", "h3", "hr", "blockquote", "em", "strong", "s"}


def worst(number: int = 0) -> Header:
    """Fill every text of a header, each with one of the worst (as long as it may be)."""
    texts = [WORST[(number + shift) % len(WORST)] for shift in range(len(WORST))]
    short = [text[:200] for text in texts]
    return toy_header(
        base_name=short[0],
        base_fingerprint=short[1],
        concepts=(Taught(short[2], "<my|`*dog>", short[3], 1, tuple(texts)), Taught(short[4])),
        targets=(short[5],),
        versions={short[6]: short[7]},
        pairs={texts[8]: short[9]},
        training={texts[10]: texts[11], "device": texts[12], "loss": 0.5},
        recipe={"train": {"optimizer": texts[13], "seed": texts[0]}},
    )


class Tags(HTMLParser):
    """The tags of a page, in order, with their links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def rendered(text: str) -> Tags:
    """Render Markdown as hubs do: with HTML, tables, strikethrough and links of bare addresses."""
    library = pytest.importorskip("markdown_it")
    rules = library.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Tags(rules.render(text))


@pytest.mark.parametrize("text", WORST, ids=lambda text: repr(text)[:20])
def test_text_stays_text_in_each_place(text: str) -> None:
    for place in ("{}", "# {}", "- {}", "a {} b", "| x |\n| --- |\n| {} |", "**{}**"):
        before = rendered(place.format("x")).tags
        assert rendered(place.format(markdown(text))).tags == before, place
        shown = code(text, cell="|" in place)
        assert rendered(place.format(shown)).tags == [*before, "code"], place
    assert rendered(f"{fenced(text)}\n\nx").tags == ["pre", "code", "p"]
    for shown in (visible(text), markdown(text), code(text), fenced(text).replace("\n", "")):
        assert not CONTROLS.search(shown)
        assert "\n" not in shown
    assert not re.search(r"(?i)(?<!\\):\S|www\.", markdown(text))  # nothing for auto-linkers


@pytest.mark.parametrize("number", range(len(WORST)))
def test_model_cards_hold_the_worst_as_text(number: int) -> None:
    header = worst(number)
    shown = [CardPicture("images/preview.png", WORST[number])]
    card = card_text(
        header,
        "a b$(id).safetensors",
        pictures=shown,
        scores={WORST[number]: 0.5},
        files=[WORST[number].replace("/", "")],
    )
    head, body = re.fullmatch(r"---\n(.*?\n)---\n(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    front = yaml.safe_load(head)
    assert set(front) <= {
        *("license", "library_name", "pipeline_tag", "instance_prompt", "tags", "widget"),
        *("base_model", "base_model_relation"),
    }
    assert front["license"] == "unknown"
    assert not CONTROLS.search(card)
    usual = card_text(
        plainly(header),
        "a.safetensors",
        pictures=[CardPicture("images/preview.png", "x")],
        scores={"x": 0.5},
        files=["x"],
    )
    tags, plain = rendered(body), rendered(usual.split("---\n", 2)[2])
    assert [tag for tag in tags.tags if tag != "code"] == [
        tag for tag in plain.tags if tag != "code"
    ]
    assert tags.links == ["images/preview.png"]
    (command,) = re.findall(r"^customize .*$", body, re.MULTILINE)
    words = shlex.split(command)
    assert words[:2] == ["customize", "edit"]
    assert visible(" ".join(header.concepts[0].instructions[0].split())) in words
    assert "a b$(id).safetensors" in words


def plainly(header: Header) -> Header:
    """Replace every text that is shown by a plain one: the structure a card should have."""
    first = header.concepts[0]
    first = replace(first, name="x", instructions=("x",) * len(first.instructions))
    concepts = (first, Taught("x"))
    return replace(header, concepts=concepts, base_name="x", versions={"x": "x"})


def test_commands_print_the_worst_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"words.text_encoder.<my|`*dog>": torch.ones(1, 4)}
    for number in range(len(WORST)):
        save_adapter(path, worst(number), tensors, overwrite=True)
        for command in (["inspect", str(path)], ["export", str(path), "--to", "kohya"],
                        ["edit", "x.png", "hi", "-a", str(path)]):  # fmt: skip
            assert main(command) in (0, 2)
            captured = capsys.readouterr()
            assert not CONTROLS.search(captured.out + captured.err)
            assert not re.search(r"^customize: all is well", captured.out, re.MULTILINE)
    name = "lora_unet_x\x1b[31m.lora_up.weight"
    save_file({name: torch.ones(1)}, path, {"ss_output_name": WORST[10]})
    assert main(["inspect", str(path)]) == 2
    assert not CONTROLS.search(capsys.readouterr().err)
    save_file({"lora_unet_conv_in.diff": torch.ones(4, 8, 3, 3)}, path, {"ss_a": WORST[10]})
    assert main(["inspect", str(path)]) == 0
    assert not CONTROLS.search(capsys.readouterr().out)


def test_settings_in_pictures_are_printed_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, text in enumerate([json.dumps({t: [t, {t: t}] for t in WORST}), "[" * 10**5, "{"]):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("customize", text)
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (4, 4)).save(path, pnginfo=chunks)
        assert main(["inspect", str(path)]) == (2 if number else 0)
        captured = capsys.readouterr()
        assert not CONTROLS.search(captured.out + captured.err)


def test_html_reports_and_sheets_hold_the_worst_as_text(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    items = tuple(
        Item(picture, text, picture, picture, text, text, concept=text, name=text) for text in WORST
    )
    rows: list[Any] = [{} for _ in items]
    scored = [Scored(text[:300], items, Scores(tuple(rows))) for text in WORST[:3]]
    page = write_score_report(tmp_path / "r.html", scored, WORST[0], WORST).read_text("utf-8")
    tags = Tags(page)
    assert not {"script", "a", "iframe", "b2"} & set(tags.tags)
    assert all(link.startswith("data:image/") for link in tags.links)
    contact_sheet([[picture, text] for text in WORST], (WORST[1], WORST[9]))
    heat_map(WORST, WORST, [[0.5] * len(WORST)] * len(WORST))
    assert not CONTROLS.search(table([[text, text] for text in WORST], width=80))


def test_exports_and_their_readme_hold_the_worst_as_text(tmp_path: Path) -> None:
    base = toy_resolved(tmp_path / "base")
    from customize.adapters.file import AdapterFile

    for number in (0, 6, 9):
        header = replace(worst(number), family=base.family, base_fingerprint=base.fingerprint)
        tensors = {"words.text_encoder.<my|`*dog>": torch.ones(1, 16)}
        folder = tmp_path / str(number)
        made = export_all(AdapterFile(header, tensors), base, folder, verify=False)
        text = made.guide.read_text("utf-8")
        assert not CONTROLS.search(text)
        assert not {"script", "img", "a", "em"} & set(rendered(text).tags)
        for path in folder.rglob("*"):
            assert folder in path.resolve().parents
            assert re.fullmatch(r"[\w.-]+", path.name), path.name
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
