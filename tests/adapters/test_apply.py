"""Applied adapters equal the trained model, peft's merge and diffusers' loader, and come off."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.bases import shake, toy_example, toy_header, toy_resolved
from PIL import Image
from torch import Tensor

from customize import families
from customize.adapters import CrossAttentionKV, LowRank, Method, attach
from customize.adapters.apply import apply_adapters
from customize.adapters.deltas import layers, weight_deltas
from customize.adapters.file import AdapterFile, read_adapter, save_adapter
from customize.errors import AdapterFileError
from customize.families import Family
from customize.families.base import Base
from customize.families.words import Word

EVERY_GROUP = ("attention", "convolutions", "feed_forward")
METHODS: dict[str, Method] = {
    "kv": CrossAttentionKV(),
    "lora": LowRank(rank=2, alpha=3.0, targets=EVERY_GROUP, text_encoder_rank=1),
    "dora": LowRank(rank=2, alpha=5.0, decompose=True, targets=EVERY_GROUP, text_encoder_rank=2),
}
WORD = Word("<my-dog>", "dog", 2)
PROMPT = "add <my-dog>"
LEVEL_B = torch.tensor([300])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


def _taught(
    base: Base, method: Method, words: tuple[Word, ...] = (WORD,), seed: int = 0
) -> tuple[Family, AdapterFile]:
    """Attach, pretend to train, and give the live family and what its file would hold."""
    family = families.open_family(base, learns_text=True)
    attached = attach(family, method, words, seed=seed)
    shake(attached, seed)
    facts = asdict(method) if isinstance(method, LowRank) else {"method": "cross_attention_kv"}
    return family, AdapterFile(toy_header(**facts), attached.state())


def _noisy_and_source() -> Tensor:
    return torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _live(base: Base, family: Family) -> Tensor:
    noisy, source = _noisy_and_source()
    text = families.open_encoder(base, words=[WORD]).text(PROMPT, as_tokens=True)
    conditions = {"source": source, **{key: x[None] for key, x in text.items()}}
    return family.predict(noisy, LEVEL_B, conditions)


@torch.no_grad()
def _edited(pipeline: Any, prompt: str = PROMPT) -> Tensor:
    text = pipeline._encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    stacked = torch.cat(list(_noisy_and_source()), dim=1)
    return pipeline.unet(stacked, LEVEL_B, encoder_hidden_states=text).sample


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_pipeline_equals_the_trained_family(base: Base, method: Method, tmp_path: Path) -> None:
    family, adapter = _taught(base, method)
    path = save_adapter(tmp_path / "a.safetensors", adapter.header, adapter.tensors)
    pipeline = families.open_pipeline(base)
    unapplied = _edited(pipeline)
    apply_adapters(pipeline, [(read_adapter(path), 1.0)])
    applied = _edited(pipeline)
    torch.testing.assert_close(applied, _live(base, family), rtol=1e-5, atol=1e-5)
    assert (applied - unapplied).abs().max() > 1e-2
    picture = Image.fromarray(toy_example().source_HWC)
    edit = pipeline(PROMPT, picture, num_inference_steps=2, output_type="np").images[0]
    assert np.isfinite(edit).all()


@pytest.mark.parametrize("method", [METHODS["lora"], METHODS["dora"]], ids=["lora", "dora"])
def test_deltas_equal_pefts_merge(base: Base, method: Method) -> None:
    family, adapter = _taught(base, method, ())
    live = {"denoiser": family.denoiser, **family.text_encoders}
    wrapped = {layer: live[layer.split(".")[0]] for layer in layers(adapter)}
    tuners: dict[str, Any] = {
        layer: model.get_submodule(layer.partition(".")[2]) for layer, model in wrapped.items()
    }
    originals = {name: tuner.base_layer.weight.clone() for name, tuner in tuners.items()}
    kinds = set[int]()
    for layer, delta in weight_deltas(adapter, originals.__getitem__):
        tuners[layer].merge()
        merged = tuners[layer].base_layer.weight
        torch.testing.assert_close(originals[layer] + delta, merged, rtol=1e-5, atol=1e-5)
        assert delta.abs().max() > 1e-4
        kinds.add(delta.ndim)
    assert kinds == {2, 4}


@pytest.mark.parametrize("decompose", [False, True])
def test_prediction_equals_diffusers_loader(base: Base, decompose: bool) -> None:
    method = LowRank(rank=2, alpha=3.0, decompose=decompose, targets=EVERY_GROUP)
    _, adapter = _taught(base, method, ())
    ours, theirs = families.open_pipeline(base), families.open_pipeline(base)
    apply_adapters(ours, [(adapter, 1.0)])
    suffixes = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
    suffixes["magnitude"] = "lora_magnitude_vector"
    state = {}
    for name, tensor in adapter.tensors.items():
        layer, _, kind = name.removeprefix("denoiser.").rpartition(".")
        state[f"{layer}.{suffixes[kind]}"] = tensor
    metadata = {"r": 2, "lora_alpha": 3.0, "use_dora": decompose}
    metadata["target_modules"] = sorted(
        {name.removeprefix("denoiser.") for name in layers(adapter)}
    )
    theirs.unet.load_lora_adapter(state, prefix=None, metadata=metadata)
    expected = _edited(theirs, "make the dog red")
    torch.testing.assert_close(_edited(ours, "make the dog red"), expected, rtol=1e-5, atol=1e-5)
    assert (expected - _edited(families.open_pipeline(base), "make the dog red")).abs().max() > 1e-2


def test_several_add_up_in_any_order_and_come_off(base: Base) -> None:
    _, dog = _taught(base, METHODS["dora"])
    _, hat = _taught(base, METHODS["kv"], (Word("<hat>"),), seed=1)
    pipeline = families.open_pipeline(base)
    tokenizer, table = pipeline.tokenizer, pipeline.text_encoder.get_input_embeddings()
    weights = {n: p.clone() for n, p in pipeline.unet.state_dict().items()}
    plain = _edited(pipeline)
    applied = apply_adapters(pipeline, [(dog, 0.7), (hat, 0.5)])
    both = _edited(pipeline, "add <my-dog> <hat>")
    assert len(pipeline.tokenizer) == len(tokenizer) + 3
    assert pipeline.text_encoder.config.vocab_size == len(tokenizer) + 3
    applied.remove()
    assert pipeline.tokenizer is tokenizer
    assert pipeline.text_encoder.get_input_embeddings() is table
    after = pipeline.unet.state_dict()
    assert all(torch.equal(w, after[n]) for n, w in weights.items())
    assert torch.equal(_edited(pipeline), plain)
    apply_adapters(pipeline, [(hat, 0.5), (dog, 0.7)])
    again = _edited(pipeline, "add <my-dog> <hat>")
    torch.testing.assert_close(again, both, rtol=1e-5, atol=1e-5)


def test_strength_scales_the_change(base: Base) -> None:
    _, adapter = _taught(base, METHODS["lora"], ())
    name = layers(adapter)[0].removeprefix("denoiser.")
    changes = []
    for strength in (0.5, 1.0):
        pipeline = families.open_pipeline(base)
        before = pipeline.unet.get_submodule(name).weight.clone()
        apply_adapters(pipeline, [(adapter, strength)])
        changes.append(pipeline.unet.get_submodule(name).weight - before)
    torch.testing.assert_close(2 * changes[0], changes[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"denoiser.mid_block.nowhere.delta": torch.zeros(2, 2)}, "does not have"),
        ({"denoiser.conv_in.delta": torch.zeros(2, 2)}, "has shape"),
        (
            {
                "denoiser.conv_in.lora_A": torch.zeros(1, 9, 3, 3),
                "denoiser.conv_in.lora_B": torch.zeros(8, 1, 1, 1),
            },
            "has shape",
        ),
        ({"words.text_encoder.<a>": torch.zeros(1, 3)}, "3 wide"),
    ],
)
def test_misfits_leave_the_pipeline_alone(
    base: Base, tensors: dict[str, Tensor], expected: str
) -> None:
    _, good = _taught(base, METHODS["kv"], ())
    pipeline = families.open_pipeline(base)
    weights = {n: p.clone() for n, p in pipeline.unet.state_dict().items()}
    with pytest.raises(AdapterFileError, match=expected):
        apply_adapters(pipeline, [(good, 1.0), (AdapterFile(toy_header(), tensors), 1.0)])
    after = pipeline.unet.state_dict()
    assert all(torch.equal(w, after[n]) for n, w in weights.items())


def test_two_adapters_with_one_word_are_refused(base: Base) -> None:
    _, adapter = _taught(base, METHODS["kv"])
    with pytest.raises(AdapterFileError, match="more than one"):
        apply_adapters(families.open_pipeline(base), [(adapter, 1.0), (adapter, 1.0)])
