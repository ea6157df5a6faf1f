"""`customize score` and `customize score tradeoff`: how good edits are, as numbers and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli import choices
from customize.cli.scoring_arguments import (
    AGAIN,
    WHAT,
    add_compared,
    add_judge,
    add_swept,
    check_free,
    check_judge,
    dispatch,
    options_of,
    used_by,
    variants_of,
)
from customize.errors import ScoreError
from customize.files import check_place, refuse_existing

if TYPE_CHECKING:
    from customize.scoring.items import Item


def add_to(commands: Any) -> None:
    """Describe `score`, its `tradeoff` and `tune-guidance` to the command line's parser."""
    command = commands.add_parser(
        "score",
        help="score edits: with and without adapters, or finished ones",
        epilog="`customize score tradeoff --help` tells of the plot over image guidance, "
        "`customize score choices --help` of win rates between adapters",
    )
    add_compared(command, f"{WHAT}; or finished edits: a folder with edits.jsonl, or such a table")
    add_judge(command)
    command.add_argument("--dino", metavar="MODEL", help="folder or hub id: facebook/dinov2-base")
    command.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="only these (all that the edits allow)"
    )
    command.add_argument("--text-guidance", type=float, metavar="S", help="the base's own")
    command.add_argument("--image-guidance", type=float, metavar="S", help="the base's own")
    command.add_argument(
        *("-o", "--output"), type=Path, metavar="FOLDER", help="where to write (runs/scores_WHAT)"
    )
    command.set_defaults(run=score)

    tradeoff_command = argparse.ArgumentParser(
        prog=f"{command.prog} tradeoff",
        description="Sweep image guidance: what is edited against what is kept, PNG and SVG.",
    )
    add_compared(tradeoff_command, WHAT)
    add_swept(tradeoff_command, "1.0 1.2 .. 2.2")
    tradeoff_command.add_argument(
        *("-o", "--output"),
        type=Path,
        metavar="PNG",
        help="plot (tradeoff.png), .svg and .json",
    )
    tradeoff_command.set_defaults(run=tradeoff)
    dispatch(command, "tradeoff", tradeoff_command)
    choices.add_to(command)


def score(arguments: argparse.Namespace) -> int:
    """Make the edits where they are not finished, score them, and write table, JSON and HTML."""
    from customize.scoring import open_models, score_edits
    from customize.scoring.edits.make import make_edits
    from customize.scoring.edits.requests import clip_for_bases, clip_for_items, read_asked
    from customize.scoring.html_report import write_score_report
    from customize.scoring.judging.open_judge import open_judge
    from customize.scoring.metrics.score import check_models, models_needed, named
    from customize.scoring.summary import Scored, missing_scores, summary_table, write_json

    metrics = None if arguments.metrics is None else named(arguments.metrics)
    judged = check_judge(arguments)
    check_models(metrics or (), dino=arguments.dino is not None, judge=judged)
    folder = arguments.output or Path("runs") / f"scores_{Path(arguments.what).stem}"
    result, page = folder / "scores.json", folder / "report.html"
    check_place(folder, used_by(arguments), folder=True)
    refuse_existing(result, overwrite=arguments.overwrite, cure=AGAIN)
    looks_by_clip, looks_by_dino = models_needed(metrics)
    asked = read_asked(arguments.what, arguments.count)
    if asked.finished:
        _refuse_making(arguments)
    variants = [] if asked.finished else variants_of(arguments, asked)
    clip = arguments.clip if looks_by_clip else None
    dino = arguments.dino if looks_by_dino else None
    if looks_by_clip and clip is None:
        bases = [variant.base for variant in variants]
        clip = clip_for_bases(bases) if bases else clip_for_items(asked.finished)
    with _held(folder, overwrite=arguments.overwrite, makes=bool(variants)):
        models = open_models(clip, dino, device=arguments.device, cache=folder / _CACHE)
        if judged:
            judge = open_judge(arguments.judge, arguments.judge_server, arguments.device)
            models = replace(models, judge=judge)
        made: Mapping[str, Sequence[Item]] = {Path(arguments.what).stem: asked.finished}
        if variants:
            given = options_of(arguments, "steps", "seed", "text_guidance", "image_guidance")
            made = make_edits(
                variants,
                asked.tasks,
                given,
                folder / "edits",
                **options_of(arguments, "at_once"),
                device=arguments.device,
                progress=True,
            )
        scored = [
            Scored(label, tuple(items), score_edits(items, models, metrics, progress=True))
            for label, items in made.items()
        ]
        models.store.close()
        judge_name = models.judge.name if models.judge else None
        looked = (("CLIP", clip), ("DINO", dino), ("the judge", judge_name))
        used = [f"{kind} {name}" for kind, name in looked if name]
        by = f", measured by {', '.join(used)}" if used else ""
        about = [f"{len(scored[0].items)} edits of {arguments.what}{by}"]
        write_score_report(page, scored, "Scores of edits", about)
        write_json(result, scored, models, {"what": arguments.what})  # last: it says all is done
    print(summary_table(scored))
    print("\n".join([*missing_scores(scored), about[0], str(result), str(page)]))
    return 0


@contextmanager
def _held(folder: Path, *, overwrite: bool, makes: bool) -> Iterator[None]:
    """Hold the folder of results; with `overwrite` earlier results wait aside meanwhile.

    Edits and figures made earlier are used again where they follow from the same things. A failure
    before the first of the edits that it `makes` leaves nothing behind.
    """
    from customize.files.lock import in_use
    from customize.files.manifest import Manifest

    with in_use(folder):
        listed = Manifest(folder, "score", _RESULTS[-1])
        if overwrite:
            listed.begin_anew([*_RESULTS, *_KEPT], replaces=lambda name: name in _RESULTS)
        else:
            listed.begin([*_RESULTS, *_KEPT])
        try:
            yield
        except Exception:
            if listed.replaces:
                listed.undo(keep=_KEPT)
            elif makes and not any(folder.glob(_KEPT[-1])):
                listed.undo()
            raise
        listed.finish()


_CACHE = "cache.sqlite"
_RESULTS = ("report.html", "scores.json")
_KEPT = (_CACHE, "edits/[0-9][0-9][0-9][0-9]_*.png")


def tradeoff(arguments: argparse.Namespace) -> int:
    """Sweep image guidance and plot; points already in the JSON are not made again."""
    from customize.scoring import open_models
    from customize.scoring.edits.requests import clip_for_bases, tasks_asked
    from customize.scoring.guidance.plots import draw_tradeoff
    from customize.scoring.guidance.sweep import left_out
    from customize.scoring.guidance.tradeoff import (
        IMAGE_GUIDANCES,
        curves_table,
        read_points,
        trace,
    )

    png: Path = arguments.output or Path("tradeoff.png")
    if png.suffix.lower() != ".png":
        raise ScoreError(f"output {png}: expected a .png; the .svg and .json are put beside it")
    svg, points = png.with_suffix(".svg"), png.with_suffix(".json")
    read_points(points)
    for path in (png, svg):
        stopped = path == svg and points.exists() and not png.exists()
        check_free(path, arguments, again=stopped)
    asked = tasks_asked(arguments.what, arguments.count)
    variants = variants_of(arguments, asked)
    clip = arguments.clip or clip_for_bases([variant.base for variant in variants])
    texts: list[float] = arguments.text_guidances or []
    if len(texts) > 1:
        raise ScoreError("text guidance: a trade-off has one; expected one number; sweep the image")
    curves = trace(
        variants,
        asked.tasks,
        open_models(clip, device=arguments.device),
        points,
        text_guidance=texts[0] if texts else None,
        image_guidances=arguments.image_guidances or IMAGE_GUIDANCES,
        options=options_of(arguments, "steps", "seed"),
        **options_of(arguments, "at_once"),
        device=arguments.device,
        progress=True,
    )
    measured = [point for curve in curves for point in curve.points]
    title = f"{measured[0].count} edits of {arguments.what}, measured by the CLIP {clip}"
    draw_tradeoff(curves, title, png, svg)
    fewer = left_out(measured, asked.tasks)
    print("\n".join([curves_table(curves), *([fewer] if fewer else ()), f"{png}\n{svg}\n{points}"]))
    return 0


def _refuse_making(arguments: argparse.Namespace) -> None:
    """Finished edits are not made: options of making would have no effect."""
    given = [name for name in ("bases", "adapters", "adapters_only") if getattr(arguments, name)]
    given += options_of(arguments, "steps", "seed", "text_guidance", "image_guidance", "at_once")
    if given:
        named = ", ".join(name.replace("_", "-") for name in given)
        raise ScoreError(
            f"{arguments.what}: these edits are finished, so {named} would have no effect; "
            "expected none of it; leave them out, or name pairs or a recipe to make edits of"
        )
