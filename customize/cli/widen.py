"""`customize synthesize widen`: many pairs of a few."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from customize.cli.inputs import used_adapters, used_bases
from customize.cli.ranges import check_ranges
from customize.errors import SynthesisError
from customize.files import Used, check_place


def add_to(kinds: Any) -> None:
    """Describe it to the command line's parser."""
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


def widen(arguments: argparse.Namespace) -> int:
    """Widen a few pairs and say what they became."""
    check_ranges(arguments, to=(1, 100_000), weight=(1e-6, 1000))
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
