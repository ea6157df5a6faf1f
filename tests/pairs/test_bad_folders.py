"""Each kind of bad pairs folder gives one clear message that names the file and the cure."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from builders.pairs import flymyai, numbered, ours, put, put_pairs, put_rows, scene, start_end
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customize.errors import PairsError
from customize.pairs.find import find_pairs
from customize.pairs.lint.lint_pairs import lint


class Bad(NamedTuple):
    """A kind of bad folder: how to build it, and what the one message must name and advise."""

    build: Callable[[Path], Path | None]
    place: str
    cure: str


def table(*rows: object, name: str = "pairs.jsonl") -> Callable[[Path], None]:
    """Return the builder of a folder with pictures s/0.png .. t/2.png and these lines."""

    def build(folder: Path) -> None:
        ours(folder)
        (folder / "pairs.jsonl").unlink()
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        put(folder / name, "\n".join(lines))

    return build


def row(**changes: object) -> dict[str, object]:
    good = {"source": "s/0.png", "instruction": "make it red", "edited": "t/0.png"}
    return {key: value for key, value in {**good, **changes}.items() if value != "absent"}


def with_source(content: bytes | Image.Image, name: str = "0.png", **options: Any):
    """Return the builder of a good folder whose first source is this file instead."""

    def build(folder: Path) -> None:
        ours(folder)
        (folder / "s/0.png").unlink()
        put(folder / "s" / name, content, **options)
        text = (folder / "pairs.jsonl").read_text().replace("s/0.png", f"s/{name}")
        (folder / "pairs.jsonl").write_text(text)

    return build


def after(make: Callable[..., Path], *stems: str, remove: str = "", add: str = ""):
    """Return the builder of a good folder from which one file is taken or to which one is added."""

    def build(folder: Path) -> None:
        make(folder, *stems)
        if remove:
            (folder / remove).unlink()
        if add:
            put(folder / add, "make it red" if add.endswith(".txt") else 9)

    return build


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def giant() -> bytes:
    """Return a PNG of a few bytes whose header says 60000x60000."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def text_file(name: str, text: str | bytes) -> Callable[[Path], Path]:
    return lambda folder: put(folder / name, text)


def text_folder(name: str) -> Callable[[Path], Path]:
    return lambda folder: put(folder / name, "hi").parent


def musubi(text: str) -> Callable[[Path], Path]:
    return lambda folder: put(put_pairs(folder, "1") / "dataset.toml", text)


def two_tables(folder: Path) -> None:
    put_rows(folder / "metadata.jsonl", {})
    put(folder / "metadata.csv", "file_name\n")


def no_images_in(folder: Path) -> None:
    put_pairs(folder, "1", sources="control", targets="elsewhere")


def two_sources(folder: Path) -> None:
    flymyai(folder, "1")
    put(folder / "control/1.jpg", 5)


def seeds_not_listed(folder: Path) -> None:
    put(numbered(folder, "01") / "seeds.json", json.dumps([["01", ["77"]], ["02", ["5"]]]))


def identical(folder: Path) -> None:
    ours(folder)
    (folder / "t/0.png").write_bytes((folder / "s/0.png").read_bytes())


FRAMES = [scene(1), scene(2)]
DAMAGED_PNG = encoded(scene(), "PNG")[:60] + b"\0" * 40
FLOATS = Image.fromarray(np.zeros((20, 20), np.float32))
BAD: dict[str, Bad] = {
    "no such path": Bad(lambda f: f / "dgo", "dgo", "fix the path"),
    "empty folder": Bad(lambda f: None, "", "expected pairs.jsonl"),
    "file of something else": Bad(text_file("notes.md", "hi"), "notes.md", "neither a folder"),
    "folder of something else": Bad(text_folder("notes.md"), "", "expected pairs.jsonl"),
    "one picture": Bad(lambda f: put(f / "dog.png"), "dog.png", "give the folder"),
    "an archive": Bad(text_file("dog.zip", b"PK"), "dog.zip", "unpack"),
    "parquet": Bad(text_file("train.parquet", b"PAR1"), "train.parquet", "metadata.jsonl"),
    "two tables": Bad(two_tables, "metadata.csv", "keep one"),
    "empty table": Bad(table(), "pairs.jsonl", "one row for each pair"),
    "line not JSON": Bad(table(row(), "{source:"), "pairs.jsonl:2", "one JSON object"),
    "line not an object": Bad(table(row(), "[1]"), "pairs.jsonl:2", "one JSON object"),
    "table not UTF-8": Bad(text_file("pairs.jsonl", b'{"a": "\xff"}'), "pairs.jsonl", "UTF-8"),
    "unknown columns": Bad(table({"a": 1, "b": 2}), "pairs.jsonl", "source, instruction, edited"),
    "misspelt column": Bad(table(row(wieght=2)), "pairs.jsonl:1", "did you mean 'weight'"),
    "column missing": Bad(table(row(edited="absent")), "pairs.jsonl", "add edited"),
    "cell missing": Bad(table(row(), row(edited=None)), "pairs.jsonl:2", "path of one picture"),
    "instruction missing": Bad(
        table(row(), row(instruction=" ")), "pairs.jsonl:2", "`instruction`"
    ),
    "instruction a number": Bad(table(row(instruction=3)), "pairs.jsonl:1", "`instruction`"),
    "several sources": Bad(table(row(source=["s/0.png", "s/1.png"])), "pairs.jsonl:1", "keep one"),
    "bad weight": Bad(table(row(weight="heavy")), "pairs.jsonl:1", "number above 0"),
    "negative weight": Bad(table(row(weight=-1)), "pairs.jsonl:1", "number above 0"),
    "picture missing": Bad(table(row(source="s/0.PNG")), "pairs.jsonl:1", "did you mean '0.png'"),
    "folder missing": Bad(table(row(source="x/0.png")), "pairs.jsonl:1", "/x does not exist"),
    "picture is a folder": Bad(table(row(source="s")), "pairs.jsonl:1", "one picture file"),
    "web address": Bad(table(row(source="https://a.b/c.png")), "pairs.jsonl:1", "download"),
    "broken CSV": Bad(
        table(
            "file_name,edited_image,edit_prompt", "s/0.png,t/0.png,red,white", name="metadata.csv"
        ),
        "metadata.csv:2",
        "quotes",
    ),
    "JSON table cut short": Bad(
        table('[{"image": ', name="metadata.json"), "metadata.json", "list"
    ),
    "source missing": Bad(
        after(flymyai, "a", "b", remove="control/b.png"), "images/b.png", "control/b"
    ),
    "text missing": Bad(after(flymyai, "a", "b", remove="images/b.txt"), "images/b.png", "b.txt"),
    "text empty": Bad(
        lambda f: put(flymyai(f, "a") / "images/a.txt", " \n").parents[1], "images/a.txt", "write"
    ),
    "text alone": Bad(after(flymyai, "a", add="images/aa.txt"), "images/aa.txt", "rename"),
    "target missing": Bad(after(flymyai, "a", add="control/a1.png"), "control/a1.png", "images/a1"),
    "twin stems": Bad(two_sources, "1.jpg and 1.png", "rename one"),
    "no targets folder": Bad(no_images_in, "control", "images"),
    "nested pictures": Bad(after(flymyai, "a", add="images/more/b.png"), "images/more", "move"),
    "HEIC among them": Bad(
        lambda f: put(flymyai(f, "a") / "images/b.heic", b"x").parents[1], "images/b.heic", "PNG"
    ),
    "end missing": Bad(after(start_end, "a", "b", remove="b_end.png"), "b_start.png", "b_end"),
    "neither start nor end": Bad(after(start_end, "a", add="b.png"), "b.png", "ROOT_start"),
    "seed missing": Bad(after(numbered, "01", remove="01/77_1.jpg"), "01", "77_1"),
    "prompt missing": Bad(
        after(numbered, "01", "02", remove="02/prompt.json"), "02/prompt.json", "edit"
    ),
    "listed folder missing": Bad(seeds_not_listed, "02", "seeds.json"),
    "bad seeds.json": Bad(
        lambda f: put(numbered(f, "01") / "seeds.json", '{"01": 3}').parent,
        "seeds.json",
        "expected",
    ),
    "broken TOML": Bad(musubi("[[datasets\n"), "dataset.toml", "at line 1"),
    "TOML folder missing": Bad(
        musubi('[[datasets]]\nimage_directory = "t"\ncontrol_directory = "x"\n'),
        *("dataset.toml, data set 1", "relative to this file"),
    ),
    "TOML without sources": Bad(
        musubi('[[datasets]]\nimage_directory = "t"\n'),
        "dataset.toml, data set 1",
        "control_directory",
    ),
    "YAML of something else": Bad(
        text_file("train.yaml", "steps: 3"), "train.yaml", "[[datasets]]"
    ),
    "empty picture": Bad(with_source(b""), "s/0.png", "copy the picture again"),
    "text named png": Bad(with_source(b"hello"), "s/0.png", "PNG or JPEG"),
    "web page named png": Bad(with_source(b"<!DOCTYPE html><p>"), "s/0.png", "download"),
    "Git LFS pointer": Bad(
        with_source(b"version https://git-lfs.com/1"), "s/0.png", "git lfs pull"
    ),
    "HEIC named jpg": Bad(with_source(b"\0\0\0\x18ftypheic", "0.jpg"), "s/0.jpg", "convert"),
    "cut short": Bad(
        with_source(encoded(scene(size=(300, 300)), "JPEG")[:2000], "0.jpg"), "s/0.jpg", "again"
    ),
    "damaged": Bad(with_source(DAMAGED_PNG), "s/0.png", "again"),
    "animated": Bad(
        with_source(encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "0.gif"),
        *("s/0.gif", "save the one you mean"),
    ),
    "several pages": Bad(
        with_source(encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "0.tif"),
        *("s/0.tif", "save the one you mean"),
    ),
    "floating point": Bad(with_source(FLOATS, "0.tif"), "s/0.tif", "8 or 16 bits"),
    "far too large": Bad(with_source(giant()), "s/0.png", "shrink"),
    "other shape": Bad(with_source(scene(size=(40, 48))), "pairs.jsonl:1", "crop both"),
    "target equals source": Bad(identical, "pairs.jsonl:1", "edited picture"),
}


def errors_of(path: Path) -> list[str]:
    """Return the faults of finding the pairs, else the lint's errors."""
    try:
        pairs = find_pairs(path).pairs
    except PairsError as error:
        return [str(fault) for fault in error.faults]
    findings = lint(pairs, resolution=32)
    return [str(finding) for finding in findings if finding.level == "error"]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_folder_gives_one_clear_message(tmp_path: Path, kind: str) -> None:
    path = BAD[kind].build(tmp_path)
    errors = errors_of(path if path is not None and path != tmp_path else tmp_path)
    assert len(errors) == 1, errors
    message = errors[0].replace(str(tmp_path), "")
    assert BAD[kind].place in message
    assert BAD[kind].cure in message
    assert "Traceback" not in message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
COLUMNS = [
    "source",
    "instruction",
    "edited",
    "weight",
    "image",
    "edit_image",
    "prompt",
    "file_name",
]
NAMES = ["pairs.jsonl", "metadata.json", "metadata.csv", "seeds.json", "d.toml", "a.yaml"]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.lists(st.dictionaries(st.sampled_from(COLUMNS), JSON_VALUES), max_size=3).map(json.dumps)
    | JSON_VALUES.map(json.dumps)
    | st.text(max_size=60)
    | st.binary(max_size=60),
)
def test_no_content_of_a_table_raises_anything_but_pairs_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: str | bytes
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    for path in {folder, put(folder / name, data)}:
        with pytest.raises(PairsError, match="fault"):
            find_pairs(path)


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(BAD) >= 30


def test_the_good_folders_they_are_made_from_are_good(tmp_path: Path) -> None:
    makers = (
        ours,
        lambda f: flymyai(f, "a"),
        lambda f: start_end(f, "a"),
        lambda f: numbered(f, "01"),
    )
    for number, make in enumerate(makers):
        (tmp_path / str(number)).mkdir()
        assert errors_of(make(tmp_path / str(number))) == []
