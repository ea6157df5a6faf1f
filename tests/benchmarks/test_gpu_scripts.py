"""The scripts around the GPU work: pieces and their whole, wheels, where a fit goes on."""

from __future__ import annotations

import importlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
RECORD = "bitsandbytes-1.dist-info/RECORD"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def base_folder(folder: Path, size: int = 64) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "vae").mkdir()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "vae" / "config.json").write_text(f'{{"sample_size": {size}}}')
    return folder


def test_pieces_make_the_folder_again(tmp_path: Path, script: Any) -> None:
    pieces, folder = script("pieces"), base_folder(tmp_path / "base")
    written = pieces.write_pieces(folder, tmp_path / "out", "base", largest=5000)
    assert [path.name for path in written[:2]] == ["base.tar.00", "base.tar.01"]
    assert max(path.stat().st_size for path in written) == 5000
    assert pieces.LARGEST < 16 * 2**20
    joined = pieces.join_pieces(tmp_path / "out", tmp_path / "again")
    for path in folder.rglob("*.*"):
        assert (joined / path.relative_to(folder)).read_bytes() == path.read_bytes()
    with pytest.raises(SystemExit, match="is there already"):
        pieces.join_pieces(tmp_path / "out", tmp_path / "again")
    shorter = pieces.write_pieces(folder, tmp_path / "out", "base", largest=10**6)
    assert list((tmp_path / "out").iterdir()) == shorter


def test_a_lost_or_strange_piece_is_said(tmp_path: Path, script: Any) -> None:
    pieces, folder = script("pieces"), base_folder(tmp_path / "base")
    written = pieces.write_pieces(folder, tmp_path / "out", "base", largest=5000)
    written[1].unlink()
    with pytest.raises(SystemExit, match="do not make the whole"):
        pieces.join_pieces(tmp_path / "out", tmp_path / "again")
    (tmp_path / "out" / "other.tar.00").write_bytes(b"")
    with pytest.raises(SystemExit, match="pieces of 2 folders"):
        pieces.join_pieces(tmp_path / "out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_bitsandbytes_is_cut_down_to_one_cuda(tmp_path: Path, script: Any) -> None:
    wheel = tmp_path / "bitsandbytes-1.whl"
    names = [
        "__init__.py",
        *(f"libbitsandbytes_{k}.so" for k in ("cpu", "cuda130", "cuda128", "xpu")),
    ]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(f"bitsandbytes/{name}", name)
        archive.writestr(RECORD, "".join(f"bitsandbytes/{name},sha256=x,1\n" for name in names))
    script("slim_wheel").slim(wheel)
    with zipfile.ZipFile(wheel) as archive:
        left = [f"bitsandbytes/{name}" for name in names[:3]]
        assert archive.namelist() == [*left, RECORD]
        assert [line.split(",")[0] for line in archive.read(RECORD).decode().splitlines()] == left


def test_every_requirement_is_followed_to_what_is_there(script: Any) -> None:
    checks = script("check_wheels")
    held = {
        "a": checks.Package("2.0", ("b>=3", 'c; python_version < "3"', 'd; extra == "x"')),
        "b": checks.Package("2.5", ("e",)),
        "e": checks.Package(None),
    }
    assert list(checks.missing(held, ["a>=2", "f"], "3.12")) == [
        "f: not there; this project needs f",
        "b: 2.5 is there; a needs >=3",
    ]
    assert checks.reached(held, ["a"]) == {"a", "b", "e"}
    assert len(checks.wanted()) > 15


def test_all_that_is_carried_has_a_pinned_version() -> None:
    pins = (SCRIPTS.parents[1] / "constraints.txt").read_text().lower().splitlines()
    names = [n for n in (SCRIPTS / "wheels.txt").read_text().splitlines() if not n.startswith("#")]
    assert len(names) > 5
    assert [n for n in names if not any(pin.startswith(f"{n.lower()}==") for pin in pins)] == []


def test_a_fit_goes_on_from_the_last_finished_one(tmp_path: Path, script: Any) -> None:
    fit = script("fit")
    assert fit.next_fit(tmp_path) == (tmp_path / "1", fit.EMBEDDED)
    (tmp_path / "1").mkdir()
    assert fit.next_fit(tmp_path) == (tmp_path / "1", fit.EMBEDDED)
    base_folder(tmp_path / "1" / "model", size=128)
    assert fit.next_fit(tmp_path) == (tmp_path / "2", tmp_path / "1" / "model")


@pytest.mark.parametrize(("size", "share"), [(64, 0.3), (128, 0.1)])
def test_a_new_autoencoder_gets_its_share_of_the_time(
    tmp_path: Path, script: Any, size: int, share: float
) -> None:
    from argparse import Namespace

    from customize.recipe.embedded_base import load_embedded_base

    start = base_folder(tmp_path / "start", size)
    script("fit").write_recipe(tmp_path, start, 240, Namespace(trial=False, size=128))
    recipe = load_embedded_base(tmp_path / "fit.yaml")
    assert recipe.autoencoder.minutes == pytest.approx(share * 4)
    assert recipe.editor.minutes == pytest.approx((1 - share) * 4)
    assert recipe.pool % recipe.editor.batch == 0
    assert recipe.size == 128
    (start / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"others")
    script("fit").write_recipe(tmp_path, start, 240, Namespace(trial=False, size=128))
    assert load_embedded_base(tmp_path / "fit.yaml").seed != recipe.seed


def test_a_part_that_there_is_not_is_refused_at_once() -> None:
    ended = subprocess.run(
        [SCRIPTS / "run_all.sh", "fits"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "fits: no such part; there are fit speed whole tests" in ended.stdout
