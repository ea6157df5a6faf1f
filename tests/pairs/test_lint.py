"""The lint says each thing that may be wrong with pairs, and nothing about good ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.pairs import pair, put, scene
from PIL import Image, ImageDraw, ImageEnhance

from customize.errors import Fault
from customize.pairs.lint import pictures
from customize.pairs.lint.lint_pairs import lint
from customize.pairs.lint.pictures import Glance, SeenPair
from customize.shapes import Pair

SIZE = (64, 64)


def good(folder: Path, instruction: str = "make it <my-dog>", count: int = 3) -> list[Pair]:
    return [
        pair(folder, scene(2 * n, SIZE), scene(2 * n + 1, SIZE), instruction) for n in range(count)
    ]


def said(faults: Sequence[Fault], level: str = "warning") -> list[str]:
    return [str(fault) for fault in faults if fault.level == level]


def only(faults: Sequence[Fault]) -> str:
    assert len(faults) == 1, said(faults) + said(faults, "error")
    return f"{faults[0].level}: {str(faults[0]).removeprefix('warning: ')}"


def test_good_pairs_have_no_faults(tmp_path: Path) -> None:
    tokens = str.split
    pairs = good(tmp_path)
    assert lint(pairs, resolution=64, word="<my-dog>", tokenizer=tokens, most_tokens=22) == []


def test_no_pairs_and_few_pairs(tmp_path: Path) -> None:
    assert only(lint([], resolution=64)).startswith("error: pairs: none")
    found = only(lint(good(tmp_path, "make it red", 2), resolution=64))
    assert "only 2" in found


def test_an_unreadable_picture_is_an_error_said_once(tmp_path: Path) -> None:
    pairs = good(tmp_path, "make it red")
    broken = put(tmp_path / "broken.png", b"no")
    faults = lint([replace(p, source=broken) for p in pairs], resolution=64)
    assert [f.place for f in faults if f.level == "error"] == [str(broken)]


@pytest.mark.parametrize(
    ("size", "level", "part"),
    [
        ((128, 128), "warning", "scaled to the source"),
        ((64, 80), "error", "different shapes"),
    ],
)
def test_sizes_within_a_pair(tmp_path: Path, size: tuple[int, int], level: str, part: str) -> None:
    pairs = [*good(tmp_path, "make it red"), pair(tmp_path, scene(8, SIZE), scene(9, size))]
    found = only(lint(pairs, resolution=64))
    assert found.startswith(f"{level}: pair 3: source is 64x64, target {size[0]}x{size[1]}")
    assert part in found


@pytest.mark.parametrize(
    ("size", "part"),
    [((30, 30), "tiny: 30x30"), ((6100, 2100), "huge"), ((400, 100), "longer than 3 to 1")],
)
def test_tiny_huge_and_long_pictures(tmp_path: Path, size: tuple[int, int], part: str) -> None:
    odd = pair(tmp_path, Image.new("RGB", size, "#204060"), Image.new("RGB", size, "#a04060"))
    faults = lint([*good(tmp_path, "make it red"), odd], resolution=64)
    assert {f.place for f in faults} == {str(odd.source), str(odd.target)}
    assert all(part in str(f) for f in faults)


def test_a_target_that_equals_its_source(tmp_path: Path) -> None:
    pairs = good(tmp_path, "make it red")
    same = pair(tmp_path, scene(8, SIZE), scene(8, SIZE))
    assert only(lint([*pairs, same], resolution=64)).startswith("error: pair 3: target and source")
    kept = replace(same, instruction="keep it red, as it is")
    assert lint([*pairs, kept], resolution=64) == []


def test_a_resaved_target_is_nearly_identical_but_a_small_edit_is_not(tmp_path: Path) -> None:
    pairs, picture = good(tmp_path, "make it red"), scene(8, (256, 256))
    jpeg = put(tmp_path / "again.jpg", picture, quality=80)
    again = replace(pair(tmp_path / "x", picture, picture), target=jpeg, place="again")
    assert "again: target is nearly identical" in only(lint([*pairs, again], resolution=64))
    collared = picture.copy()
    ImageDraw.Draw(collared).rectangle((100, 100, 116, 110), fill="red")
    small = pair(tmp_path / "y", picture, collared, "make the collar red, make it so")
    assert lint([*pairs, small], resolution=64) == []


def test_duplicates_are_named_but_other_instructions_are_not(tmp_path: Path) -> None:
    pairs = good(tmp_path, "make it red")
    twin = replace(pairs[1], place="pair 9")
    assert "pair 9: the same pair as pair 1" in only(lint([*pairs, twin], resolution=64))
    assert lint([*pairs, replace(twin, instruction="make it red now")], resolution=64) == []


def photo(brightness: float, colour: float = 1.0) -> Image.Image:
    image = ImageEnhance.Brightness(scene(7, SIZE)).enhance(brightness)
    return ImageEnhance.Color(image).enhance(colour)


REVERSED = {
    "brightness": (photo(0.4), photo(1.0), "make it darker", {}),
    "night": (photo(0.4), photo(1.0), "turn it into night", {}),
    "colour": (photo(1, 0), photo(1), "make it black and white", {}),
    "captions": (
        *(photo(1), photo(0.9), "add a red hat"),
        {"source_caption": "a dog with a red hat", "target_caption": "a dog"},
    ),
    "captions of a removal": (
        *(photo(1), photo(0.9), "remove the hat"),
        {"source_caption": "a dog", "target_caption": "a dog with a hat"},
    ),
}


@pytest.mark.parametrize("sign", REVERSED)
def test_reversed_pairs_show_and_right_ones_do_not(tmp_path: Path, sign: str) -> None:
    source, target, instruction, captions = REVERSED[sign]
    wrong = pair(tmp_path, source, target, instruction, **captions)
    found = said(lint([wrong], resolution=64))
    assert any("pair 0: likely reversed" in f and "swap" in f for f in found)
    right = replace(
        wrong,
        source=wrong.target,
        target=wrong.source,
        source_caption=wrong.target_caption,
        target_caption=wrong.source_caption,
    )
    assert not any("reversed" in f for f in said(lint([right], resolution=64)))


def test_from_night_to_day_decides_nothing(tmp_path: Path) -> None:
    both_ways = pair(tmp_path, photo(0.4), photo(1.0), "turn night into daytime")
    assert not any("reversed" in f for f in said(lint([both_ways], resolution=64)))


@pytest.mark.parametrize(
    ("source", "target", "warns"),
    [("dog_after", "dog_before", True), ("dog_before", "dog_after", False), ("end", "end2", False)],
)
def test_names_that_say_the_other_way(
    tmp_path: Path, source: str, target: str, warns: bool
) -> None:
    paths = put(tmp_path / f"{source}.png", 1), put(tmp_path / f"{target}.png", 2)
    found = said(lint([Pair(paths[0], "make it red", paths[1])], resolution=64))
    assert any("reversed" in f for f in found) == warns


def test_a_camera_signs_sources_not_targets(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Kodak"
    shot, made = put(tmp_path / "a.jpg", 1, exif=exif), put(tmp_path / "b.jpg", 2)
    for source, target, warns in ((made, shot, True), (shot, made, False)):
        found = said(lint([Pair(source, "make it red", target)], resolution=64))
        assert any("camera" in f for f in found) == warns


def test_the_concept_word_must_be_used(tmp_path: Path) -> None:
    pairs = good(tmp_path, "make it red")
    found = only(lint(pairs, resolution=64, word="<my-dog>"))
    assert found.startswith("error: instructions: <my-dog> is in none of the 3")
    mixed = [replace(pairs[0], instruction="make it red <my-dog>"), *pairs[1:]]
    assert "<my-dog> is not in 2 of 3" in only(lint(mixed, resolution=64, word="<my-dog>"))


def test_a_marked_word_of_no_concept_is_said(tmp_path: Path) -> None:
    pairs = good(tmp_path, "make it <my-cat> or <my-dog>")
    assert "<my-cat> is no concept's word" in only(lint(pairs, resolution=64, word="<my-dog>"))
    assert len(lint(pairs, resolution=64)) == 2


def test_instructions_all_different_or_missing(tmp_path: Path) -> None:
    pairs = good(tmp_path)
    texts = ("paint it red", "turn this crimson", "make the scarlet")
    different = [replace(p, instruction=t) for p, t in zip(pairs, texts, strict=True)]
    assert "no word is common" in only(lint(different, resolution=64))
    named = [replace(p, instruction=f"{p.instruction} <my-dog>") for p in different]
    assert lint(named, resolution=64, word="<my-dog>") == []
    empty = [replace(pairs[0], instruction=" "), *pairs[1:]]
    found = only(lint(empty, resolution=64, word="<my-dog>"))
    assert found.startswith("error: pair 0: no instruction")


def test_words_the_tokenizer_breaks_up_and_long_instructions(tmp_path: Path) -> None:
    def by_threes(text: str) -> list[str]:
        return [word[i : i + 6] for word in text.split() for i in range(0, len(word), 6)]

    pairs = good(tmp_path, "make the labradoodle <my-very-long-dog>")
    found = lint(pairs, resolution=64, word="<my-very-long-dog>", tokenizer=by_threes)
    assert "pair 0, pair 1, pair 2: 'labradoodle'" in only(found)
    assert "labrad oodle" in only(found)
    wordy = good(tmp_path / "w", "make it so very red")
    faults = lint(wordy, resolution=64, tokenizer=by_threes, most_tokens=4)
    assert ["5 tokens" in str(f) for f in faults] == [True]


@pytest.mark.parametrize(
    ("instruction", "warns"), [("put a hat on the left", True), ("make it bright", False)]
)
def test_left_and_right_do_not_go_with_flips(tmp_path: Path, instruction: str, warns: bool) -> None:
    pairs = good(tmp_path, instruction)
    assert any("mirrored" in str(f) for f in lint(pairs, resolution=64, flip=True)) == warns
    assert not any("mirrored" in str(f) for f in lint(pairs, resolution=64))


def test_errors_come_first(tmp_path: Path) -> None:
    same = pair(tmp_path, scene(8, SIZE), scene(8, SIZE))
    levels = [f.level for f in lint([same], resolution=64)]
    assert levels == sorted(levels)
    assert set(levels) == {"error", "warning"}


def test_a_one_level_change_of_one_pixel_is_not_the_same_picture(tmp_path: Path) -> None:
    pixels_HWC = np.asarray(scene(8, SIZE)).copy()
    pixels_HWC[0, 0] ^= 1
    close = pair(tmp_path, scene(8, SIZE), Image.fromarray(pixels_HWC))
    faults = lint([*good(tmp_path, "make it red"), close], resolution=64)
    assert "warning" in only(faults)


def test_duplicates_of_many_pairs_are_found_without_comparing_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comparing each with every other finds, by a hundredth of the comparisons."""
    chance = np.random.default_rng(0)

    def look(noise_of: Glance | None = None) -> Glance:
        corners = chance.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        thumb = np.kron(corners, np.ones((8, 8, 1))).astype(np.float32)
        if noise_of is not None:
            thumb = noise_of.thumb_HWC + chance.uniform(-2, 2, thumb.shape).astype(np.float32)
        return Glance(SIZE, thumb, camera=False)

    seen, copies = list[SeenPair](), list[str]()
    for number in range(1200):
        place = Pair(tmp_path, "make it night", tmp_path, place=f"pairs.jsonl:{number}")
        first = seen[10 * int(chance.integers(number // 10 + 1))] if number % 10 == 9 else None
        again = None if first is None else (look(first.source), look(first.target))
        seen.append(SeenPair(place, *(again or (look(), look()))))
        copies += [place.place] if first is not None else []
    compared, usual = 0, pictures.near

    def near(a: Glance, b: Glance) -> bool:
        nonlocal compared
        compared += 1
        return usual(a, b)

    monkeypatch.setattr(pictures, "near", near)
    assert [fault.place for fault in pictures.duplicate_faults(seen)] == copies
    assert len(copies) == 120
    assert compared < 1200 * 1200 / 2 / 100
