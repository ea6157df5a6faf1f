"""Single-file checkpoints load offline, to the weights of the folder they were made of."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import toy_base, toy_example, toy_xl_base
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from customize.editing import Editor
from customize.errors import BaseModelError
from customize.exporting.whole_model.single_file_keys import to_single_file
from customize.families.base import EMBEDDED, resolve_base
from customize.families.single_file import clip_vocabulary, configs, convert

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
_unet: Any = UNet2DConditionModel
_vae: Any = AutoencoderKL


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMIZE_CACHE", str(tmp_path / "cache"))


def _weights(folder: Path) -> dict[str, dict[str, Tensor]]:
    present = {part: folder / part / file for part, file in WEIGHTS.items()}
    return {part: load_file(path) for part, path in present.items() if path.exists()}


def _single_file(folder: Path, path: Path, **metadata: str) -> Path:
    """Write a base's folder as a single file, by our exporter's names."""
    configs = {p: json.loads((folder / p / "config.json").read_text()) for p in ("unet", "vae")}
    tensors = to_single_file(_weights(folder), configs)
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata)
    return path


def _put_beside(folder: Path, path: Path) -> None:
    """Put all of a base's folder but its weights beside its single file."""
    ignored = shutil.ignore_patterns("*.safetensors", "clip")
    shutil.copytree(folder, path.with_suffix(""), ignore=ignored)


@pytest.mark.parametrize("make", [toy_base, toy_xl_base, lambda _: EMBEDDED])
def test_a_single_file_is_its_folder_bit_for_bit(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    base, original = resolve_base(str(path)), resolve_base(str(folder))
    facts = [(b.family, b.resolution, b.multiple) for b in (base, original)]
    assert facts[0] == facts[1]
    ours, theirs = _weights(base.folder), _weights(folder)
    assert ours.keys() == theirs.keys()
    for part, tensors in theirs.items():
        assert ours[part].keys() == tensors.keys(), part
        assert all(torch.equal(ours[part][n], t) for n, t in tensors.items()), part
    picture = Image.fromarray(toy_example(size=64).source_HWC)
    edits = [
        np.asarray(Editor.from_base(name, device="cpu").edit(picture, "make it red", steps=2).image)
        for name in (str(path), str(folder))
    ]
    assert np.array_equal(edits[0], edits[1])


def test_conversion_is_kept_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    first = resolve_base(str(path)).folder
    with monkeypatch.context() as patched:
        patched.setattr("customize.families.single_file.convert._write", None)
        assert resolve_base(str(path)).folder == first
    config = tmp_path / "model/scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "epsilon"}))
    second = resolve_base(str(path)).folder
    assert second != first
    assert sorted(p.name for p in first.parent.iterdir()) == sorted([first.name, second.name])


def test_two_processes_that_convert_one_file_both_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    own, first = convert._write, list[Path]()

    def beside_another(*arguments: Any) -> None:
        own(*arguments)
        if not first:  # the other one is done before this one is
            first.append(path)
            first.append(convert.convert(path))

    monkeypatch.setattr(convert, "_write", beside_another)
    assert convert.convert(path) == first[1]
    assert [place.name for place in first[1].parent.iterdir()] == [first[1].name]


def test_half_precision_and_averaged_weights_are_kept(tmp_path: Path) -> None:
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
    averaged = {
        "model_ema." + "".join(name.removeprefix("model.").split(".")): tensor + 1
        for name, tensor in tensors.items()
        if name.startswith("model.diffusion_model.")
    }
    save_file({**tensors, **averaged}, path)
    _put_beside(folder, path)
    unet = _weights(resolve_base(str(path)).folder)["unet"]
    for name, tensor in _weights(folder)["unet"].items():
        assert torch.equal(unet[name], tensor.half() + 1)


UNETS: Mapping[str, dict[str, Any]] = {
    "sd1": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
CLIP_L: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768}
CLIP_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


@pytest.mark.parametrize("kind", UNETS)
def test_published_configs_are_read_from_shapes(kind: str) -> None:
    """True geometry, weightless: what shapes say builds the modules of the published configs."""
    four = {"down_block_types": ("DownEncoderBlock2D",) * 4}
    with torch.device("meta"):
        unet = _unet(in_channels=8, out_channels=4, **UNETS[kind])
        vae = _vae(**VAE, **four, up_block_types=("UpDecoderBlock2D",) * 4)
        texts: dict[str, Any] = {
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(**CLIP_L, num_attention_heads=12, num_hidden_layers=12)
            )
        }
        if kind == "sdxl":
            texts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G))
    modules = {"unet": unet, "vae": vae, **texts}
    states = {name: module.state_dict() for name, module in modules.items()}
    tensors = to_single_file(states, {"unet": unet.config, "vae": vae.config})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    derived = {
        "unet": configs.unet_config(shapes),
        "vae": configs.vae_config(shapes),
        "text_encoder": configs.first_text_config(shapes),
    }
    if kind == "sdxl":
        derived["text_encoder_2"] = configs.second_text_config(shapes)
    assert derived["vae"].pop("scaling_factor") == {"sd1": 0.18215, "sdxl": 0.13025}[kind]
    assert derived["vae"].pop("sample_size") == {"sd1": 512, "sdxl": 1024}[kind]
    if kind == "sd1":
        assert derived["unet"].pop("transformer_layers_per_block") == [1, 1, 1, 1]
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")  # as the tokenizer has them
    for part, config in derived.items():
        published = modules[part].config
        for key, value in config.items():
            wanted = getattr(published, key)
            if key not in ids:
                assert (list(wanted) if isinstance(wanted, tuple) else wanted) == value, (part, key)
    assert [derived["text_encoder"][name] for name in ids] == [49406, 49407, 49407]


def _shipping_package(folder: Path) -> None:
    """Install a package with a vocabulary file laid out as CLIP's, of the right size."""
    letters = list(clip_vocabulary._byte_letters().values())
    merges = [f"{a} {b}" for a in letters for b in letters]
    assert len(merges) > 48_894  # CLIP's list goes on, too
    text = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *merges])
    package = folder / "open_clip"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    (package / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))


def _published_kind(path: Path) -> Path:
    """Write a small checkpoint whose heads and groups are as published."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1
    )
    modules: dict[str, Any] = {
        "unet": _unet(
            in_channels=8,
            out_channels=4,
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=64,
        ),
        "vae": _vae(),
        "text_encoder": CLIPTextModel(config),
    }
    states = {name: module.state_dict() for name, module in modules.items()}
    configs = {name: modules[name].config for name in ("unet", "vae")}
    tensors = to_single_file(states, configs)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_a_lone_file_takes_its_vocabulary_from_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    path = _published_kind(tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match="tokenizer, and CLIP's is nowhere") as caught:
        resolve_base(str(path))
    assert str(tmp_path / "model/tokenizer") in str(caught.value)
    _shipping_package(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    base = resolve_base(str(path))
    assert (base.family, base.resolution) == ("instruct_pix2pix", 64)
    picture = Image.fromarray(toy_example(size=32).source_HWC)
    assert Editor.from_base(str(path), device="cpu").edit(picture, "bade", steps=1).image
    tokens = json.loads((base.folder / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    assert [tokens[t] for t in ("!", "!!", "<|startoftext|>")] == [0, 512, 49406]


def test_words_of_an_exported_folder_stay_out(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    beside = path.with_suffix("") / "tokenizer"
    tokenizer: Any = CLIPTokenizer.from_pretrained(beside)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<my-dog>", "<my-dog>_1"])
    tokenizer.save_pretrained(beside)
    converted = CLIPTokenizer.from_pretrained(resolve_base(str(path)).folder / "tokenizer")
    assert len(converted) == rows
    assert "<my-dog>" not in converted.get_vocab()


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    beside = path.with_suffix("") / "tokenizer"
    shutil.rmtree(beside)
    shutil.copytree(EMBEDDED / "tokenizer", beside)
    with pytest.raises(BaseModelError, match="has 539 words and the tokenizer found for it"):
        resolve_base(str(path))
    assert not any((tmp_path / "cache/bases").iterdir())


def test_prediction_and_noise_come_from_marks_metadata_or_beside() -> None:
    plain = configs.scheduler_config({}, {})
    assert (plain["prediction_type"], plain["beta_end"]) == ("epsilon", 0.012)
    spec = {"modelspec.prediction_type": "v"}
    assert configs.scheduler_config({}, spec)["prediction_type"] == "v_prediction"
    marks: dict[str, tuple[int, ...]] = {"v_pred": (0,), "ztsnr": (0,)}
    marked = configs.scheduler_config(marks, {})
    assert marked["prediction_type"] == "v_prediction"
    assert marked["rescale_betas_zero_snr"]
    written = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "beta_end": 0.1}
    ours = {"customize.scheduler": json.dumps(written)}
    assert configs.scheduler_config(marks, ours)["beta_end"] == 0.1
    for damaged in ("{", "[1]", '{"beta_end": 0.1}', "[" * 100_000):
        with pytest.raises(ValueError, match=r"not JSON|no scheduler|nested"):
            configs.scheduler_config(marks, {"customize.scheduler": damaged})


def _without(start: str) -> Callable[[dict[str, Tensor]], None]:
    def spoil(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(start)]:
            del tensors[name]

    return spoil


CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
DAMAGED: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "text to image": (lambda t: t.update({CONV_IN: torch.zeros(8, 4, 3, 3)}), "text-to-image"),
    "inpainting": (lambda t: t.update({CONV_IN: torch.zeros(8, 9, 3, 3)}), "an inpainting"),
    "edm": (lambda t: t.update({"edm_vpred.sigma_max": torch.zeros(1)}), "EDM noise levels"),
    "sd2": (
        lambda t: t.update({"cond_stage_model.model.ln_final.weight": torch.zeros(1)}),
        "Stable Diffusion 2",
    ),
    "no vae": (_without("first_stage_model."), "without a VAE"),
    "no text": (_without("cond_stage_model."), "without a text encoder"),
    "half a vae": (_without("first_stage_model.encoder.down.1"), "vae does not fit|incomplete"),
    "half a unet": (_without("model.diffusion_model.out"), "its unet is incomplete"),
    "a layer short": (
        _without("model.diffusion_model.middle_block.2"),
        r"unet does not fit the shapes read from it at \d+ tensors, first mid_block.resnets.1",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_wrong_files(kind: str, tmp_path: Path) -> None:
    spoil, expected = DAMAGED[kind]
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path)
    with pytest.raises(BaseModelError, match=expected) as caught:
        resolve_base(str(path))
    assert str(path) in str(caught.value)
    left = tmp_path / "cache/bases"
    assert not left.exists() or not any(left.iterdir())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["unet.down_blocks.0.lora_A.weight"], "an adapter"),
        (["model.diffusion_model.double_blocks.0.img_attn.weight"], "a transformer"),
        (["transformer_blocks.0.attn.to_q.weight"], "a transformer"),
        (["conv_in.weight", "down_blocks.0.weight"], "a UNet alone"),
        (["something.else"], "no Stable Diffusion checkpoint"),
    ],
)
def test_files_of_other_kinds(names: list[str], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(BaseModelError, match=expected):
        resolve_base(str(path))


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_full_disk_is_said(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy_base(tmp_path / "folder")
    path = _single_file(folder, tmp_path / "model.safetensors")
    _put_beside(folder, path)
    if moment == "before":
        free = shutil._ntuple_diskusage(10, 10, 0)
        monkeypatch.setattr("customize.files.disk.shutil.disk_usage", lambda _: free)
    else:

        def fail(*_: object, **__: object) -> None:
            import errno

            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("customize.families.single_file.parts.write_safetensors", fail)
    with pytest.raises(BaseModelError, match=r"the disk of .* has .*CUSTOMIZE_CACHE"):
        resolve_base(str(path))
    left = tmp_path / "cache/bases"
    assert not left.exists() or not any(left.iterdir())


def test_clips_own_list_gives_clips_numbers() -> None:
    """The first merges of CLIP's published list, and the numbers its tokenizer gives them."""
    merges = ["i n", "t h", "a n", "r e", "a r", "e r", "th e</w>", "in g</w>"]
    text = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *merges])
    vocabulary, pairs = clip_vocabulary.from_shipped(text)
    assert pairs[0] == ("i", "n")
    numbers = {"!": 0, "a": 64, "a</w>": 320, "in": 512, "the</w>": 518, "ing</w>": 519}
    assert {entry: vocabulary[entry] for entry in numbers} == numbers
