"""Every layout on disk gives the same pairs, and is named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders.pairs import flymyai, numbered, ours, put, put_pairs, put_rows, start_end

from customize.errors import PairsError
from customize.pairs.find import find_pairs

STEMS = ("image1", "image2", "image10")
HUGGING_FACE_COLUMNS = [
    ("file_name", "edited_image_file_name", "edit_prompt"),
    ("input_image", "edited_image", "edit_prompt"),
    ("original_image", "edited_image", "edit_prompt"),
    ("input_image_file_name", "edited_image_file_name", "edit_prompt"),
    ("source_img", "target_img", "instruction"),
]


def stems_of(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the layout's name and the stems of each pair, after checking the instruction."""
    found = find_pairs(path)
    assert {pair.instruction for pair in found.pairs} == {"make it red"}
    assert all(pair.source.is_file() and pair.target.is_file() for pair in found.pairs)
    assert all(pair.source != pair.target and pair.place for pair in found.pairs)
    return found.layout, [(pair.source.stem, pair.target.stem) for pair in found.pairs]


def rows(source: str, target: str, instruction: str) -> list[dict[str, str]]:
    return [
        {source: f"s/{stem}.png", target: f"t/{stem}.png", instruction: "make it red"}
        for stem in STEMS
    ]


SAME = [(stem, stem) for stem in STEMS]


def test_our_own_table_with_everything(tmp_path: Path) -> None:
    put_pairs(tmp_path, "1")
    row = {"source": ["s/1.png"], "instruction": " make\n it  red ", "edited": "t/1.png"}
    more = {"source_caption": "a dog", "edited_caption": "a red dog", "weight": 2}
    put_rows(tmp_path / "pairs.jsonl", {**row, **more})
    found = find_pairs(tmp_path)
    (pair,) = found.pairs
    assert found.layout == "customize table"
    assert pair.instruction == "make it red"
    assert (pair.source_caption, pair.target_caption) == ("a dog", "a red dog")
    assert (pair.weight, pair.place) == (2.0, "pairs.jsonl:1")


def test_a_table_is_found_by_its_own_path_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    ours(tmp_path)
    table = tmp_path / "pairs.jsonl"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(find_pairs(table).pairs) == 3


@pytest.mark.parametrize("columns", HUGGING_FACE_COLUMNS, ids=lambda columns: columns[0])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_hugging_face(tmp_path: Path, columns: tuple[str, str, str], suffix: str) -> None:
    put_pairs(tmp_path, *STEMS)
    table = tmp_path / f"metadata.{suffix}"
    if suffix == "jsonl":
        put_rows(table, *rows(*columns))
    else:
        with open(table, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows(*columns))
    assert stems_of(tmp_path) == ("Hugging Face imagefolder", SAME)


@pytest.mark.parametrize("seeds_json", [True, False])
def test_instruct_pix2pix(tmp_path: Path, seeds_json: bool) -> None:
    numbered(tmp_path, "0000001", "0000002", seeds_json=seeds_json)
    assert stems_of(tmp_path) == ("InstructPix2Pix numbered folders", [("77_0", "77_1")] * 2)
    assert find_pairs(tmp_path).pairs[0].source_caption == "a dog"


@pytest.mark.parametrize(
    ("targets", "sources"), [("targets", "control"), ("after", "before"), (".", "control")]
)
def test_ai_toolkit_folders(tmp_path: Path, targets: str, sources: str) -> None:
    put_pairs(tmp_path, *STEMS, sources=sources, targets=targets)
    for stem in STEMS:
        put(tmp_path / targets / f"{stem}.txt", "make it red\n")
    assert stems_of(tmp_path) == ("ai-toolkit folders", SAME)


def test_ai_toolkit_control_folder_beside_the_targets(tmp_path: Path) -> None:
    put_pairs(tmp_path, *STEMS, sources="dog_control", targets="dog")
    put(tmp_path / "dog/instruction.txt", "make it red")
    assert stems_of(tmp_path / "dog") == ("ai-toolkit folders", SAME)


@pytest.mark.parametrize("sources", ["s", "[s]"])
def test_ai_toolkit_config(tmp_path: Path, sources: str) -> None:
    put_pairs(tmp_path, *STEMS)
    data = f"{{folder_path: t, control_path: {sources}, default_caption: make it red}}"
    config = put(tmp_path / "a.yaml", f"config: {{process: [{{datasets: [{data}]}}]}}")
    assert stems_of(config) == ("ai-toolkit config", SAME)


def test_musubi_toml_with_folders_and_numbered_sources(tmp_path: Path) -> None:
    put_pairs(tmp_path, *STEMS)
    (tmp_path / "s/image2.png").rename(tmp_path / "s/image2_0.png")
    for stem in STEMS:
        put(tmp_path / f"t/{stem}.caption", "make it red")
    general = '[general]\ncaption_extension = ".caption"\n'
    section = '[[datasets]]\nimage_directory = "t"\ncontrol_directory = "s"\nnum_repeats = 3\n'
    put(tmp_path / "dataset.toml", general + section)
    assert stems_of(tmp_path) == (
        "musubi-tuner TOML",
        [("image1", "image1"), ("image2_0", "image2"), ("image10", "image10")],
    )
    assert {pair.weight for pair in find_pairs(tmp_path).pairs} == {3.0}


@pytest.mark.parametrize("source", ["control_path", "control_path_0"])
def test_musubi_jsonl_alone_and_from_toml(tmp_path: Path, source: str) -> None:
    put_pairs(tmp_path, *STEMS)
    table = put_rows(tmp_path / "m.jsonl", *rows(source, "image_path", "caption"))
    assert stems_of(tmp_path) == ("musubi-tuner JSONL", SAME)
    toml = put(tmp_path / "d.toml", f'[[datasets]]\nimage_jsonl_file = "{table.name}"\n')
    assert stems_of(toml) == ("musubi-tuner TOML", SAME)


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl"])
def test_diffsynth(tmp_path: Path, name: str, as_list: bool) -> None:
    put_pairs(tmp_path, *STEMS)
    listed = rows("edit_image", "image", "prompt")
    if as_list:
        listed = [{**row, "edit_image": [row["edit_image"]]} for row in listed]
    put(tmp_path / name, json.dumps(listed))
    assert stems_of(tmp_path) == ("DiffSynth metadata", SAME)


def test_diffusion_pipe(tmp_path: Path) -> None:
    put_pairs(tmp_path, *STEMS)
    for stem in STEMS:
        put(tmp_path / f"t/{stem}.txt", "make it red")
    put(tmp_path / "dataset.toml", '[[directory]]\npath = "t"\ncontrol_path = "s"\n')
    assert stems_of(tmp_path) == ("diffusion-pipe TOML", SAME)


def test_flymyai(tmp_path: Path) -> None:
    put(flymyai(tmp_path, *STEMS) / "images/._image1.png", b"macOS")
    assert stems_of(tmp_path) == ("FlyMyAI folders", SAME)


def test_start_and_end(tmp_path: Path) -> None:
    start_end(tmp_path, "a_b", "c")
    assert stems_of(tmp_path) == (
        "start and end pictures (fal)",
        [("a_b_start", "a_b_end"), ("c_start", "c_end")],
    )


def test_image1_never_pairs_image10(tmp_path: Path) -> None:
    flymyai(tmp_path, "image1", "image10")
    (tmp_path / "control/image1.png").unlink()
    (tmp_path / "images/image10.png").unlink()
    (tmp_path / "images/image10.txt").unlink()
    with pytest.raises(PairsError) as error:
        find_pairs(tmp_path)
    places = [fault.place for fault in error.value.faults]
    assert places == ["images/image1.png", "control/image10.png"]


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    put_pairs(tmp_path, "1")
    put_rows(
        tmp_path / "pairs.jsonl",
        {"source": "s/1.PNG", "instruction": "", "edited": "t/2.png"},
        {"source": "s/1.png", "instruction": "x", "edited": "t/1.png", "wieght": 1},
    )
    with pytest.raises(PairsError) as error:
        find_pairs(tmp_path)
    message = str(error.value)
    assert "(customize table): 4 faults" in message
    for part in ("did you mean '1.png'", "no instruction", "t/2.png does not", "mean 'weight'"):
        assert part in message


def test_pairs_need_no_torch(tmp_path: Path) -> None:
    modules = ("pairs.find", "pairs.decode", "pairs.buckets", "pairs.lint.lint_pairs")
    modules += ("drawing.contact_sheet",)
    imports = "; ".join(f"import customize.{module}" for module in modules)
    code = f"{imports}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
