"""Files and folders as people have them: names, kinds that cannot be read, biases, first layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from builders.bases import toy_resolved
from safetensors.torch import save_file
from torch import Tensor

from customize.adapters.deltas import weight_delta
from customize.cli.main import main
from customize.errors import AdapterFileError
from customize.exporting.foreign.import_adapter import import_adapter
from customize.families.base import Base
from customize.families.loading.layer_weights import BaseWeights

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
LAYER, ROOT = f"denoiser.{KEY}", "base_model.model."
FLAT = "lora_unet_" + KEY.replace(".", "_")
TEXT = "encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, B = noise(2, 16, seed=1), noise(8, 2, seed=2)


def change(path: Path, base: Base, layer: str = LAYER) -> Tensor:
    adapter, _ = import_adapter(path, base.name)
    return weight_delta(adapter, layer, BaseWeights(base)[layer])


def write(folder: Path, tensors: Mapping[str, Tensor], name: str = "x.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
    return folder / name


def peft(folder: Path, *, alpha: float = 2, start: str = f"{ROOT}{KEY}", **config: object) -> Path:
    write(
        folder,
        {f"{start}.lora_A.weight": A, f"{start}.lora_B.weight": B},
        "adapter_model.safetensors",
    )
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": alpha, **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize(
    ("down", "up", "alpha"),
    [
        (f"unet.{KEY}.lora_A.default_0.weight", f"unet.{KEY}.lora_B.default_0.weight", None),
        (f"{KEY}.lora_A.my_style.weight", f"{KEY}.lora_B.my_style.weight", None),
        (f"{ROOT}{KEY}.lora_A.weight", f"{ROOT}{KEY}.lora_B.weight", f"{ROOT}{KEY}.alpha"),
        (
            f"{ROOT}{KEY}.lora_A.default.weight",
            f"{ROOT}{KEY}.lora_B.default.weight",
            f"{ROOT}{KEY}.alpha",
        ),
        (
            f"unet.{ROOT}{KEY}.lora_A.weight",
            f"unet.{ROOT}{KEY}.lora_B.weight",
            f"unet.{ROOT}{KEY}.alpha",
        ),
        (
            f"{ROOT}unet.{KEY}.lora_A.weight",
            f"{ROOT}unet.{KEY}.lora_B.weight",
            f"{ROOT}unet.{KEY}.alpha",
        ),
        (f"{ROOT}{ROOT}{KEY}.lora_A.weight", f"{ROOT}{ROOT}{KEY}.lora_B.weight",
         f"{ROOT}{ROOT}{KEY}.alpha"),
    ],
)  # fmt: skip
def test_names_of_adapters_and_roots_are_read(
    down: str, up: str, alpha: str | None, base: Base, tmp_path: Path
) -> None:
    tensors = {down: A, up: B} | ({alpha: torch.tensor(6.0)} if alpha else {})
    found = change(write(tmp_path, tensors), base)
    torch.testing.assert_close(found, (3 if alpha else 1) * B @ A)


def test_alpha_that_is_nowhere_or_contrary_is_refused(base: Base, tmp_path: Path) -> None:
    for start in (f"{ROOT}{KEY}", f"unet.{ROOT}{KEY}"):
        tensors = {f"{start}.lora_A.weight": A, f"{start}.lora_B.weight": B}
        with pytest.raises(AdapterFileError, match=r"the scale of .* is not known"):
            import_adapter(write(tmp_path / "bare", tensors), base.name)
    folder = peft(tmp_path / "both", alpha=8)
    tensors |= {f"{start}.alpha": torch.tensor(2.0)}
    write(folder, tensors, "adapter_model.safetensors")
    with pytest.raises(AdapterFileError, match="1 beside them, and in the configuration 4"):
        import_adapter(folder, base.name)


def test_several_adapters_in_one_file_are_told_apart(base: Base, tmp_path: Path) -> None:
    tensors = {
        f"unet.{KEY}.lora_{part}.{name}.weight": tensor
        for name in ("first", "second")
        for part, tensor in (("A", A), ("B", B))
    }
    with pytest.raises(AdapterFileError, match=r"2 adapters \(first, second\).*one of them"):
        import_adapter(write(tmp_path, tensors), base.name)


def test_each_model_may_have_a_name_of_its_own(base: Base, tmp_path: Path) -> None:
    other = "text_encoder.encoder.layers.0.self_attn.q_proj"
    width = BaseWeights(base).shape(other)
    tensors = {
        f"unet.{KEY}.lora_A.first.weight": A,
        f"unet.{KEY}.lora_B.first.weight": B,
        f"{other}.lora_A.second.weight": noise(2, width[1]),
        f"{other}.lora_B.second.weight": noise(width[0], 2),
    }
    torch.testing.assert_close(change(write(tmp_path, tensors), base), B @ A)


ONE = torch.ones(2, 2)
KINDS: Mapping[str, tuple[dict[str, Tensor], str]] = {
    "GLoRA": ({f"{FLAT}.{n}.weight": ONE for n in ("a1", "a2", "b1", "b2")}, "GLoRA"),
    "IA3 of LyCORIS": ({f"{FLAT}.weight": ONE, f"{FLAT}.on_input": ONE}, r"\(IA\)3"),
    "IA3 of peft": ({f"{ROOT}{KEY}.ia3_l": ONE}, r"\(IA\)3"),
    "OFT of LyCORIS": ({f"{FLAT}.oft_blocks": ONE, f"{FLAT}.alpha": ONE}, "OFT"),
    "OFT of kohya": ({FLAT.replace("lora", "oft") + ".oft_blocks": ONE}, "OFT"),
    "OFT of peft": ({f"{ROOT}{KEY}.oft_R.weight": ONE}, "OFT"),
    "BOFT": ({f"{ROOT}{KEY}.boft_R": ONE, f"{ROOT}{KEY}.boft_s": ONE}, "BOFT"),
    "trainable tokens": (
        {f"{ROOT}text_model.embeddings.token_embedding.token_adapter.trainable_tokens_delta": ONE},
        "trainable tokens",
    ),
    "modules to save": ({f"{ROOT}conv_in.modules_to_save.weight": ONE}, "modules_to_save"),
    "modules saved": (
        {f"{ROOT}{KEY}.lora_A.weight": A, f"{ROOT}{KEY}.lora_B.weight": B,
         f"{ROOT}conv_in.weight": ONE}, "modules_to_save"),
    "AdaLoRA": ({f"{ROOT}{KEY}.lora_E": ONE, f"{ROOT}{KEY}.lora_A": ONE}, "AdaLoRA"),
    "VeRA": ({f"{ROOT}{KEY}.vera_lambda_b": ONE}, "another of peft's methods"),
    "embedding": ({f"{ROOT}embeddings.lora_embedding_A": ONE}, "LoRA of an embedding table"),
    "two kinds in a layer": (
        {f"{FLAT}.diff": noise(8, 16), f"{FLAT}.lora_down.weight": A,
         f"{FLAT}.lora_up.weight": B}, "kinds that do not go together: delta, down, up"),
    "two norms": (
        {f"{FLAT}.lora_down.weight": A, f"{FLAT}.lora_up.weight": B, f"{FLAT}.dora_scale": ONE,
         f"{FLAT}.lora_magnitude_vector": ONE}, "kinds that do not go together"),
    "whole numbers": (
        {f"{FLAT}.lora_down.weight": A.to(torch.int8), f"{FLAT}.lora_up.weight": B}, "type I8"),
    "overflow": (
        {f"{FLAT}.lora_down.weight": A * 1e20, f"{FLAT}.lora_up.weight": B * 1e20}, "overflows"),
    "alpha overflows": (
        {f"{FLAT}.lora_down.weight": A, f"{FLAT}.lora_up.weight": B * 1e10,
         f"{FLAT}.alpha": torch.tensor(1e38)}, "not finite"),
    "biases alone": ({f"{FLAT}.diff_b": torch.ones(8)}, "biases"),
    "rows of a word": ({f"{FLAT}.diff": noise(8, 16), "bundle_emb.x.emb_params": noise(76, 16)},
                       "76 rows"),
    "a long word": ({f"{FLAT}.diff": noise(8, 16),
                     f"bundle_emb.{'x' * 99}.emb_params": noise(1, 16)}, "no word of at most 64"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_named_and_never_promised(
    kind: str,
    base: Base,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    tensors, named = KINDS[kind]
    path = write(tmp_path, tensors)
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')
    output = tmp_path / "out.safetensors"
    assert main(["import", str(path), "--base", base.name, "-o", str(output)]) == 2
    import re

    told = " ".join(capsys.readouterr().err.split())
    assert re.search(named, told), told
    assert not output.exists()
    code = main(["inspect", str(path)])
    captured = capsys.readouterr()
    assert "imported: customize import" not in captured.out
    assert code == (0 if captured.out else 2)
    assert re.search(named, " ".join((captured.out + captured.err).split()))


def test_biases_are_refused_in_folders_as_in_files(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, key in enumerate(("lora_B.bias", "base_layer.bias", "bias", "lora_B.a.bias")):
        folder = peft(tmp_path / str(number), lora_bias=True)
        start = f"{ROOT}{KEY}"
        tensors = {f"{start}.lora_A.weight": A, f"{start}.lora_B.weight": B}
        write(folder, tensors | {f"{start}.{key}": torch.ones(8)}, "adapter_model.safetensors")
        for path in (folder, folder / "adapter_model.safetensors"):
            output = str(tmp_path / f"{number}.safetensors")
            command = ["import", str(path), "--base", base.name, "-o", output, "--overwrite"]
            assert main(command) == 2
            assert "--drop-biases" in capsys.readouterr().err
            assert main(["inspect", str(path)]) == 0
            assert "--drop-biases" in capsys.readouterr().out
            assert main([*command, "--drop-biases"]) == 0
            capsys.readouterr()


def test_a_folder_is_its_own_adapter(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = peft(tmp_path / "out", alpha=2)
    peft(out / "checkpoint-500", alpha=20)
    peft(out / "zz" / "deeper", alpha=20)
    torch.testing.assert_close(change(out, base), B @ A)
    models = tmp_path / "models"
    peft(models / "unet", alpha=4)
    peft(models / "text_encoder", alpha=4, start=f"{ROOT}text_model.{TEXT}")
    write(
        models / "text_encoder",
        {f"{ROOT}{TEXT}.lora_A.weight": noise(2, 16), f"{ROOT}{TEXT}.lora_B.weight": noise(16, 2)},
        "adapter_model.safetensors",
    )
    adapter, _ = import_adapter(models, base.name)
    assert {name.split(".")[0] for name in adapter.tensors} == {"denoiser", "text_encoder"}
    named = tmp_path / "named"
    peft(named / "style", alpha=4)
    torch.testing.assert_close(change(named, base), 2 * B @ A)
    diffusers = tmp_path / "diffusers"
    tensors = {f"unet.{KEY}.lora_A.weight": A, f"unet.{KEY}.lora_B.weight": B}
    write(diffusers, tensors, "pytorch_lora_weights.safetensors")
    torch.testing.assert_close(change(diffusers, base), B @ A)

    peft(named / "other")
    write(out, tensors, "pytorch_lora_weights.safetensors")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "adapter_model.bin").touch()
    (tmp_path / "nothing").mkdir()
    for folder, told in (
        (named, "a folder of 2 adapters (other, style)"),
        (out, "a folder of several adapters (adapter_model.safetensors, pytorch_lora_weights"),
        (tmp_path / "pickles", "whose weights are pickles"),
        (tmp_path / "nothing", "a folder without adapter_model.safetensors"),
    ):
        for command in (["inspect"], ["import", "--base", base.name, "-o", "x.safetensors"]):
            assert main([command[0], str(folder), *command[1:]]) == 2
            assert told in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["low rank", "full", "dora", "whole weight"])
def test_the_first_layer_of_a_text_to_image_model_gets_zeros(
    kind: str, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = BaseWeights(base)["denoiser.conv_in"].float()
    out, channels, *kernel = weight.shape
    theirs = (out, channels // 2, *kernel)
    down, up = noise(2, *theirs[1:]), noise(out, 2, 1, 1)
    product = (up.flatten(1) @ down.flatten(1)).view(theirs)
    pair = {"lora_unet_conv_in.lora_down.weight": down, "lora_unet_conv_in.lora_up.weight": up}
    plain = weight[:, : theirs[1]]
    match kind:
        case "low rank":
            tensors, expected = pair, product
        case "full":
            tensors, expected = {"lora_unet_conv_in.diff": product}, product
        case "dora":
            norms = noise(out, 1, 1, 1).abs() + 1
            tensors = pair | {"lora_unet_conv_in.dora_scale": norms}
            merged = plain + product
            expected = merged * norms / merged.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - plain
        case _:
            tensors, expected = {"lora_unet_conv_in.set_weight": product}, product - plain
    path, output = write(tmp_path, tensors), tmp_path / "o.safetensors"
    found = change(path, base, "denoiser.conv_in")
    torch.testing.assert_close(found[:, : theirs[1]], expected, rtol=1e-4, atol=1e-5)
    assert not found[:, theirs[1] :].any()
    assert main(["import", str(path), "--base", base.name, "-o", str(output)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"zeros for the {theirs[1]} channels of the source" in told
