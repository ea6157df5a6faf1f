"""Run an exported workflow by ComfyUI's own executor, and the same edit by diffusers.

Called by `frontends.py --workflow`. A checkpoint of Stable Diffusion 1.5's true size with eight
input channels, random but for scales (so that pictures have contrast), edits 104 px in 2
steps: with an adapter of known changes and a word, and without. ComfyUI runs in a process of its
own, in float32 on a CPU: `frontend_workflow.py CHECKOUT FOLDER` executes every `*.workflow.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

SIDE, STEPS = 104, 2  # 0.01 megapixels is the least that ComfyUI scales to
NAMES = ("alone", "with the adapter")
CLOSE = 2
"""Levels of 255 by which the two programs' pictures may differ."""
NEEDED = ("nodes_post_processing", "nodes_latent", "nodes_custom_sampler", "nodes_ip2p")
"""ComfyUI's modules of nodes that the workflow has beside the builtin ones."""


def write_world(folder: Path, checkout: Path) -> Any:
    """Write a diffusers base, its single file and a picture below `folder`; return the pipeline."""
    import numpy as np
    from diffusers import EulerDiscreteScheduler
    from geometry import SCHEDULE, random_pipeline
    from PIL import Image
    from transformers import CLIPTokenizer

    from customize.exporting.whole_model.single_file_keys import to_single_file

    pipeline = random_pipeline("sd15")
    pipeline.scheduler = EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace")
    pipeline.tokenizer = CLIPTokenizer.from_pretrained(checkout / "comfy" / "sd1_tokenizer")
    pipeline.tokenizer.model_max_length = 77
    _scale(pipeline)
    pipeline.to(dtype=torch.float16).save_pretrained(folder / "base")
    models = {name: getattr(pipeline, name) for name in ("unet", "vae", "text_encoder")}
    tensors = to_single_file(
        {name: model.state_dict() for name, model in models.items()},
        {name: model.config for name, model in models.items()},
    )
    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, checkpoints / "base.safetensors")
    (folder / "input").mkdir()
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    picture.save(folder / "input" / "picture.png")
    return pipeline.to(dtype=torch.float32)


@torch.no_grad()
def _scale(pipeline: Any) -> None:
    """Give predictions and decoded pictures the spread of a trained model's."""
    generator = torch.Generator().manual_seed(0)
    noise, text = (torch.randn(*s, generator=generator) for s in ((1, 8, 8, 8), (1, 77, 768)))
    predicted = pipeline.unet(noise, 500, encoder_hidden_states=text).sample
    pipeline.unet.conv_out.weight /= predicted.std()
    last = pipeline.vae.decoder.conv_out
    decoded = pipeline.vae.decode(noise[:, :4] / pipeline.vae.config.scaling_factor).sample
    last.bias -= decoded.mean((0, 2, 3))
    last.weight *= 0.4 / decoded.std()
    last.bias *= 0.4 / decoded.std()


def write_workflows(folder: Path, exported: Path) -> dict[str, Any]:
    """Put an export's files where ComfyUI looks, and its workflow with and without the adapter.

    Only names of files, size and steps are changed in what was exported.
    """
    for kind, found in (("loras", exported), ("embeddings", exported / "embeddings")):
        place = folder / "models" / kind
        place.mkdir(parents=True)
        for file in found.glob("*.safetensors"):
            (place / file.name).write_bytes(file.read_bytes())
    nodes = json.loads((exported / "dog.workflow.json").read_text())
    nodes["1"]["inputs"]["ckpt_name"] = "base.safetensors"
    nodes["4"]["inputs"]["megapixels"] = round(SIDE**2 / 1024**2, 4)
    nodes["11"]["inputs"]["steps"] = STEPS
    plain = json.loads(json.dumps(nodes).replace('["2", ', '["1", '))
    del plain["2"]
    plain["5"]["inputs"]["text"] = "make it red"
    for name, workflow in zip(NAMES, (plain, nodes), strict=True):
        workflow["14"]["inputs"]["filename_prefix"] = name
        (folder / f"{name}.workflow.json").write_text(json.dumps(workflow))
    return nodes


def by_comfyui(checkout: Path, folder: Path) -> None:
    """Execute the workflows in a process of their own."""
    command = [sys.executable, __file__, str(checkout), str(folder)]
    subprocess.run(command, stdout=sys.stderr, check=True)


@torch.no_grad()
def by_diffusers(pipeline: Any, folder: Path, nodes: dict[str, Any], text: str) -> Any:
    """Return the edit of one text as (H, W, 3) levels of 0..255."""
    import numpy as np
    from PIL import Image

    generator = torch.Generator().manual_seed(nodes["9"]["inputs"]["noise_seed"])
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=generator)
    pipeline.scheduler.set_timesteps(STEPS)
    sigma = pipeline.scheduler.sigmas[0]  # ComfyUI begins at the spread of noise and picture
    pipeline.set_progress_bar_config(disable=True)
    with Image.open(folder / "input" / "picture.png") as picture:
        edited = pipeline(
            text,
            image=picture.convert("RGB"),
            num_inference_steps=STEPS,
            guidance_scale=nodes["8"]["inputs"]["cfg_conds"],
            image_guidance_scale=nodes["8"]["inputs"]["cfg_cond2_negative"],
            latents=noise * (1 + sigma**2) ** 0.5 / pipeline.scheduler.init_noise_sigma,
            output_type="np",
        ).images[0]
    return np.asarray(edited) * 255


def compare(checkout: Path, folder: Path, exports: dict[str, Path], pipeline: Any) -> list[Any]:
    """Edit by both programs, and say how far apart the pictures are.

    `exports` are the adapter's folders for `comfyui` and `diffusers`.
    """
    import numpy as np
    from PIL import Image

    nodes = write_workflows(folder, exports["comfyui"])
    by_comfyui(checkout, folder)
    outcomes, before = list[dict[str, Any]](), None
    for name in NAMES:
        text = "make it red"
        if name != NAMES[0]:
            words = exports["diffusers"] / "embeddings" / "my-dog.safetensors"
            pipeline.load_lora_weights(exports["diffusers"])
            pipeline.load_textual_inversion(words, token="<my-dog>")
            text = nodes["5"]["inputs"]["text"].replace("embedding:my-dog", "<my-dog>")
        expected = by_diffusers(pipeline, folder, nodes, text)
        (file,) = (folder / "output").glob(f"{name}_*.png")
        with Image.open(file) as picture:
            apart = np.abs(np.asarray(picture.convert("RGB")) - expected)
        outcome: dict[str, Any] = {"edit": name, "text": text}
        outcome |= {"largest": round(float(apart.max()), 2), "mean": round(float(apart.mean()), 3)}
        outcome["spread"] = round(float(expected.std()), 1)
        if before is not None:
            outcome["moved by the adapter"] = round(float(np.abs(expected - before).mean()), 1)
        outcomes.append({**outcome, "close": bool(apart.max() <= CLOSE)})
        before = expected
    return outcomes


def execute(checkout: Path, folder: Path) -> None:
    """Run every workflow of `folder` by ComfyUI's executor, here; raises where one fails.

    Modules that are not installed and that these nodes never use are replaced by empty ones.
    """
    from frontend_loaders import ABSENT
    from frontend_models import StandIns

    sys.meta_path.append(StandIns(ABSENT["comfyui"]))
    sys.path.insert(0, str(checkout))
    sys.argv = ["main.py", "--cpu", "--base-directory", str(folder)]
    import comfy.options  # type: ignore[import-not-found]

    comfy.options.enable_args_parsing()
    import comfy_extras.nodes_post_processing  # type: ignore[import-not-found]  # noqa: F401
    import execution  # type: ignore[import-not-found]
    import nodes  # type: ignore[import-not-found]

    logging.getLogger().setLevel(logging.INFO)
    extras = checkout / "comfy_extras"
    for name in NEEDED:
        loaded = nodes.load_custom_node(str(extras / f"{name}.py"), module_parent="comfy_extras")
        assert asyncio.run(loaded), name
    for file in sorted(folder.glob("*.workflow.json")):
        prompt = json.loads(file.read_text())
        checked = asyncio.run(execution.validate_prompt(file.stem, prompt, None))
        assert checked[0], checked
        caches = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        nobody = SimpleNamespace(client_id=None, send_sync=lambda *_: None)  # no window listens
        executor = execution.PromptExecutor(nobody, execution.CacheType.CLASSIC, caches)
        executor.execute(prompt, file.stem, {}, checked[2])
        assert executor.success, executor.status_messages


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        execute(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
