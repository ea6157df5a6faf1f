"""What each command does, from parsed arguments to printed answers; imports wait until asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.drawing.table import table
from customize.errors import BaseModelError, Fault, TrainingError

if TYPE_CHECKING:
    from customize.recipe import Recipe
    from customize.recipe.embedded_base import EmbeddedBaseRecipe
    from customize.training.check import Checked


def add_to(commands: Any) -> None:
    """Describe `train`, `check`, `schema` and `fit-base` to the command line's parser."""
    train_command = commands.add_parser("train", help="teach the concepts of a recipe")
    _add_recipe(train_command)
    train_command.add_argument(
        "--overwrite", action="store_true", help="start over where a run is already"
    )
    train_command.add_argument(
        "--continue",
        dest="further",
        action="store_true",
        help="train a run further, to more steps than it was to have",
    )
    train_command.set_defaults(run=train)

    check_command = commands.add_parser("check", help="find faults before training")
    _add_recipe(check_command)
    check_command.add_argument(
        *("-o", "--output"), type=Path, metavar="SHEET", help="contact sheet (RECIPE_pairs.png)"
    )
    check_command.add_argument(
        "--overwrite", action="store_true", help="replace the sheet if it exists"
    )
    check_command.add_argument(
        "--align",
        type=Path,
        metavar="FOLDER",
        help="write copies of the pairs there, targets moved to where their sources show the same",
    )
    check_command.add_argument(
        "--card",
        metavar="SIZE",
        help="say what memory training takes, and how to fit a GPU of this much, such as 8GB; "
        "`here` is this machine",
    )
    check_command.set_defaults(run=check)

    schema_command = commands.add_parser("schema", help="print the JSON Schema of recipes")
    schema_command.set_defaults(run=schema)

    fit_command = commands.add_parser("fit-base", help="make an editing base")
    fit_command.add_argument("recipe", type=Path, metavar="RECIPE", help="one of recipes/base/")
    fit_command.add_argument(
        "--from", dest="start_from", metavar="BASE", help="go on from `embedded` or a folder"
    )
    fit_command.set_defaults(run=fit_base)


def train(arguments: argparse.Namespace) -> int:
    """Train a recipe; a stopped run goes on. 130 when it was stopped again."""
    from customize.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)  # before torch: faults show at once
    from customize.training.run import run_recipe

    if arguments.further and arguments.overwrite:
        raise TrainingError(
            "--continue and --overwrite: one goes on where a run ended, the other begins anew; "
            "expected one of them; leave the other out"
        )
    result = run_recipe(recipe, overwrite=arguments.overwrite, further=arguments.further)
    return 130 if result.adapter is None else 0


def check(arguments: argparse.Namespace) -> int:
    """Print all faults as a table and draw the contact sheet; 2 when training would refuse."""
    from customize.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    from customize.drawing.contact_sheet import is_pairs_sheet, pairs_sheet, save_pairs_sheet
    from customize.editing.edited_picture import check_output
    from customize.files import Used, check_place, refuse_existing
    from customize.training.check import check_recipe
    from customize.training.memory.card import card_bytes

    room = card_bytes(arguments.card) if arguments.card not in (None, "here") else None
    sheet = arguments.output or Path(f"{arguments.recipe.stem}_pairs.png")
    used = [Used(f"the pairs of {one.name}", one.pairs) for one in recipe.concepts]
    check_place(sheet, used)
    if arguments.output:
        check_output(sheet, overwrite=arguments.overwrite)
    elif sheet.exists() and not is_pairs_sheet(sheet):
        cure = "it is no contact sheet of pairs; name another place for that with --output"
        refuse_existing(sheet, cure=cure)
    if arguments.align:
        refuse_existing(arguments.align, cure="choose another folder")
        check_place(arguments.align, used, folder=True)
    checked = check_recipe(recipe)
    for name, found in checked.pairs.items():
        print(f"{name}: {len(found.pairs)} pairs ({found.layout})")
    if pairs := checked.all_pairs():
        again = " (drawn again)" if sheet.exists() else ""
        save_pairs_sheet(pairs_sheet(pairs, recipe.pairs.alpha_color), sheet)
        print(f"contact sheet: {sheet}{again}")
    rows = _grouped(checked.faults)
    print(table(rows, ["", "where", "found", "what to do"]) if rows else "nothing to complain of")
    if arguments.align and checked.pairs:
        _align(checked, recipe.pairs.alpha_color, arguments.align)
    if checked.has_errors:
        return 2
    if arguments.card:
        print("\n".join(_memory(recipe, checked, room)))
    return 0


def _align(checked: Checked, alpha_color: str, folder: Path) -> None:
    """Write aligned copies of every concept's pairs, and say how each lay."""
    from customize.drawing.alignment_sheet import write_aligned
    from customize.files import replacing_folder

    rows = list[list[str]]()
    with replacing_folder(folder) as temporary:
        for name, found in checked.pairs.items():
            rows += write_aligned(found.pairs, alpha_color, temporary / name)
    print(table(rows, ["pair", "the target lies", "pixels apart", "copy"]))
    print(f"copies and their overlays, before and after: {folder}")


def _memory(recipe: Recipe, checked: Checked, room: int | None) -> list[str]:
    """Say how much memory training will take, on a GPU where there or asked for."""
    import torch

    from customize.training.memory.advice import advise
    from customize.training.memory.workload import load_of
    from customize.training.plan import plan_run

    device = "cuda" if room is not None or torch.cuda.is_available() else "cpu"
    return advise(load_of(plan_run(recipe, lambda _: None, checked), device), room)


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of recipes."""
    from customize.recipe.recipe import recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
    return 0


def fit_base(arguments: argparse.Namespace) -> int:
    """Fit an editing base from a text-to-image model, or the embedded base; 130 when stopped."""
    from customize.recipe.editing_base import load_editing_base
    from customize.recipe.embedded_base import is_embedded_base, load_embedded_base

    if is_embedded_base(arguments.recipe):
        return _fit_embedded(load_embedded_base(arguments.recipe), arguments.start_from)
    recipe = load_editing_base(arguments.recipe)
    if arguments.start_from is not None:
        raise BaseModelError(
            f"--from {arguments.start_from}: this recipe names its own start "
            f"({recipe.start}); expected it there alone",
            "leave --from out",
        )
    from customize.training.base_fitting.fit_base import fit_editing_base

    folder = fit_editing_base(recipe)
    print(f"the base is in {folder}" if folder else "the same command goes on")
    return 0 if folder else 130


def _fit_embedded(recipe: EmbeddedBaseRecipe, start: str | None) -> int:
    """Fit the embedded base, from nothing or from a base's folder."""
    from customize.families.base import EMBEDDED

    folder = EMBEDDED if start == "embedded" else Path(start) if start else None
    if folder is not None and not (folder / "model_index.json").is_file():
        raise BaseModelError(
            f"--from {start}: there is no base at {folder}; expected `embedded` or the folder of a "
            "fitted base",
            "leave --from out to start from nothing",
        )
    from customize.families.loading.quiet import hush

    hush()
    from customize.embedded.fitting.run import fit_embedded_base

    print(f"the base is in {fit_embedded_base(recipe, folder)}")
    return 0


def _add_recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="such as recipes/my_dog.yaml")
    command.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="KEY=VALUE",
        help="replace fields of the recipe: train.steps=50 base=./model",
    )


def _grouped(faults: Sequence[Fault]) -> list[list[str]]:
    """Make table rows of faults; what is said of many places is said once."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for fault in faults:
        places.setdefault((fault.level, fault.found, fault.cure), []).append(fault.place)
    rows: list[list[str]] = []
    for (level, found, cure), where in places.items():
        more = [f"and {len(where) - 3} more"] if len(where) > 3 else []
        rows.append([level, "\n".join([*where[:3], *more]), found, cure])
    return rows
