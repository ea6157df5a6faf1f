"""Recipes: what good ones give, and that every fault of bad ones is told with place and cure."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from customize.errors import Fault, RecipeError
from customize.recipe import Recipe, load_recipe
from customize.recipe.recipe import recipe_schema
from customize.recipe.sections import CrossAttentionKVSection, LowRankSection
from customize.recipe.warnings import warnings

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(
    file for file in (ROOT / "recipes").glob("*.yaml") if not file.stem.startswith("synthesize")
)
GOOD = """\
base: embedded
concepts:
  - name: my_dog
    word: <my-dog>
    initializer: dog
    pairs: pairs
adapter:
  method: low_rank
train:
  steps: 50
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "other").mkdir()
    return tmp_path


def load(folder: Path, text: str = GOOD, *overrides: str) -> Recipe:
    file = folder / "x.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, overrides)


def faults(folder: Path, text: str = GOOD, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    return [str(fault).replace(f"{folder}/", "") for fault in caught.value.faults]


def test_a_short_recipe_has_sensible_defaults(folder: Path) -> None:
    recipe = load(folder, "concepts: [{name: my_dog, pairs: pairs}]\ntrain:\n")
    assert recipe.base.name == "embedded"
    assert recipe.adapter == CrossAttentionKVSection()
    assert (recipe.train.steps, recipe.train.epochs, recipe.train.batch) == (250, None, 8)
    assert recipe.train.optimizer == "adamw8bit"
    assert recipe.preservation.share == 0.3
    assert recipe.concepts[0].pairs == folder / "pairs"
    assert recipe.output == Path("runs/my_dog")
    assert warnings(recipe) == []


def test_epochs_take_the_place_of_the_default_steps(folder: Path) -> None:
    recipe = load(folder, GOOD.replace("steps: 50", "epochs: 7"))
    assert (recipe.train.steps, recipe.train.epochs) == (None, 7)


def test_plain_scalars_follow_yaml_1_2(folder: Path) -> None:
    text = GOOD + "  precision: no\n  learning_rate: 2e-3\n  seed: 1_000\n  batch: 010\n"
    train = load(folder, text).train
    assert (train.precision, train.learning_rate, train.seed, train.batch) == (
        "no",
        0.002,
        1000,
        10,
    )


def test_paths_start_at_the_recipe_and_typed_ones_at_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "recipes").mkdir()
    (folder / "here").mkdir()
    (folder / "models").mkdir()
    monkeypatch.chdir(folder)
    text = GOOD.replace("pairs: pairs", "pairs: ../pairs").replace("embedded", "../models")
    recipe = load(Path("recipes"), text + "output: runs/a\n")
    assert recipe.concepts[0].pairs == Path("pairs"), "no home folder in shared headers"
    assert recipe.base.name == "./models"
    assert recipe.output == Path("runs/a")
    assert load(Path("recipes"), text, "concepts.0.pairs=here").concepts[0].pairs == Path("here")


def test_a_hub_id_is_left_alone(folder: Path) -> None:
    name = "timbrooks/instruct-pix2pix"
    assert load(folder, GOOD.replace("embedded", name)).base.name == name


def test_overrides_are_yaml_and_reach_every_field(folder: Path) -> None:
    recipe = load(
        folder,
        GOOD,
        "train.steps=null",
        "train.epochs=3",
        "concepts.0.word=<cat>",
        "adapter={method: low_rank, rank: 4, targets: [attention, convolutions]}",
        "adapter.alpha=2",
        "base.precision=bfloat16",
        "preservation.instructions=[make it night, make it red]",
        "preview.images=null",
        "output=runs/c=d",
    )
    assert (recipe.train.steps, recipe.train.epochs) == (None, 3)
    assert recipe.concepts[0].word == "<cat>"
    assert recipe.adapter == LowRankSection(rank=4, alpha=2, targets=("attention", "convolutions"))
    assert (recipe.base.name, recipe.base.precision) == ("embedded", "bfloat16")
    assert recipe.preservation.instructions == ("make it night", "make it red")
    assert recipe.output == Path("runs/c=d")


@pytest.mark.filterwarnings("error")
def test_a_recipe_survives_the_adapter_header(folder: Path) -> None:
    (folder / "edits.txt").write_text("make it night\n")
    for instructions in ("base", "edits.txt", "[make it night]"):
        text = GOOD + f"preservation: {{instructions: {instructions}}}\n"
        recipe = load(folder, text)
        header = json.dumps(recipe.model_dump(mode="json"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.path.exists", lambda _: False)  # as on another machine
            assert Recipe.model_validate_json(header) == recipe


def test_recipes_are_immutable(folder: Path) -> None:
    with pytest.raises(ValidationError):
        load(folder).train.steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_recipes_made_in_python_are_checked_too() -> None:
    concept = {"name": "a", "word": "<a>", "pairs": "nowhere"}
    assert Recipe.model_validate({"concepts": [concept]}).concepts[0].word == "<a>"
    with pytest.raises(ValidationError, match=r"concepts\.1\.word: '<a>' is taken"):
        Recipe.model_validate({"concepts": [concept, {**concept, "name": "b"}]})


def test_five_faults_are_all_told_with_line_and_cure(folder: Path) -> None:
    text = """\
base: embeded
concepts:
  - name: my_dog
    word: my-dog
    pairs: pears
adapter:
  method: low_rank
  rnak: 8
train:
  steps: 50
  epochs: 2
"""
    start = f"which starts at the recipe's folder, {folder}"
    assert faults(folder, text) == [
        "x.yaml:1 base.name: no base is called 'embeded'; did you mean 'embedded'?",
        "x.yaml:4 concepts.0.word: found 'my-dog'; write it like <my-dog>: lower case in angle "
        "brackets, which keeps it apart from every ordinary word",
        "x.yaml:5 concepts.0.pairs: no such folder or file: pears; did you mean 'pairs'?",
        "x.yaml:8 adapter.rnak: unknown key; did you mean 'rank'?",
        "x.yaml:11 train.epochs: given beside train.steps; keep one and set the other to null",
    ]
    assert faults(folder, GOOD.replace("pairs: pairs", "pairs: q"))[0].endswith(start)


ONE_FAULT = {
    # the place, and how the rest of the message matches
    "train: {stepz: 3}": ("train.stepz", r"unknown key; did you mean 'steps'\?"),
    "trian: {steps: 3}": ("trian", r"unknown key; did you mean 'train'\?"),
    "learning_rate: 1e-3": ("learning_rate", "unknown key; it belongs in section 'train'"),
    "precision: bf16": ("precision", "unknown key; it belongs in section 'base' or 'train'"),
    "adapter: {method: cross_attention_kv, rnak: 8}": (
        "adapter.rnak",
        r"did you mean 'rank'\? that belongs to method low_rank",
    ),
    "train: {zzz: 3}": ("train.zzz", "unknown key; known here: steps, epochs"),
    "adapter: {method: cross_attention_kv, rank: 8}": (
        "adapter.rank",
        "'rank' belongs to method low_rank",
    ),
    "adapter: {rank: 8}": ("adapter.method", "missing; add `method:"),
    "adapter: {method: lora}": ("adapter.method", "found 'lora'; .*low_rank"),
    "adapter: {method: low_rank, rank: 0}": ("adapter.rank", "found 0; must be at least 1"),
    "adapter: {method: low_rank, targets: []}": ("adapter.targets", "list at least 1"),
    "adapter: {method: low_rank, targets: attention}": ("adapter.targets", "write a list"),
    "adapter: {method: low_rank, targets: [conv]}": ("adapter.targets.0", "found 'conv'"),
    "adapter: {method: low_rank, targets: [attention, attention]}": ("adapter.targets", "twice"),
    "adapter: {method: low_rank, text_encoder_rank: 4}": (
        "adapter.text_encoder_rank",
        "text_encoder is off",
    ),
    "train: {steps: 0}": ("train.steps", "found 0; must be at least 1"),
    "train: {steps: true}": ("train.steps", "write a whole number"),
    "train: {steps: '9'}": ("train.steps", "write a whole number, without quotes"),
    "train: {steps: null}": ("train.steps", "neither steps nor epochs"),
    "train: {learning_rate: fast}": ("train.learning_rate", "write a number"),
    "train: {learning_rate: 1e999}": ("train.learning_rate", "finite"),
    "train: {compile: 1}": ("train.compile", "write true or false"),
    "train: {optimizer: adam8bit}": ("train.optimizer", "did you mean 'adamw8bit'"),
    "train: 5": ("train", "write a section with keys of its own: steps"),
    "conditioning_dropout: {text: .5, image: .6}": ("conditioning_dropout", "= 1.15"),
    "preservation: {share: 0.95}": ("preservation.share", "must be at most 0.9"),
    "preservation: {share: .5, regularization_share: .5, regularization_pairs: other}": (
        "preservation",
        "share \\+ regularization_share = 1;",
    ),
    "preservation: {regularization_share: .2}": ("preservation.regularization_share", "no pairs"),
    "preservation: {regularization_pairs: other}": (
        "preservation.regularization_pairs",
        "none would be drawn",
    ),
    "preservation: {instructions: [1]}": ("preservation.instructions", "each a text"),
    "preservation: {instructions: pairs}": ("preservation.instructions", "a folder; name a text"),
    "pairs: {resolution: 70}": ("pairs.resolution", "must be a multiple of 8"),
    "pairs: {alpha_color: #ffffff\n}": ("pairs.alpha_color", "in quotes"),
    "pairs: {alpha_color: white}": ("pairs.alpha_color", 'write it like "#ffffff"'),
    "preview: {images: nowhere}": ("preview.images", "no such folder or file: nowhere"),
    "save: {log: [tensorbord]}": ("save.log.0", "did you mean 'tensorboard'"),
    "output: 3": ("output", "write the path of a folder"),
    "base: {name: ./nowhere}": ("base.name", "no such folder or file: nowhere"),
    "base: {name: x, name: embedded}": ("base.name", "given twice; keep one"),
    "save: &a {every: 5}\nbase: *a": ("base", "an alias"),
    "base: !!python/name:os.system x": ("base", "tag .* remove it"),
}


@pytest.mark.parametrize("line", ONE_FAULT)
def test_each_fault_names_its_place_and_cure(folder: Path, line: str) -> None:
    place, message = ONE_FAULT[line]
    told = faults(folder, f"concepts: [{{name: my_dog, pairs: pairs}}]\n{line}\n")
    assert len(told) == 1, told
    assert re.match(rf"x\.yaml:[23] {re.escape(place)}: ", told[0]), told[0]
    assert re.search(message, told[0]), told[0]


CONCEPT_FAULTS = {
    "{pairs: pairs}": ("0.name", "missing; add `name: my_dog`"),
    "{name: a}": ("0.pairs", "missing; add `pairs: "),
    "{name: My Dog, pairs: pairs}": ("0.name", "write it like my_dog: lower-case"),
    "{name: 7, pairs: pairs}": ("0.name", "in quotes if it looks like a number"),
    "{name: a, word: <A>, pairs: pairs}": ("0.word", "write it like <my-dog>"),
    "{name: a, initializer: dog, pairs: pairs}": ("0.initializer", "no word to initialize"),
    "{name: a, vectors: 2, pairs: pairs}": ("0.vectors", "no word to hold them"),
    "{name: a, word: <a>, initializer: big dog, pairs: pairs}": ("0.initializer", "one plain word"),
    "{name: a, pairs: pairs}, {name: a, pairs: other}": ("1.name", "'a' is taken by concepts.0"),
    "{name: a, word: <x>, pairs: pairs}, {name: b, word: <x>, pairs: other}": (
        "1.word",
        "'<x>' is taken by concepts.0",
    ),
    "my_dog": ("0", "write a section with keys of its own: name, word"),
    "{name: a, pairs: ../examples/data/a}": ("0.pairs", "python examples/make_pairs.py"),
}


@pytest.mark.parametrize("items", CONCEPT_FAULTS)
def test_each_fault_of_a_concept(folder: Path, items: str) -> None:
    place, message = CONCEPT_FAULTS[items]
    told = faults(folder, f"concepts: [{items}]\n")
    assert len(told) == 1, told
    assert told[0].startswith(f"x.yaml:1 concepts.{place}: "), told[0]
    assert message in told[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adapter.rnak=3", "--set adapter.rnak: unknown key; did you mean 'rank'?"),
        ("trian.steps=3", "--set trian: unknown key; did you mean 'train'?"),
        ("train.steps", "--set: override 'train.steps'; write it as key=value"),
        ("train..steps=3", "--set: override 'train..steps=3'; write it as key=value"),
        ("train.0=5", "train.0: unknown key; known here: steps"),
        ("train.steps=[", "--set train.steps: not YAML"),
        ("train.steps=x", "--set train.steps: found 'x'; write a whole number"),
        ("concepts.1.word=<x>", "--set concepts.1.word: no item 1 in a list of 1"),
        ("concepts.dog.word=<x>", "--set concepts.dog.word: no item 'dog' in a list of 1"),
        ("train.steps.x=3", "--set train.steps.x: train.steps holds 50, no section"),
        ("concepts.0.pairs=nowhere", "which starts at the working directory"),
        ("train.word_learning_rate=1", None),
        ("train.epochs=3", "--set train.epochs: given beside train.steps"),
    ],
)
def test_faults_of_overrides(folder: Path, override: str, message: str | None) -> None:
    if message is None:
        assert load(folder, GOOD, override).train.word_learning_rate == 1
    else:
        told = faults(folder, GOOD, override)
        assert len(told) == 1, told
        assert message in told[0]


def test_the_words_rate_needs_a_word(folder: Path) -> None:
    told = faults(folder, GOOD, "concepts.0={name: a, pairs: x}", "train.word_learning_rate=1")
    assert any("no concept has a word" in fault for fault in told)
    assert len(told) == 2, "and the missing folder"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no sections in it"),
        (b"- a\n", "no sections in it"),
        (b"train:\n", "concepts: missing"),
        (b"concepts: []\n", "list at least 1"),
        (b"train:\n\tsteps: 3\n", ":2: not YAML: a tab; indent with spaces"),
        (b"train: {steps: 3\nbase: x", "not YAML: "),
        (b"a: 1\n---\nb: 2\n", "not YAML: "),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"a: \x07\n", "not YAML: "),
        (b'a: "\\UFFFFFFFF"\n', "not YAML: "),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "x.yaml")
    assert message in str(caught.value)
    assert "1 fault\n" in str(caught.value)


def test_a_missing_file_and_a_folder(folder: Path) -> None:
    load(folder)
    with pytest.raises(RecipeError, match=r"no such file; did you mean 'x.yaml'\?"):
        load_recipe(folder / "y.yaml")
    with pytest.raises(RecipeError, match="a folder; name a recipe file"):
        load_recipe(folder)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    st.sampled_from(list(Recipe.model_fields)),
    st.sampled_from(["", "method", "steps", "share", "name", "instructions", "every"]),
)
def test_whatever_is_written_ends_in_a_recipe_or_in_faults(
    tmp_path_factory: pytest.TempPathFactory, value: object, section: str, key: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "pairs").mkdir()
    concepts = [{"name": "a", "pairs": "pairs"}]
    written = {"concepts": concepts, section: {key: value} if key else value}
    told: list[Fault] = []
    try:
        load(folder, yaml.safe_dump(written, allow_unicode=True))
    except RecipeError as error:
        told.extend(error.faults)
    assert all(fault.place and fault.found and fault.cure for fault in told)


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["preview.every=60"], "preview.every"),
        (["save.every=60"], "save.every"),
        (["train.warmup=50"], "train.warmup"),
        (["train.ema=0.9999"], "train.ema"),
        (["train.optimizer=prodigy"], "train.learning_rate"),
        (["train.learning_rate=0.5"], "train.learning_rate"),
        (["base=timbrooks/instruct-pix2pix"], "train.learning_rate"),
        (["concepts.0.initializer=null"], "concepts.0.initializer"),
        (["concepts.0.weight=2"], "concepts.0.weight"),
        (["base.revision=main"], "base.revision"),
        (["preservation={share: 0, instructions: [make it red]}"], "preservation.instructions"),
        (["preview.every=null", "save.keep_best=true"], "save.keep_best"),
        (["adapter.targets=[attention, cross_attention]"], "adapter.targets"),
    ],
)
def test_requests_without_effect_are_said(folder: Path, overrides: list[str], place: str) -> None:
    assert warnings(load(folder)) == []
    told = warnings(load(folder, GOOD, *overrides))
    assert [warning.place for warning in told] == [place]


def test_training_pictures_shown_as_unseen_are_said(folder: Path) -> None:
    both = "concepts: [{name: a, pairs: pairs}, {name: b, pairs: pairs}]\n"
    told = warnings(load(folder, both + "preview: {images: pairs}\n"))
    assert [warning.place for warning in told] == [
        "preview.images",
        "preview.images",
        "concepts.1.pairs",
    ]


def test_shipped_recipes_load_without_a_warning(tmp_path: Path) -> None:
    assert [file.name for file in SHIPPED] == [
        "brand_style.yaml",
        "flux2_klein.yaml",
        "my_dog.yaml",
        "my_mark.yaml",
        "two_concepts_jointly.yaml",
    ]
    for name in ("my_dog", "brand_style", "my_mark"):
        (tmp_path / "examples/data" / name).mkdir(parents=True)
        (tmp_path / "examples/data" / f"{name}_unseen").mkdir()
    (tmp_path / "recipes").mkdir()
    for file in SHIPPED:
        copy = shutil.copy(file, tmp_path / "recipes")
        assert warnings(load_recipe(Path(copy))) == [], file
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
        if "\nbase: embedded" not in text:
            assert load_recipe(Path(copy)).base.name == "black-forest-labs/FLUX.2-klein-base-4B"
            continue
        (hub_base,) = re.findall(r"^#   (base: .*/.*)$", text, re.MULTILINE)
        Path(copy).write_text(text.replace("\nbase: embedded", f"\n{hub_base}"), encoding="utf-8")
        assert load_recipe(Path(copy)).base.name == "timbrooks/instruct-pix2pix"


def test_the_schema_is_current_and_explains_every_field() -> None:
    schema = recipe_schema()
    written = (ROOT / "recipes/recipe.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == schema, "run `customize schema > recipes/recipe.schema.json`"
    sections = [schema, *schema["$defs"].values()]
    fields = [field for section in sections for field in section["properties"].values()]
    assert len(fields) > 60
    assert all(field.get("description") for field in fields)
    required = {name for section in sections for name in section.get("required", [])}
    assert required == {"concepts", "name", "pairs"}, "all else has a default"


WINDOWS = {
    r"pairs: pairs": r'pairs: "C:\Users\me\dog"',
    r"base: embedded": r'base: "D:\new\base"',
    r"steps: 50": "steps: 50\n" + r'output: "D:\runs\table"',
}


@pytest.mark.parametrize("right", WINDOWS)
def test_windows_paths_in_double_quotes_get_the_cure(folder: Path, right: str) -> None:
    text = GOOD.replace(right, WINDOWS[right])
    assert text != GOOD
    told = faults(folder, text)
    assert [fault for fault in told if "forward slashes" in fault]


@pytest.mark.parametrize(
    "override",
    [
        r'concepts.0.pairs="D:\new\table"',
        r'concepts.0.pairs="C:\Users\me"',
        r'base="D:\base"',
        r'preview.images="D:\temp"',
        r'preservation.instructions="D:\notes.txt"',
        r'preservation.regularization_pairs="D:\Pictures"',
        r'output="D:\aa"',
    ],
)
def test_so_do_those_on_the_command_line(folder: Path, override: str) -> None:
    assert any("forward slashes" in fault for fault in faults(folder, GOOD, override))


def test_names_match_however_their_accents_are_stored(folder: Path) -> None:
    stored, written = (unicodedata.normalize(form, "Hündin/süß") for form in ("NFD", "NFC"))
    (folder / stored).mkdir(parents=True)
    recipe = load(folder, GOOD.replace("pairs: pairs", f"pairs: {written}"))
    assert recipe.concepts[0].pairs == folder / stored


def test_recipes_are_bounded_and_are_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    for path in (folder / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(RecipeError, match="which may never end"):
            load_recipe(path)
    assert any("half of a character" in f for f in faults(folder, GOOD + r'output: "\ud800"'))
    start = time.process_time()
    assert (
        "more than 20000 values" in faults(folder, GOOD + "x:\n" + "- [[[[[[[[]]]]]]]]\n" * 9000)[0]
    )
    assert "more than 0.2 MB" in faults(folder, GOOD + "#" * 300_000)[0]
    assert time.process_time() - start < 5
    with pytest.raises(RecipeError):
        load_recipe(folder / ("n" * 300))
    with pytest.raises(RecipeError):
        load(folder, GOOD, f"train.steps={'9' * 400}")
