"""Find CLIP's vocabulary for a single-file checkpoint, which never holds one; offline if possible.

All Stable Diffusion 1 and SDXL models share it. In order: the folder beside the checkpoint, the hub
library's cache of any model known to have it, an installed package that ships it, the hub.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from customize.errors import BaseModelError
from customize.families.loading.quiet import hush

_FILES = ("vocab.json", "merges.txt")
_HOLDERS = (
    ("openai/clip-vit-large-patch14", ""),
    ("timbrooks/instruct-pix2pix", "tokenizer/"),
    ("diffusers/sdxl-instructpix2pix-768", "tokenizer/"),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer/"),
    ("runwayml/stable-diffusion-v1-5", "tokenizer/"),
    ("CompVis/stable-diffusion-v1-4", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer/"),
)
_PACKAGES = ("open_clip", "clip")
_SHIPPED = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894


def write_tokenizer(
    folder: Path, own: Path, *, rows: int, positions: int, pad_token: str, owner: str
) -> None:
    """Write to `folder` the tokenizer that `own` holds, else CLIP's from wherever it is found.

    `rows` is the embedding table's height: a tokenizer's words beyond it, which an exported folder
    may have, are left out. Raises BaseModelError in the name of `owner` when none is found or fits.
    """
    folder.mkdir(parents=True)
    if (own / "tokenizer_config.json").is_file():
        _copy_without_new_words(own, folder, rows)
    else:
        vocabulary, merges = _find(own, owner)
        _build(vocabulary, merges, positions, pad_token).save_pretrained(folder)
    known = len(_open(folder))
    if known != rows:
        raise BaseModelError(
            f"{owner}: its text encoder has {rows} words and the tokenizer found for it {known}; "
            "expected as many",
            f"put the tokenizer it was trained with in {own}",
        )


def _copy_without_new_words(own: Path, folder: Path, rows: int) -> None:
    for path in own.iterdir():
        if path.is_file():
            shutil.copy(path, folder / path.name)
    (folder / "added_tokens.json").unlink(missing_ok=True)
    _edit(folder / "tokenizer.json", "added_tokens", lambda new: [t for t in new if t["id"] < rows])
    _edit(
        folder / "tokenizer_config.json",
        "added_tokens_decoder",
        lambda new: {number: token for number, token in new.items() if int(number) < rows},
    )


def _edit(path: Path, key: str, change: Any) -> None:
    if not path.is_file():
        return
    content = json.loads(path.read_text("utf-8"))
    if key in content:
        path.write_text(json.dumps({**content, key: change(content[key])}), "utf-8")


def _find(own: Path, owner: str) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and the merges of the first place that has them."""
    for vocabulary, merges in _places(own):
        return json.loads(vocabulary.read_text("utf-8")), _pairs(
            merges.read_text("utf-8").splitlines()
        )
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            if (shipped := Path(folder) / _SHIPPED).is_file():
                return from_shipped(gzip.decompress(shipped.read_bytes()).decode())
    if found := _download():
        vocabulary, merges = found
        return json.loads(vocabulary.read_text("utf-8")), _pairs(
            merges.read_text("utf-8").splitlines()
        )
    raise BaseModelError(
        f"{owner}: such a file holds no tokenizer, and CLIP's is nowhere on this machine; expected "
        f"it in {own}, in the hub's cache, or in an installed package (open_clip_torch)",
        "copy the folder `tokenizer` of any Stable Diffusion 1 or SDXL model there, or connect "
        "once",
    )


def from_shipped(text: str) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    """Build vocabulary and merges from CLIP's own list, which goes on beyond those it uses."""
    merges = _pairs(text.split("\n")[1 : _MERGES + 1])  # after a line that names the file
    letters = list(_byte_letters().values())
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    entries += ["".join(pair) for pair in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return {entry: number for number, entry in enumerate(entries)}, merges


def _places(own: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the vocabulary files beside the checkpoint and in the hub library's cache."""
    from huggingface_hub import try_to_load_from_cache

    beside = tuple(own / name for name in _FILES)
    found = [beside] if all(path.is_file() for path in beside) else []
    for model, start in _HOLDERS:
        cached = [try_to_load_from_cache(model, f"{start}{name}") for name in _FILES]
        if all(isinstance(path, str) for path in cached):
            found.append(tuple(Path(str(path)) for path in cached))
    yield from ((pair[0], pair[1]) for pair in found)


def _download() -> tuple[Path, Path] | None:
    from huggingface_hub import errors, hf_hub_download

    model, start = _HOLDERS[0]
    try:
        first, second = (Path(hf_hub_download(model, f"{start}{name}")) for name in _FILES)
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError):
        return None
    return first, second


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    pairs = (line.split() for line in lines if not line.startswith("#version"))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _build(
    vocabulary: Mapping[str, int], merges: list[tuple[str, str]], positions: int, pad_token: str
) -> Any:
    hush()
    from transformers import CLIPTokenizer

    kind: Any = CLIPTokenizer  # its annotations refuse the pairs that its tokenizer wants
    options = {"model_max_length": positions, "pad_token": pad_token}
    return kind(vocab=dict(vocabulary), merges=merges, **options)


def _open(folder: Path) -> Any:
    hush()
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def _byte_letters() -> dict[int, str]:
    """Map each byte to the letter that stands for it in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + index) for index, byte in enumerate(shifted)
    }
