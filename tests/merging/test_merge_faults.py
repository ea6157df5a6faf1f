"""What cannot be merged is refused in one clear message, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import toy_header
from safetensors.torch import save_file

from customize.adapters.file import save_adapter
from customize.adapters.header import Taught, dump_header
from customize.cli.main import main
from customize.files import replacing

LAYER = "denoiser.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def _good(path: Path, *, rows: float = 1.0, width: int = 3, **changes: Any) -> Path:
    taught = Taught("dog", "<dog>", None, 1, ("add <dog>",))
    tensors = {
        f"{LAYER}.delta": torch.ones(2, width),
        "words.text_encoder.<dog>": torch.full((1, 4), rows),
    }
    return save_adapter(path, toy_header(**({"concepts": (taught,)} | changes)), tensors)


def _cut(path: Path) -> None:
    path.write_bytes(_good(path).read_bytes()[:-1])


def _half_a_layer(path: Path) -> None:
    metadata = {"customize": dump_header(toy_header())}
    save_file({f"{LAYER}.lora_A": torch.ones(2, 3)}, path, metadata)


OTHERS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "other weights": (
        lambda path: _good(path, base_fingerprint="1" * 64, base_name="other"),
        ["111111111111", "000000000000", "expected one base", "--allow-other-base"],
    ),
    "other family": (
        lambda path: _good(path, family="instruct_pix2pix_xl"),
        ["'instruct_pix2pix_xl'", "expected one family"],
    ),
    "other shape": (lambda path: _good(path, width=5), ["[2, 3]", "[2, 5]", "leave one out"]),
    "truncated": (_cut, ["cut short", "download or copy it again"]),
    "pickle": (lambda path: torch.save({}, path), ["a pickle", "ask its maker for safetensors"]),
    "no header": (
        lambda path: save_file({"lora_unet_a.lora_down.weight": torch.ones(1)}, path),
        ["written by another program"],
    ),
    "half a layer": (_half_a_layer, ["only lora_A is there"]),
    "missing": (lambda path: None, ["no such file"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_one_clear_message_for_each_fault(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = OTHERS[name]
    good, other = _good(tmp_path / "good.safetensors"), tmp_path / "other.safetensors"
    make(other)
    output = tmp_path / "merged.safetensors"
    assert main(["merge", str(good), str(other), "-o", str(output)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert "other.safetensors" in told.err
    for part in expected:
        assert part in told.err
    assert not output.exists()


def test_every_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert main(["merge", *files, "-o", str(tmp_path / "m.safetensors")]) == 2
    told = capsys.readouterr().err
    assert all(name in told for name in files)


def test_no_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "-o", str(tmp_path / "m.safetensors")]) == 2
    assert "no adapter to merge" in capsys.readouterr().err


def test_duplicate_words_are_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = _good(tmp_path / "1.safetensors"), _good(tmp_path / "2.safetensors", rows=2.0)
    output = tmp_path / "m.safetensors"
    assert main(["merge", str(one), str(two), "-o", str(output), "--method", "linear"]) == 0
    told = capsys.readouterr()
    words = [line for line in told.err.splitlines() if "'<dog>'" in line]
    assert len(words) == 1
    assert "'<dog-2>'" in words[0]
    assert "2.safetensors" in words[0]


def test_unequal_bases_may_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _good(tmp_path / "1.safetensors")
    two = _good(tmp_path / "2.safetensors", base_fingerprint="1" * 64)
    given = ["merge", str(one), str(two), "--method", "linear", "--allow-other-base", "-o"]
    assert main([*given, str(tmp_path / "m.safetensors")]) == 0
    assert "111111111111" in capsys.readouterr().err


def test_constraints_need_instructions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = tmp_path / "silent.safetensors"
    tensors = {f"{LAYER}.delta": torch.ones(192, 192)}
    save_adapter(silent, toy_header(base_name="embedded"), tensors)
    given = ["merge", str(silent), str(silent), "--allow-other-base"]
    assert main([*given, "-o", str(tmp_path / "m.safetensors")]) == 2
    told = capsys.readouterr().err
    assert "silent.safetensors: no instruction or word is known" in told
    assert "choose another --method" in told


OPTIONS = {
    "--density 2 --method ties": "--density 2: expected a share",
    "--energy 0 --method svd": "--energy 0: expected a share",
    "--rank 0 --method svd": "--rank 0: expected at least 1",
    "--ridge -1": "--ridge -1: expected a number above 0",
    "--density 0.5 --method linear": "--density: --method linear does not use it",
    "--seed 1 --method ties": "--seed: --method ties does not use it",
    "--ridge 0.1 --method linear": "--ridge: --method linear does not use it",
    "--otherwise ties --method linear": "--otherwise: --method linear does not use it",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_without_effect_or_out_of_range_are_refused(
    options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = _good(tmp_path / "1.safetensors")
    output = tmp_path / "m.safetensors"
    assert main(["merge", str(good), "-o", str(output), *options.split()]) == 2
    assert OPTIONS[options] in capsys.readouterr().err
    assert not output.exists()


def test_a_weight_that_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = _good(tmp_path / "1.safetensors")
    assert main(["merge", f"{good}:much", "-o", str(tmp_path / "m.safetensors")]) == 2
    assert "'much' is no weight" in capsys.readouterr().err


def test_a_name_with_a_colon_is_a_name(tmp_path: Path) -> None:
    good = _good(tmp_path / "a:1")
    output = tmp_path / "m.safetensors"
    assert main(["merge", str(good), "-o", str(output), "--method", "linear"]) == 0
    with output.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    told = json.loads(header["__metadata__"]["customize"])["training"]["inputs"]
    assert [(one["name"], one["weight"]) for one in told] == [("a:1", 1.0)]


def test_what_a_killed_report_left_goes_where_the_merged_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after its file was whole, a merge would leave what it was writing into the report."""
    one, merged, report = _good(tmp_path / "one"), _good(tmp_path / "merged"), tmp_path / "report"
    report.mkdir()
    with replacing(report / "report.json") as mine:
        number = mine.name.split("-")[2]
        left = report / mine.name.replace(f"-{number}-", "-999999999-")
        mine.write_text("{}")
    left.write_text("half")
    command = ["merge", str(one), str(one), "-o", str(merged), "--report", str(report)]
    (report / "report.json").unlink()
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert list(report.iterdir()) == []
