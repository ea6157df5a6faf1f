"""What a run leaves for its user: the adapter file with its header, and the loss curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customize.adapters import LowRank
from customize.adapters.file import save_adapter
from customize.adapters.header import Header, Taught, library_versions
from customize.adapters.header_facts import LONGEST_TEXT
from customize.drawing.loss_curve import loss_curve
from customize.training.cache import pair_digest
from customize.training.plan import Plan
from customize.training.run_folder import RunFolder, save_picture
from customize.training.session import Session

_INSTRUCTIONS = 10_000
"""Instructions of a concept that the adapter's header keeps."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended; `adapter` is None when it was stopped, `best` None without a held-out score.

    `loss` is the mean of the last tenth of the steps, `seconds` the time spent in steps.
    """

    steps: int
    seconds: float
    loss: float
    adapter: Path | None
    best: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.adapter is not None


def write_adapter(plan: Plan, session: Session, path: Path) -> None:
    """Write what is learned so far as an adapter file, replacing an earlier one."""
    tensors = session.learned()
    save_adapter(path, header_of(plan, session), tensors, overwrite=True)


def write_results(plan: Plan, session: Session, folder: RunFolder) -> RunResult:
    """Write curve, checkpoint (to train further one day) and adapter, which comes last."""
    save_picture(loss_curve([total for total, _, _ in session.history]), folder.curve)
    session.save(folder.checkpoint)
    write_adapter(plan, session, folder.adapter)
    best = folder.best if folder.best.exists() else None
    return RunResult(session.done, session.seconds, late_loss(session), folder.adapter, best)


def header_of(plan: Plan, session: Session) -> Header:
    """Say of the adapter where it comes from and how it was made."""
    method = plan.method if isinstance(plan.method, LowRank) else None
    return Header(
        family=plan.base.family,
        base_name=plan.base.name,
        base_fingerprint=plan.base.fingerprint,
        method=plan.recipe.adapter.method,
        rank=method.rank if method else None,
        alpha=method.alpha if method else None,
        decompose=method.decompose if method else False,
        targets=method.targets if method else (),
        text_encoder_rank=method.text_encoder_rank if method else 0,
        concepts=_taught(plan),
        recipe=plan.recipe.model_dump(mode="json"),
        versions=library_versions(),
        pairs={
            f"{name}/{pair.place or pair.target.name}": pair_digest(pair)
            for name, pairs in plan.concepts.items()
            for pair in pairs
        },
        training=_training_facts(session),
    )


def late_loss(session: Session) -> float:
    """Return the mean loss of the last tenth of the steps so far."""
    losses = [total for total, _, _ in session.history]
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


def _taught(plan: Plan) -> tuple[Taught, ...]:
    return tuple(
        Taught(
            name=concept.name,
            word=None if concept.word in plan.plain else concept.word,
            initializer=None if concept.word in plan.plain else concept.initializer,
            vectors=1 if concept.word in plan.plain else concept.vectors,
            instructions=tuple(
                dict.fromkeys(
                    pair.instruction[:LONGEST_TEXT] for pair in plan.concepts[concept.name]
                )
            )[:_INSTRUCTIONS],
        )
        for concept in plan.recipe.concepts
    )


def _training_facts(session: Session) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "steps": session.done,
        "seconds": round(session.seconds, 1),
        "loss": late_loss(session),
        "device": str(session.accelerator.device),
        "precision": session.accelerator.mixed_precision,
        "processes": session.accelerator.num_processes,
        **session.facts,
    }
    return {**facts, "best_held_out_error": session.best.error} if session.best else facts
