"""A disk that runs full under any command: one message that names it, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.bases import shake, toy_header, toy_resolved
from builders.pairs import put
from builders.scores import pairs_folder

from customize.adapters import CrossAttentionKV, attach
from customize.adapters.file import save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.families import open_family
from customize.families.words import Word
from customize.files.manifest import NAME as MANIFEST

COMMANDS = {
    "merge": "merge one.safetensors two.safetensors --method linear -o DISK/m.safetensors",
    "ties": "merge one.safetensors two.safetensors --method ties -o DISK/m.safetensors",
    "card": "card one.safetensors --output DISK/card/README.md",
    "score": "score pairs -o DISK/scores --metrics psnr",
    "import": "import kohya/x.safetensors --base base -o DISK/i.safetensors",
    "edit": "edit photo.png red --base base --steps 1 -o DISK/e.png",
    "check": "check recipe.yaml -o DISK/sheet.png",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what all commands here read."""
    folder = tmp_path_factory.mktemp("world")
    base = toy_resolved(folder / "base")
    for seed, name in enumerate(("one", "two")):
        word = f"<{name}>"
        attached = attach(
            open_family(base, learns_text=True), CrossAttentionKV(), [Word(word, "dog")]
        )
        shake(attached, seed)
        header = toy_header(
            base_name=str(base.folder),
            base_fingerprint=base.fingerprint,
            concepts=(Taught(name, word, instructions=(f"add {word}",)),),
        )
        save_adapter(folder / f"{name}.safetensors", header, attached.state())
    pairs_folder(folder / "pairs", ["make it red"] * 3)
    put(folder / "photo.png", 1)
    put(
        folder / "recipe.yaml",
        "base: {name: base}\n"
        "concepts: [{name: my_dog, word: <my-dog>, initializer: dog, pairs: pairs}]\n",
    )
    command = ["export", str(folder / "one.safetensors"), "--to", "kohya", "--name", "x"]
    assert main([*command, "--output", str(folder / "kohya")]) == 0
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_message_and_leaves_nothing(
    world: Path,
    small_disk: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(world)
    arguments = COMMANDS[name].replace("DISK", str(small_disk)).split()
    fill = small_disk / "fill"
    for room in (0, 4096, 8192):
        fill.write_bytes(bytes(2**21 - room))
        if main(arguments) == 0:
            break
        told = capsys.readouterr().err.strip().splitlines()
        assert str(small_disk) in told[-1]
        assert "is full" in told[-1]
        left = {path.name for path in small_disk.rglob("*")}
        assert left <= {"fill", "scores", "cache.sqlite", MANIFEST}, left
    assert room > 0, "nothing needed any room"
    fill.unlink()
    capsys.readouterr()
    if main(arguments) != 0:  # done by the last try, or `check` has faults to tell of
        told = capsys.readouterr()
        assert "it is there already" in told.err or "3 pairs" in told.out
    assert not [path for path in small_disk.rglob("*") if path.suffix in (".tmp", ".lock")]
