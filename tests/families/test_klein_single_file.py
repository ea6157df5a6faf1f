"""A transformer of FLUX.2 klein as one file opens to the weights of the folder it was made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.klein import toy_klein
from safetensors.torch import load_file, save_file
from torch import Tensor

from customize import families
from customize.errors import BaseModelError
from customize.exporting.formats.makers_names import PARTS
from customize.families.base import resolve_base

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
_NORMS = {
    "double_blocks": {
        "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
    },
    "single_blocks": {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"},
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMIZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_klein(tmp_path_factory.mktemp("klein"))


def _by_the_makers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a transformer's weights as its makers do."""
    tensors = {
        f"{whole}.weight": torch.cat([weights[f"{part}.weight"] for part in parts])
        for whole, parts in PARTS.items()
        if f"{parts[0]}.weight" in weights
    }
    for kind, (places, count) in {
        "double_blocks": ("transformer_blocks", 2),
        "single_blocks": ("single_transformer_blocks", 3),
    }.items():
        for number in range(count):
            for own, theirs in _NORMS[kind].items():
                tensors[f"{kind}.{number}.{own}.scale"] = weights[
                    f"{places}.{number}.{theirs}.weight"
                ].clone()
    scale, shift = weights["norm_out.linear.weight"].chunk(2)
    tensors["final_layer.adaLN_modulation.1.weight"] = torch.cat([shift, scale])
    return tensors


def _file(folder: Path, path: Path, **changed: Any) -> Path:
    tensors = _by_the_makers(load_file(folder / WEIGHTS))
    save_file({name: t.contiguous() for name, t in (tensors | changed).items()}, path)
    shutil.copytree(folder, path.with_suffix(""), ignore=shutil.ignore_patterns("transformer"))
    return path


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_it_opens_to_the_folders_weights(folder: Path, tmp_path: Path, prefix: str) -> None:
    path = _file(folder, tmp_path / "klein.safetensors")
    save_file({f"{prefix}{name}": t for name, t in load_file(path).items()}, path)
    base = resolve_base(str(path))
    assert (base.family, base.resolution) == ("flux2_klein", 64)
    opened = families.open_family(base).denoiser.state_dict()
    wanted = load_file(folder / WEIGHTS)
    assert opened.keys() == wanted.keys()
    assert all(torch.equal(opened[name], wanted[name]) for name in wanted)
    assert resolve_base(str(path)).folder == base.folder  # converted once
    assert families.open_encoder(base).text("x", as_tokens=False)["text"].shape == (512, 96)


def _without_rest(path: Path) -> None:
    shutil.rmtree(path.with_suffix("") / "text_encoder")


def _fp8(path: Path) -> None:
    kind = torch.float8_e4m3fn
    tensors = load_file(path)
    save_file({n: t.to(kind) if t.ndim > 1 else t for n, t in tensors.items()}, path)


def _dev(path: Path) -> None:
    save_file({**load_file(path), "guidance_in.in_layer.weight": torch.ones(2, 2)}, path)


def _half(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop("double_blocks.1.txt_mlp.0.weight")
    save_file(tensors, path)


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "fp8": (_fp8, "its numbers are F8_E4M3, which cannot be trained on"),
    "no text encoder": (_without_rest, "lacks text_encoder; expected the rest of the model there"),
    "FLUX.2 dev": (_dev, "this is FLUX.2 dev, which is not supported"),
    "a tensor short": (_half, "its transformer does not fit at 1 tensors"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_refused_by_name(folder: Path, tmp_path: Path, kind: str) -> None:
    path = _file(folder, tmp_path / "klein.safetensors")
    spoil, expected = WRONG[kind]
    spoil(path)
    with pytest.raises(BaseModelError, match=expected):
        resolve_base(str(path))
    assert not list((tmp_path / "cache" / "bases").glob("*/model_index.json"))
