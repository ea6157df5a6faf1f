"""The guide over exports: each program's one edit, a workflow, lines that run as pasted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_header, toy_resolved, toy_xl_base
from builders.nursery import Nursery
from PIL import Image

from customize.adapters.file import AdapterFile, save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.errors import ExportError
from customize.exporting import export, export_all
from customize.exporting.sharing.comfyui_workflow import workflow
from customize.exporting.sharing.diffusers_script import diffusers_script
from customize.exporting.sharing.first_edit import FirstEdit, first_edit, usual_base_of
from customize.exporting.sharing.programs import sections
from customize.exporting.targets import ExportOptions
from customize.families.base import Base, resolve_base
from customize.families.loading.layer_weights import BaseWeights
from customize.families.sampling_defaults import Sampling
from customize.families.stable_diffusion.profiles import SD1, SDXL

WORD, BOLD = "<my-dog>", re.compile(r"\*\*Every word belongs to the adapter: .*?\*\*")
EDIT = FirstEdit(
    profile=SD1,
    instruction='turn the dog into <my-dog> (a "sitting" one) [here]',
    words=(WORD,),
    sampling=Sampling(steps=20, text_guidance=7.5, image_guidance=1.5),
    side=512,
    base="timbrooks/instruct-pix2pix",
    name="my_dog",
    scheduler="EulerAncestralDiscreteScheduler",
    usual=SD1.usual_bases[1],
)
# What each node wants, and the kinds of its outputs: ComfyUI's own (nodes.py and comfy_extras).
NODES: Mapping[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name": ""}, ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (
        {"model": "MODEL", "clip": "CLIP", "lora_name": "", "strength_model": "",
         "strength_clip": ""}, ("MODEL", "CLIP")),
    "LoadImage": ({"image": ""}, ("IMAGE", "MASK")),
    "ImageScaleToTotalPixels": (
        {"image": "IMAGE", "upscale_method": "", "megapixels": "", "resolution_steps": ""},
        ("IMAGE",)),
    "CLIPTextEncode": ({"clip": "CLIP", "text": ""}, ("CONDITIONING",)),
    "InstructPixToPixConditioning": (
        {"positive": "CONDITIONING", "negative": "CONDITIONING", "vae": "VAE", "pixels": "IMAGE"},
        ("CONDITIONING", "CONDITIONING", "LATENT")),
    "DualCFGGuider": (
        {"model": "MODEL", "cond1": "CONDITIONING", "cond2": "CONDITIONING",
         "negative": "CONDITIONING", "cfg_conds": "", "cfg_cond2_negative": "", "style": ""},
        ("GUIDER",)),
    "RandomNoise": ({"noise_seed": ""}, ("NOISE",)),
    "KSamplerSelect": ({"sampler_name": ""}, ("SAMPLER",)),
    "BasicScheduler": (
        {"model": "MODEL", "scheduler": "", "steps": "", "denoise": ""}, ("SIGMAS",)),
    "SamplerCustomAdvanced": (
        {"noise": "NOISE", "guider": "GUIDER", "sampler": "SAMPLER", "sigmas": "SIGMAS",
         "latent_image": "LATENT"}, ("LATENT", "LATENT")),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": ""}, ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    found = toy_resolved(tmp_path_factory.mktemp("base"))
    own = {"steps": 2, "text_guidance": 2.5, "image_guidance": 1.25}
    (found.folder / "customize.json").write_text(json.dumps({"edit": own}))
    return found


def adapter_of(base: Base, *, layers: bool = True) -> AdapterFile:
    weights, random, tensors = BaseWeights(base), torch.Generator().manual_seed(0), {}
    layer = next(name for name in sorted(weights.layers()) if name.endswith("attn2.to_k"))
    if layers:
        out, inputs = weights.shape(layer)
        tensors[f"{layer}.lora_A"] = torch.randn(2, inputs, generator=random)
        tensors[f"{layer}.lora_B"] = torch.randn(out, 2, generator=random) * 0.1
    for encoder in ("text_encoder", "text_encoder_2"):
        if (table := f"{encoder}.embeddings.token_embedding") in weights:
            tensors[f"words.{encoder}.{WORD}"] = torch.randn(1, weights.shape(table)[1])
    concept = Taught("my_dog", WORD, vectors=1, instructions=("turn the dog into <my-dog>",))
    header = toy_header(
        method="imported", rank=None, alpha=None, concepts=(concept,), family=base.family,
        base_name=base.name, base_fingerprint=base.fingerprint,
    )  # fmt: skip
    return AdapterFile(header, tensors)


def by_kind(nodes: Mapping[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [node["inputs"] for node in nodes.values() if node["class_type"] == kind]
    return found


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("profile", [SD1, SDXL])
def test_every_input_of_the_workflow_is_of_its_nodes_kind(profile: Any, whole: bool) -> None:
    nodes = workflow(replace(EDIT, profile=profile), whole=whole)
    for node in nodes.values():
        wants, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == wants.keys()
        for name, value in node["inputs"].items():
            if wants[name]:
                number, output = value
                source = nodes[number]["class_type"]
                assert NODES[source][1][output] == wants[name], (node["class_type"], name)
            else:
                assert not isinstance(value, list)
    assert ("LoraLoader" in {node["class_type"] for node in nodes.values()}) == (not whole)


def test_the_workflow_is_instruct_pix2pix_with_this_adapter() -> None:
    nodes = workflow(EDIT)
    assert by_kind(nodes, "CheckpointLoaderSimple")["ckpt_name"] == SD1.usual_bases[1].checkpoint
    assert by_kind(nodes, "LoraLoader")["lora_name"] == "my_dog.safetensors"
    guider, pair = by_kind(nodes, "DualCFGGuider"), by_kind(nodes, "InstructPixToPixConditioning")
    assert (guider["cfg_conds"], guider["cfg_cond2_negative"]) == (7.5, 1.5)
    assert guider["style"] == "regular"
    (joint,) = [n for n, node in nodes.items() if node["inputs"] is pair]
    assert (guider["cond1"], guider["cond2"]) == ([joint, 0], [joint, 1])
    assert guider["negative"] == pair["negative"]  # the empty text before the picture joins it
    texts = {
        n: node["inputs"]["text"]
        for n, node in nodes.items()
        if node["class_type"] == "CLIPTextEncode"
    }
    assert texts[guider["negative"][0]] == ""
    told = r'turn the dog into embedding:my-dog \(a "sitting" one\) [here]'
    assert texts[pair["positive"][0]] == told
    lora = next(n for n, node in nodes.items() if node["class_type"] == "LoraLoader")
    assert guider["model"] == [lora, 0]
    assert by_kind(nodes, "BasicScheduler")["steps"] == 20
    assert by_kind(nodes, "KSamplerSelect")["sampler_name"] == "euler_ancestral"


def test_each_program_is_told_its_files_words_and_settings() -> None:
    text = "\n".join(sections(EDIT, ["kohya", "diffusers", "comfyui", "full-model"]))
    for part in (
        "instruct-pix2pix-00-22000.safetensors`, from https://huggingface.co/timbrooks/instruct-pix2pix",
        "`comfyui/my_dog.workflow.json`", "`comfyui/my_dog.safetensors` goes into models/loras",
        "`comfyui/embeddings` go into models/embeddings", "embedding:my-dog", "7.5 (`cfg_conds`)",
        "1.5 (`cfg_cond2_negative`)", "img2img", "<lora:my_dog:1>", "CFG Scale 7.5",
        "Image CFG Scale 1.5", "Sampling steps 20", "opens no InstructPix2Pix model",
        r'turn the dog into my-dog \(a "sitting" one\) \[here\] <lora:my_dog:1>',
    ):  # fmt: skip
        assert part in text, part
    assert len(BOLD.findall(text)) == 3
    wordless = replace(EDIT, words=(), instruction="make it old")
    assert not BOLD.findall("\n".join(sections(wordless, ["kohya"])))


def test_a1111_is_said_to_edit_nothing_with_sdxl() -> None:
    edit = replace(EDIT, profile=SDXL, usual=SDXL.usual_bases[0], base=SDXL.usual_bases[0].name)
    text = "\n".join(sections(edit, ["kohya", "comfyui", "full-model"]))
    assert "They have no InstructPix2Pix for SDXL" in text
    assert "Image CFG Scale" not in text
    assert "`sdxl-instructpix2pix-768.safetensors` (or the whole model" in text


def pasted(guide: Path) -> str:
    (script,) = re.findall(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    return script


def run_pasted(guide: Path, nursery: Nursery) -> None:
    """Run the guide's lines in its folder, in a process of its own, and check the picture."""
    script = pasted(guide)
    assert len([line for line in script.splitlines() if line]) <= 12
    Image.radial_gradient("L").convert("RGB").resize((80, 60)).save(guide.parent / "picture.png")
    log = guide.parent.parent / "pasted.log"
    assert nursery.start(script, log, folder=guide.parent).wait() == 0, log.read_text()
    with Image.open(guide.parent / "edit.png") as edit:
        assert max(edit.size) <= 80


def test_the_lines_for_diffusers_run_as_pasted(
    base: Base, tmp_path: Path, nursery: Nursery
) -> None:
    made = export_all(adapter_of(base), base, tmp_path / "all", verify=False)
    script = pasted(made.guide)
    assert 'from_pretrained("full-model/my_dog")' in script
    assert "guidance_scale=2.5, image_guidance_scale=1.25" in script
    run_pasted(made.guide, nursery)
    nodes = json.loads((tmp_path / "all" / "comfyui" / "my_dog.workflow.json").read_text())
    assert by_kind(nodes, "LoraLoader")["lora_name"] == "my_dog.safetensors"
    nodes = json.loads((tmp_path / "all" / "full-model" / "my_dog.workflow.json").read_text())
    assert by_kind(nodes, "CheckpointLoaderSimple")["ckpt_name"] == "my_dog.safetensors"


def test_words_alone_have_a_workflow_without_a_lora(base: Base, tmp_path: Path) -> None:
    adapter = adapter_of(base, layers=False)
    written = export(adapter, base, "comfyui", tmp_path / "out", ExportOptions("dog"))
    nodes = json.loads((tmp_path / "out" / "dog.workflow.json").read_text())
    assert tmp_path / "out" / "dog.workflow.json" in written.files
    assert "LoraLoader" not in {node["class_type"] for node in nodes.values()}
    edit = first_edit(adapter, base, "dog")
    named = replace(edit, base="timbrooks/instruct-pix2pix")
    assert "load_lora" not in (diffusers_script(named, ["diffusers"]) or "")


def test_sdxl_with_words_opens_as_a_whole(tmp_path: Path) -> None:
    base = resolve_base(str(toy_xl_base(tmp_path / "base")))
    edit = replace(first_edit(adapter_of(base), base, "dog"), base="diffusers/any")
    script = diffusers_script(edit, ["diffusers", "full-model"])
    assert script is not None
    assert 'StableDiffusionXLInstructPix2PixPipeline.from_pretrained("full-model/dog")' in script
    assert diffusers_script(edit, ["diffusers"]) is None


def test_the_embedded_base_is_offered_to_diffusers_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nursery: Nursery
) -> None:
    base = resolve_base("embedded")
    usual = usual_base_of(base)
    assert usual is not None
    assert usual.diffusers_alone
    adapter = adapter_of(base)
    path = save_adapter(tmp_path / "a.safetensors", adapter.header, adapter.tensors)
    for target in ("comfyui", "a1111", "invokeai"):
        with pytest.raises(ExportError, match="only diffusers opens this adapter's base"):
            export(adapter, base, target, tmp_path / "out")
        assert main(["export", str(path), "--to", target, "-o", str(tmp_path / "out")]) == 2
        assert "could not detect model type" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match="could not detect model type"):
        made = export_all(adapter, base, tmp_path / "all", verify=False)
    assert "comfyui" in {one.target for one in made.written}
    text = made.guide.read_text("utf-8")
    assert "**Only diffusers opens this adapter's base" in text
    assert "One edit in ComfyUI" not in text
    assert not list((tmp_path / "all").rglob("*.workflow.json"))
    assert "from_pretrained(EMBEDDED)" in pasted(made.guide)
    run_pasted(made.guide, nursery)
