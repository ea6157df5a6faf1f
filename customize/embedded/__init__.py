"""The base model that ships here: a small InstructPix2Pix, its drawn world and its fitting."""

from pathlib import Path

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""A plain diffusers pipeline folder, with the small CLIP used for scoring in its `clip` sub-folder.
"""
