"""The straight road, a tab for each stretch: pairs, recipe, train, compare, mix, choose."""
