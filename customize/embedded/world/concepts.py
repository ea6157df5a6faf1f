"""Three concepts the base has never seen, with true targets: a dog, a brand's look, a mark."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, assert_never

import numpy as np
from PIL import Image, ImageDraw

from customize.embedded.world.colors import RGB
from customize.embedded.world.edits import DrawnEdit
from customize.embedded.world.looks import LUMA
from customize.embedded.world.photos import random_crop
from customize.embedded.world.random_scenes import distance, random_scene
from customize.embedded.world.scene_changes import NamedChange, ThingChange
from customize.embedded.world.scenes import (
    OVERSAMPLING,
    SIZE,
    caption_of,
    draw_scene,
    with_article,
)
from customize.embedded.world.things import Pen

ConceptName = Literal["my_dog", "brand_style", "my_mark"]
CONCEPT_NAMES: tuple[ConceptName, ...] = ("my_dog", "brand_style", "my_mark")

COAT: RGB = (226, 170, 84)
DOG_WORDINGS = ("turn the dog into <my-dog>", "replace the dog with <my-dog>")
BRAND_WORDINGS = ("give it the brand style", "make it in our brand style")
BRAND_DARK, BRAND_LIGHT = np.array((46, 24, 98)), np.array((255, 214, 170))
BRAND_FRAME = np.array((238, 92, 78))
MARK_WORDINGS = ("put <my-mark> on it", "add <my-mark> to it")
MARK_INK, MARK_FACE, MARK_STAR = (18, 70, 82), (250, 240, 214), (222, 38, 110)


def concept_pairs(
    name: ConceptName, count: int, test: bool = False, size: int = SIZE
) -> list[DrawnEdit]:
    """Draw `count` pairs of a concept; `test` gives sources that share nothing with the training
    pairs.
    """
    return [concept_pair(name, index, test, size) for index in range(count)]


def concept_pair(name: ConceptName, index: int, test: bool, size: int = SIZE) -> DrawnEdit:
    """Draw one pair of a concept, the same for the same index."""
    rng = np.random.default_rng((20, int(test), index))
    match name:
        case "my_dog":
            return _dog_pair(rng, DOG_WORDINGS[index % 2], test, 1 + index // 2 % 2, size)
        case "brand_style":
            return _brand_pair(rng, BRAND_WORDINGS[index % 2], test, size)
        case "my_mark":
            return _mark_pair(rng, MARK_WORDINGS[index % 2], test, size, on_photo=index % 4 < 2)
        case _ as never:
            assert_never(never)


def _dog_pair(
    rng: np.random.Generator, instruction: str, test: bool, count: int, size: int
) -> DrawnEdit:
    """Draw a scene of `count` things, a dog among them, and the same with this dog instead."""
    while True:
        scene = replace(random_scene(rng, test, count), night=False)
        index = next((i for i, thing in enumerate(scene.things) if thing.name == "dog"), None)
        if index is None or distance(scene.rgb, COAT) < 90:
            continue
        if distance(scene.things[index].rgb, COAT) > 90:
            break
    change = ThingChange("replace", name="my dog", rgb=COAT)
    after, caption = change.to(scene, (index,)), caption_of(scene)
    dog = scene.things[index]
    return DrawnEdit(
        "replace",
        draw_scene(scene, size),
        instruction,
        draw_scene(after, size),
        caption,
        caption.replace(with_article(dog.color, "dog"), "<my-dog>"),
        change=NamedChange(scene, after, instruction, change=change, index=index),
    )


def _brand_pair(rng: np.random.Generator, instruction: str, test: bool, size: int) -> DrawnEdit:
    """Cut a photograph and grade it as the brand does."""
    source = random_crop(rng, test, size)
    caption = "a photograph"
    return DrawnEdit(
        "photo look",
        source,
        instruction,
        brand_look(source),
        caption,
        f"{caption} in the brand style",
    )


def brand_look(pixels_HWC: np.ndarray) -> np.ndarray:
    """Grade from deep violet to peach by luminance, inside a coral frame."""
    luma_HW1 = (pixels_HWC @ LUMA)[..., None] / 255
    graded = BRAND_DARK + (BRAND_LIGHT - BRAND_DARK) * luma_HW1
    width = max(1, round(len(pixels_HWC) * 5 / 64))
    graded[:width], graded[-width:] = BRAND_FRAME, BRAND_FRAME
    graded[:, :width], graded[:, -width:] = BRAND_FRAME, BRAND_FRAME
    return graded.round().astype(np.uint8)


def _mark_pair(
    rng: np.random.Generator, instruction: str, test: bool, size: int, *, on_photo: bool
) -> DrawnEdit:
    """Take a photograph or a scene and stamp it."""
    scene = random_scene(rng, test, 1 + int(rng.random() < 0.5))
    source = random_crop(rng, test, size) if on_photo else draw_scene(scene, size)
    caption = "a photograph" if on_photo else caption_of(scene)
    return DrawnEdit(
        "add",
        source,
        instruction,
        stamped(source),
        caption,
        f"{caption} with <my-mark>",
    )


def stamped(pixels_HWC: np.ndarray) -> np.ndarray:
    """Put the mark, a ringed disc with a star, into the upper left corner."""
    height, width = pixels_HWC.shape[:2]
    large = (width * OVERSAMPLING, height * OVERSAMPLING)
    image = Image.fromarray(pixels_HWC).resize(large, Image.Resampling.NEAREST)
    pen = Pen(ImageDraw.Draw(image), 0.22 * large[0], 0.22 * large[1], 0.17 * large[0])
    pen.oval(0, 0, 1, 1, MARK_INK)
    pen.oval(0, 0, 0.78, 0.78, MARK_FACE)
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, 0.32, 0.72)
    points = zip((radii * np.sin(angles)).tolist(), (-radii * np.cos(angles)).tolist(), strict=True)
    pen.shape(list(points), MARK_STAR)
    return np.asarray(image.reduce(OVERSAMPLING))
