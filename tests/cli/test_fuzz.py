"""Recipes and files of strangers, bent a little at random: done or one message, and soon."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders.bases import toy_header
from builders.runs import toy_recipe

from customize.adapters import LowRank, attach
from customize.adapters.file import read_adapter, save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.exporting import ExportOptions, export
from customize.families import open_family
from customize.families.base import Base, resolve_base
from customize.families.words import Word

RECIPES, FILES = 150, 120
LONGEST = 10.0
"""Seconds that a command may take."""
TEXTS = (
    *("null", "~", "[]", "{}", "- ", ": ", "? ", "&a ", "*a", "!!python/object:os.system ", "---"),
    *("1e400", "-1", "0", "9" * 50, ".nan", ".inf", "0x7fffffffffffffff", "true", "2026-11-26"),
    *('"\\ud800"', '"\\U0010ffff"', "\x00", "\ufeff", "\u2028", "\t", "\r", "é", "犬" * 300),
    *("../../..", "/dev/zero", "/proc/self/mem", "~", "C:\\new", "a" * 5000, "%s{0}$(id)`id`"),
)
VALUES = (
    *(None, True, -1, 0, 2**70, 1e308, -0.5, "", "a" * 5000, "../../x", "\u0000", "<b>&", [], {}),
    *([[[]]], {"a": {"b": [None]}}, [1, 2, 3], "1", "(a+)+$", ["F32"], "F64", [0, 2**60]),
)


def bent_text(text: str, chance: random.Random) -> str:
    """Return a text in which one to four spots were cut, doubled, swapped or filled."""
    for _ in range(chance.randint(1, 4)):
        lines, spot = text.split("\n"), chance.randrange(len(text) + 1)
        line = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                text = text[:spot] + chance.choice(TEXTS) + text[spot:]
            case 1:
                text = text[:spot] + text[spot + chance.randint(1, 20) :]
            case 2:
                lines.insert(chance.randrange(len(lines) + 1), lines[line])
                text = "\n".join(lines)
            case 3:
                key = lines[line].partition(":")[0]
                lines[line] = f"{key}: {chance.choice(TEXTS)}"
                text = "\n".join(lines)
            case 4:
                lines[line] = " " * chance.randint(1, 5) + lines[line]
                text = "\n".join(lines)
            case _:
                text = text[:spot] + chr(chance.randrange(1, 0x500)) + text[spot + 1 :]
    return text


def bent_header(header: dict[str, object], chance: random.Random) -> None:
    """Change a header in place: a value of it, however deep, is gone, another or elsewhere."""
    holder: object = header
    while isinstance(holder, dict | list) and holder:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = chance.choice(keys)
        inside = holder[key]  # pyright: ignore
        if isinstance(inside, dict | list) and inside and chance.random() < 0.8:
            holder = inside
            continue
        match chance.randrange(4):
            case 0:
                del holder[key]  # pyright: ignore
            case 1 if isinstance(holder, dict):
                holder[f"{key}{chance.choice(TEXTS)}"] = holder.pop(key)  # pyright: ignore
            case _:
                holder[key] = chance.choice(VALUES)  # pyright: ignore
        return


def bent_file(content: bytes, chance: random.Random) -> bytes:
    """Bend a safetensors file: its header's values, the JSON in its metadata, or its bytes."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    match chance.randrange(5):
        case 0:
            spot = chance.randrange(len(content))
            return content[:spot] + bytes([chance.randrange(256)]) + content[spot + 1 :]
        case 1:
            return content[: chance.randrange(len(content))]
        case 2:
            notes = header.get("__metadata__", {})
            name = chance.choice([name for name in notes if notes[name].startswith("{")] or [""])
            inner = json.loads(notes[name]) if name else {"r": 1}
            bent_header(inner, chance)  # pyright: ignore
            header["__metadata__"] = {**notes, name: json.dumps(inner)}
        case 3:
            text = bent_text(json.dumps(header), chance).encode("utf-8", "surrogatepass")
            return len(text).to_bytes(8, "little") + text + data
        case _:
            for _ in range(chance.randint(1, 3)):
                bent_header(header, chance)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def run(arguments: Sequence[str]) -> None:
    """Run a command, which is to be done or to end with a message, soon."""
    start = time.monotonic()
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse's own way out
        code = stopped.code
    seconds = time.monotonic() - start
    assert code in (0, 2), arguments
    assert seconds < LONGEST, (arguments, seconds)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a base, pairs, a recipe, an adapter and what it was exported to."""
    folder = tmp_path_factory.mktemp("world")
    recipe = toy_recipe(folder, output="run")
    (folder / "recipe.yaml").write_text(_yaml(recipe.model_dump(mode="json", exclude_none=True)))
    base: Base = resolve_base(str(folder / "base"))
    attached = attach(
        open_family(base, learns_text=True), LowRank(rank=2), [Word("<my-dog>", "dog")]
    )
    header = toy_header(
        base_name=str(base.folder),
        base_fingerprint=base.fingerprint,
        method="low_rank",
        rank=2,
        concepts=(Taught("my_dog", "<my-dog>", instructions=("add <my-dog>",)),),
    )
    own = save_adapter(folder / "files" / "own.safetensors", header, attached.state())
    whole = read_adapter(own)
    for target in ("kohya", "diffusers", "peft"):
        export(whole, base, target, folder / target, ExportOptions(name=target))
        for path in (folder / target).rglob("*.safetensors"):
            path.rename(folder / "files" / f"{target}_{path.name}")
    return folder


def _yaml(values: dict[str, object]) -> str:
    import yaml

    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)


@pytest.fixture(autouse=True)
def elsewhere(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work beside the inputs, where a bent output may be written."""
    monkeypatch.chdir(world)


@pytest.mark.parametrize("seed", range(3))
def test_bent_recipes_are_read_or_refused(
    world: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, whole = random.Random(seed), (world / "recipe.yaml").read_text()
    bent = world / "bent.yaml"
    for _ in range(RECIPES // 3):
        bent.write_text(bent_text(whole, chance), encoding="utf-8", errors="surrogatepass")
        run(["check", str(bent), "--output", str(world / "sheet.png")])
        assert "Traceback" not in capsys.readouterr().err
        (world / "sheet.png").unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("command", ["inspect", "import"])
def test_bent_files_are_read_or_refused(
    world: Path, seed: int, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    files = sorted((world / "files").iterdir())
    assert len(files) > 3
    importing = ["--base", str(world / "base"), "-o", "imported.safetensors"]
    more = importing if command == "import" else []
    bent = world / "bent.safetensors"
    for _ in range(FILES // 6):
        bent.write_bytes(bent_file(chance.choice(files).read_bytes(), chance))
        run([command, str(bent), *more])
        assert "Traceback" not in capsys.readouterr().err
        (world / "imported.safetensors").unlink(missing_ok=True)
