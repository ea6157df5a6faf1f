"""A recipe's file -> checked sections of any kind, or every fault at once with line and cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from customize.errors import Fault, RecipeError
from customize.recipe.explain_faults import explain, is_echo
from customize.recipe.sections import Section
from customize.recipe.yaml_text import read_recipe_text

AnyRecipe = TypeVar("AnyRecipe", bound=Section)
Contradictions = Callable[[Mapping[str, Any]], Iterable[Fault]]


def read_recipe(
    path: Path,
    kind: type[AnyRecipe],
    example: str,
    contradictions: Contradictions,
    overrides: Sequence[str] = (),
) -> AnyRecipe:
    """Read the recipe at `path` as a `kind` of recipe, such as the one at `example`.

    `contradictions` finds in plain values what is fine alone and wrong together.

    Raises:
        RecipeError: with every fault there is, each with its line and its cure.
    """
    text = read_recipe_text(path, overrides, example)
    recipe: AnyRecipe | None = None
    if text.values or not text.faults:
        try:
            recipe = kind.model_validate(text.values, context={"folder": path.parent})
        except ValidationError as error:
            for details in error.errors(include_url=False):
                if not is_echo(details):
                    text.add_fault(explain(details, text.values, kind))
        for fault in contradictions(text.values):
            text.add_fault(fault)
    if text.faults:
        raise RecipeError(f"recipe {path}", text.faults_in_order())
    assert recipe is not None, "a recipe that failed without a fault"
    return recipe
