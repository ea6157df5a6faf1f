"""What front ends show beside a weights file: trigger words, example instructions, a preview.

A1111 and InvokeAI read NAME.json ("activation text" first of all), A1111 and ComfyUI's pickers show
NAME.png; where each looks is in docs/frontends.md.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from customize.exporting.file_plan import FilePlan
from customize.exporting.formats.trigger_words import examples, triggers
from customize.exporting.targets import Target
from customize.families import profile_of

if TYPE_CHECKING:
    from PIL import Image

    from customize.adapters.header import Header


_PREVIEW_SIDE = 512


def plan_sidecars(
    header: Header, name: str, target: Target, preview: Image.Image | None = None
) -> FilePlan:
    """Plan NAME.json, and NAME.png where there is a preview, which is shrunk to 512 pixels."""
    text = json.dumps(sidecar(header, target), indent=4, ensure_ascii=False)
    plan: FilePlan = {f"{name}.json": text + "\n"}
    if preview is not None:
        small, content = preview.copy(), io.BytesIO()
        small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
        small.save(content, format="PNG")
        plan[f"{name}.png"] = content.getvalue()
    return plan


def sidecar(header: Header, target: Target) -> dict[str, Any]:
    """Return what NAME.json says, under A1111's keys; words as people type them in `target`."""
    names = profile_of(header.family).front_ends
    return {
        "description": ", ".join(concept.name for concept in header.concepts),
        "sd version": names.webui_version,
        "activation text": ", ".join(triggers(header, target)),
        "preferred weight": 1.0,
        "negative text": "",
        "notes": "\n".join(
            [f"For {names.edits} models: give a picture and an instruction.", *examples(header)]
        ),
        "trigger words": list(triggers(header, target)),
        "example instructions": list(examples(header, target)),
    }
