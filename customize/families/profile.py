"""What anyone may ask about a family of bases without opening one: a frozen `Profile` for each.

Code outside `families` learns from here what it must know, and no family's name. Adapters call a
base's models `denoiser`, `text_encoder` and so on, whatever the parts of a pipeline are called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from customize.families.sampling_defaults import Sampling


@dataclass(frozen=True)
class Layers:
    """Which of a denoiser's layers are which: regular expressions that their paths match in full.

    `text_kv` are keys and values that read text; `text_alone` says that neither pictures nor steps
    change what they read. `groups` are what low-rank adapters teach, by a recipe's names for them;
    weights of `quantized` may be held in fewer bits. `source` is the weight whose further half of
    input channels reads the source, None where there is no such weight.
    """

    text_kv: str
    groups: Mapping[str, str]
    quantized: str
    text_alone: bool = True
    source: str | None = None


@dataclass(frozen=True)
class UsualBase:
    """A base that people's adapters are for, told by the width of text that its `text_kv` read.

    `model` is what such models are called, `name` the base as a recipe names it. `checkpoint` is
    its single file, which programs other than diffusers open; `diffusers_alone` opens it.
    """

    model: str
    name: str
    text_width: int
    checkpoint: str | None = None
    diffusers_alone: bool = False


@dataclass(frozen=True)
class FrontEnds:
    """How other programs call a family: in the names of tensors, in metadata, on their pages.

    `kohya_prefixes` begin the names of each model's layers; `kohya_version` is
    `ss_base_model_version`, `architecture` begins `modelspec.architecture`, `webui_version` is
    A1111's "sd version". With `marks_v_prediction` a single file of a base that predicts velocity
    says so by empty tensors. With `makers_names` ComfyUI and kohya's scripts name layers as the
    makers of the model do, and InvokeAI as diffusers does. `telling` is a layer by which programs
    tell adapters of this family, always written. Of `targets` there are none for other programs.
    `edits` says what such bases are called, `tag` on pages of a hub. ComfyUI (`comfyui`) and A1111
    (`webui`) make edits with them by the nodes and sliders of InstructPix2Pix, where these say so.
    """

    kohya_prefixes: Mapping[str, str]
    kohya_version: str
    architecture: str
    webui_version: str
    marks_v_prediction: bool = False
    makers_names: bool = False
    telling: str | None = None
    targets: frozenset[str] | None = None
    edits: str = "InstructPix2Pix"
    tag: str = "instruct-pix2pix"
    comfyui: bool = False
    webui: bool = False


@dataclass(frozen=True)
class Profile:
    """What is the same for every base of a family.

    `pipeline` is the class of diffusers' editing pipeline; `denoiser` and `text_encoders` are its
    attributes and folders of a base; `token_table` is the path of a text encoder's embeddings.
    `sampling` is how edits are made where neither user nor base says otherwise, `samplers` know the
    noise levels beside the base's own, of which `few_steps_sampler` makes do with few steps. One
    call of the pipeline makes `most_at_once` edits, None for any number. `index` is what
    `model_index.json` says of parts that an editing base does without. Tokenizers are of
    transformers' `tokenizer_class`, and read at most `longest_text` tokens of an instruction, None
    what they say themselves. Where a family does not `learns_text`, neither words nor text encoders
    can be taught. One that `reads_references` takes further pictures beside the source. One that
    `guides_by_source` has a guidance that pulls to the source, which training may hide for it. One
    that `holds_steps` lets masks, tiles and savings act on the calls of its denoiser.
    """

    pipeline: str
    denoiser: str
    text_encoders: tuple[str, ...]
    layers: Layers
    sampling: Sampling
    usual_bases: tuple[UsualBase, ...]
    front_ends: FrontEnds
    token_table: str
    samplers: tuple[str, ...] = ()
    few_steps_sampler: str | None = None
    most_at_once: int | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_class: str = "CLIPTokenizer"
    longest_text: int | None = None
    reads_references: bool = False
    objective: Literal["diffusion", "flow_matching"] = "diffusion"
    learns_text: bool = True
    guides_by_source: bool = True
    holds_steps: bool = True

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Return the text encoders' tokenizers, in the same order."""
        return tuple(tokenizer_of(encoder) for encoder in self.text_encoders)

    @property
    def components(self) -> tuple[str, ...]:
        """Return the parts of a base that hold weights."""
        return self.denoiser, "vae", *self.text_encoders

    @property
    def models(self) -> Mapping[str, str]:
        """Map the models that adapters can change to the parts of a pipeline that they are."""
        return {"denoiser": self.denoiser} | {name: name for name in self.text_encoders}

    def reads_text_alone(self, layer: str) -> bool:
        """Tell whether a layer's inputs are encoded text, the same at every step and picture."""
        model, _, path = layer.partition(".")
        reads_text = model == "denoiser" and re.fullmatch(self.layers.text_kv, path) is not None
        return reads_text and self.layers.text_alone


def tokenizer_of(text_encoder: str) -> str:
    """Name the tokenizer of a text encoder as diffusers does.

    >>> tokenizer_of("text_encoder")
    'tokenizer'
    """
    return text_encoder.replace("text_encoder", "tokenizer")
