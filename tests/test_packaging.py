"""What a newcomer meets first: names, pins, doors, and a README whose commands exist."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import customize
from customize.cli.main import parse

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIG["project"]
BESIDE = {
    "datasets",
    "evaluate",
    "prodigyopt",
    "tables",
    "torchvision",
    "trackio",
    "wandb",
    "xformers",
}


def module_names() -> set[str]:
    return {path.stem for path in (ROOT / "customize").iterdir() if not path.name.startswith("_")}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().split()
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_no_module_is_named_like_a_library() -> None:
    """`accelerate launch customize/train_concept.py` puts our folder first on the path."""
    names = module_names()
    assert len(names) > 12
    installed = set(importlib.metadata.packages_distributions()) - {"customize"}
    assert {"torch", "yaml"} <= installed
    assert not names & (sys.stdlib_module_names | installed | BESIDE)


def test_names_that_vulture_leaves_alone_are_in_the_code() -> None:
    settings = CONFIG["tool"]["vulture"]
    files = [path for place in settings["paths"] for path in (ROOT / place).rglob("*.py")]
    assert len(files) > 200
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    allowed = [*settings["ignore_names"], *settings["ignore_decorators"]]
    assert len(allowed) > 10
    assert not [name for name in allowed if not re.search(rf"{name}\b", code)]


def test_train_concept_runs_as_a_file_from_anywhere(tmp_path: Path) -> None:
    script = ROOT / "customize" / "train_concept.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, script, "--recipe", "none.yaml", "--set", "train.steps=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("customize: recipe none.yaml: 1 fault")


def test_train_concept_puts_the_root_in_place_of_the_package() -> None:
    code = (
        "import runpy, sys; sys.path[0] = 'customize'; "
        "runpy.run_path('customize/train_concept.py', run_name='door'); print(sys.path)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    path = eval(run.stdout)
    assert path[0] == str(ROOT)
    assert not any(entry.endswith("customize") for entry in path)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    required = [*PROJECT["dependencies"], *(item for extra in extras.values() for item in extra)]
    others = [item for item in map(Requirement, required) if item.name != "customize"]
    assert len(others) > 20
    for requirement in others:
        pin = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), requirement
        assert not re.search("==|~=|<", str(requirement.specifier)), "exact pins: constraints.txt"


def test_pins_are_public_versions() -> None:
    found = pins()
    assert len(found) > 50
    assert [name for name, version in found.items() if version.local] == []


def test_version_and_licence() -> None:
    assert Version(customize.__version__) >= Version("0.1.0")
    assert PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_weights_and_the_command_are_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"] == {"customize.embedded": ["weights/**/*"]}
    assert PROJECT["scripts"] == {"customize": "customize.cli.main:main"}


def commands_shown() -> Iterator[str]:
    """Yield every `customize ...` command that the README and the recipes show."""
    for path in (ROOT / "README.md", *sorted((ROOT / "recipes").rglob("*.yaml"))):
        text = path.read_text()
        shown = re.findall(
            r"^[ #]*customize ((?:train|check|edit|inspect|schema|fit-base|merge|score"
            r"|tune-guidance|export|import|card|push|synthesize|choose|refine|studio) .*)$",
            text,
            re.M,
        )
        shown += re.findall(r"`customize ([a-z].*?)`", text)
        for command in shown:
            yield re.sub(r"\s{2,}\w.*$", "", command)  # what it does, said beside it


def test_commands_shown_exist() -> None:
    shown = list(commands_shown())
    assert len(shown) >= 14
    seen = set()
    for command in shown:
        parsed = parse(shlex.split(command))
        seen.add(parsed.run.__name__)
        if "recipe" in parsed:
            assert (ROOT / parsed.recipe).is_file(), command
    assert seen == {
        *("train", "check", "schema", "fit_base", "edit", "inspect", "merge", "score", "tradeoff"),
        *(
            "tune_guidance",
            "export",
            "import_file",
            "card",
            "push",
            "synthesize",
            "widen",
            "backward",
        ),
        *("count_choices", "judge_choices", "refine_run", "open_studio"),
    }


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "demo",
            [
                "examples/teach_and_edit.py",
                "customize edit",
            ],
        ),
        ("test", ["-m pytest"]),
        ("check", ["ruff format", "ruff check", "pyright", "lint-imports", "-m pytest"]),
    ],
)
def test_make_runs(target: str, expected: list[str]) -> None:
    run = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    places = [run.stdout.find(command) for command in expected]
    assert min(places) >= 0
    assert places == sorted(places)


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test\n" in script.read_text()


@pytest.mark.parametrize(
    "tool", [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]]
)
def test_layers_and_lint_are_clean(tool: list[str]) -> None:
    program = Path(sys.executable).with_name(tool[0])
    run = subprocess.run(
        [program, *tool[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
