"""Real photographs: the pictures that ship inside scikit-image and scikit-learn, read where they
lie.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from customize.embedded.world.scenes import SIZE
from customize.errors import CustomizeError

TRAINING_PHOTOS = (
    "skimage/data/astronaut.png", "skimage/data/chelsea.png", "skimage/data/rocket.jpg",
    "skimage/data/motorcycle_left.png", "skimage/data/hubble_deep_field.jpg",
    "skimage/data/retina.jpg", "skimage/data/ihc.png", "skimage/data/camera.png",
    "skimage/data/coins.png", "skimage/data/grass.png", "skimage/data/gravel.png",
    "sklearn/datasets/images/china.jpg",
)  # fmt: skip
TEST_PHOTOS = ("skimage/data/coffee.png", "sklearn/datasets/images/flower.jpg")
SHARES = np.array([4, 4, 3, 4, 1, 1, 1, 1.5, 1, 1, 1, 4])


@cache
def photo(name: str) -> Image.Image:
    """Open one of the listed photographs as RGB.

    Raises:
        CustomizeError: the package that carries it is not installed.
    """
    package, _, inner = name.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise CustomizeError(
            f"the photograph {name} ships inside a package that is not installed; "
            "install scikit-image and scikit-learn (pip install 'customize[photos]')"
        )
    return Image.open(Path(spec.origin).parent / inner).convert("RGB")


def random_crop(rng: np.random.Generator, test: bool = False, size: int = SIZE) -> np.ndarray:
    """Cut a random square out of a photograph, uint8 (size, size, 3), mirrored half the time.

    Training crops also turn their hues a little: twelve photographs are few.
    """
    names = TEST_PHOTOS if test else TRAINING_PHOTOS
    shares = np.ones(len(names)) if test else SHARES
    image = photo(names[int(rng.choice(len(names), p=shares / shares.sum()))])
    side = int(min(image.size) * rng.uniform(0.35, 1.0))
    x = int(rng.integers(image.width - side + 1))
    y = int(rng.integers(image.height - side + 1))
    box = (x, y, x + side, y + side)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BOX, box=box, reducing_gap=3.0))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels if test else _recolored(pixels, rng))


def _recolored(pixels_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn hue and scale light a little, in half of the crops a lot."""
    strong = rng.random() < 0.5
    order = rng.permutation(3) if strong else np.arange(3)
    gains = rng.uniform(0.75, 1.25, 3) if strong else rng.uniform(0.92, 1.08, 3)
    return (pixels_HWC[..., order] * gains).clip(0, 255).astype(np.uint8)
