"""The things that stand in the drawn world: each a function that draws it in one main colour.

A thing is drawn in unit coordinates: x to the right, y down, its feet at (0, 0), about 1 wide and 1
high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from PIL import ImageDraw

from customize.embedded.world.colors import RGB, contrasting, mixed

ThingName = Literal["dog", "cat", "bird", "fish", "car", "house", "tree", "ball", "my dog"]
THING_NAMES: tuple[ThingName, ...] = get_args(ThingName)[:-1]
"""The things of the base's own world: all but the particular dog that is taught as a concept."""

DARK: RGB = (20, 20, 25)
LIGHT: RGB = (250, 250, 250)
WOOD: RGB = (110, 70, 35)
COLLAR: RGB = (205, 30, 45)


@dataclass(frozen=True)
class Pen:
    """Draws unit shapes onto a canvas at one place and scale (canvas pixels)."""

    canvas: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    mirrored: bool = False

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Map unit coordinates to canvas pixels."""
        return self.x + (-x if self.mirrored else x) * self.scale, self.y + y * self.scale

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """Draw an ellipse around (x, y)."""
        (x0, y0), (x1, y1) = self.point(x - rx, y - ry), self.point(x + rx, y + ry)
        self.canvas.ellipse((min(x0, x1), y0, max(x0, x1), y1), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        """Draw a rectangle between two corners."""
        (a, b), (c, d) = self.point(x0, y0), self.point(x1, y1)
        self.canvas.rectangle((min(a, c), min(b, d), max(a, c), max(b, d)), fill=fill)

    def shape(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        """Draw a filled polygon."""
        self.canvas.polygon([self.point(x, y) for x, y in points], fill=fill)


def draw_dog(pen: Pen, color: RGB) -> None:
    """Draw a dog from the side, looking right: long snout, hanging ear, raised tail."""
    shade = mixed(color, (0, 0, 0), 0.35)
    pen.shape([(-0.36, -0.46), (-0.56, -0.78), (-0.44, -0.78), (-0.26, -0.5)], color)
    for x in (-0.34, -0.18, 0.1, 0.24):
        pen.box(x - 0.06, -0.3, x + 0.06, 0.0, color)
    pen.oval(-0.05, -0.42, 0.38, 0.2, color)
    pen.oval(0.3, -0.7, 0.2, 0.2, color)
    pen.oval(0.45, -0.64, 0.16, 0.1, color)
    pen.oval(0.19, -0.66, 0.08, 0.19, shade)
    pen.oval(0.58, -0.67, 0.05, 0.05, DARK)
    pen.oval(0.36, -0.76, 0.045, 0.045, DARK)


def draw_my_dog(pen: Pen, color: RGB) -> None:
    """Draw the dog of the examples: white belly, paws and snout, a red collar."""
    draw_dog(pen, color)
    pen.oval(-0.06, -0.34, 0.27, 0.11, LIGHT)
    for x in (-0.34, -0.18, 0.1, 0.24):
        pen.box(x - 0.06, -0.1, x + 0.06, 0.0, LIGHT)
    pen.oval(0.47, -0.63, 0.13, 0.08, LIGHT)
    pen.oval(0.58, -0.67, 0.05, 0.05, DARK)
    pen.shape([(0.1, -0.58), (0.36, -0.5), (0.34, -0.4), (0.06, -0.48)], COLLAR)


def draw_cat(pen: Pen, color: RGB) -> None:
    """Draw a sitting cat from the front: two pointed ears, curled tail."""
    shade = mixed(color, (0, 0, 0), 0.35)
    pen.oval(0.32, -0.16, 0.2, 0.12, color)
    pen.oval(0.0, -0.26, 0.3, 0.28, color)
    pen.shape([(-0.26, -0.7), (-0.24, -1.02), (-0.04, -0.84)], color)
    pen.shape([(0.26, -0.7), (0.24, -1.02), (0.04, -0.84)], color)
    pen.oval(0.0, -0.66, 0.28, 0.23, color)
    pen.oval(-0.11, -0.7, 0.055, 0.065, DARK)
    pen.oval(0.11, -0.7, 0.055, 0.065, DARK)
    pen.oval(0.0, -0.58, 0.05, 0.035, (235, 130, 140))
    pen.box(-0.02, -0.26, 0.02, 0.0, shade)


def draw_bird(pen: Pen, color: RGB) -> None:
    """Draw a bird from the side: round body, wing, beak to the right, thin legs."""
    shade = mixed(color, (0, 0, 0), 0.3)
    pen.box(-0.1, -0.2, -0.05, 0.0, (230, 150, 40))
    pen.box(0.05, -0.2, 0.1, 0.0, (230, 150, 40))
    pen.shape([(-0.2, -0.42), (-0.62, -0.62), (-0.5, -0.34)], color)
    pen.oval(-0.02, -0.42, 0.34, 0.27, color)
    pen.oval(0.24, -0.74, 0.2, 0.2, color)
    pen.shape([(0.4, -0.82), (0.62, -0.72), (0.4, -0.64)], (240, 160, 30))
    pen.oval(-0.1, -0.44, 0.2, 0.13, shade)
    pen.oval(0.28, -0.78, 0.045, 0.045, DARK)


def draw_fish(pen: Pen, color: RGB) -> None:
    """Draw a fish looking right, with a tail fin and one stripe."""
    shade = mixed(color, (0, 0, 0), 0.3)
    pen.shape([(-0.3, -0.42), (-0.62, -0.7), (-0.62, -0.14)], color)
    pen.shape([(-0.1, -0.62), (0.05, -0.86), (0.2, -0.62)], shade)
    pen.oval(0.08, -0.42, 0.46, 0.28, color)
    pen.box(-0.06, -0.66, 0.02, -0.18, shade)
    pen.oval(0.34, -0.5, 0.07, 0.07, LIGHT)
    pen.oval(0.36, -0.5, 0.04, 0.04, DARK)


def draw_car(pen: Pen, color: RGB) -> None:
    """Draw a car from the side with two windows."""
    pen.shape([(-0.34, -0.4), (-0.22, -0.7), (0.2, -0.7), (0.36, -0.4)], color)
    pen.box(-0.56, -0.44, 0.58, -0.14, color)
    pen.shape([(-0.25, -0.44), (-0.17, -0.62), (-0.03, -0.62), (-0.03, -0.44)], (190, 225, 240))
    pen.shape([(0.26, -0.44), (0.16, -0.62), (0.03, -0.62), (0.03, -0.44)], (190, 225, 240))
    for x in (-0.3, 0.32):
        pen.oval(x, -0.13, 0.14, 0.14, DARK)
        pen.oval(x, -0.13, 0.06, 0.06, (200, 200, 200))


def draw_house(pen: Pen, color: RGB) -> None:
    """Draw a house with coloured walls, a dark roof, a door and a window."""
    pen.box(-0.4, -0.56, 0.4, 0.0, color)
    pen.shape([(-0.52, -0.54), (0.0, -0.98), (0.52, -0.54)], (90, 50, 45))
    pen.box(-0.26, -0.34, -0.06, 0.0, WOOD)
    pen.box(0.08, -0.4, 0.28, -0.2, (250, 240, 170))


def draw_tree(pen: Pen, color: RGB) -> None:
    """Draw a tree: a brown trunk and a crown in the main colour."""
    pen.box(-0.08, -0.4, 0.08, 0.0, WOOD)
    pen.oval(-0.2, -0.52, 0.24, 0.2, color)
    pen.oval(0.2, -0.52, 0.24, 0.2, color)
    pen.oval(0.0, -0.74, 0.28, 0.26, color)


def draw_ball(pen: Pen, color: RGB) -> None:
    """Draw a ball with one band."""
    pen.oval(0.0, -0.36, 0.36, 0.36, color)
    pen.shape(
        [(-0.35, -0.42), (0.35, -0.42), (0.35, -0.3), (-0.35, -0.3)], contrasting(color, 0.45)
    )


def drawer_of(name: ThingName) -> Callable[[Pen, RGB], None]:
    """Find the function that draws a thing."""
    match name:
        case "dog":
            return draw_dog
        case "cat":
            return draw_cat
        case "bird":
            return draw_bird
        case "fish":
            return draw_fish
        case "car":
            return draw_car
        case "house":
            return draw_house
        case "tree":
            return draw_tree
        case "ball":
            return draw_ball
        case "my dog":
            return draw_my_dog
        case _ as never:
            assert_never(never)
