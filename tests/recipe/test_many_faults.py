"""Of very many faults the first 20 are told, and how many more there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.bases import toy_base
from safetensors.torch import save_file

from customize.cli.main import main
from customize.errors import Fault, FaultsError

FAULTS = [Fault(f"place {number}", "it is wrong", "mend it") for number in range(1, 31)]


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (19, 19), (20, 20), (21, 21), (30, 21)])
def test_twenty_faults_are_told_and_the_number_of_the_rest(count: int, lines: int) -> None:
    error = FaultsError("title", FAULTS[:count])
    heading, *told = str(error).splitlines()
    assert heading == f"title: {count} fault{'s' * (count > 1)}"
    assert len(told) == len(error.told) == lines
    assert told[: min(count, 20)] == [f"  {fault}" for fault in FAULTS[: min(count, 20)]]
    assert ("more" in told[-1]) == (count > 20)
    if count > 20:
        assert f"and {count - 20} more" in told[-1]
    assert len(error.faults) == count


def test_commands_tell_no_more_of_a_table_of_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(
        f'{{"source": "{n}.png", "instruction": "x", "edited": "{n}.png"}}\n' for n in range(500)
    )
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "pairs.jsonl").write_text(rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"base: embedded\npairs: {tmp_path / 'pairs'}\noutput: {tmp_path / 'out'}\n")
    assert main(["check", str(recipe)]) == 2
    captured = capsys.readouterr()
    assert len((captured.out + captured.err).splitlines()) < 30
    assert "more" in captured.out + captured.err


def test_an_import_tells_no_more_of_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, path = toy_base(tmp_path / "base"), tmp_path / "x.safetensors"
    block = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{block.format(n)}.diff": torch.ones(3, 3) for n in range(60)}
    save_file(tensors, path)
    command = ["import", str(path), "--base", str(base), "-o", str(tmp_path / "o.safetensors")]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "60 faults" in told
    assert "and 40 more" in told
    assert told.count("denoiser.") == 20
