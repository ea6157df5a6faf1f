"""What a weights' file says of itself: kohya's `ss_*`, Stability's `modelspec.*`, and hashes.

A1111 hides a LoRA whose `ss_*` names another base version; hubs read `modelspec.*`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from customize import __version__
from customize.adapters.header_facts import shareable
from customize.exporting.changes import Changes, LowRankChange
from customize.families import profile_of

if TYPE_CHECKING:
    from customize.adapters.header import Header
    from customize.families.base import Base

# Where the hash of kohya's first file format reads, and how much.
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000


def describe_adapter(header: Header, changes: Changes, base: Base, name: str) -> dict[str, str]:
    """Describe an exported file by the keys that other programs know; all values are text."""
    ranks = Counter(
        c.down.shape[0] for c in changes.layers.values() if isinstance(c, LowRankChange)
    )
    words = [concept.word for concept in header.concepts if concept.word]
    names = profile_of(base.family).front_ends
    training, recipe = header.training, header.recipe.get("train", {})
    facts = {
        "format": "pt",
        "ss_output_name": name,
        "ss_base_model_version": names.kohya_version,
        "ss_v2": "False",
        "ss_sd_model_name": shareable(header.base_name),
        "ss_tag_frequency": json.dumps(
            {taught.name: dict.fromkeys(taught.instructions, 1) for taught in header.concepts}
        ),
        "ss_training_comment": f"made by customize {__version__}; for {names.edits} bases only",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{names.architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": name,
        "modelspec.resolution": f"{base.resolution}x{base.resolution}",
        "modelspec.description": "; ".join(
            instruction for taught in header.concepts for instruction in taught.instructions
        ),
        "modelspec.trigger_phrase": ", ".join(words),
    }
    if ranks:
        (common, _), *_ = ranks.most_common(1)
        facts |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(common),
            "ss_network_alpha": str(float(common)),
        }
    known = {"ss_steps": training.get("steps"), "ss_learning_rate": recipe.get("learning_rate")}
    facts |= {key: str(value) for key, value in known.items() if value is not None}
    return {key: text for key, text in facts.items() if text}


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes that kohya's programs and Stability's specification give a file.

    The first covers the tensors' bytes alone, so that metadata may change; the legacy one covers 64
    KiB from the first MiB on, as if the file had only `ss_*`.
    """
    from safetensors.torch import save

    stated = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, stated)
    start = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(memoryview(content)[start:]).hexdigest()
    legacy = hashlib.sha256(content[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]).hexdigest()
    return {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": legacy[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }
