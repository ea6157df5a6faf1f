"""`customize synthesize`: triplets from captions, from finished pictures, or from a few pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customize.cli.inputs import used_adapters, used_bases
from customize.errors import SynthesisError
from customize.files import Used, check_place

KINDS = ("recipe", "backward", "widen", "fit-writer")


def add_to(commands: Any) -> None:
    """Describe `synthesize` and its kinds to the command line's parser."""
    command = commands.add_parser("synthesize", help="make triplets to train on")
    kinds = command.add_subparsers(title="kinds", metavar="RECIPE | KIND", required=True)
    _add_recipe(kinds)
    _add_backward(kinds)
    _add_widen(kinds)
    _add_fit_writer(kinds)


def spelled(arguments: Sequence[str]) -> list[str]:
    """Read `synthesize RECIPE` as `synthesize recipe RECIPE`.

    >>> spelled(["synthesize", "recipes/mine.yaml"])
    ['synthesize', 'recipe', 'recipes/mine.yaml']
    """
    words = list(arguments)
    kind = words[1:2] if words[:1] == ["synthesize"] else []
    if kind and kind[0] not in KINDS and not kind[0].startswith("-"):
        words.insert(1, "recipe")
    return words


def _add_recipe(kinds: Any) -> None:
    command = kinds.add_parser("recipe", help="make triplets from captions, as a recipe says")
    command.add_argument("recipe", type=Path, metavar="RECIPE")
    command.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="KEY=VALUE",
        help="replace fields of the recipe: triplets=50 pictures.base=./model",
    )
    command.add_argument(
        "--keep-share", type=float, metavar="SHARE", help="choose thresholds that keep this share"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="start over where triplets are already"
    )
    command.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="draw on a Ray cluster (a local one)"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="of --ray: one for each GPU, else each CPU"
    )
    command.set_defaults(run=synthesize)


def _add_backward(kinds: Any) -> None:
    command = kinds.add_parser("backward", help="make sources for finished pictures")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="finished pictures")
    command.add_argument(
        "--instruction", required=True, help='what the pairs teach: "give it the brand style"'
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument(
        "--away", nargs="+", default=[], metavar="TEXT", help="how the base is asked to undo it"
    )
    command.add_argument("--base", default="embedded", help="the editing base that undoes it")
    command.add_argument("--clip", default="embedded", help="the CLIP that compares looks")
    command.add_argument("--candidates", type=int, default=12, help="sources tried of a picture")
    command.add_argument("--keep", type=int, default=2, help="sources kept of a picture, at most")
    command.add_argument("--least-structure", type=float, default=0.3, metavar="R")
    command.add_argument("--least-gone", type=float, default=0.02, metavar="D")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true")
    command.set_defaults(run=backward)


def _add_widen(kinds: Any) -> None:
    command = kinds.add_parser("widen", help="make many pairs of a few")
    command.add_argument("pairs", type=Path, metavar="PAIRS", help="folder or table of pairs")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--to", type=int, default=40, metavar="COUNT", help="pairs made")
    command.add_argument(
        "--weight", type=float, default=0.25, help="how often each is drawn, beside a real pair's 1"
    )
    command.add_argument("--server", metavar="URL", help="a model that rewords instructions")
    command.add_argument("--model", help="its name")
    command.add_argument(
        "--adapter", metavar="FILE[:STRENGTH]", help="knows the concept: edits new sources"
    )
    command.add_argument("--sources", type=Path, metavar="FOLDER", help="pictures to edit by it")
    command.add_argument("--base", help="the base of the adapter, where not the one it names")
    command.add_argument("--clip", default="embedded", help="the CLIP that compares")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true")
    command.set_defaults(run=widen)


def _add_fit_writer(kinds: Any) -> None:
    command = kinds.add_parser("fit-writer", help="fit a language model to triplets people wrote")
    command.add_argument(
        "rows", type=Path, metavar="ROWS", help="JSON lines of caption, edit and edited_caption"
    )
    command.add_argument("--model", required=True, help="folder or hub id of a language model")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--batch", type=int, default=8)
    command.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    command.add_argument("--rank", type=int, default=16)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true")
    command.set_defaults(run=fit_writer)


def synthesize(arguments: argparse.Namespace) -> int:
    """Make a recipe's triplets and say where they are and what was rejected."""
    from customize.recipe.synthesis import load_synthesis_recipe

    overrides = list(arguments.overrides)
    if arguments.keep_share is not None:
        overrides.append(f"filter.keep_share={arguments.keep_share}")
    recipe = load_synthesis_recipe(arguments.recipe, overrides)
    from customize.drawing.table import table
    from customize.synthesis.run import synthesize as run

    result = run(recipe, overwrite=arguments.overwrite, draw=_draw(arguments))
    print(f"{result.kept} triplets: {result.pairs}")
    if result.reasons:
        ordered = sorted(result.reasons.items(), key=lambda item: -item[1])
        print(table([[str(count), reason] for reason, count in ordered], ["rejected", "because"]))
    print(f"report: {result.report}")
    if result.kept < result.wanted:
        print(f"{result.wanted} were asked for: the captions are used up; give more of them")
    return 0


def _draw(arguments: argparse.Namespace) -> Any:
    """Return who draws on a cluster, None for this process; raises EditError for no cluster."""
    if arguments.ray is None:
        if arguments.workers is not None:
            raise SynthesisError("--workers counts those of --ray; add --ray, or leave it out")
        return None
    if arguments.workers is not None and arguments.workers < 1:
        raise SynthesisError(f"--workers {arguments.workers}: expected at least 1; leave it out")
    from functools import partial

    from customize.distributed.cluster import connect
    from customize.distributed.triplets import drawn_by_workers

    connect(arguments.ray or None)
    return partial(drawn_by_workers, workers=arguments.workers)


def backward(arguments: argparse.Namespace) -> int:
    """Make sources for finished pictures and say which of them got none."""
    _check(arguments, candidates=(1, 1000), keep=(1, 1000))
    from customize.editing import Editor
    from customize.scoring.networks.encoders import open_clip
    from customize.synthesis.backward.make import AWAY, BackwardOptions, make_backward

    options = BackwardOptions(
        instruction=arguments.instruction,
        away=tuple(arguments.away) or AWAY,
        candidates=arguments.candidates,
        keep=arguments.keep,
        least_structure=arguments.least_structure,
        least_gone=arguments.least_gone,
        seed=arguments.seed,
    )
    made = make_backward(
        Editor.from_base(arguments.base),
        open_clip(arguments.clip),
        arguments.folder,
        arguments.output,
        options,
        overwrite=arguments.overwrite,
    )
    print(f"{made.kept} pairs of {made.pictures} pictures: {made.pairs}")
    if made.without:
        print(f"no good source for {len(made.without)}: {', '.join(made.without[:10])}")
    return 0


def widen(arguments: argparse.Namespace) -> int:
    """Widen a few pairs and say what they became."""
    _check(arguments, to=(1, 100_000), weight=(1e-6, 1000))
    together = (("server", "model"), ("adapter", "sources"))
    for one, other in together:
        if (getattr(arguments, one) is None) != (getattr(arguments, other) is None):
            raise SynthesisError(f"--{one} and --{other} go together; give both or none")
    from customize.editing.options import with_strength
    from customize.pairs.find import find_pairs
    from customize.synthesis.widening.make import WidenOptions
    from customize.synthesis.widening.make import widen as run

    used = [Used("the pairs", arguments.pairs, shared=arguments.pairs.is_file())]
    used += used_adapters([with_strength(arguments.adapter)[0]] if arguments.adapter else [])
    used += [Used("the new sources", arguments.sources)] if arguments.sources else []
    check_place(arguments.output, [*used, *used_bases([arguments.base])], folder=True)
    pairs = find_pairs(arguments.pairs).pairs
    options = WidenOptions(count=arguments.to, weight=arguments.weight, seed=arguments.seed)
    chat = None
    if arguments.server is not None:
        from customize.scoring.judging.chat import Chat, ServerOptions

        chat = Chat(ServerOptions(arguments.server, arguments.model))
    made = run(
        pairs,
        arguments.output,
        options,
        chat=chat,
        new=_new_sources(arguments) if arguments.adapter is not None else None,
        overwrite=arguments.overwrite,
    )
    print(f"{made.changed} pairs changed jointly, {made.new} on new sources: {made.pairs}")
    if made.failed:
        print(f"{made.failed} sources gave no edit that shows the concept")
    return 0


def _new_sources(arguments: argparse.Namespace) -> Any:
    """Open what edits new sources: the adapter on its base, the pictures, the CLIP."""
    from customize.adapters.file import read_header
    from customize.editing import Editor
    from customize.editing.options import with_strength
    from customize.scoring.networks.encoders import open_clip
    from customize.synthesis.backward.make import finished_pictures
    from customize.synthesis.widening.make import NewSources

    adapter, strength = with_strength(arguments.adapter)
    pictures = finished_pictures(arguments.sources)
    base = arguments.base or read_header(adapter).base_name
    editor = Editor.from_base(base).load(adapter, strength)
    return NewSources(editor, pictures, open_clip(arguments.clip))


def _check(arguments: argparse.Namespace, **ranges: tuple[float, float]) -> None:
    """Refuse numbers out of range; raises SynthesisError."""
    for name, (least, most) in ranges.items():
        if not least <= (value := getattr(arguments, name)) <= most:
            raise SynthesisError(f"--{name} {value}: expected {least:g} to {most:g}; correct it")


def fit_writer(arguments: argparse.Namespace) -> int:
    """Fit a writer; its folder goes into a recipe as `writer.adapter`."""
    _check(arguments, epochs=(1, 10_000), batch=(1, 10_000), rank=(1, 1024), rate=(1e-8, 1))
    from customize.synthesis.writing.fit_writer import FitOptions, read_rows
    from customize.synthesis.writing.fit_writer import fit_writer as fit

    check_place(arguments.output, [Used("the rows", arguments.rows, shared=True)], folder=True)
    rows = read_rows(arguments.rows)
    options = FitOptions(
        epochs=arguments.epochs,
        batch=arguments.batch,
        learning_rate=arguments.rate,
        rank=arguments.rank,
        seed=arguments.seed,
    )
    losses = fit(rows, arguments.model, arguments.output, options, overwrite=arguments.overwrite)
    told = ", ".join(f"{loss:.3f}" for loss in losses)
    print(f"fitted to {len(rows)} rows, loss of each epoch {told}: {arguments.output}")
    return 0
