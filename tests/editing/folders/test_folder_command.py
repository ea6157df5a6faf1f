"""`edit-folder` does what can be done, names what cannot, and goes on where it was stopped."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from builders.bases import toy_base
from builders.nursery import Child, Nursery
from builders.pairs import put, scene
from PIL import Image, ImageCms

from customize.cli.main import main
from customize.editing.edited_picture import read_settings
from customize.editing.folders.manifest import MANIFEST
from customize.editing.folders.page import PAGE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base"))


def edit(base: Path, what: Path | str, out: Path, *more: str, text: str = "make it red") -> int:
    texts = [text] if text else []
    fixed = ["--base", str(base), "--steps", "1", "--device", "cpu", "-o", str(out)]
    return main(["edit-folder", str(what), *texts, *fixed, *more])


def contents(folder: Path) -> dict[str, bytes]:
    """Return all answers of a run by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".png", ".jpg", ".webp") and path.is_file()
    }


def answers(folder: Path) -> int:
    """Count the answers of a run."""
    return sum(path.suffix == ".png" for path in folder.glob("*"))


def test_names_folders_sizes_and_kinds_are_kept(base: Path, tmp_path: Path) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    sizes = {"a.png": (40, 32), "sub/b.jpg": (48, 40), "sub/c.webp": (33, 64), "d.bmp": (20, 20)}
    for number, (name, size) in enumerate(sizes.items()):
        (shots / name).parent.mkdir(parents=True, exist_ok=True)
        scene(number, size).save(shots / name)
    (shots / "notes.txt").write_text("not a picture")
    assert edit(base, shots, out) == 0
    names = {"a.png": "a.png", "d.bmp": "d.png"}
    found = contents(out)
    assert found.keys() == {names.get(name, name) for name in sizes}
    for name, size in sizes.items():
        with Image.open(out / names.get(name, name)) as answer:
            assert answer.size == size
    settings = read_settings(out / "a.png")
    assert settings is not None
    assert (settings["noise"], settings["fast"]) == ("field", False)
    page = (out / PAGE).read_text()
    assert page.count("<figure>") == 4
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_goes_on_and_makes_anew_only_what_changed(base: Path, tmp_path: Path) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    for number in range(5):
        put(shots / f"{number}.png", number)
    assert edit(base, shots, out) == 0
    first, times = contents(out), {p: p.stat().st_mtime_ns for p in out.glob("*.png")}
    (out / "3.png").unlink()
    put(shots / "1.png", 77)
    os.utime(shots / "2.png")  # a new time alone is no change
    assert edit(base, shots, out) == 0
    second = contents(out)
    assert {name for name in first if first[name] != second[name]} == {"1.png"}
    made = {path.name for path, old in times.items() if path.stat().st_mtime_ns != old}
    assert made == {"1.png", "3.png"}
    assert edit(base, shots, out, text="make it blue") == 0
    third = contents(out)
    assert all(third[name] != second[name] for name in second)
    assert edit(base, shots, tmp_path / "anew", text="make it blue") == 0
    assert contents(tmp_path / "anew") == third


def test_files_of_others_are_not_replaced(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    for number in range(2):
        put(shots / f"{number}.png", number)
    mine = put(out / "1.png", 9).read_bytes()
    assert edit(base, shots, out) == 1
    assert (out / "1.png").read_bytes() == mine
    assert "--overwrite" in capsys.readouterr().out
    assert edit(base, shots, out, "--overwrite") == 0
    assert (out / "1.png").read_bytes() != mine


@pytest.mark.parametrize("name", [PAGE, "sheet_1.jpg", "0.mask1.png"])
def test_a_page_sheets_and_masks_take_nobody_s_place(
    base: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    put(shots / "0.png", 0)
    out.mkdir()
    (out / name).write_bytes(b"mine")
    texts = tmp_path / "texts.txt"
    texts.write_text("make it red\nmake it blue\n")
    grid = ["--instructions", str(texts)] if name.startswith("sheet") else ["--mask", "auto"]
    text = "" if name.startswith("sheet") else "make it red"
    for more in ((), ("--overwrite",)):
        assert edit(base, shots, out, *grid, *more, text=text) == (1 if "mask" in name else 2)
        assert name in "".join(capsys.readouterr())
        assert (out / name).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("shots", "it is the folder of the pictures"),
        ("base/out", "it lies in the base"),
        ("base", "it is the base"),
        (".", "it holds the pictures to edit"),
        ("pairs/out", "it lies in the pairs"),
    ],
)
def test_an_output_keeps_away_from_what_is_read(
    base: Path, tmp_path: Path, output: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "shots" / "0.png", 0)
    put(tmp_path / "pairs" / "0_before.png", 1)
    (tmp_path / "pairs" / "pairs.jsonl").write_text("{}")
    (tmp_path / "base").symlink_to(base)
    assert edit(tmp_path / "base", tmp_path / "shots", tmp_path / output) == 2
    assert found in capsys.readouterr().err
    assert contents(tmp_path) == {
        "shots/0.png": (tmp_path / "shots" / "0.png").read_bytes(),
        "pairs/0_before.png": (tmp_path / "pairs" / "0_before.png").read_bytes(),
    }


def test_no_answer_replaces_a_picture_that_is_read(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shot = put(tmp_path / "shots" / "a" / "0.png", 0)
    before = shot.read_bytes()
    row = {"image": "shots/a/0.png", "output": "a/0.png", "instruction": "make it red"}
    (tmp_path / "table.jsonl").write_text(json.dumps(row) + "\n")
    table, out = tmp_path / "table.jsonl", tmp_path / "shots"
    assert edit(base, table, out, "--overwrite", text="") == 2
    assert "would replace what is read" in " ".join(capsys.readouterr().err.split())
    assert shot.read_bytes() == before


def test_a_full_disk_is_one_message_and_loses_nothing(
    base: Path, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        put(tmp_path / "shots" / f"{number}.png", number)
    out = small_disk / "out"
    (small_disk / "rest").write_bytes(bytes(2 * 2**20 - 16384))
    assert edit(base, tmp_path / "shots", out) == 2
    assert str(small_disk) in capsys.readouterr().err
    assert not list(out.glob(".customize-*.tmp"))
    (small_disk / "rest").unlink()
    assert edit(base, tmp_path / "shots", out) == 0
    assert edit(base, tmp_path / "shots", tmp_path / "whole") == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_killed_runs_end_like_one_that_was_not(
    base: Path, tmp_path: Path, nursery: Nursery
) -> None:
    shots = tmp_path / "shots"
    count = 64  # enough to be left after the last kill, however late it comes
    for number in range(count):
        put(shots / f"{number:02}.png", number)

    def start(name: str) -> Child:
        words = ["edit-folder", str(shots), "make it red", "--base", str(base), "--steps", "2"]
        words += ["--device", "cpu", "--at-once", "4", "-o", str(tmp_path / name)]
        program = f"import sys; from customize.cli.main import main; sys.exit(main({words}))"
        return nursery.start(program, tmp_path / "log.txt")

    for expected in (3, 9, 17):
        child = start("killed")
        while child.returncode() is None and answers(tmp_path / "killed") < expected:
            time.sleep(0.005)
        child.kill(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert len(contents(tmp_path / "killed")) < count
    for name in ("killed", "whole"):
        assert start(name).wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) == count
    assert not list((tmp_path / "killed").glob(".*.tmp"))


def test_bad_inputs_are_named_and_the_rest_is_done(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shots = tmp_path / "shots"
    good = scene(1, (40, 32))
    png = io.BytesIO()
    good.save(png, "PNG")
    put(shots / "good.png", 1)
    put(shots / "text.png", "hello")
    put(shots / "cut.png", png.getvalue()[:200])
    put(shots / "empty.png", b"")
    Image.new("RGB", (1, 1)).save(shots / "dot.png")
    Image.new("1", (20000, 20000)).save(shots / "giant.png")
    frames = [scene(n, (20, 20)) for n in range(3)]
    frames[0].save(shots / "moving.gif", save_all=True, append_images=frames[1:])
    sixteen = np.random.default_rng(0).integers(0, 65536, (20, 20)).astype(np.uint16)
    Image.fromarray(sixteen).save(shots / "sixteen.png")
    good.convert("CMYK").save(shots / "print.jpg")
    put(shots / "folder.png" / "inside.png", 2)
    put(shots / "twin.png", 3)
    good.save(shots / "twin.jpg")
    put(shots / "naïve ünïcode 犬.png", 4)
    put(shots / "two\nlines.png", 5)
    (shots / "loop.png").symlink_to(shots / "loop.png")
    (shots / "around").symlink_to(shots, target_is_directory=True)
    put(shots / "phone.heic", b"....ftypheic")
    out = shots / "out"
    assert edit(base, shots, out, "--format", "webp") == 1
    told = capsys.readouterr().out
    bad = ("text.png", "cut.png", "empty.png", "giant.png", "moving.gif", "loop.png", "around")
    for name in (*bad, "phone.heic"):
        assert sum(line.startswith(name) for line in told.splitlines()) == 1, name
    assert "not edited: 8" in told
    assert "16 bits a channel brought to 8" in told
    assert "CMYK brought to sRGB" in told
    assert contents(out).keys() == {
        *("good.webp", "dot.webp", "sixteen.webp", "print.webp", "folder.png/inside.webp"),
        *("twin.png.webp", "twin.jpg.webp", "naïve ünïcode 犬.webp", "two\nlines.webp"),
    }
    # The output lies inside the input: a second run must not edit its own answers.
    assert edit(base, shots, out, "--format", "webp") == 1
    assert "none made" in capsys.readouterr().out
    page = (out / PAGE).read_text()
    assert "two\\nlines.webp" in page
    assert page.count("<tr>") == 8


def test_no_right_to_read(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = tmp_path / "shots"
    put(shots / "a.png", 0)
    put(shots / "locked.png", 1)
    own = Image.open

    def opened(path: object, *more: object) -> Image.Image:
        if str(path).endswith("locked.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return own(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", opened)
    assert edit(base, shots, tmp_path / "out") == 1
    assert contents(tmp_path / "out").keys() == {"a.png"}


def test_a_full_disk_stops_the_run_and_loses_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    for number in range(4):
        put(shots / f"{number}.png", number)
    own, written = Path.write_bytes, list[Path]()

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 3:
            own(path, content[:10])
            raise OSError(28, "No space left on device", str(path))
        return own(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert edit(base, shots, out, "--at-once", "1") == 2
    assert "is full" in capsys.readouterr().err
    assert contents(out).keys() == {"0.png", "1.png"}
    monkeypatch.undo()
    assert edit(base, shots, out, "--at-once", "1") == 0
    assert contents(out).keys() == {"0.png", "1.png", "2.png", "3.png"}


def test_tables(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "a.png", 0)
    put(tmp_path / "b.png", 1)
    Image.new("L", scene().size, 255).save(tmp_path / "white.png")
    Image.new("L", (10, 90), 255).save(tmp_path / "tall.png")
    rows = [
        {"image": "a.png", "instruction": ["make it red", "add the hat"], "output": "x/1.png"},
        {"image": "a.png", "seed": 3, "mask": "white.png", "output": "2.png"},
        {"image": "b.png", "text_guidance": 2, "image_guidance": 1.5, "region": "1,2,10,10"},
        {"image": "c.png"},
        {"image": "b.png", "mask": "gone.png", "output": "4.png"},
        {"image": "b.png", "mask": "tall.png", "output": "5.png"},
        {"image": "b.png", "seed": "many", "output": "6.png"},
        {"image": "b.png", "output": "../7.png"},
        {"image": "b.png", "output": "x/1.png"},
    ]
    table = tmp_path / "edits.jsonl"
    table.write_text("\n".join([*map(json.dumps, rows), "no json"]) + "\n")
    assert edit(base, table, tmp_path / "out") == 1
    told = capsys.readouterr().out
    for number in range(4, 11):
        assert sum(f"edits.jsonl:{number}" in line for line in told.splitlines()) == 1, number
    assert contents(tmp_path / "out").keys() == {"x/1.png", "2.png", "b.png"}
    settings = read_settings(tmp_path / "out" / "x" / "1.png")
    assert settings is not None
    assert (settings["earlier"], settings["instruction"]) == (["make it red"], "add the hat")
    put(tmp_path / "wrong.csv", "image,instuction\na.png,make it red\n")
    assert edit(base, tmp_path / "wrong.csv", tmp_path / "none") == 2
    assert "'instruction'?" in capsys.readouterr().err  # the terminal may wrap the rest
    assert not (tmp_path / "none").exists()
    put(tmp_path / "chain.csv", "image,instruction\na.png,make it red | add the hat\n")
    assert edit(base, tmp_path / "chain.csv", tmp_path / "chain", text="") == 0
    settings = read_settings(tmp_path / "chain" / "a.png")
    assert settings is not None
    assert settings["earlier"] == ["make it red"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["shots", "make it red", "-o", "shots"], "folder of the pictures"),
        (["shots"], "no instruction"),
        (["none", "make it red"], "no pictures there"),
        (["shots", "make it red", "--mask", "auto", "--region", "1,1,2,2"], "leave one out"),
        (["shots", "make it red", "--region", "1,1,0,2"], "four whole numbers"),
        (["shots", "make it red", "--strengths", "0.5,1"], "--adapter"),
        (["shots", "make it red", "--strengths", "a"], "0.4,0.7,1.0"),
        (["shots", "make it red", "--quality", "0"], "1 to 100"),
        (["shots", "shots/0.png", "make it red"], "in quotes"),
        (["shots", "make it red", "--steps", "0"], "1 to 1000"),
    ],
)
def test_requests_that_cannot_be(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "shots" / "0.png", 0)
    assert main(["edit-folder", *arguments, "--base", str(base), "--device", "cpu"]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["shots"]


def test_two_runs_and_damaged_manifests(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from customize.editing.folders.manifest import opened_manifest

    shots, out = tmp_path / "shots", tmp_path / "out"
    put(shots / "0.png", 0)
    put(shots / "1.png", 1)
    with opened_manifest(out / MANIFEST, None, 4):
        assert edit(base, shots, out) == 2
    assert "it is in use by" in capsys.readouterr().err
    assert edit(base, shots, out) == 0
    whole = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(whole[:-20])  # a kill in the middle of a line
    assert edit(base, shots, out, "--overwrite") == 0
    assert (out / MANIFEST).read_text().count("\n") == 3
    (out / MANIFEST).write_text("what is this\n")
    assert edit(base, shots, out) == 2
    assert f"{MANIFEST}:1" in capsys.readouterr().err


def test_colours_metadata_and_transparency_are_kept(base: Path, tmp_path: Path) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    shots.mkdir()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    scene(0, (40, 32)).save(shots / "photo.jpg", exif=exif, icc_profile=profile)
    clear = scene(1, (32, 32)).convert("RGBA")
    alpha = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1)))
    clear.putalpha(alpha)
    clear.save(shots / "clear.png")
    assert edit(base, shots, out) == 0
    with Image.open(out / "photo.jpg") as photo:
        assert photo.size == (32, 40)
        assert photo.getexif().get(0x0112) is None
        assert photo.getexif()[0x010F] == "a camera"
        assert photo.info["icc_profile"] == profile
    with Image.open(out / "clear.png") as answer:
        assert answer.mode == "RGBA"
        assert answer.getchannel("A").tobytes() == alpha.tobytes()


def test_grids_and_sheets(base: Path, tmp_path: Path) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    for number in range(3):
        put(shots / f"{number}.png", number)
    put(tmp_path / "texts.txt", "make it red\n\nadd the hat\n")
    assert edit(base, shots, out, "--instructions", str(tmp_path / "texts.txt"), text="") == 0
    names = {
        f"{folder}/{n}.png" for folder in ("01 make-it-red", "02 add-the-hat") for n in range(3)
    }
    assert contents(out).keys() == names | {"sheet_1.jpg"}
    alone = tmp_path / "alone"
    assert edit(base, shots, alone, text="add the hat") == 0
    for number in range(3):
        with (
            Image.open(out / "02 add-the-hat" / f"{number}.png") as one,
            Image.open(alone / f"{number}.png") as other,
        ):
            # sampled with others in the grid: some CPUs round the last bit otherwise then
            apart = np.asarray(one, dtype=int) - np.asarray(other)
            assert np.abs(apart).max() <= 1


def test_masks_keep_what_is_outside(base: Path, tmp_path: Path) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    for number in range(3):
        shots.mkdir(exist_ok=True)
        scene(number, (80, 64)).save(shots / f"{number}.png")
    assert edit(base, shots, out, "--region", "10,8,40,30", "--detail", "keep") == 0
    assert edit(base, shots, tmp_path / "auto", "--mask", "auto") == 0
    for number in range(3):
        source = np.asarray(Image.open(shots / f"{number}.png"))
        answer = np.asarray(Image.open(out / f"{number}.png"))
        outside = np.ones(source.shape[:2], bool)
        outside[8:38, 10:50] = False
        assert (answer[outside] == source[outside]).all()
        assert (answer[~outside] != source[~outside]).any()
        mask = Image.open(tmp_path / "auto" / f"{number}.mask1.png")
        black = np.asarray(mask.convert("L").resize((80, 64), Image.Resampling.LANCZOS)) == 0
        answer = np.asarray(Image.open(tmp_path / "auto" / f"{number}.png"))
        assert (answer[black] == source[black]).all()


def test_fast_says_what_it_costs(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "shots" / "0.png", 0)
    assert edit(base, tmp_path / "shots", tmp_path / "out", "--fast") == 0
    assert re.search(r"fast: \d+\.\d dB to exact .* as fast", capsys.readouterr().out)
    settings = read_settings(tmp_path / "out" / "0.png")
    assert settings is not None
    assert settings["fast"]


def test_where_nothing_can_be_edited_nothing_is_written(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots, out = tmp_path / "shots", tmp_path / "out"
    put(shots / "a.png", "no picture")
    put(shots / "b.png", b"")
    assert edit(base, shots, out) == 2
    told = capsys.readouterr().err
    assert "2 faults" in told
    assert "an empty file" in told
    put(shots / "b.png", 1)
    put(tmp_path / "mask.png", "no picture")
    for mask in ("mask.png", "gone.png", "shots"):
        assert edit(base, shots, out, "--mask", str(tmp_path / mask)) == 2
        assert "1 fault" in capsys.readouterr().err
    assert not out.exists()
    assert edit(base, shots, out) == 1  # what can be done is
