"""Judge by more edits than a concept has pairs: the same pairs mirrored, and both pictures in
another light.

Three or four edits tell one merge from another hardly better than chance; views of a pair ask a
merged adapter for the same change of sources that neither it nor its concepts have seen.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from customize.merging.by_edits.trial_edits import TrialEdits
from customize.pairs.joint_changes import may_mirror
from customize.shapes import Example

LIGHTS = (1.0, 0.75, 1.3, 0.6, 1.6)
"""Exponents of pixels in 0..1, for both pictures alike: as it is, brighter, darker, and more."""


def with_more_views(asked: TrialEdits, least: int) -> TrialEdits:
    """Fill a concept's edits up to `least`, as far as views of its pairs go: ten of each at most.

    Instructions that name a side or lettering are not mirrored.
    """
    examples = [(example, pair) for pair, example in enumerate(asked.examples)]
    for light in LIGHTS:
        for mirrored in (False, True):
            if light == 1 and not mirrored:
                continue  # the pairs themselves
            for pair, example in enumerate(asked.examples):
                if len(examples) < least and not (mirrored and not may_mirror(example.instruction)):
                    examples.append((_view(example, light, mirrored), pair))
    views, pairs = zip(*examples, strict=True)
    return replace(asked, examples=views, pair_of=pairs)


def _view(example: Example, light: float, mirrored: bool) -> Example:
    def seen(pixels_HWC: np.ndarray) -> np.ndarray:
        lit_HWC = np.rint(255 * (pixels_HWC / 255) ** light).astype(np.uint8)
        return np.ascontiguousarray(lit_HWC[:, ::-1] if mirrored else lit_HWC)

    return replace(
        example, source_HWC=seen(example.source_HWC), target_HWC=seen(example.target_HWC)
    )
