"""Training: a recipe in, an adapter file out; a stopped run goes on.

The order of a run: check, plan, cache, batches, loss, steps; `run.py` calls them.
"""

from customize.training.run import run_recipe

__all__ = ["run_recipe"]
