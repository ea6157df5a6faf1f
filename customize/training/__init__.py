"""Training: a recipe in, an adapter file out; a stopped run goes on.

The order of a run: check, plan, cache, batches, loss, steps; `run.py` calls them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from customize.training.run import run_recipe

__all__ = ["run_recipe"]


def __getattr__(name: str) -> Any:
    """Load torch only when a run is asked for: looking at its pairs needs none."""
    if name != "run_recipe":
        raise AttributeError(name)
    from customize.training.run import run_recipe

    return run_recipe
