"""Check that every package which the GPU work needs is there, in a version that serves.

    python benchmarks/gpu/check_wheels.py
        on the machine itself: what is installed, what can be imported, what the GPU is
    python benchmarks/gpu/check_wheels.py --wheels .whl --machine benchmarks/gpu/machine.txt
        before the trip: the wheels of a folder beside what the machine is known to hold

Follows the requirements of our dependencies, and of theirs. A package of the machine whose version
nobody knows is believed and listed. Ends with 1 and a line for each fault.
"""

from __future__ import annotations

import argparse
import importlib
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("prodigy", "photos")
FOR_TESTS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100")
IMPORTED = ("accelerate", "bitsandbytes", "diffusers", "peft", "skimage", "transformers")


@dataclass(frozen=True)
class Package:
    """A package that is there: its version, where it is known, and its requirements."""

    version: str | None
    requires: tuple[str, ...] = ()


Held = Mapping[str, Package]


def main() -> None:
    """Check what is installed here, or what will be there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--machine", type=Path)
    options = parser.parse_args()
    elsewhere = options.wheels is not None
    held = {**listed(options.machine), **wheels(options.wheels)} if elsewhere else installed()
    faults = list(missing(held, wanted(), "3.12" if elsewhere else None))
    if not elsewhere:
        faults += imports()
    for fault in faults:
        print(fault)
    if elsewhere:
        believed = sorted(name for name in reached(held, wanted()) if held[name].version is None)
        print(f"in versions that nobody noted: {', '.join(believed)}")
    print(f"{len(faults)} faults among {len(reached(held, wanted()))} packages")
    raise SystemExit(1 if faults else 0)


def wanted() -> list[str]:
    """List what the project and its GPU work depend on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(r for e in EXTRAS for r in optional[e]), *FOR_TESTS]


def installed() -> dict[str, Package]:
    """Read what is installed here; what comes first on the path counts."""
    found = dict[str, Package]()
    for each in distributions():
        package = Package(each.version, tuple(each.requires or ()))
        found.setdefault(canonicalize_name(each.metadata["Name"]), package)
    return found


def listed(path: Path) -> dict[str, Package]:
    """Read a list of names, some with `==version`."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Package(version or None) for name, _, version in pairs}


def wheels(folder: Path) -> dict[str, Package]:
    """Read the metadata of the wheels in a folder."""
    found = dict[str, Package]()
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
            facts = Parser().parsestr(wheel.read(name).decode())
        needs = tuple(facts.get_all("Requires-Dist") or ())
        found[canonicalize_name(facts["Name"])] = Package(facts["Version"], needs)
    return found


def _followed(
    held: Held, needs: list[str], python: str | None
) -> Iterator[tuple[str, Requirement]]:
    """Walk all requirements that hold: (who needs it, what)."""
    environment = {"extra": "", **({"python_version": python} if python else {})}
    todo, seen = [("this project", need) for need in needs], set[str]()
    while todo:
        who, text = todo.pop(0)
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate(environment):
            continue
        yield who, need
        name = canonicalize_name(need.name)
        if name not in seen and name in held:
            seen.add(name)
            todo += [(name, inner) for inner in held[name].requires]


def missing(held: Held, needs: list[str], python: str | None = None) -> Iterator[str]:
    """Tell each requirement that is not met: what was found, what was expected."""
    for who, need in _followed(held, needs, python):
        package = held.get(canonicalize_name(need.name))
        if package is None:
            yield f"{need.name}: not there; {who} needs {need.name}{need.specifier}"
        elif package.version and not need.specifier.contains(package.version, prereleases=True):
            yield f"{need.name}: {package.version} is there; {who} needs {need.specifier}"


def reached(held: Held, needs: list[str]) -> set[str]:
    """List the packages that are needed and there."""
    names = {str(canonicalize_name(need.name)) for _, need in _followed(held, needs, None)}
    return {name for name in names if name in held}


def imports() -> list[str]:
    """Import what matters and tell what breaks; say what the GPU is."""
    import torch

    faults = list[str]()
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken native library raises anything at all
            faults.append(f"{name}: cannot be imported ({type(error).__name__}: {error})")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"torch {torch.__version__}, {gpu}")
    return faults


if __name__ == "__main__":
    main()
