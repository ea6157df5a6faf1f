"""From what the user calls a CLIP or a DINO to a checked folder of weights on this machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customize.errors import BaseModelError, ScoreError
from customize.families.base import EMBEDDED
from customize.families.loading.weight_files import component_files, fingerprint
from customize.files.parse import load_json

DINO_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
"""Vision models whose first token stands for the whole picture."""

_EXAMPLES = {"CLIP": "openai/clip-vit-large-patch14", "DINO": "facebook/dinov2-base"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SETTINGS = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class ModelFiles:
    """A model found and checked, not yet loaded; `kind` is its transformers model type."""

    folder: Path
    kind: str
    fingerprint: str


def find_model(name: str, what: str, kinds: Sequence[str]) -> ModelFiles:
    """Find the model called `name`, fetch it where needed, and see that it is one of `kinds`.

    `what` is how messages call it. Its fingerprint covers weights, sizes and how it scales
    pictures. Raises ScoreError.
    """
    folder = _locate(name, what)
    settings = {file: _read_json(folder / file, name, what) for file in _SETTINGS}
    kind = str(settings["config.json"].get("model_type"))
    if kind not in kinds:
        inside = "the CLIP lies in its clip/ folder" if (folder / "clip").is_dir() else ""
        raise _unusable(
            name, what, f"{folder} holds a model of type {kind!r}", inside or "name another"
        )
    try:
        files, _ = component_files(folder, f"{what} {name!r}")
    except BaseModelError as error:
        raise ScoreError(str(error)) from None
    weights = fingerprint(files, folder)
    shaped = hashlib.sha256((weights + json.dumps(settings, sort_keys=True)).encode())
    return ModelFiles(folder, kind, shaped.hexdigest())


def _locate(name: str, what: str) -> Path:
    if name == "embedded":
        if what == "CLIP":
            return EMBEDDED / "clip"
        raise _unusable(name, what, "none ships with the embedded base", "leave it out")
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise _unusable(name, what, "it is a file", "name the folder it lies in")
    if not _HUB_ID.fullmatch(name):
        raise _unusable(
            name, what, "there is no such folder and it is no hub id", "check the spelling"
        )
    return _download(name, what)


def _download(name: str, what: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    except errors.RepositoryNotFoundError:
        found = "the hub has no such public model, nor one your token may read"
        cure = "check the spelling, or run `hf auth login` for a private one"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        found = "it is not in the local cache and the hub cannot be reached"
        cure = "connect once (and unset HF_HUB_OFFLINE), or name a local folder"
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        found = f"fetching it failed ({type(error).__name__}: {error})"
        cure = "try again (what was fetched is kept), or name a local folder"
    raise _unusable(name, what, found, cure)


def _read_json(path: Path, name: str, what: str) -> dict[str, Any]:
    try:
        content = load_json(path)
    except FileNotFoundError:
        whole = path.parent / "model_index.json"
        cure = "name its clip/ folder" if whole.is_file() else "save or download the whole model"
        raise _unusable(name, what, f"{path} is missing", cure) from None
    except (OSError, ValueError) as error:
        cure = "save or download the whole model again"
        raise _unusable(name, what, f"{path} cannot be read ({error})", cure) from None
    if not isinstance(content, dict):
        cure = "save or download the whole model again"
        raise _unusable(name, what, f"{path} holds no JSON object", cure)
    return content


def _unusable(name: str, what: str, found: str, cure: str) -> ScoreError:
    first = "'embedded', " if what == "CLIP" else ""
    return ScoreError(
        f"{what} {name!r}: {found}; expected {first}a {what} folder as transformers saves it, or a "
        f"hub id such as {_EXAMPLES[what]!r}; {cure}"
    )
