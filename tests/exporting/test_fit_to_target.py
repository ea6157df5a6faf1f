"""What is said when something is lost: cut ranks, targets that fail, a base that does not open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.bases import in_two_steps, shake, toy_base, toy_header
from PIL import Image
from torch import Tensor

from customize.adapters import CrossAttentionKV, attach
from customize.adapters.file import AdapterFile, save_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.editing.sample import Request
from customize.errors import BaseModelError
from customize.exporting import export, export_all
from customize.exporting.changes import Changes
from customize.exporting.formats import peft_folder
from customize.exporting.proof.compare_edits import NO_CLIP, compare_edits
from customize.exporting.proof.prove import edits_of_adapter, prove, verify
from customize.exporting.proof.sample_edits import SampleEdit, choose_samples
from customize.exporting.targets import TARGETS, ExportOptions
from customize.families import open_family
from customize.families.base import Base, resolve_base
from customize.families.words import Word
from customize.scoring import open_models, score_edits
from customize.scoring.items import Item

WORD = Word("<my-dog>", initializer="dog")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return resolve_base(str(in_two_steps(toy_base(tmp_path_factory.mktemp("base")))))


@pytest.fixture(scope="module")
def adapter(base: Base) -> AdapterFile:
    attached = attach(open_family(base, learns_text=True), CrossAttentionKV(), [WORD])
    shake(attached, size=0.3)
    concept = Taught("dog", WORD.text, "dog", instructions=("make the dog <my-dog>",))
    header = toy_header(base_name=base.name, base_fingerprint=base.fingerprint, concepts=(concept,))
    return AdapterFile(replace(header, method="cross_attention_kv"), attached.state())


@pytest.fixture
def saved(adapter: AdapterFile, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter.safetensors", adapter.header, adapter.tensors)


def test_a_cut_says_how_far_edits_and_their_scores_move(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    own, models = edits_of_adapter(adapter, base, 4), open_models("embedded")
    moved = []
    for error in (0.8, 0.02):
        place = tmp_path / f"{error}"
        written = export(adapter, base, "kohya", place, ExportOptions(error=error))
        assert 0.001 < written.largest_error <= error
        change = verify(written, adapter, base, own, models=models).change
        assert change is not None
        assert change.edits == 4
        assert set(change.scores) == {"CLIP image", "CLIP instruction"}
        moved.append(change.mean)
    assert moved[0] > 2 * moved[1] > 0


def test_numbers_of_a_change_are_those_of_its_pictures() -> None:
    rng = np.random.default_rng(0)
    exact, cut = (rng.random((2, 32, 32, 3)) for _ in range(2))
    picture = Image.fromarray((255 * rng.random((32, 32, 3))).astype(np.uint8))
    asked = Request(picture, "make <a> red")
    samples = (SampleEdit(asked, "make dog red"),) * 2
    models = open_models("embedded")
    change = compare_edits(exact, cut, samples, models)
    assert change.mean == pytest.approx(255 * np.abs(exact - cut).mean())
    assert change.largest == pytest.approx(255 * np.abs(exact - cut).max())
    squares = np.square(exact - cut).mean(axis=(1, 2, 3))
    assert change.psnr == pytest.approx(np.mean(-10 * np.log10(squares)), abs=0.02)
    for pictures, place in ((exact, 0), (cut, 1)):
        items = [
            Item(picture, "make dog red", Image.fromarray((255 * p).round().astype(np.uint8)))
            for p in pictures
        ]
        scores = score_edits(items, models, ["clip_image", "clip_instruction"])
        assert change.scores["CLIP image"][place] == pytest.approx(scores.mean("clip_image"))
        told = scores.mean("clip_instruction")
        assert change.scores["CLIP instruction"][place] == pytest.approx(told)
    same = compare_edits(exact, exact, samples)
    assert (same.mean, same.largest, same.psnr, same.ssim) == (0, 0, 100, 1)
    assert str(same).endswith(NO_CLIP)


def test_edits_are_asked_for_by_what_was_taught(base: Base, adapter: AdapterFile) -> None:
    first, second = choose_samples(adapter, base, 2)
    assert first.request.instruction == "make the dog <my-dog>"
    assert first.plainly == "make the dog dog"
    assert first.request.source.size == (32, 32)
    assert first.request.source.tobytes() != second.request.source.tobytes()


def test_the_command_tells_what_cutting_cost(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(saved), "--to", "kohya", "--rank", "1", "-o", str(tmp_path / "out")]
    assert main([*command, "--clip", str(tmp_path)]) == 2
    assert "CLIP" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--clip", "embedded"]) == 0
    told = capsys.readouterr().out
    assert "kohya: cut; 4 edits against the exact adapter's: pixels move by" in told
    assert "CLIP instruction" in told
    assert main([*command, "--overwrite"]) == 0
    assert NO_CLIP in capsys.readouterr().out
    assert main([*command, "--overwrite", "--no-verify"]) == 0
    told = capsys.readouterr().out
    assert "not read back, nor the change in edits measured (--no-verify)" in told
    assert main([*command, "--overwrite", "--rank", "16"]) == 0
    assert "cut;" not in capsys.readouterr().out


def test_a_target_that_fails_its_proof_is_removed_and_not_listed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = peft_folder.to_peft

    def forgetful(changes: Changes, model: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, config = honest(changes, model)
        return tensors, config | {"lora_alpha": 2 * config["r"]}

    monkeypatch.setattr(peft_folder, "to_peft", forgetful)
    folder = tmp_path / "all"
    assert main(["export", str(saved), "--to", "all", "-o", str(folder)]) == 2
    told = capsys.readouterr()
    assert "removed: peft: read back by" in told.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".customize.json", "README.md", *(target for target in TARGETS if target != "peft")]
    )
    listed, missing = (folder / "README.md").read_text().split("## Not written")
    assert "peft" not in listed.replace("PeftModel", "")
    assert r"- peft\: read back by" in missing
    assert [
        target for target in TARGETS if target != "peft" and f"## {target}\n" not in listed
    ] == []
    assert "Each was read back" in listed


def test_a_cut_is_told_in_the_readme(base: Base, adapter: AdapterFile, tmp_path: Path) -> None:
    made = export_all(adapter, base, tmp_path / "all", ExportOptions(rank=1))
    sections = dict(
        part.split("\n", 1) for part in made.guide.read_text().split("\n## ") if "\n" in part
    )
    assert "the adapter was cut; 4 edits" in sections["kohya"]
    assert "the adapter was cut" not in sections["full-model"]
    assert "leave --rank" in sections["Not written"]


def test_a_base_that_cannot_be_opened_is_said_and_files_are_kept(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise BaseModelError("base 'toy': no memory; expected some", "buy more")

    monkeypatch.setattr("customize.families.open_pipeline", closed)
    command = ["export", str(saved), "--to", "kohya", "--rank", "1", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "nor the change in edits measured (the base cannot be opened: base 'toy'" in told
    assert (tmp_path / "out" / "dog.safetensors").is_file()


def test_an_adapter_that_does_not_fit_leaves_nothing(
    base: Base, adapter: AdapterFile, tmp_path: Path
) -> None:
    strange = {"denoiser.mid_block.nowhere.to_k.delta": next(iter(adapter.tensors.values()))}
    other = replace(adapter, tensors=strange)
    written = export(other, base, "kohya", tmp_path / "out", ExportOptions())
    with pytest.raises(Exception, match="nowhere"):
        prove([written], other, base)
    assert not (tmp_path / "out").exists()
