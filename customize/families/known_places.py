"""Where bases lie on this machine, by the fingerprint of their weights.

Adapters are shared, so their headers name a base's folder without its path; this is how the folder
is found again here. The list is a small file in the cache; nothing breaks without it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from customize.files import write_text
from customize.files.parse import load_json

_MOST = 100


def remember(fingerprint: str, place: Path) -> None:
    """Note that weights of this fingerprint lie at `place`; silent where the cache is read-only."""
    known = _known()
    if known.get(fingerprint) == str(place.absolute()):
        return
    known = {**known, fingerprint: str(place.absolute())}
    try:
        write_text(_file(), json.dumps(dict(list(known.items())[-_MOST:]), indent=2) + "\n")
    except OSError:
        return


def place_of(fingerprint: str) -> str | None:
    """Return where weights of this fingerprint were last opened, None where they are no more."""
    place = _known().get(fingerprint)
    return place if place is not None and os.path.exists(place) else None


def _known() -> dict[str, str]:
    try:
        content = load_json(_file())
    except (OSError, ValueError):
        return {}
    known = content if isinstance(content, dict) else {}
    return {key: place for key, place in known.items() if isinstance(place, str)}


def _file() -> Path:
    cache = Path(os.environ.get("CUSTOMIZE_CACHE", "~/.cache/customize")).expanduser()
    return cache / "known_bases.json"
