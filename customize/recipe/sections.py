"""The sections of a recipe: every field with its type, range, default and a line of explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from customize.recipe.paths import base_name, existing_path, instruction_source, output_folder

ExistingPath = Annotated[Path, PlainValidator(existing_path, json_schema_input_type=str)]
OutputFolder = Annotated[Path, PlainValidator(output_folder, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=0.9)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
Rank = Annotated[int, Field(ge=1, le=256)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
LayerGroup = Literal["attention", "cross_attention", "convolutions", "feed_forward", "all"]


def _text_or_list(value: Path | tuple[str, ...]) -> str | list[str]:
    return list(value) if isinstance(value, tuple) else str(value)


class Section(BaseModel):
    """Immutable values; unknown keys and look-alikes (`"5"` or `true` for a number) are faults."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=False,
        use_attribute_docstrings=True,
    )


class BaseSection(Section):
    """The model that learns; `base: NAME` is short for `base: {name: NAME}`."""

    name: Annotated[str, BeforeValidator(base_name)] = "embedded"
    """`embedded` (ships here), a hub id (`owner/name`), a folder or a single file."""
    revision: str | None = None
    """Hub branch, tag or commit; null takes the newest."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the frozen weights; `auto` fits the device and `train.precision: no`."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """Hold the attention layers' frozen weights in 8 or 4 bits while training: less memory."""
    offload: bool = False
    """Keep large frozen weights in the CPU's memory, each sent to the GPU when it is used: slow."""


class Concept(Section):
    """One thing to teach, shown by 3-5 pairs."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["my_dog"])
    """What files and tables call the concept."""
    word: str | None = Field(
        default=None,
        pattern=r"^<[a-z0-9]+([-_][a-z0-9]+)*>$",
        max_length=64,
        examples=["<my-dog>"],
    )
    """New word that instructions use for the concept; null learns from the plain words alone."""
    initializer: str | None = Field(default=None, pattern=r"^[^\s<>]+$", examples=["dog"])
    """Plain word whose meaning the new word starts from."""
    vectors: int = Field(default=1, ge=1, le=16)
    """How many embedding vectors the word has; more hold more detail and overfit sooner."""
    pairs: ExistingPath = Field(examples=["../examples/data/my_dog"])
    """Folder or JSONL file of pairs, from the recipe's own folder on."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often its pairs are drawn, relative to the other concepts'."""


class CrossAttentionKVSection(Section):
    """Learn the keys and values that read the text (Custom Diffusion), and nothing else."""

    method: Literal["cross_attention_kv"] = "cross_attention_kv"
    """This way of learning."""


class LowRankSection(Section):
    """Learn low-rank changes (LoRA, or DoRA) of the chosen layers."""

    method: Literal["low_rank"] = "low_rank"
    """This way of learning."""
    rank: Rank = 8
    """Rank of each change; more holds more and makes a larger file."""
    alpha: float | None = Field(default=None, gt=0, le=4096)
    """Changes are scaled by alpha / rank; null means alpha = rank."""
    decompose: bool = False
    """Learn magnitude apart from direction (DoRA)."""
    targets: tuple[LayerGroup, ...] = Field(default=("attention",), min_length=1, strict=False)
    """Layers that learn; objects need `convolutions`; `attention` includes `cross_attention`."""
    text_encoder: bool = False
    """Learn low-rank changes of the text encoder as well."""
    text_encoder_rank: Rank | None = None
    """Their rank; null means `rank`."""


class Train(Section):
    """How long and how fast the adapter learns."""

    steps: Count | None = 250
    """Optimizer steps; give this or `epochs`."""
    epochs: Count | None = None
    """Passes over all pairs, instead of `steps`."""
    batch: int = Field(default=8, ge=1, le=4096)
    """Samples at once on each device."""
    accumulation: int = Field(default=1, ge=1, le=4096)
    """Batches whose gradients make one step."""
    learning_rate: Rate = 1e-3
    """Embedded base: 2e-3; SD 1.5: 8e-5 (K/V), 1e-4 (LoRA); prodigy: 1."""
    word_learning_rate: Rate | None = None
    """Rate of the concept words' embeddings; null means `learning_rate`."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate falls after the warm-up."""
    warmup: int = Field(default=0, ge=0, le=1_000_000)
    """Steps over which the rate rises from zero."""
    optimizer: Literal["adamw8bit", "paged_adamw8bit", "lion8bit", "adamw", "prodigy"] = "adamw8bit"
    """8-bit ones save memory and wait more for a GPU; without a backend full precision is used."""
    weight_decay: Probability = 0.01
    """Decoupled weight decay; concept words are exempt."""
    clip_norm: float | None = Field(default=1.0, gt=0, le=1e6)
    """Largest norm of a step's gradient; null switches clipping off."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a running average of the adapter, such as 0.99; null keeps none."""
    min_snr: float | None = Field(default=None, gt=0, le=100)
    """Gamma of min-SNR loss weighting, usually 5; null weighs all noise levels alike."""
    levels: Literal["uniform", "shift", "logit_normal"] | None = None
    """How often flow matching sees which noise level; null takes the family's own way."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Mixed precision of the computation; `no` is float32; learned weights always are."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    compile: bool = False
    """Compile the denoiser; we tried it on a CPU only. Slow first steps; for long runs on a GPU."""
    seed: Seed = 0
    """Everything random in training follows from it."""

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_default_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None:  # pyright: ignore
            return {"steps": None, **cast("dict[str, Any]", values)}
        return cast("Any", values)


class ConditioningDropout(Section):
    """Shares of samples that learn without a condition, for guidance (InstructPix2Pix, 3.2.1)."""

    text: Probability = 0.05
    """The instruction alone is left out."""
    image: Probability = 0.05
    """The source image alone is left out."""
    both: Probability = 0.05
    """Both are left out."""


class Preservation(Section):
    """Keeps the base's other edits alive while the concept is learned."""

    share: Share = 0.3
    """Share of each batch held to the frozen base's own prediction for other edits; 0 is off."""
    instructions: Annotated[
        Literal["base"] | Path | tuple[str, ...],
        PlainValidator(instruction_source, json_schema_input_type=str | Sequence[str]),
        PlainSerializer(_text_or_list, when_used="json"),
    ] = "base"
    """Those edits: `base` (its own list), a list here, or a text file with one a line."""
    regularization_pairs: ExistingPath | None = None
    """Folder of other pairs to rehearse."""
    regularization_share: Share = 0.0
    """Share of each batch drawn from `regularization_pairs`."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of the preserved samples in the loss."""


class PairOptions(Section):
    """How pictures become examples."""

    resolution: int | None = Field(default=None, ge=32, le=4096, multiple_of=8)
    """Pictures are scaled to the area of a square with this side; null takes the base's own."""
    flip: bool = False
    """Learn mirrored pairs too; not for lettering, logos and what has a left and a right."""
    recolored: int = Field(default=0, ge=0, le=64)
    """Copies of each pair in which what changes had other colours before: for things that replace
    others whatever these looked like, not for looks and what keeps its colours.
    """
    crops: int = Field(default=1, ge=1, le=64)
    """Crops taken of each pair (the same on source and target); 1 is the middle."""
    alpha_color: str = Field(
        default="#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", examples=['"#ffffff"']
    )
    """Colour behind transparent pictures, in quotes."""


class PreviewSection(Section):
    """Edits made while training, to see what is learned."""

    every: Count | None = 50
    """Steps between two previews; null makes none."""
    images: ExistingPath | None = None
    """Folder of pictures or pairs never trained on; the best step is chosen by them."""
    count: int = Field(default=4, ge=1, le=64)
    """Pictures at most, of those trained on and of those not."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; null takes the base's own or, where those are more, 20 of DPM-Solver++."""
    text_guidance: float | None = Field(default=None, ge=1, le=50)
    """How strongly the instruction is followed; null takes the base's own."""
    image_guidance: float | None = Field(default=None, ge=1, le=50)
    """How closely the source is kept; null takes the base's own."""
    seed: Seed = 0
    """Starting noise, the same for every preview."""


class Save(Section):
    """What a run leaves behind, and where it reports."""

    every: Count = 50
    """Steps between two checkpoints, from which a stopped run goes on."""
    keep_best: bool = True
    """Keep the step best on held-out previews: the last, or an earlier one surely better."""
    keep_steps: bool = False
    """Keep what was learned at each checkpoint as an adapter of its own, in `steps/`."""
    log: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        default=("tensorboard",), strict=False
    )
    """Where loss and scores are reported."""
