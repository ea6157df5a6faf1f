"""Profiles say what their bases are, and code outside `families` knows no family but by them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from builders.bases import toy_pipeline, toy_xl_pipeline
from torch import nn

import customize
from customize.errors import BaseModelError
from customize.families import (
    denoiser_of,
    family_of_pipeline,
    open_pipeline,
    profile_of,
    profiles,
)
from customize.families.base import resolve_base

KNOWS_A_FAMILY = re.compile(
    r"unet|_xl\b|\bxl\b|is_xl|text_encoder_2|instruct_pix2pix|[Kk]lein|[Ff]lux\d|FLUX|Qwen2|Qwen3[A-Z]"
)
MAY_KNOW = (
    "families/",
    "exporting/formats/",  # tables of tensors' names
    "exporting/whole_model/",
    "embedded/",  # makes one base, of one family
    "synthesis/pictures/",  # Prompt-to-Prompt works inside Stable Diffusion's own UNets
)


@pytest.fixture(scope="module", params=["toy", "toy_xl", "embedded"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    match request.param:
        case "toy":
            return toy_pipeline()
        case "toy_xl":
            return toy_xl_pipeline()
        case _:
            return open_pipeline(resolve_base())


def test_code_outside_families_knows_none_of_them() -> None:
    root = Path(customize.__file__).parent
    shared = [
        path
        for path in root.rglob("*.py")
        if not path.relative_to(root).as_posix().startswith(MAY_KNOW)
    ]
    assert len(shared) > 150
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in shared
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if KNOWS_A_FAMILY.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_parts_are_those_of_the_pipeline(pipeline: Any) -> None:
    profile = profile_of(family_of_pipeline(pipeline))
    weighty = {name for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    assert set(profile.components) == weighty
    assert denoiser_of(pipeline) is getattr(pipeline, profile.denoiser)
    for encoder, tokenizer in zip(profile.text_encoders, profile.tokenizers, strict=True):
        table = getattr(pipeline, encoder).get_input_embeddings()
        paths = [name for name, m in getattr(pipeline, encoder).named_modules() if m is table]
        assert [path.removeprefix("text_model.") for path in paths] == [profile.token_table]
        assert len(getattr(pipeline, tokenizer)) > 2
    assert profile.front_ends.kohya_prefixes.keys() == profile.models.keys()


def test_patterns_match_the_layers_they_are_for(pipeline: Any) -> None:
    layers = profile_of(family_of_pipeline(pipeline)).layers
    modules = dict(denoiser_of(pipeline).named_modules())

    def matched(pattern: str) -> set[str]:
        return {name for name in modules if re.fullmatch(pattern, name)}

    text_width = denoiser_of(pipeline).config.cross_attention_dim
    reads_text = {
        name
        for name, m in modules.items()
        if name.endswith((".to_k", ".to_v")) and ".attn2." in name
    }
    assert matched(layers.text_kv) == reads_text
    assert {modules[name].in_features for name in reads_text} == {text_width}
    inner = {name for name, m in modules.items() if isinstance(m, nn.Conv2d) and "." in name}
    around = {name for name in modules if name.endswith((".proj_in", ".proj_out"))}
    assert matched(layers.groups["convolutions"]) == inner | around
    assert matched(layers.groups["cross_attention"]) < matched(layers.groups["attention"])
    for pattern in (*layers.groups.values(), layers.quantized):
        assert matched(pattern)
    assert layers.source in denoiser_of(pipeline).state_dict()


def test_only_keys_and_values_of_text_read_text_alone() -> None:
    block = "mid_block.attentions.0.transformer_blocks.0"
    for profile in (profile_of("instruct_pix2pix"), profile_of("instruct_pix2pix_xl")):
        assert profile.reads_text_alone(f"denoiser.{block}.attn2.to_k")
        assert profile.reads_text_alone(f"denoiser.{block}.attn2.to_v")
        for other in (f"denoiser.{block}.attn2.to_q", f"denoiser.{block}.attn1.to_k"):
            assert not profile.reads_text_alone(other)
        assert not profile.reads_text_alone(f"text_encoder.{block}.attn2.to_k")


def test_no_two_families_share_a_pipeline_or_a_text_width() -> None:
    pipelines = [profile.pipeline for profile in profiles()]
    widths = [base.text_width for profile in profiles() for base in profile.usual_bases]
    assert len(set(pipelines)) == len(pipelines)
    assert len(set(widths)) == len(widths) == 5


def test_a_pipeline_of_no_family_is_refused() -> None:
    with pytest.raises(BaseModelError, match="class object: it is none that edits here"):
        family_of_pipeline(object())
