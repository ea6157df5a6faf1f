"""Merging: adapter files of one base in, one adapter file out that does what each of them does.

`docs/merging.md` tells which method to use when; `methods.py` has them all as frozen values.
"""

from customize.adapters.factors import Limits
from customize.merging.merge_files import merge
from customize.merging.methods import Concat, Constrained, Dare, Linear, MergeMethod, Svd, Ties

__all__ = [
    "Concat",
    "Constrained",
    "Dare",
    "Limits",
    "Linear",
    "MergeMethod",
    "Svd",
    "Ties",
    "merge",
]
