"""The command line: what each command prints and writes, and that faults come without traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders.bases import toy_base
from PIL import Image

from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught
from customize.cli import train
from customize.cli.main import main
from customize.drawing.table import table
from customize.editing import Editor
from customize.editing.edited_picture import read_settings
from customize.editing.options import with_strength
from customize.families.base import resolve_base
from customize.recipe import Recipe
from customize.recipe.embedded_base import EmbeddedBaseRecipe, load_embedded_base
from customize.recipe.recipe import recipe_schema
from customize.training import run
from customize.training.finish import RunResult

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("train", "check", "edit", "inspect", "schema", "fit-base")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # tables do not wrap


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_base(tmp_path_factory.mktemp("base"))


def picture(name: str, color: str, size: tuple[int, int] = (48, 32)) -> str:
    image = Image.radial_gradient("L").resize(size)
    Image.composite(Image.new("RGB", size, color), Image.new("RGB", size), image).save(name)
    return name


def write_recipe(base: Path, instruction: str = "make the dog <my-dog>", count: int = 3) -> str:
    Path("pairs").mkdir()
    rows = []
    for index, color in enumerate(("red", "green", "blue")[:count]):
        row = {"source": f"{index}a.png", "instruction": instruction, "edited": f"{index}b.png"}
        picture(f"pairs/{row['source']}", color)
        picture(f"pairs/{row['edited']}", "white")
        rows.append(json.dumps(row))
    Path("pairs/pairs.jsonl").write_text("\n".join(rows))
    Path("recipe.yaml").write_text(
        f"base: {base}\n"
        "concepts:\n"
        "  - {name: my_dog, word: <my-dog>, initializer: dog, pairs: pairs}\n"
        "train: {learning_rate: 8e-5}\n"
    )
    return "recipe.yaml"


def write_adapter(base: Path, name: str = "dog.safetensors") -> str:
    header = Header(
        family="instruct_pix2pix",
        base_name=str(base),
        base_fingerprint=resolve_base(str(base)).fingerprint,
        method="low_rank",
        rank=4,
        targets=("attention",),
        concepts=(Taught("my_dog", "<my-dog>", "dog", 2, ("turn the dog into <my-dog>",)),),
        recipe={"train": {"learning_rate": 2e-3, "optimizer": "adamw8bit", "batch": 8, "seed": 0}},
        pairs={"pairs.jsonl:1": "0" * 64},
        training={"steps": 250, "seconds": 61.25, "scores": {"held_out": 0.91}},
    )
    width = 16
    save_adapter(Path(name), header, {"words.text_encoder.<my-dog>": torch.ones(2, width)})
    return name


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0


@pytest.mark.parametrize("arguments", [[], ["trane"], ["edit", "a.png"], ["schema", "--x"]])
def test_misuse_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "customize" in capsys.readouterr().err


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    """Run a command in a process of its own; return its exit code and what it imported."""
    code = """
import sys
from customize.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("\\nimported", code, *sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    _, code, *modules = run.stdout.splitlines()[-1].split()
    assert "customize.cli.train" in modules
    return int(code), set(modules)


def test_help_imports_nothing_heavy() -> None:
    code, modules = loaded_by("--help")
    assert code == 0
    assert not modules & {"torch", "diffusers", "transformers", "numpy", "pydantic", "PIL", "yaml"}


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("train", "base: embeded\nconcepts: [{name: a, pairs: nowhere}]\n"),
        ("check", "concepts: []\ntrain: {steps: 0}\n"),
        ("fit-base", "start: nowhere\nbatch: 0\n"),
        ("fit-base", "clip: {batch: 0}\n"),
    ],
)
def test_faults_of_a_recipe_are_told_without_torch(command: str, text: str) -> None:
    Path("bad.yaml").write_text(text)
    code, modules = loaded_by(command, "bad.yaml")
    assert code == 2
    assert "pydantic" in modules
    assert not modules & {"torch", "diffusers", "transformers", "numpy", "PIL"}


def test_all_faults_of_a_recipe_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(
        "base: embeded\n"
        "concepts:\n"
        "  - {name: My Dog, pairs: nowhere}\n"
        "adapter: {method: low_rank, rnak: 4}\n"
        "train: {steps: -3}\n"
    )
    assert main(["train", "bad.yaml"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("customize: recipe bad.yaml: 5 faults\n")
    for fault in ("'embedded'?", "My Dog", "nowhere", "did you mean 'rank'?", "-3"):
        assert fault in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(("adapter", "code"), [(Path("adapter.safetensors"), 0), (None, 130)])
def test_train_runs_the_recipe(
    base: Path, adapter: Path | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Recipe, bool]] = []

    def run_recipe(recipe: Recipe, *, overwrite: bool, further: bool) -> RunResult:
        assert not further
        calls.append((recipe, overwrite))
        return RunResult(7, 1.0, 0.1, adapter)

    monkeypatch.setattr(run, "run_recipe", run_recipe)
    name = write_recipe(base)
    assert main(["train", name, "--set", "train.steps=7", "train.seed=3", "--overwrite"]) == code
    assert main(["train", name]) == code
    (first, overwrite), (second, _) = calls
    assert (first.train.steps, first.train.seed, overwrite) == (7, 3, True)
    assert (second.train.steps, calls[1][1]) == (250, False)


def test_schema_is_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()


def test_check_draws_a_sheet_and_lists_findings(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(base)
    assert main(["check", recipe]) == 0
    printed = capsys.readouterr().out
    assert "my_dog: 3 pairs (" in printed
    assert "contact sheet: recipe_pairs.png\n" in printed
    with Image.open("recipe_pairs.png") as sheet:
        assert sheet.width > 3 * 192
    assert "expected peak" not in printed
    assert main(["check", recipe, "--card", "8GB"]) == 0
    printed = capsys.readouterr().out
    assert "recipe_pairs.png (drawn again)" in printed
    assert "expected peak of GPU memory" in printed
    assert "it fits" in printed


def test_check_loads_no_torch(base: Path) -> None:
    code, modules = loaded_by("check", write_recipe(base))
    assert code == 0
    assert "customize.pairs.lint.lint_pairs" in modules
    assert not modules & {"torch", "diffusers", "peft", "scipy"}


def test_check_keeps_a_named_sheet(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(base)
    Path("mine.png").write_text("mine")
    assert main(["check", recipe, "-o", "mine.png"]) == 2
    assert "mine.png: it is there already" in capsys.readouterr().err
    assert Path("mine.png").read_text() == "mine"
    assert main(["check", recipe, "-o", "mine.png", "--overwrite"]) == 0


def test_check_tells_errors_of_base_and_pairs_together(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(base, instruction="make the dog blue", count=2)
    Path("pairs/1b.png").unlink()
    Path("empty").mkdir()
    assert main(["check", recipe, "--set", "base=./empty"]) == 2
    printed = capsys.readouterr().out
    assert printed.count("error") == 2
    assert "model_index.json" in printed
    assert "1b.png" in printed
    picture("pairs/1b.png", "white")
    assert main(["check", recipe]) == 2
    printed = capsys.readouterr().out
    assert "<my-dog> is in none of the 2" in printed
    assert "only 2 of the 3" in printed


def test_check_says_what_the_tokenizer_breaks_up(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(base, "make the dog <my-dog> and a xylophone")
    assert main(["check", recipe, "--set", "concepts.0.initializer=hound"]) == 0
    printed = capsys.readouterr().out
    assert "'xylophone' is not in the" in printed
    assert "'hound' is broken up" in " ".join(printed.split())


def test_edit_saves_every_stage_of_a_chain(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = picture("cat.png", "orange")
    arguments = ["edit", image, "make it red", "add the hat", "--base", str(base), "--steps", "2"]
    assert main([*arguments, "--seed", "5", "-o", "new/out.png"]) == 0
    assert sorted(path.name for path in Path("new").iterdir()) == ["out.png", "out_1.png"]
    settings = read_settings(Path("new/out.png"))
    assert settings is not None
    assert (settings["instruction"], settings["earlier"]) == ("add the hat", ["make it red"])
    assert (settings["seed"], settings["steps"]) == (5, 2)
    printed = capsys.readouterr().out
    assert "new/out_1.png: make it red\nnew/out.png: add the hat\n" in printed


def test_edit_without_output_finds_a_free_name(base: Path) -> None:
    image = picture("cat.png", "orange")
    arguments = ["edit", image, "make it red", "--base", str(base), "--steps", "1"]
    for expected in ("cat_edited.png", "cat_edited_2.png", "cat_edited_3.png"):
        assert not Path(expected).exists()
        assert main(arguments) == 0
        assert Path(expected).exists()


def test_edit_takes_the_base_and_strength_of_adapters(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, adapter = picture("cat.png", "orange"), write_adapter(base)
    arguments = ["edit", image, "paint <my-dog> red", "--adapter", f"{adapter}:0.5", "--steps", "1"]
    assert main(arguments) == 0
    settings = read_settings(Path("cat_edited.png"))
    assert settings is not None
    assert settings["base"] == base.name
    assert settings["adapters"][0]["strength"] == 0.5
    assert capsys.readouterr().err == ""


def test_strengths_after_the_last_colon() -> None:
    Path("odd:0.5").touch()
    Path("a.safetensors").touch()
    assert with_strength("a.safetensors") == (Path("a.safetensors"), 1.0)
    assert with_strength("a.safetensors:-0.25") == (Path("a.safetensors"), -0.25)
    assert with_strength("odd:0.5") == (Path("odd:0.5"), 1.0)
    assert with_strength("C:\\a.safetensors") == (Path("C:\\a.safetensors"), 1.0)


def faulty_edits() -> list[tuple[list[str], str]]:
    return [
        (["cat.png", "hi", "-o", "there.png"], "there.png: it is there already"),
        (["cat.png", "hi", "ho", "-o", "stage.png"], "stage_1.png: it is there already"),
        (["cat.png", "hi", "-o", "out.gif"], "'.gif' is no picture format"),
        (["none.png", "hi"], "none.png"),
        (["cat.png", "hi", "--adapter", "none.safetensors"], "there is no such file"),
        (["cat.png", "hi", "--adapter", "pickle.bin"], "this is a pickle"),
        (["cat.png", "hi", "--adapter", "there.png:high"], "'high' is no strength"),
    ]


@pytest.mark.parametrize(("arguments", "message"), faulty_edits())
def test_edit_refuses_before_a_base_is_opened(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture("cat.png", "orange")
    Path("there.png").write_text("mine")
    Path("stage_1.png").write_text("mine")
    Path("pickle.bin").write_bytes(b"\x80\x02}q\x00.")
    monkeypatch.setattr(Editor, "from_base", lambda *_, **__: pytest.fail("opened a base"))
    assert main(["edit", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert Path("there.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", "0"), ("--scheduler", "eulr"), ("--device", "abacus"), ("--base", "./none")],
)
def test_edit_refuses_odd_options(
    base: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture("cat.png", "orange")
    assert main(["edit", "cat.png", "hi", "--base", str(base), option, value]) == 2
    printed = capsys.readouterr().err
    assert value in printed
    assert "expected" in printed
    assert "Traceback" not in printed


def test_warnings_are_sentences(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture("cat.png", "orange")
    arguments = ["cat.png", "add <my-cat>", "--base", str(base), "--steps", "1", "-o", "cat.jpg"]
    assert main(["edit", *arguments]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: no adapter in use teaches the word <my-cat>; load the one that does",
        "warning: cat.jpg: only PNG keeps the settings of an edit",
    ]


def test_inspect_tells_an_adapter(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", write_adapter(base)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for expected in (
        "concept my_dog as <my-dog>, started from 'dog', 2 vectors",
        "taught by turn the dog into <my-dog>",
        "method LoRA rank 4, alpha 4, on attention",
        "steps 250",
        "seconds 61.25",
        "scores held_out 0.91",
        "learning rate 0.002",
        "pairs 1: pairs.jsonl:1",
    ):
        assert expected in lines


def test_inspect_tells_an_edit(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = Editor.from_base(str(base)).edit(Image.new("RGB", (8, 8)), "make it red", steps=1)
    edited.save("out.png")
    assert main(["inspect", "out.png"]) == 0
    assert "instruction       make it red\n" in capsys.readouterr().out
    Image.new("RGB", (8, 8)).save("plain.png")
    Path("text.png").write_text("no picture")
    for name, found in (
        ("plain.png", "carries no settings"),
        ("text.png", "not a picture"),
        ("none.png", "No such file"),
        ("none.safetensors", "there is no such file"),
    ):
        assert main(["inspect", name]) == 2
        assert found in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (KeyboardInterrupt(), 130, "\nstopped\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "customize: x: Permission denied; "),
        (OSError(28, "No space left on device"), 2, "customize: writing: No space left"),
    ],
)
def test_interruptions_end_without_traceback(
    error: BaseException,
    code: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train, "schema", raiser(error))
    assert main(["schema"]) == code
    assert capsys.readouterr().err.startswith(printed)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), AssertionError("ours")])
def test_faults_of_ours_keep_their_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "schema", raiser(error))
    with pytest.raises(type(error)):
        main(["schema"])


def raiser(error: BaseException) -> Callable[..., int]:
    def command(_: object) -> int:
        raise error

    return command


def test_a_reader_who_leaves_is_no_error() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "customize", "schema"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait(timeout=20) == 141
    run.stderr.close()


def test_fit_base_starts_from_nothing_or_a_folder(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    from customize.embedded.fitting import run

    recipe = load_embedded_base(ROOT / "recipes/base/embedded.yaml")
    path = shutil.copy(ROOT / "recipes/base/embedded.yaml", "fit.yaml")
    calls: list[tuple[EmbeddedBaseRecipe, Path | None]] = []
    fitted = Path("runs/base/model")
    monkeypatch.setattr(run, "fit_embedded_base", lambda *given: (calls.append(given), fitted)[1])
    assert main(["fit-base", path]) == 0
    assert main(["fit-base", path, "--from", str(base)]) == 0
    assert calls == [(recipe, None), (recipe, base)]
    assert "the base is in runs/base/model" in capsys.readouterr().out
    assert main(["fit-base", path, "--from", "nowhere"]) == 2
    assert "there is no base at nowhere" in capsys.readouterr().err


def test_tables_fit_their_width() -> None:
    rows = [["warning", "a" * 50, "many words in a cell that is long"], ["", "b", "c\n\nd"]]
    lines = table(rows, ["level", "where", "found"], width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["level", "where", "found"]
    assert "".join("".join(lines[1:-3]).split()).startswith("warning" + "a" * 20)
    assert [line.split() for line in lines[-3:]] == [["b", "c"], [], ["d"]]
    assert table([]) == ""
