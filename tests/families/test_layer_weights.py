"""Single weights by adapters' names: what the loaded model has, whatever the files look like."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_base, toy_xl_base
from safetensors.torch import load_file, save_file

from customize import families
from customize.errors import BaseModelError
from customize.families.base import resolve_base
from customize.families.loading.layer_weights import BaseWeights

_PARTS = {"denoiser": "unet", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2"}


def _modules(pipeline: Any) -> dict[str, torch.Tensor]:
    """Return the weight of every module that adapters can name."""
    found: dict[str, torch.Tensor] = {}
    for component, part in _PARTS.items():
        model = getattr(pipeline, part, None)
        for name, module in model.named_modules() if model is not None else ():
            if isinstance(getattr(module, "weight", None), torch.Tensor):
                found[f"{component}.{name.removeprefix('text_model.')}"] = module.weight.detach()
    return found


@pytest.mark.parametrize("make", [toy_base, toy_xl_base])
def test_every_weight_is_the_models_own(make: Any, tmp_path: Path) -> None:
    base = resolve_base(str(make(tmp_path / "base")))
    weights, expected = BaseWeights(base), _modules(families.open_pipeline(base))
    assert len(expected) > 100
    assert ("text_encoder_2.encoder.layers.0.self_attn.q_proj" in weights) == (make is toy_xl_base)
    for layer, weight in expected.items():
        assert layer in weights
        assert weights.shape(layer) == tuple(weight.shape)
        assert torch.equal(weights[layer].float(), weight), layer
    together = dict(weights.several(expected))
    assert [*together] == [*expected]
    assert all(torch.equal(together[layer].float(), expected[layer]) for layer in expected)


@pytest.mark.parametrize("layout", ["text_model", "sharded", "fp16"])
def test_layouts_of_files_make_no_difference(layout: str, tmp_path: Path) -> None:
    folder = toy_base(tmp_path / "base")
    layer = "text_encoder.encoder.layers.1.self_attn.v_proj"
    expected = BaseWeights(resolve_base(str(folder)))[layer]
    match layout:
        case "text_model":
            path = folder / "text_encoder" / "model.safetensors"
            tensors = load_file(path)
            save_file({f"text_model.{name}": t for name, t in tensors.items()}, path)
        case "sharded":
            path = folder / "text_encoder" / "model.safetensors"
            tensors = sorted(load_file(path).items())
            path.unlink()
            for index, part in enumerate((tensors[::2], tensors[1::2]), start=1):
                save_file(dict(part), path.with_name(f"model-0000{index}-of-00002.safetensors"))
        case _:
            for path in folder.rglob("*.safetensors"):
                halves = {name: t.half() for name, t in load_file(path).items()}
                save_file(halves, path.with_suffix(".fp16.safetensors"))
                path.unlink()
    found = BaseWeights(resolve_base(str(folder)))[layer]
    tolerance = 1e-3 if layout == "fp16" else 0
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_unknown_layers_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = toy_base(tmp_path / "base")
    base = resolve_base(str(folder))
    weights = BaseWeights(base)
    for ask in (weights.__getitem__, weights.shape):
        with pytest.raises(BaseModelError, match=r"no layer denoiser\.nowhere"):
            ask("denoiser.nowhere")
    shutil.rmtree(folder / "unet")
    (folder / "unet").mkdir()
    with pytest.raises(BaseModelError, match="no weights"):
        BaseWeights(base)
