"""`customize merge` with methods that look at edits, and with a report, from start to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from builders.bases import toy_xl_base
from builders.merges import judged_world

from customize.adapters.file import read_adapter
from customize.cli.main import main
from customize.merging.by_edits import merge_by_edits
from customize.merging.by_edits.report import FIGURES, MAP, SHEET


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = judged_world(tmp_path_factory.mktemp("world"))
    with chdir(folder):  # of an adapter's places only those in the working folder are followed
        yield folder


def merge(world: Path, output: Path, *options: object) -> int:
    files = [str(world / f"{name}.safetensors") for name in ("my_dog", "look")]
    return main(["merge", *files, "-o", str(output), "--device", "cpu", *map(str, options)])


def test_regression_with_a_report(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "m.safetensors", tmp_path / "report"
    options = ("--method", "regression", "--preserve", 0.5, "--ridge", 0.02, "--report", report)
    options += ("--error", 0.5)
    assert merge(world, output, *options) == 0
    told = read_adapter(output).header.training
    assert told["options"]["preserve"] == 0.5
    assert told["options"]["ridge"] == 0.02
    assert told["options"]["error"] == 0.5
    figures = json.loads((report / FIGURES).read_text())
    assert figures["method"] == "regression"
    assert figures["sampling"]["steps"] == 2
    assert (report / SHEET).exists()
    assert (report / MAP).exists()
    printed = " ".join(capsys.readouterr().out.split())
    assert "retention" in printed
    assert "concept look" in printed
    assert merge(world, tmp_path / "n.safetensors", *options) == 2, "the report is there already"
    assert not (tmp_path / "n.safetensors").exists()


def test_distilling_tells_its_options(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    assert merge(world, output, "--method", "distill", "--steps", 2, "--preserve", 1.5) == 0
    told = read_adapter(output).header.training
    assert told["merged_by"] == "distill"
    assert told["options"]["steps"] == 2
    assert told["options"]["preserve"] == 1.5


def test_any_method_can_be_reported_on(world: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "m.safetensors", tmp_path / "report"
    assert merge(world, output, "--method", "ties", "--report", report) == 0
    assert json.loads((report / FIGURES).read_text())["options"]["density"] == 0.2


@pytest.mark.parametrize("method", ["ties", "regression"])
def test_an_output_that_is_there_is_told_before_anything_is_opened(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    output = tmp_path / "m.safetensors"
    output.write_text("mine")
    monkeypatch.setattr(merge_by_edits, "open_job", lambda *_, **__: pytest.fail("opened"))
    assert merge(world, output, "--method", method, "--report", tmp_path / "report") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"


@pytest.mark.parametrize("method", ["linear", "regression"])
def test_an_output_that_is_an_input_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    output = tmp_path / "m.safetensors"
    output.symlink_to(world / "my_dog.safetensors")
    before = output.read_bytes()
    files = [str(world / f"{name}.safetensors") for name in ("my_dog", "look")]
    for more in ((), ("--overwrite",)):
        assert main(["merge", *files, "-o", str(output), "--method", method, *more]) == 2
        assert "it is the adapter to merge" in capsys.readouterr().err
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "linear"), "--device: --method linear looks at no edits"),
        (("--method", "auto", "--preserve", "1"), "--preserve: --method auto does not use it"),
        (("--method", "regression", "--preserve", "-1"), "expected 0 or more"),
        (
            ("--method", "regression", "--steps", "9"),
            "--steps: --method regression does not use it",
        ),
        (("--method", "distill", "--steps", "0"), "--steps 0: expected at least 1"),
        (("--method", "auto", "--pairs", "my_dog"), "expected CONCEPT=FOLDER"),
        (("--method", "auto", "--pairs", "cat=x"), "no adapter was taught it"),
        (("--method", "auto", "--clip", "x"), "--clip: no report is asked for"),
        (("--method", "auto", "--pairs", "look=nowhere"), "its pairs are not here (nowhere)"),
    ],
)
def test_faults_are_told_and_nothing_is_written(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert merge(world, tmp_path / "m.safetensors", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def wide_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged_world(tmp_path_factory.mktemp("wide"), toy_xl_base, size=(64, 32))


@pytest.mark.parametrize(
    "way", ["linear", "regression", "auto", "distill --steps 2"], ids=lambda way: way.split()[0]
)
def test_pairs_that_are_not_square_are_edited_in_their_shape(
    wide_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(wide_world)  # of an adapter's places only those in the working folder count
    output, report = tmp_path / "m.safetensors", tmp_path / "report"
    options = ("--method", *way.split(), "--report", report)
    assert merge(wide_world, output, *options) == 0
    figures = json.loads((report / FIGURES).read_text())
    assert set(figures["concepts"]) == {"my_dog", "look"}
    assert read_adapter(output).header.family == "instruct_pix2pix_xl"
