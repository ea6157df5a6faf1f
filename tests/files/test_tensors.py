"""Tensors in files: by the format's own reader, the same bytes each time, and never a wrong one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from customize.files.tensors import DamagedError, read_tensors, save_tensors, write_safetensors

KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)


def tensors() -> dict[str, Tensor]:
    """Make a tensor of every kind, and of every odd shape."""
    numbers = torch.arange(24).reshape(2, 3, 4)
    made = {f"kind.{kind}": numbers.to(kind) for kind in KINDS}
    odd = {"scalar": torch.tensor(3.5), "none": torch.zeros(0, 3), "truth": numbers > 5}
    return {**made, **odd, "turned": numbers.float().mT, "ü": torch.ones(1)}


def test_what_is_written_is_what_safetensors_own_writer_writes(tmp_path: Path) -> None:
    whole = {name: tensor.contiguous() for name, tensor in tensors().items()}
    write_safetensors(tmp_path / "ours", tensors(), {"format": "pt"})
    save_file(whole, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    back = load_file(tmp_path / "ours")
    assert back.keys() == whole.keys()
    for name, tensor in whole.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name].float(), tensor.float())


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    about = {f"fact {number}": "said" for number in range(20)}
    write_safetensors(tmp_path / "one", {"a": torch.ones(2), "b": torch.ones(3)}, about)
    turned = dict(reversed(about.items()))
    write_safetensors(tmp_path / "two", {"b": torch.ones(3), "a": torch.ones(2)}, turned)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with safe_open(tmp_path / "one", framework="pt") as file:
        assert file.metadata() == about


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", tensors(), {"step": 7}, key="k")
    back, facts = read_tensors(tmp_path / "a", key="k")
    assert facts == {"step": 7}
    assert all(torch.equal(back[n].float(), t.float()) for n, t in tensors().items())
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "b")


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tensors(path, {"a": torch.ones(3), "b": torch.zeros(2, 2).half()}, {"step": 7}, key="k")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedError):
            read_tensors(path, key="k")


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "facts", "swapped", "cut", "pickle"])
def test_a_file_that_is_not_the_one_meant_is_noticed(tmp_path: Path, change: str) -> None:
    path, other = tmp_path / "key_a", tmp_path / "key_b"
    save_tensors(path, {"a": torch.ones(2, 3)}, {"step": 7}, key=path.name)
    save_tensors(other, {"a": torch.ones(2, 3)}, {"step": 7}, key=other.name)
    with safe_open(path, framework="pt") as file:
        about, tensor = file.metadata(), file.get_tensor("a").clone()
    match change:
        case "name":
            save_file({"b": tensor}, path, about)
        case "shape":
            save_file({"a": tensor.mT.contiguous()}, path, about)
        case "dtype":
            save_file({"a": tensor.view(torch.int32)}, path, about)
        case "facts":
            save_file({"a": tensor}, path, {**about, "facts": json.dumps({"step": 8})})
        case "swapped":
            shutil.copy(other, path)
        case "cut":
            os.truncate(path, path.stat().st_size - 1)
        case _:
            torch.save({"a": tensor}, path)
    with pytest.raises(DamagedError):
        read_tensors(path, key=path.name)
