"""The base model that ships here: a small InstructPix2Pix, its drawn world and its fitting.

`weights/` is a plain diffusers pipeline folder, with the small CLIP used for scoring in `clip/`;
`families.base.EMBEDDED` names it.
"""
