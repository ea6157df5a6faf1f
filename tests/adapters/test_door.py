"""One door for adapters: whatever is wrong with a file, every command says the same, exit 2."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_header
from builders.runs import toy_pairs
from safetensors.torch import save, save_file
from torch import Tensor

from customize.adapters.file import read_adapter, save_adapter, stream_adapter
from customize.adapters.header import Header, Taught, dump_header
from customize.cli.main import main
from customize.errors import AdapterFileError

K = "denoiser.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
WORD = "words.text_encoder.<my-dog>"
TENSORS = {f"{K}.lora_A": torch.ones(2, 8), f"{K}.lora_B": torch.ones(4, 2), WORD: torch.ones(1, 6)}


def header(**changes: Any) -> Header:
    concept = Taught("my_dog", "<my-dog>", "dog", 1, ("turn the dog into <my-dog>",))
    facts = {"base_name": "embedded", "rank": 2, "alpha": 2.0, "concepts": (concept,)}
    return toy_header(**(facts | changes))


def file(tensors: dict[str, Tensor | None] | None = None, **changes: Any) -> bytes:
    """Write a good adapter but for some tensors (None leaves one out) and fields of its header."""
    told = json.loads(dump_header(header())) | changes
    given = {name: t for name, t in {**TENSORS, **(tensors or {})}.items() if t is not None}
    return save(given, {"customize": json.dumps(told)})


def raw(text: str) -> bytes:
    return save(TENSORS, {"customize": text})


def nested(depth: int) -> bytes:
    text = b'{"a":' * depth + b"1" + b"}" * depth
    return len(text).to_bytes(8, "little") + text


def concept(**changes: Any) -> list[dict[str, Any]]:
    return [{**json.loads(dump_header(header()))["concepts"][0], **changes}]


HUGE, NAN = torch.full((2, 8), 3e38), torch.full((2, 8), torch.nan)
BROKEN: dict[str, tuple[bytes, str]] = {
    "ranks differ": (file({f"{K}.lora_A": torch.ones(4, 8)}), "do not fit one another"),
    "rank of the header": (file(rank=4), "the rank is 2, and its header says 4"),
    "a factor is missing": (file({f"{K}.lora_B": None}), "only lora_A is there"),
    "a lone magnitude": (file({f"{K}x.magnitude": torch.ones(4)}), "only magnitude is there"),
    "magnitudes": (file({f"{K}.magnitude": torch.ones(5)}), "5 magnitudes are there for 4"),
    "DoRA without": (file(decompose=True), "the magnitudes of DoRA are missing"),
    "change of another shape": (file({f"{K}.delta": torch.ones(3, 8)}), "its factors make [4, 8]"),
    "kernel in lora_B": (file({f"{K}.lora_B": torch.ones(4, 2, 3)}), "do not fit one another"),
    "scalar": (file({f"{K}.lora_A": torch.tensor(1.0)}), "one number alone"),
    "no elements": (file({f"{K}.lora_A": torch.ones(0, 8)}), "is empty (shape [0, 8])"),
    "no number": (file({f"{K}.lora_A": NAN}), "not finite"),
    "half infinite": (file({f"{K}.lora_A": HUGE.half()}), "not finite"),
    "huge": (file({f"{K}.lora_A": HUGE}), "product overflows"),
    "whole numbers": (file({f"{K}.lora_A": torch.ones(2, 8, dtype=torch.int8)}), "type I8"),
    "odd name": (file({"unet.x": torch.ones(1)}), "a tensor named 'unet.x'"),
    "name of controls": (file({f"{K}\x1b.delta": torch.ones(1)}), r"\x1b"),
    "long name": (file({f"{K}{'x' * 600}.delta": torch.ones(1)}), "is no name of a layer"),
    "rows are missing": (file({WORD: None}), "no rows of that word are there"),
    "rows and their number": (file({WORD: torch.ones(2, 6)}), "1 rows of <my-dog>"),
    "too many rows": (file({WORD: torch.ones(76, 6)}), "76 rows, and 75 are read"),
    "rows of one axis": (file({WORD: torch.ones(6)}), "no rows of numbers"),
    "rows of one encoder": (
        file({"words.text_encoder_2.<cat>": torch.ones(1, 6)}), "which other words have"),
    "long word": (file(concepts=concept(word=f"<{'x' * 400}>")), "no word of at most 64 letters"),
    "word of two lines": (file(concepts=concept(word="<a\nb>")), "no word of at most 64 letters"),
    "long text": (file(concepts=concept(instructions=["x" * 10_001])), "at most 10000 characters"),
    "vectors": (file(concepts=concept(vectors=76)), "less than or equal to 75"),
    "rank 0": (file(rank=0), "damaged at 'rank'"),
    "rank is true": (file(rank=True), "damaged at 'rank'"),
    "alpha is text": (file(alpha="2"), "damaged at 'alpha'"),
    "alpha without rank": (file(rank=None), "gives alpha and no rank"),
    "alpha NaN": (raw(dump_header(header()).replace('"alpha": 2.0', '"alpha": NaN')), "NaN, which"),
    "alpha infinite": (raw(dump_header(header()).replace(": 2.0", ": 1e999")), "number 1e999"),
    "loss is a list": (file(training={"loss": [1]}), "'training.loss' ('[1]' is not a number)"),
    "steps are text": (file(training={"steps": "many"}), "'training.steps'"),
    "recipe is a list": (file(recipe=[1]), "damaged at 'recipe'"),
    "train is null": (file(recipe={"train": None}), "'recipe.train'"),
    "concepts are texts": (file(recipe={"concepts": ["a"]}), "'recipe.concepts.0'"),
    "images are a list": (file(recipe={"preview": {"images": []}}), "'recipe.preview.images'"),
    "huge integer": (file(training={"a": 10**30}), "more than 64 bits"),
    "many values": (file(training={"a": [0] * 100_001}), "more than 100000 values"),
    "half a letter": (raw('{"format": "\\ud800", "version": 1}'), "half of a character"),
    "a name twice": (raw('{"format": 1, "format": 2}'), "the key 'format' given twice"),
    "unknown method": (file(method="magic"), "method 'magic'"),
    "version is text": (file(version="1"), "says version '1'"),
    "version 0": (file(version=0), "says version '0'"),
    "newer": (file(version=2), "update `customize`"),
    "header 100,000 deep": (raw("[" * 100_000), "nested more than 32 deep"),
    "header 40 deep": (file(training={"a": json.loads("[" * 40 + "]" * 40)}), "32 deep"),
    "file 20,000 deep": (nested(20_000), "nested more than 32 deep"),
    "file lists no tensors": (nested(1), "does not describe the tensor 'a'"),
    "header is longer than the file": (b"\xff\0\0\0\0\0\0\0{}", "cut short"),
    "header is endless": (b"\xff\xff\xff\xff\xff\0\0\0{}", "its header takes"),
}  # fmt: skip


def commands(path: Path, folder: Path) -> list[list[str]]:
    name, good = str(path), str(folder / "good.safetensors")
    return [
        ["inspect", name],
        ["card", name, "-o", str(folder / "card.md")],
        ["export", name, "--to", "kohya", "-o", str(folder / "out")],
        ["merge", good, name, "--method", "linear", "-o", str(folder / "merged.safetensors")],
        ["edit", str(folder / "x.png"), "hi", "-a", good, name, "-o", str(folder / "y.png")],
        ["score", str(folder / "pairs"), "-a", name, "-o", str(folder / "scores")],
        ["import", name, "--base", "embedded", "-o", str(folder / "imported.safetensors")],
    ]


@pytest.mark.parametrize("kind", BROKEN)
def test_every_command_says_the_same_of_a_broken_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    path, (content, expected) = tmp_path / "bad.safetensors", BROKEN[kind]
    path.write_bytes(content)
    (tmp_path / "good.safetensors").write_bytes(file())
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    toy_pairs(tmp_path / "pairs")
    before, told = sorted(tmp_path.iterdir()), set[str]()
    for command in commands(path, tmp_path):
        assert main(command) == 2, command
        captured = capsys.readouterr()
        assert captured.out == ""
        told.add(captured.err)
    assert len(told) == 1, "\n".join(sorted(told))
    (sentence,) = told
    assert expected in sentence
    assert "expected" in sentence
    assert sentence.count("\n") == 1
    assert "\x1b" not in sentence
    assert sorted(tmp_path.iterdir()) == before


def test_a_good_file_passes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(file())
    assert set(read_adapter(tmp_path / "a.safetensors").tensors) == set(TENSORS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_files_that_never_end_are_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    peft = tmp_path / "peft"
    peft.mkdir()
    name = "base_model.model.conv_in"
    pair = {f"{name}.lora_A.weight": torch.ones(1, 4), f"{name}.lora_B.weight": torch.ones(4, 1)}
    save_file(pair, peft / "adapter_model.safetensors")
    os.mkfifo(peft / "adapter_config.json")
    for path, kind in ((tmp_path / "pipe.safetensors", "a named pipe"), (peft, "a named pipe")):
        assert main(["inspect", str(path)]) == 2
        assert kind in capsys.readouterr().err
    assert main(["inspect", "/dev/null"]) == 2
    assert "a device" in capsys.readouterr().err


@pytest.mark.parametrize("write", ["save", "stream"])
def test_what_could_not_be_read_is_not_written(write: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    large = {**TENSORS, f"{K}.lora_A": torch.full((2, 8), 1e5)}
    writers: dict[str, Callable[[torch.dtype], Path]] = {
        "save": lambda dtype: save_adapter(path, header(), large, dtype=dtype),
        "stream": lambda dtype: stream_adapter(path, header, iter(large.items()), dtype=dtype),
    }
    with pytest.raises(AdapterFileError, match=r"was not written.*not finite.*float32"):
        writers[write](torch.float16)
    assert list(tmp_path.iterdir()) == []
    writers[write](torch.float32)
    read_adapter(path)


def test_a_merge_that_overflows_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "a.safetensors", tmp_path / "m.safetensors"
    path.write_bytes(file({f"{K}.lora_A": torch.full((2, 8), 1e18)}))
    for method, weight in (("linear", "1e21"), ("concat", "1e21"), ("linear", "1e38")):
        command = ["merge", f"{path}:{weight}", "-o", str(output), "--method", method]
        assert main(command) == 2
        assert "was not written" in capsys.readouterr().err
        assert not output.exists()
