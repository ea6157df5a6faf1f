"""Every layout gives back what was written into it, and refuses what it cannot hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from builders.bases import shake, toy_family, toy_header, toy_resolved
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.deltas import layers, weight_delta
from customize.adapters.file import AdapterFile, save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.errors import ExportError, OutputExistsError
from customize.exporting import export, export_all
from customize.exporting.changes import Changes, Weights, delta_of
from customize.exporting.changes import LowRankChange as LowRankChange
from customize.exporting.file_plan import plan_weights
from customize.exporting.fit_to_target import fit
from customize.exporting.foreign.import_adapter import import_adapter
from customize.exporting.formats.custom_diffusion import from_custom_diffusion, to_custom_diffusion
from customize.exporting.formats.diffusers_lora import from_diffusers, lora_metadata, to_diffusers
from customize.exporting.formats.embeddings import file_name, from_embedding, to_bundle
from customize.exporting.formats.kohya import from_kohya, to_kohya
from customize.exporting.formats.native import from_native, to_native
from customize.exporting.formats.peft_folder import CONFIG, MODEL, from_peft, to_peft
from customize.exporting.sharing.readme import notes_of
from customize.exporting.targets import (
    HOLDS,
    TARGETS,
    ExportOptions,
    FilePrecision,
    Holds,
    Target,
    Written,
)
from customize.families.base import Base
from customize.families.loading.layer_weights import BaseWeights
from customize.families.profile import Profile
from customize.families.stable_diffusion.profiles import SD1, SDXL
from customize.families.words import Word
from customize.files.manifest import NAME as MANIFEST

WORD = Word("<my-dog>", "dog", 2)
GROUPS = ("attention", "convolutions", "feed_forward")
METHODS: Mapping[str, Method] = {
    "kv": CrossAttentionKV(),
    "lora": LowRank(rank=2, alpha=3.0, targets=GROUPS, text_encoder_rank=1),
    "dora": LowRank(rank=2, alpha=5.0, decompose=True, targets=GROUPS, text_encoder_rank=2),
}
FILES = [target for target in TARGETS if target != "full-model"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


class Loaded(dict[str, Tensor]):
    """A base's weights in memory."""

    def shape(self, layer: str) -> tuple[int, ...]:
        return tuple(self[layer].shape)


@pytest.fixture(scope="module")
def weights(base: Base) -> Loaded:
    found = BaseWeights(base)
    return Loaded({layer: found[layer] for layer in found.layers()})


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterFile]:
    """Pretend to train one adapter of each method, each with a word of two vectors."""
    made = {}
    for name, method in METHODS.items():
        attached = attach(toy_family(tmp_path_factory.mktemp("family")), method, [WORD])
        shake(attached)
        facts = asdict(method) if isinstance(method, LowRank) else {"method": "cross_attention_kv"}
        concept = Taught("my_dog", WORD.text, vectors=2, instructions=("add <my-dog>",))
        made[name] = AdapterFile(toy_header(**facts, concepts=(concept,)), attached.state())
    return made


def through(target: Target, changes: Changes, weights: Loaded, profile: Profile = SD1) -> Changes:
    """Write changes into a layout's tensors and read them back."""
    prefixes = profile.front_ends.kohya_prefixes
    match target:
        case "kohya" | "comfyui" | "invokeai":
            return from_kohya(to_kohya(changes, prefixes))
        case "a1111":
            tensors = to_kohya(changes, prefixes) | to_bundle(changes.words)
            return from_kohya(tensors)
        case "diffusers":
            return from_diffusers(
                to_diffusers(changes, profile.models), lora_metadata(changes, profile.models)
            )
        case "peft":
            found = {}
            for model in sorted({layer.partition(".")[0] for layer in changes.layers}):
                tensors, config = to_peft(changes, model)
                facts = {CONFIG: json.dumps(config), MODEL: model}
                found |= from_peft(tensors, facts).layers
            return Changes(found)
        case _:
            return from_custom_diffusion(to_custom_diffusion(changes, list(weights), weights))


def errors(changes: Changes, adapter: AdapterFile, weights: Weights) -> Iterator[float]:
    """Yield the relative error of every layer's change; asserts that the layers are the same."""
    assert sorted(changes.layers) == list(layers(adapter))
    for layer, change in changes.layers.items():
        exact = weight_delta(adapter, layer, weights[layer])
        assert exact.any(), layer
        yield float((delta_of(change, weights[layer]) - exact).norm() / exact.norm())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", [target for target in FILES if target != "custom-diffusion"])
def test_changes_come_back_from_every_layout(
    weights: Loaded, adapters: dict[str, AdapterFile], method: str, target: Target
) -> None:
    adapter = adapters[method]
    bounds: Mapping[FilePrecision, float] = {"float32": 1e-6, "float16": 1e-3}
    for dtype, bound in bounds.items():
        exact = from_native(adapter, weights)
        fitted = fit(exact, HOLDS[target], weights, ExportOptions(dtype=dtype))
        found = through(target, fitted.changes, weights)
        worst = max(errors(found, adapter, weights))
        assert worst <= bound
        assert max(fitted.errors.values()) == pytest.approx(worst, abs=2e-6)
        if target == "a1111":
            assert torch.equal(
                found.words[WORD.text]["text_encoder"], exact.words[WORD.text]["text_encoder"]
            )


def test_custom_diffusion_holds_keys_and_values_alone(
    weights: Loaded, adapters: dict[str, AdapterFile]
) -> None:
    changes = from_native(adapters["kv"], weights)
    assert (
        max(errors(through("custom-diffusion", changes, weights), adapters["kv"], weights)) < 1e-6
    )
    with pytest.raises(ExportError, match="expected keys and values of cross-attention alone"):
        to_custom_diffusion(from_native(adapters["lora"], weights), list(weights), weights)


@pytest.mark.parametrize("method", METHODS)
def test_our_own_files_come_back(
    weights: Loaded, adapters: dict[str, AdapterFile], method: str
) -> None:
    adapter = adapters[method]
    again = AdapterFile(toy_header(), to_native(from_native(adapter, weights), weights))
    assert max(errors(from_native(again, weights), adapter, weights)) < 1e-6
    assert again.tensors.keys() == adapter.tensors.keys()


ATTENTION = "denoiser.mid_block.attentions.0.transformer_blocks.0"
SHAPES: Mapping[str, tuple[int, ...]] = {
    "denoiser.conv_in": (8, 8, 3, 3),
    f"{ATTENTION}.attn1.to_k": (16, 16),
    f"{ATTENTION}.attn2.to_k": (16, 24),
    f"{ATTENTION}.attn2.to_v": (16, 24),
    f"{ATTENTION}.attn2.to_out.0": (16, 16),
    "text_encoder.encoder.layers.0.mlp.fc1": (20, 12),
    "text_encoder_2.encoder.layers.1.self_attn.q_proj": (12, 12),
}
KEYS_AND_VALUES = [layer for layer in SHAPES if layer.endswith(("attn2.to_k", "attn2.to_v"))]
FORMS = ("delta", "lora", "dora", "delta and lora")


@st.composite
def any_adapters(draw: st.DrawFn) -> tuple[AdapterFile, Loaded, bool]:
    """Draw a base's weights and an adapter of any method, rank, scale and size of numbers.

    A merge may mix the forms from layer to layer. The last value tells SDXL, with two encoders.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    xl, keys_and_values = draw(st.booleans()), draw(st.booleans())
    rank, alpha = draw(st.integers(1, 5)), draw(st.floats(0.01, 100))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = Loaded({layer: noise(*s) for layer, s in SHAPES.items() if xl or "_2." not in layer})
    tensors: dict[str, Tensor] = {}
    for layer in KEYS_AND_VALUES if keys_and_values else weights:
        form = "delta" if keys_and_values else draw(st.sampled_from(FORMS))
        # A change this far below its weight is all rounding once it is added to it.
        size = 10 ** draw(st.floats(-1, 2) if keys_and_values else st.floats(-6, 2))
        out, width, *kernel = SHAPES[layer]
        if "delta" in form:
            tensors[f"{layer}.delta"] = size * noise(*SHAPES[layer])
        if form != "delta":
            tensors[f"{layer}.lora_A"] = noise(rank, width, *kernel)
            # DoRA turns the weight, so a pair of no size leaves nothing but rounding to compare.
            scale = 0.3 if form == "dora" else size
            tensors[f"{layer}.lora_B"] = scale * noise(out, rank, *[1] * len(kernel))
        if form == "dora":
            tensors[f"{layer}.magnitude"] = 1 + noise(out).abs()
    header = toy_header(
        family="instruct_pix2pix" + "_xl" * xl,
        **({"rank": rank, "alpha": alpha} if not keys_and_values else {}),
    )
    for encoder, width in (("text_encoder", 12), ("text_encoder_2", 20))[: 1 + xl]:
        tensors[f"words.{encoder}.{WORD.text}"] = noise(2, width)
    return AdapterFile(header, tensors), weights, xl


@settings(max_examples=60, deadline=None)
@given(
    drawn=any_adapters(),
    target=st.sampled_from(FILES),
    dtype=st.sampled_from(get_args(FilePrecision)),
)
def test_any_adapter_comes_back_from_any_layout(
    drawn: tuple[AdapterFile, Loaded, bool], target: Target, dtype: FilePrecision
) -> None:
    adapter, weights, xl = drawn
    exact = from_native(adapter, weights)
    if target == "custom-diffusion":
        assume(list(exact.layers) == KEYS_AND_VALUES)
        fitted, dtype = exact, "float32"
    else:
        fitted = fit(exact, HOLDS[target], weights, ExportOptions(dtype=dtype)).changes
    found = through(target, fitted, weights, SDXL if xl else SD1)
    bound = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    assert max(errors(found, adapter, weights)) <= bound
    if target == "a1111":
        for encoder, rows in exact.words[WORD.text].items():
            assert torch.equal(found.words[WORD.text][encoder], rows)


@pytest.mark.parametrize("method", METHODS)
def test_limits_of_rank_energy_error_and_size_are_kept(
    base: Base, adapters: dict[str, AdapterFile], method: str, tmp_path: Path
) -> None:
    adapter = adapters[method]

    def written(name: str, **limits: Any) -> tuple[Written, int]:
        options = ExportOptions(name=name, dtype="float32", **limits)
        one = export(adapter, base, "kohya", tmp_path / name, options)
        tensors = load_file(one.files[0])
        ranks = [len(t) for key, t in tensors.items() if key.endswith("lora_down.weight")]
        return one, max(ranks)

    whole, _ = written("whole")
    assert whole.largest_error < 1e-6
    one, rank = written("rank", rank=1)
    assert rank == 1
    assert 1e-3 < one.largest_error < 1
    close, _ = written("error", error=0.3)
    assert 1e-3 < close.largest_error <= 0.3
    share = 0.95 if method == "lora" else 0.6  # LoRA of rank 2 has little to cut
    size = share * whole.files[0].stat().st_size / 1e6
    small, _ = written("size", size_mb=size)
    # Names in this toy take as much room as numbers do.
    assert 0.5 * size < small.files[0].stat().st_size / 1e6 <= size
    errors = [written(f"energy{energy}", energy=energy)[0] for energy in (0.5, 0.8, 0.95)]
    assert sorted((o.largest_error for o in errors), reverse=True) == [
        o.largest_error for o in errors
    ]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"size_mb": 1e-5}, "rank 1 in every layer takes"),
        ({"size_mb": 1.0, "energy": 0.5}, "chooses the energy itself"),
        ({"energy": 1.5}, "--energy 1.5: expected a number above 0 and at most 1"),
        ({"rank": 0}, "--rank 0: expected a number above 0"),
        ({"error": float("nan")}, "--error nan: expected a number above 0"),
        ({"size_mb": float("nan")}, "--size-mb nan: expected a number above 0"),
    ],
)
def test_limits_that_cannot_be_are_refused(
    base: Base,
    adapters: dict[str, AdapterFile],
    limits: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ExportError, match=message):
        export(adapters["kv"], base, "kohya", tmp_path / "new", ExportOptions(**limits))
    assert not (tmp_path / "new").exists()


def test_numbers_that_are_not_finite_are_refused(
    base: Base, adapters: dict[str, AdapterFile], tmp_path: Path
) -> None:
    (name, tensor), *_ = adapters["lora"].tensors.items()
    tensors = {**adapters["lora"].tensors, name: tensor * torch.nan}
    broken = replace(adapters["lora"], tensors=tensors)
    with pytest.raises(ExportError, match=f"not finite in {name}"):
        export(broken, base, "kohya", tmp_path / "new")


def test_half_precision_keeps_tiny_changes(
    weights: Loaded, adapters: dict[str, AdapterFile]
) -> None:
    """Changes of 1e-9 are below half precision's numbers; factors are balanced, deltas kept."""
    kv = adapters["kv"]
    tiny = AdapterFile(kv.header, {name: 1e-9 * t for name, t in kv.tensors.items()})
    for holds in (Holds(), Holds(full=True)):
        fitted = fit(from_native(tiny, weights), holds, weights, ExportOptions())
        assert max(fitted.errors.values()) < 1e-3


def test_files_say_what_they_are(
    base: Base, adapters: dict[str, AdapterFile], tmp_path: Path
) -> None:
    one = export(adapters["lora"], base, "kohya", tmp_path, ExportOptions(name="dog"))
    assert [path.relative_to(tmp_path).as_posix() for path in one.files] == [
        "dog.safetensors",
        "embeddings/my-dog.safetensors",
        "dog.json",
    ]
    with safe_open(one.files[0], "pt") as file:
        facts = file.metadata()
    assert facts["ss_base_model_version"] == "sd_v1"
    assert facts["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert facts["modelspec.trigger_phrase"] == "<my-dog>"
    assert facts["modelspec.hash_sha256"] == f"0x{facts['sshs_model_hash']}"
    assert json.loads(facts["ss_tag_frequency"]) == {"my_dog": {"add <my-dog>": 1}}
    rows = from_embedding(load_file(one.files[1]))["text_encoder"]
    assert torch.equal(rows, adapters["lora"].tensors["words.text_encoder.<my-dog>"])
    assert "`<my-dog>` in InvokeAI" in one.notes[-1]


def test_nothing_is_replaced_unasked(
    base: Base, adapters: dict[str, AdapterFile], tmp_path: Path
) -> None:
    export(adapters["kv"], base, "kohya", tmp_path, ExportOptions(name="dog"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(OutputExistsError, match="is there already"):
        export(adapters["kv"], base, "kohya", tmp_path, ExportOptions(name="dog"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    export(adapters["kv"], base, "kohya", tmp_path, ExportOptions(name="dog"), overwrite=True)


def test_all_writes_a_folder_for_each_and_says_what_was_refused(
    base: Base, adapters: dict[str, AdapterFile], tmp_path: Path
) -> None:
    options = ExportOptions(dtype="float32")
    made = export_all(adapters["lora"], base, tmp_path / "all", options, verify=False)
    assert [one.target for one in made.written] == [t for t in TARGETS if t != "custom-diffusion"]
    assert list(made.refused) == ["custom-diffusion"]
    text = made.guide.read_text()
    for target in TARGETS:
        assert target in text
    assert "Not written" in text
    assert "They were not read back" in text
    with pytest.raises(OutputExistsError):
        export_all(adapters["lora"], base, tmp_path / "all")


@pytest.mark.parametrize("target", ["kohya", "full-model"])
@pytest.mark.parametrize("name", ["..", ".", ".hidden", "embeddings", "a/b", "a\\b", "/tmp/x"])
def test_a_name_that_is_a_path_is_refused(
    base: Base, adapters: dict[str, AdapterFile], target: Target, name: str, tmp_path: Path
) -> None:
    """`--name ..` with `--overwrite` once removed the folder above."""
    (tmp_path / "mine.txt").write_text("mine")
    options = ExportOptions(name=name)
    with pytest.raises(ExportError, match="expected the files' name alone"):
        export(adapters["kv"], base, target, tmp_path / "out", options, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.txt"]


def test_a_full_model_replaces_no_word_unasked(
    base: Base, adapters: dict[str, AdapterFile], tmp_path: Path
) -> None:
    word = tmp_path / "embeddings" / "my-dog.safetensors"
    word.parent.mkdir()
    word.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"my-dog\.safetensors: it is there already"):
        export(adapters["kv"], base, "full-model", tmp_path)
    assert word.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings"]


def test_all_again_leaves_nothing_of_the_first(
    base: Base,
    adapters: dict[str, AdapterFile],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def names() -> set[str]:
        return {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}

    (tmp_path / "kohya").mkdir()
    (tmp_path / "kohya" / "mine.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "one.safetensors").write_text("mine")

    def all_of(method: str, name: str) -> None:
        options = ExportOptions(name=name)
        export_all(adapters[method], base, tmp_path, options, overwrite=True, verify=False)

    all_of("kv", "one")
    first = names()
    assert {
        "kohya/mine.txt",
        "kohya/one.safetensors",
        "custom-diffusion/embeddings/my-dog.safetensors",
    } <= first

    def full(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("customize.exporting.sharing.readme.write_readme", full)
        with pytest.raises(OSError, match="disk is full"):
            all_of("lora", "two")
    assert names() == first
    all_of("lora", "two")
    stale = [name for name in names() if "one" in name or name.startswith("custom-diffusion")]
    assert stale == ["other/one.safetensors"]
    assert (tmp_path / "kohya" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [MANIFEST]


def test_add_embedding_is_told_where_it_is_not_read(tmp_path: Path) -> None:
    """InvokeAI refuses such files, kohya's scripts leave the layer out (docs/frontends.md)."""
    pair = LowRankChange(torch.ones(1, 8), torch.ones(8, 1))
    odd, plain = "denoiser.add_embedding.linear_1", "denoiser.mid_block.resnets.0.time_emb_proj"
    header = toy_header(family="instruct_pix2pix_xl")
    base = Base("toy", tmp_path, "instruct_pix2pix_xl", "0" * 64, 32, 8, 2)
    weights: Any = Loaded()  # of which none is read

    def planned(target: Target, changes: Changes) -> str:
        fitted, plan = plan_weights(
            AdapterFile(header, {}), base, target, changes, weights, ExportOptions(name="x")
        )
        return " ".join(notes_of(target, plan, fitted.changes, SDXL))

    both = Changes({odd: pair, plain: pair})
    told = planned("kohya", both)
    assert "leave out 1 layers such as add_embedding.linear_1" in told
    assert "InvokeAI refuses" in told
    assert "leave out" not in planned("kohya", Changes({plain: pair}))
    with pytest.raises(ExportError, match="names are of two kinds"):
        planned("invokeai", both)
    assert planned("invokeai", Changes({plain: pair}))
    assert planned("invokeai", Changes({odd: pair}))


@pytest.mark.parametrize(
    ("target", "method"),
    [("custom-diffusion", "kv"), ("a1111", "lora"), ("diffusers", "dora"), ("peft", "dora")],
)
def test_exports_are_imported_again(
    base: Base,
    weights: Loaded,
    adapters: dict[str, AdapterFile],
    method: str,
    target: Target,
    tmp_path: Path,
) -> None:
    adapter = adapters[method]
    one = export(adapter, base, target, tmp_path, ExportOptions(dtype="float32"))
    word = next(path for path in one.files if path.parent.name == "embeddings")
    words = [] if target == "a1111" else [(WORD.text, word)]
    source = tmp_path if target == "peft" else one.files[0]
    again, _ = import_adapter(source, base.name, words=words)
    assert max(errors(from_native(again, weights), adapter, weights)) < 1e-6
    assert again.header.base_fingerprint == base.fingerprint
    name = f"words.text_encoder.{WORD.text}"
    assert torch.equal(again.tensors[name], adapter.tensors[name])


def test_export_on_the_command_line(
    base: Base,
    adapters: dict[str, AdapterFile],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kv = adapters["kv"]
    header = replace(kv.header, base_name=base.name, base_fingerprint=base.fingerprint)
    path = save_adapter(tmp_path / "adapter.safetensors", header, kv.tensors)
    (tmp_path / "previews").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "previews" / "step_000001.png")
    assert main(["export", str(path), "--to", "kohya", "--no-verify", "--name", "dog"]) == 0
    written = {p.name for p in (tmp_path / "exports" / "kohya").iterdir()}
    assert written == {"dog.safetensors", "dog.json", "dog.png", "embeddings", MANIFEST}
    assert "ComfyUI models/loras" in capsys.readouterr().out
    assert main(["export", str(path), "--to", "custom-diffusion", "--no-verify"]) == 0
    assert "whole weights" in capsys.readouterr().out
    (tmp_path / "previews" / "step_000002.png").write_bytes(b"\x89PNG broken")
    assert main(["export", str(path), "--to", "invokeai", "--no-verify"]) == 0
    assert "step_000002.png is broken" in capsys.readouterr().err
    left = {path.name for path in (tmp_path / "exports" / "invokeai").iterdir()}
    assert left == {"my_dog.safetensors", "my_dog.json", "embeddings", MANIFEST}
    command = ["export", str(path), "--to", "all", "--no-verify"]
    assert main([*command, "--rank", "0"]) == 2
    assert capsys.readouterr().err.count("--rank 0") == 1
    assert not (tmp_path / "exports" / "all").exists()
    assert main(command) == 0
    assert (tmp_path / "exports" / "all" / "README.md").is_file()
    told = capsys.readouterr().out
    assert [target for target in TARGETS if target not in told] == []


@pytest.mark.parametrize(
    ("target", "option"),
    [
        ("peft", "--name=x"),
        ("diffusers", "--name=x"),
        ("custom-diffusion", "--dtype=float32"),
        ("full-model", "--rank=2"),
        ("full-model", "--size-mb=2"),
    ],
)
def test_options_without_effect_are_refused(
    target: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out")
    assert main(["export", "adapter.safetensors", "--to", target, option, "-o", output]) == 2
    assert f"{option.partition('=')[0]} changes nothing of {target}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a:b",
            "<dog>",
            'say "dog"',
            "dog?",
            "dog*",
            "a|b",
            "dog,cat",
            "dog(1)",
            "dog[0]",
            "{dog}",
        ),
        *("con", "AUX", "nul.v2", "Com1", "lpt9", "dog.", "dog ", " dog", "-dog", "", "   "),
        *("a\nb", "a\tb", "a\u200bb", "a\u202eb", "a\u00a0b", "\x1b[31mdog", "a\x00b", "a\ud800b"),
        *("d" * 151, "ü" * 80),
    ],
)
def test_names_that_prompts_or_windows_cannot_hold_are_refused(
    base: Base, adapters: dict[str, AdapterFile], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="expected the files' name alone") as caught:
        export(adapters["kv"], base, "kohya", tmp_path / "out", ExportOptions(name=name))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["my_dog", "My dog v1.2", "hündin-2", "犬", "d" * 150])
def test_other_names_are_taken(
    base: Base, adapters: dict[str, AdapterFile], name: str, tmp_path: Path
) -> None:
    made = export(adapters["kv"], base, "kohya", tmp_path / "out", ExportOptions(name=name))
    assert made.files[0].name == f"{name}.safetensors"


def test_names_of_files_made_from_concepts_and_words_are_such_too() -> None:
    assert file_name("<aux>") == "aux_"
    assert file_name("<my-dog>") == "my-dog"
    assert len(file_name("ü" * 400).encode()) <= 150
