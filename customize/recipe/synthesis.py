"""The YAML that says how triplets are made: captions, writer, the base that draws, the filter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from customize.errors import Fault
from customize.recipe.paths import base_name
from customize.recipe.read import read_recipe
from customize.recipe.sections import Count, ExistingPath, OutputFolder, Section, Seed
from customize.recipe.yaml_text import section_of

Cosine = Annotated[float, Field(ge=-1, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=1, le=50)]
Format = Literal["webdataset", "imagefolder"]

EXAMPLE = "recipes/synthesize_embedded.yaml"


class ServerSection(Section):
    """A server of OpenAI's protocol."""

    url: str = Field(pattern=r"^https?://", examples=["http://localhost:8000/v1"])
    """Its address, which ends in `/v1` on most servers."""
    model: str = Field(min_length=1, examples=["Qwen/Qwen3-8B"])
    """The model to ask, by the server's name for it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; local servers need none."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds to wait for one answer."""
    retries: int = Field(default=5, ge=0, le=20)
    """How often a question is repeated after an error 429 or 500 or a lost connection."""
    at_once: int = Field(default=8, ge=1, le=256)
    """Questions asked at the same time."""


class Writer(Section):
    """Who turns captions into edits."""

    kind: Literal["drawn_world", "endpoint", "local"] = "drawn_world"
    """The embedded world's grammar, a server, or a language model on this machine."""
    server: ServerSection | None = None
    """Of kind `endpoint`: the server."""
    model: str | None = None
    """Of kind `local`: a folder or hub id of a causal language model."""
    adapter: ExistingPath | None = None
    """Of kind `local`: what `customize synthesize fit-writer` wrote."""
    licence: str = "unknown"
    """Of kind `endpoint`: the model's licence, for the provenance."""
    blocked: tuple[str, ...] | None = Field(default=None, strict=False)
    """Words that no caption may hold; null takes the built-in list."""


class Pictures(Section):
    """How both pictures of an edit are drawn."""

    base: Annotated[str, BeforeValidator(base_name)] = "embedded"
    """A text-to-image model: `embedded`, a hub id, a folder or a single file."""
    revision: str | None = None
    """Hub branch, tag or commit; null takes the newest."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` computes in bfloat16 on CPUs made for it."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; null takes the base's own, 100 as in the paper."""
    scheduler: str | None = "euler_a"
    """Sampler by its short name, as in `customize edit`; null takes the base's own."""
    guidance: tuple[Strength, Strength] | None = Field(default=None, strict=False)
    """Lowest and highest text guidance, drawn for each sample; null takes 7.5 to 15."""
    self_until: tuple[Fraction, Fraction] = Field(default=(0.1, 0.9), strict=False)
    """Share of the steps for which the second picture attends on itself as the first, drawn."""
    cross_until: tuple[Fraction, Fraction] = Field(default=(0.0, 0.0), strict=False)
    """The same for its attention on the text; [0.8, 0.8] is Prompt-to-Prompt's own."""
    blend: bool = False
    """Keep the first picture where no changed word is looked at; for edits of things only."""
    resolution: int | None = Field(default=None, ge=32, le=2048, multiple_of=8)
    """Side of the pictures in pixels; null takes the base's own."""
    at_once: int = Field(default=8, ge=1, le=256)
    """Pairs drawn together."""


class JudgeSection(ServerSection):
    """A vision model that is asked about each pair the CLIP likes."""

    least: float = Field(default=6.0, ge=0, le=10)
    """What both of its scores must reach, of 10."""


class Filter(Section):
    """Which pairs are kept."""

    clip: Annotated[str, BeforeValidator(base_name)] = "embedded"
    """The CLIP that compares: `embedded`, a folder or a hub id."""
    pictures: Cosine = 0.7
    """Least cosine of the two pictures."""
    first: Cosine = 0.2
    """Least cosine of the first picture and its caption."""
    second: Cosine = 0.2
    """Least cosine of the second picture and its caption."""
    direction: Cosine = 0.2
    """Least cosine of the picture's change and the caption's change."""
    keep_share: float | None = Field(default=None, gt=0, le=1)
    """Choose the four thresholds by a trial, so that this share of samples is kept."""
    trial: int = Field(default=64, ge=8, le=10_000)
    """Samples of the trial."""
    keep: int = Field(default=4, ge=1, le=100)
    """Pairs kept of one edit, the best direction first; sampling it stops then."""
    most: int = Field(default=100, ge=1, le=10_000)
    """Samples drawn of one edit at most."""
    alike: Cosine = 0.99
    """Cosine above which two kept second pictures count as one."""
    judge: JudgeSection | None = None
    """A second opinion of a vision model; null asks none."""


class SynthesisRecipe(Section):
    """All that making triplets is told."""

    captions: ExistingPath | None = None
    """Captions to edit: a text file, one a line, or JSON lines with `caption`."""
    drawn_captions: Count | None = None
    """Draw so many captions of the embedded world instead."""
    edits_each: int = Field(default=1, ge=1, le=100)
    """Edits asked for of each caption."""
    triplets: Count = 200
    """Triplets to make; a larger number later goes on where this one stopped."""
    writer: Writer = Writer()
    """Who writes the edits."""
    pictures: Pictures = Pictures()
    """How pictures are drawn."""
    filter: Filter = Filter()
    """Which pairs are kept."""
    formats: tuple[Format, ...] = Field(default=(), strict=False)
    """What is written beside `pairs.jsonl`."""
    output: OutputFolder = Path("runs/triplets")
    """Folder of the result, from the working directory on."""
    seed: Seed = 0
    """Decides every random choice."""


def load_synthesis_recipe(path: Path, overrides: Sequence[str] = ()) -> SynthesisRecipe:
    """Read a recipe and check it; raises RecipeError with every fault, its line and its cure."""
    return read_recipe(path, SynthesisRecipe, EXAMPLE, _contradictions, overrides)


def _contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Find fields that are fine alone and wrong together."""
    writer, pictures = section_of(values, "writer"), section_of(values, "pictures")
    kind = writer.get("kind", "drawn_world")
    given = [name for name in ("captions", "drawn_captions") if values.get(name) is not None]
    if len(given) != 1:
        found = "given beside captions" if given else "no captions to start from"
        cure = "name a file in `captions`, or say how many to draw in `drawn_captions`"
        yield Fault("drawn_captions", found, cure)
    if "drawn_captions" in given and kind != "drawn_world":
        found = f"beside a writer of kind {kind}"
        yield Fault("drawn_captions", found, "name a file in `captions`")
    for owner, name in (("endpoint", "server"), ("local", "model"), ("local", "adapter")):
        there = writer.get(name) is not None
        if kind == owner and not there and name != "adapter":
            yield Fault(f"writer.{name}", "missing", f"a writer of kind {kind} needs it")
        if kind != owner and there:
            cure = f"it belongs to kind {owner}: remove one"
            yield Fault(f"writer.{name}", f"beside kind {kind}", cure)
    for name in ("guidance", "self_until", "cross_until"):
        bounds = _numbers(pictures.get(name))
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            found = f"from {bounds[0]:g} to {bounds[1]:g}"
            yield Fault(f"pictures.{name}", found, "write the lower one first")


def _numbers(value: Any) -> list[float]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [float(item) for item in items if isinstance(item, int | float)]
