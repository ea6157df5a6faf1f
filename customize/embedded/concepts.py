"""Two concepts the base has never seen, with their true targets: a particular dog, and a brand's
look.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, assert_never

import numpy as np

from customize.embedded.colors import RGB
from customize.embedded.edits import DrawnEdit
from customize.embedded.looks import LUMA
from customize.embedded.photos import random_crop
from customize.embedded.scenes import Scene, Thing, caption_of, distance, draw_scene, random_scene

ConceptName = Literal["my_dog", "brand_style"]
CONCEPT_NAMES: tuple[ConceptName, ...] = ("my_dog", "brand_style")

COAT: RGB = (226, 170, 84)
DOG_WORDINGS = ("turn the dog into <my-dog>", "replace the dog with <my-dog>")
BRAND_WORDINGS = ("give it the brand style", "make it in our brand style")
BRAND_DARK, BRAND_LIGHT = np.array((46, 24, 98)), np.array((255, 214, 170))
BRAND_FRAME = np.array((238, 92, 78))


def concept_pairs(name: ConceptName, count: int, test: bool = False) -> list[DrawnEdit]:
    """Draw `count` pairs of a concept; `test` gives sources that share nothing with the training
    pairs.
    """
    return [concept_pair(name, index, test) for index in range(count)]


def concept_pair(name: ConceptName, index: int, test: bool) -> DrawnEdit:
    """Draw one pair of a concept, the same for the same index."""
    rng = np.random.default_rng((20, int(test), index))
    match name:
        case "my_dog":
            return _dog_pair(rng, DOG_WORDINGS[index % 2], test)
        case "brand_style":
            return _brand_pair(rng, BRAND_WORDINGS[index % 2], test)
        case _ as never:
            assert_never(never)


def _dog_pair(rng: np.random.Generator, instruction: str, test: bool) -> DrawnEdit:
    """Draw a scene with any dog, and the same scene with this one in its place."""
    while True:
        scene = replace(random_scene(rng, test), night=False)
        index = next((i for i, thing in enumerate(scene.things) if thing.name == "dog"), None)
        if index is None or distance(scene.rgb, COAT) < 90:
            continue
        if distance(scene.things[index].rgb, COAT) > 90:
            break
    target = draw_scene(with_my_dog(scene, index))
    caption = caption_of(scene)
    dog = scene.things[index]
    phrase = f"a {dog.color} dog" if dog.color else "a dog"
    phrase = phrase.replace("a orange", "an orange")
    return DrawnEdit(
        "replace",
        draw_scene(scene),
        instruction,
        target,
        caption,
        caption.replace(phrase, "<my-dog>"),
    )


def with_my_dog(scene: Scene, index: int) -> Scene:
    """Put the particular dog in the place of the thing at `index`."""
    dog: Thing = replace(scene.things[index], name="my dog", color=None, rgb=COAT)
    return replace(scene, things=(*scene.things[:index], dog, *scene.things[index + 1 :]))


def _brand_pair(rng: np.random.Generator, instruction: str, test: bool) -> DrawnEdit:
    """Cut a photograph and grade it as the brand does."""
    source = random_crop(rng, test)
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
