"""Recipes: a YAML file in, typed sections out, or every fault at once with its line and cure.

Parsed once, at the door; imports no torch.
"""

from customize.recipe.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
