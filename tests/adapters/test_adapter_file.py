"""Adapter files come back as they were written; anything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.bases import toy_header
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from customize.adapters.at_base import other_base
from customize.adapters.file import read_adapter, read_header, save_adapter
from customize.adapters.header import Taught, library_versions
from customize.errors import AdapterFileError, OutputExistsError
from customize.families.base import Base

TENSORS = {
    "denoiser.mid_block.to_q.lora_A": torch.arange(12.0).view(4, 3),
    "denoiser.mid_block.to_q.lora_B": torch.arange(8.0).view(2, 4),
    "denoiser.mid_block.to_k.lora_A": torch.full((4, 3), 0.1),
    "denoiser.mid_block.to_k.lora_B": torch.full((2, 4), 0.1),
    "words.text_encoder.<my-dog>": torch.ones(2, 4),
}
HEADER = toy_header(
    rank=4,
    alpha=2.0,
    targets=("attention", "feed_forward"),
    concepts=(Taught("my_dog", "<my-dog>", "dog", 2, ("add <my-dog>",)),),
    recipe={"train": {"steps": 3}},
    versions=library_versions(),
    pairs={"pairs.jsonl:1": "ab"},
    training={"steps": 3, "loss": 0.25},
)


def _foreign(metadata: dict[str, str] | None) -> Callable[[Path], None]:
    return lambda path: save_file({"a": torch.zeros(1)}, path, metadata=metadata)


def _customize(tensor: str = "a", **changes: object) -> Callable[[Path], None]:
    """Write a file whose header differs from a good one by `changes`."""

    def write(path: Path) -> None:
        save_adapter(path, HEADER, TENSORS)
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["customize"])
        content = {"customize": json.dumps(header | changes)}
        save_file({tensor: torch.zeros(1)}, path, metadata=content)

    return write


def _cut(path: Path) -> None:
    save_adapter(path, HEADER, TENSORS)
    path.write_bytes(path.read_bytes()[:-1])


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.safetensors", lambda path: None, "there is no such file"),
    "folder": ("a.safetensors", lambda path: path.mkdir(), "a folder"),
    "empty": ("a.safetensors", lambda path: path.touch(), "empty"),
    "noise": ("a.safetensors", lambda path: path.write_bytes(b"\xfe" * 99), "its header takes"),
    "cut short": ("a.safetensors", _cut, "cut short"),
    "torch file": ("a.safetensors", lambda path: torch.save({}, path), "pickle"),
    "old torch file": (
        "a.safetensors",
        lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
        "pickle",
    ),
    "named as a pickle": ("a.bin", lambda path: path.write_bytes(b"x" * 99), "pickle"),
    "foreign": ("a.safetensors", _foreign(None), "another program"),
    "foreign metadata": ("a.safetensors", _foreign({"ss_network": "x"}), "another program"),
    "header no JSON": ("a.safetensors", _foreign({"customize": "{"}), "header is damaged"),
    "header a list": ("a.safetensors", _foreign({"customize": "[]"}), "header is damaged"),
    "header bare": ("a.safetensors", _foreign({"customize": "{}"}), "header is damaged"),
    "other format": ("a.safetensors", _customize(format="else"), "format 'else'"),
    "newer": ("a.safetensors", _customize(version=2), "update `customize`"),
    "other family": ("a.safetensors", _customize(family="pix2pix"), "the family 'pix2pix'"),
    "wrong type": ("a.safetensors", _customize(rank="many"), "damaged at 'rank'"),
    "odd tensor": ("a.safetensors", _customize("unet.x"), "a tensor named 'unet.x'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(kind: str, tmp_path: Path) -> None:
    name, spoil, expected = BROKEN[kind]
    spoil(tmp_path / name)
    with pytest.raises(AdapterFileError, match=expected) as caught:
        read_adapter(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_round_trip(tmp_path: Path) -> None:
    path = save_adapter(tmp_path / "new" / "adapter.safetensors", HEADER, TENSORS)
    adapter = read_adapter(path)
    assert adapter.header == read_header(path) == HEADER
    assert list(adapter.tensors) == sorted(TENSORS)
    assert all(torch.equal(adapter.tensors[name], TENSORS[name]) for name in TENSORS)
    assert "nothing" not in adapter.tensors
    assert [p.name for p in path.parent.iterdir()] == ["adapter.safetensors"]


def test_half_precision_on_request(tmp_path: Path) -> None:
    path = save_adapter(tmp_path / "a.safetensors", HEADER, TENSORS, dtype=torch.float16)
    assert {t.dtype for t in read_adapter(path).tensors.values()} == {torch.float16}


def test_nothing_is_overwritten_silently(tmp_path: Path) -> None:
    path = save_adapter(tmp_path / "a.safetensors", HEADER, TENSORS)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="there already"):
        save_adapter(path, toy_header(), TENSORS)
    assert path.read_bytes() == before
    save_adapter(path, toy_header(), TENSORS, overwrite=True)
    assert read_header(path) == toy_header()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Unwritable:
        def detach(self) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        save_adapter(tmp_path / "a.safetensors", HEADER, {"denoiser.a.delta": Unwritable()})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_another_base_is_said_aloud(tmp_path: Path) -> None:
    base = Base("toy", tmp_path, "instruct_pix2pix", "0" * 64, 32, 8, 2)
    assert other_base(HEADER, base) is None
    said = other_base(toy_header(base_fingerprint="1" * 64), base)
    assert said is not None
    assert "1" * 12 in said
    with pytest.raises(AdapterFileError, match="family"):
        other_base(toy_header(family="instruct_pix2pix_xl"), base)
