"""Run one front end's own loader on exported files: a process each, for their modules' names clash.

Called by frontends.py as `frontend_loaders.py NAME CHECKOUT MANIFEST`; prints JSON. Models have
true names and shapes and no weights: each layer's change is measured on zeros of its shape.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from frontend_models import (
    WORD_WIDTHS,
    StandIns,
    clip_shapes,
    comfy_name,
    forge_config,
    kohya_name,
    ldm_shapes,
    rows_of,
    text_model,
    unet,
)
from safetensors.torch import load_file
from torch import Tensor, nn

ABSENT = {
    "comfyui": (
        *("torchvision", "torchaudio", "torchsde", "av", "kornia", "spandrel", "soundfile"),
        *("comfy_kitchen", "comfy_aimdo", "blake3", "simpleeval", "alembic", "sqlalchemy"),
    ),
    "kohya": ("torchvision", "cv2", "imagesize", "toml", "voluptuous", "library.train_util"),
    "forge": ("sentencepiece", "gguf", "torchvision", "cv2", "gradio", "modules"),
    "invokeai": ("torchvision", "cv2", "compel", "spandrel", "gguf", "onnx", "onnxruntime"),
}


@dataclass(frozen=True)
class Outcome:
    """What one loader made of one file.

    `matched` of `layers` were found, with at most the relative `error` of their change (Frobenius);
    `left` keys were not used, `examples` of which are named.
    """

    file: str
    layers: int
    matched: int
    error: float
    left: int = 0
    examples: tuple[str, ...] = ()
    note: str = ""


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what is logged at warning level and above."""
    messages: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    ear, root = Ear(logging.WARNING), logging.getLogger()
    root.addHandler(ear)
    try:
        yield messages
    finally:
        root.removeHandler(ear)


def comfyui(checkout: Path) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """ComfyUI: comfy.model_detection, comfy.lora."""
    sys.argv = ["main.py", "--cpu"]
    import comfy.options  # type: ignore[import-not-found]

    comfy.options.enable_args_parsing()
    import comfy.lora  # type: ignore[import-not-found]
    import comfy.lora_convert  # type: ignore[import-not-found]
    import comfy.model_detection  # type: ignore[import-not-found]
    import comfy.sd1_clip  # type: ignore[import-not-found]
    import comfy.sdxl_clip  # type: ignore[import-not-found]

    def run(case: Mapping[str, Any]) -> Mapping[str, Any]:
        tensors = ldm_shapes(case["size"])
        config = comfy.model_detection.model_config_from_unet(tensors, "model.diffusion_model.")
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model(tensors, "model.diffusion_model.", device=torch.device("meta"))
        keys = comfy.lora.model_lora_keys_unet(model, {})
        clips = {"sd1": comfy.sd1_clip.SD1ClipModel, "xl": comfy.sdxl_clip.SDXLClipModel}
        if kind := clips.get(case["size"]):  # klein's text encoder is never changed
            with torch.device("meta"):
                clip = kind(device="meta", dtype=torch.float32)
            keys = comfy.lora.model_lora_keys_clip(clip, keys)
        with heard() as messages:
            lora = comfy.lora_convert.convert_lora(load_file(case["path"]))
            patches = comfy.lora.load_lora(lora, keys)
        left = [m.removeprefix("lora key not loaded: ") for m in messages if "not loaded" in m]

        def change(layer: str, shape: tuple[int, ...]) -> Tensor | None:
            key = comfy_name(layer, case["size"])
            height, own = rows_of(layer, shape, case["size"])
            part = (key, (0, own.start or 0, shape[0]))  # a patch of some rows is kept under both
            whole, alone = patches.get(key), patches.get(part)
            if whole is None and alone is None:
                return None
            patch, height, own = (whole, height, own) if whole else (alone, shape[0], slice(None))
            zeros = torch.zeros(height, *shape[1:])
            found = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], zeros, layer)
            return found[own]

        rows = {}
        if place := case["embedding"]:
            stem, folder = Path(place).stem, str(Path(place).parent)
            for number, (encoder, width) in enumerate(WORD_WIDTHS[case["size"]].items()):
                name = ("clip_l", "clip_g")[number]
                rows[encoder] = comfy.sd1_clip.load_embed(stem, folder, width, name)
        note = f"detected as {type(config).__name__}"
        return {"change": change, "left": left, "note": note, "rows": rows}

    return run


def forge(checkout: Path) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Forge: backend.patcher.lora with the key maps of both its collections."""
    sys.path.insert(0, str(checkout / "packages_3rdparty"))
    sys.argv = ["launch.py", "--always-cpu"]
    from backend.patcher import lora as loader  # type: ignore[import-not-found]

    def run(case: Mapping[str, Any]) -> Mapping[str, Any]:
        shapes = {n.removeprefix("model."): t for n, t in ldm_shapes(case["size"]).items()}
        model = MagicMock()
        model.state_dict.return_value = shapes
        model.diffusion_model.config = forge_config(case["size"])
        clip = MagicMock()
        clip.state_dict.return_value = clip_shapes(case["size"])
        found, left = loader.load_lora(
            load_file(case["path"]), loader.model_lora_keys_unet(model, {})
        )
        text, left = loader.load_lora(left, loader.model_lora_keys_clip(clip, {}))
        patches = found | text

        def change(layer: str, shape: tuple[int, ...]) -> Tensor | None:
            patch = patches.get(comfy_name(layer, case["size"]))
            if patch is None:
                return None
            return loader.merge_lora_to_weight([(1.0, patch, 1.0, None, None)], torch.zeros(shape))

        return {"change": change, "left": list(left), "note": ""}

    return run


def kohya(checkout: Path) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """kohya's scripts: networks.lora.create_network_from_weights."""
    import networks.lora as loader  # type: ignore[import-not-found]
    from library import original_unet, sdxl_original_unet  # type: ignore[import-not-found]

    def run(case: Mapping[str, Any]) -> Mapping[str, Any]:
        xl = case["size"] == "xl"
        with torch.device("meta"):
            if xl:
                network: Any = sdxl_original_unet.SdxlUNet2DConditionModel()
            else:
                network = original_unet.UNet2DConditionModel(
                    64, 8, 768, use_linear_projection=False
                )
        text = [text_model("text_encoder")] + ([text_model("text_encoder_2")] if xl else [])
        lora, tensors = loader.create_network_from_weights(
            1.0, case["path"], None, text if xl else text[0], network, for_inference=True
        )
        lora.apply_to(text if xl else text[0], network, apply_text_encoder=True, apply_unet=True)
        told = lora.load_state_dict(tensors, strict=False)
        modules = {module.lora_name: module for module in lora.unet_loras + lora.text_encoder_loras}

        def change(layer: str, shape: tuple[int, ...]) -> Tensor | None:
            module = modules.get(kohya_name(layer, xl=xl))
            return None if module is None else module.get_weight(1.0).detach().view(shape)

        left = {key.split(".")[0] for key in (*told.unexpected_keys, *told.missing_keys)}
        return {"change": change, "left": left, "note": ""}

    return run


def invokeai(checkout: Path) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """InvokeAI: the probe of configs.lora, then the loader's conversion and its layer patcher."""
    from invokeai.backend import textual_inversion  # type: ignore[import-not-found]
    from invokeai.backend.model_manager.configs import lora as probes  # type: ignore[import-not-found]
    from invokeai.backend.model_manager.model_on_disk import ModelOnDisk  # type: ignore[import-not-found]
    from invokeai.backend.patches.layer_patcher import LayerPatcher  # type: ignore[import-not-found]
    from invokeai.backend.patches.lora_conversions import (  # type: ignore[import-not-found]
        sd_lora_conversion_utils,
        sdxl_lora_conversion_utils,
    )

    def run(case: Mapping[str, Any]) -> Mapping[str, Any]:
        xl = case["size"] == "xl"
        probe = probes.LoRA_LyCORIS_SDXL_Config if xl else probes.LoRA_LyCORIS_SD1_Config
        disk = ModelOnDisk(Path(case["path"]))
        probe._validate_looks_like_lora(disk)
        probe._validate_base(disk)
        tensors = {n: t for n, t in load_file(case["path"]).items() if not n.startswith("bundle_")}
        if xl:
            tensors = sdxl_lora_conversion_utils.convert_sdxl_keys_to_diffusers_format(tensors)
        patch = sd_lora_conversion_utils.lora_model_from_sd_state_dict(tensors)
        models = {"lora_unet_": unet(case["size"])}
        if xl:
            models |= {"lora_te1_": text_model("text_encoder")}
            models |= {"lora_te2_": text_model("text_encoder_2")}
        else:
            models |= {"lora_te_": text_model("text_encoder")}
        found, left = {}, []
        for key, layer in patch.layers.items():
            prefix = next((p for p in models if key.startswith(p)), None)
            if prefix is None:
                left.append(key)
                continue
            name = key.removeprefix(prefix)
            path, _ = LayerPatcher._get_submodule(models[prefix], name, True)
            found[prefix + path.replace(".", "_")] = layer

        def change(layer: str, shape: tuple[int, ...]) -> Tensor | None:
            model, _, path = layer.partition(".")
            number = "" if not xl else "1" if model == "text_encoder" else "2"
            prefix = "lora_unet_" if model == "denoiser" else f"lora_te{number}_text_model_"
            patch_layer = found.get(prefix + path.replace(".", "_"))
            if patch_layer is None:
                return None
            weight = nn.Parameter(torch.zeros(shape), requires_grad=False)
            return patch_layer.get_parameters({"weight": weight}, weight=1.0)["weight"].view(shape)

        rows = {}
        if place := case["embedding"]:
            raw = textual_inversion.TextualInversionModelRaw.from_checkpoint(Path(place))
            # as its model_patcher chooses: by the text encoder's width
            both = [each for each in (raw.embedding, raw.embedding_2) if each is not None]
            widths = WORD_WIDTHS[case["size"]].items()
            rows = {name: next(r for r in both if r.shape[1] == width) for name, width in widths}
        note = f"probed as {probe.__name__}"
        return {"change": change, "left": left, "note": note, "rows": rows}

    return run


def base_weights(case: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the base's weights of a case that has some."""
    if not case["base"]:
        return {}
    path = Path(case["base"]) / "unet" / "diffusion_pytorch_model.safetensors"
    return {f"denoiser.{n.removesuffix('.weight')}": t for n, t in load_file(path).items()}


def judge(case: Mapping[str, Any], answer: Mapping[str, Any]) -> Outcome:
    """Compare each layer's change with the adapter's own."""
    from customize.adapters.deltas import layers, weight_delta
    from customize.adapters.file import read_adapter

    adapter = read_adapter(Path(case["adapter"]))
    names, matched, worst = layers(adapter), 0, 0.0
    weights = base_weights(case)
    for layer in names:
        weight = weights.get(layer, torch.zeros(case["shapes"][layer]))
        exact = weight_delta(adapter, layer, weight)
        found = answer["change"](layer, tuple(exact.shape))
        if found is not None:
            matched += 1
            worst = max(worst, float((found.float() - exact).norm() / exact.norm()))
    left, note = tuple(sorted(answer["left"])), answer["note"]
    if rows := answer.get("rows"):
        taught = {encoder: adapter.tensors[f"words.{encoder}.<my-dog>"] for encoder in rows}
        exact = all(torch.equal(rows[encoder], taught[encoder]) for encoder in rows)
        note += ", word read" if exact else ", word WRONG"
    return Outcome(case["name"], len(names), matched, worst, len(left), left[:3], note)


def main() -> None:
    """Run every case of the manifest through one front end."""
    name, checkout, manifest = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    cases = json.loads(manifest.read_text())
    sys.path.insert(0, str(checkout))
    sys.meta_path.append(StandIns(ABSENT[name]))
    loaders = {"comfyui": comfyui, "forge": forge, "kohya": kohya, "invokeai": invokeai}
    with contextlib.redirect_stdout(sys.stderr):
        run = loaders[name](checkout)
        outcomes = []
        for case in cases:
            try:
                outcomes.append(judge(case, run(case)))
            except Exception as error:
                note = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                outcomes.append(Outcome(case["name"], len(case["shapes"]), 0, 0.0, note=note))
    print(json.dumps([asdict(outcome) for outcome in outcomes]))


if __name__ == "__main__":
    main()
