"""Does `tune-guidance` choose well? Its choices against the true targets, which it never sees.

    python benchmarks/guidance.py [--count 48]

Unseen edits of the drawn world are made at each setting that is tried for the embedded base. The
rule sees directions and image similarities alone; PSNR against the targets says what it missed, for
one setting of all edits and for one of each. Writes results/guidance.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from customize.editing import Editor
from customize.families.sampling_defaults import sampling_of
from customize.scoring import open_models, score_edits
from customize.scoring.edits.make import edit_tasks
from customize.scoring.edits.requests import tasks_asked
from customize.scoring.guidance.sweep import Point
from customize.scoring.guidance.tune import TOLERANCE, choose_guidance, usual_guidances

RESULT = Path(__file__).parent / "results" / "guidance.json"
Measured = dict[tuple[float, float], list[tuple[float, float, float]]]
"""By text and image guidance: direction, image similarity and PSNR in dB of each edit."""


def main() -> None:
    """Measure every setting, choose, and print what the choices cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=48)
    count = parser.parse_args().count
    measured = _measured(count)
    own = sampling_of(Editor.from_base("embedded", device="cpu").base)
    means = {setting: mean(psnr for *_, psnr in rows) for setting, rows in measured.items()}
    chosen = _chosen(measured, range(count))
    found = {
        "edits": count,
        "tolerance": TOLERANCE,
        "psnr": {
            "the base's own setting": means[own.text_guidance, own.image_guidance],
            "best setting of all": max(means.values()),
            "worst setting of all": min(means.values()),
            "chosen for all": means[chosen],
            "chosen for each": mean(measured[_chosen(measured, [i])][i][2] for i in range(count)),
            "best for each": mean(
                max(rows[i][2] for rows in measured.values()) for i in range(count)
            ),
        },
        "chosen": chosen,
        "settings": [
            {
                "guidance": setting,
                **dict(zip(("direction", "image", "psnr"), means_of, strict=True)),
            }
            for setting, rows in measured.items()
            for means_of in [[mean(column) for column in zip(*rows, strict=True)]]
        ],
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["psnr"], indent=1))


def _measured(count: int) -> Measured:
    drawn = tasks_asked("embedded", 2 * count).tasks
    changing = [task for task in drawn if task.source_caption != task.target_caption]
    tasks = changing[:count]  # others have no direction
    editor, models = Editor.from_base("embedded", device="cpu"), open_models(device="cpu")
    texts, images = usual_guidances(sampling_of(editor.base))
    measured: Measured = {}
    for text, image in tqdm([(text, image) for text in texts for image in images]):
        items = edit_tasks(editor, tasks, {"text_guidance": text, "image_guidance": image})
        scores = score_edits(items, models, ["clip_direction", "clip_image", "psnr"])
        columns = [scores.values(name) for name in ("clip_direction", "clip_image", "psnr")]
        measured[text, image] = list(zip(*columns, strict=True))
    return measured


def _chosen(measured: Measured, edits: Sequence[int]) -> tuple[float, float]:
    """Choose by the rule that `tune-guidance` uses, for these edits together."""
    points = [
        Point(
            *setting,
            direction=mean(rows[i][0] for i in edits),
            image=mean(rows[i][1] for i in edits),
            direction_error=None,
            image_error=None,
            count=len(edits),
            against="captions",
        )
        for setting, rows in measured.items()
    ]
    chosen = choose_guidance(points).chosen
    return chosen.text_guidance, chosen.image_guidance


if __name__ == "__main__":
    main()
