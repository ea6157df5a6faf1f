"""`customize edit`: which base, which adapters, and a file for every stage."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.inputs import used_adapters, used_bases
from customize.errors import EditError

if TYPE_CHECKING:
    from customize.editing import Editor

_SAMPLING = (
    "seed",
    "steps",
    "scheduler",
    "text_guidance",
    "image_guidance",
    "resolution",
    "keep_unchanged",
    "detail",
)


def add_to(commands: Any) -> None:
    """Describe `edit` to the command line's parser."""
    command = commands.add_parser("edit", help="edit a picture, with or without adapters")
    add = command.add_argument
    add("image", type=Path, metavar="IMAGE", help="a picture of any size")
    add(
        "instructions",
        nargs="+",
        metavar="INSTRUCTION",
        help="what to do, in quotes; several are applied one after another, each stage is saved",
    )
    add(
        "--also",
        type=Path,
        nargs="+",
        action="extend",
        default=list[Path](),
        metavar="FILE",
        help="further source pictures, for bases that read several",
    )
    add("-o", "--output", type=Path, metavar="PNG", help="where to write (IMAGE_edited.png)")
    add("--overwrite", action="store_true", help="replace pictures that exist")
    add_base(add)
    add_sampling(add)
    add(
        "--guidance",
        choices=["auto"],
        help="auto tries several of both and takes what edits most and keeps most",
    )
    add("--clip", metavar="MODEL", help="what auto judges by: embedded, folder or hub id")
    command.set_defaults(run=edit)


def add_base(add: Callable[..., Any]) -> None:
    """Add what edits are made with: a base and adapters."""
    add(
        *("-a", "--adapter"),
        dest="adapters",
        action="extend",
        nargs="+",
        default=list[str](),
        metavar="FILE[:STRENGTH]",
        help="adapters to use, each with a strength (1)",
    )
    add("--base", metavar="BASE", help="embedded, hub id, folder or file (the first adapter's)")
    add("--revision", help="branch, tag or commit of a hub base")
    add("--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--device", help="cuda, mps or cpu (the best there is)")


def add_sampling(add: Callable[..., Any]) -> None:
    """Add how a sampler goes to work."""
    add("--steps", type=int, help="sampling steps (the base's own)")
    add("--scheduler", metavar="NAME", help="ddim, ddpm, euler, euler_a, dpmpp, dpmpp_sde, unipc")
    add("--seed", type=int, help="starting noise (0)")
    add("--text-guidance", type=float, metavar="S", help="follow the instruction: 1 to 50")
    add("--image-guidance", type=float, metavar="S", help="keep to the picture: 1 to 50")
    add(
        "--keep-unchanged",
        action=argparse.BooleanOptionalAction,
        help="put back what an edit hardly moved (in chains of several instructions)",
    )
    add(
        "--detail",
        choices=["scaled", "keep"],
        help="keep the source's own pixels and detail where the edit left them, or only scale the "
        "answer (the base's own way)",
    )
    add("--resolution", type=int, metavar="PIXELS", help="side of the area worked at (the base's)")


def opened_editor(arguments: argparse.Namespace, *, progress: bool) -> Editor:
    """Open the base and load the adapters that the arguments name."""
    from customize.editing.options import with_strength

    adapters = [with_strength(text) for text in arguments.adapters]
    base = arguments.base or _base_of(adapters)
    from customize.editing import Editor

    editor = Editor.from_base(
        base,
        revision=arguments.revision,
        precision=arguments.precision,
        device=arguments.device,
        progress=progress,
    )
    for path, strength in adapters:
        editor.load(path, strength)
    return editor


def sampling_options(arguments: argparse.Namespace) -> Any:
    """Return the options of sampling that were given."""
    given = {name: getattr(arguments, name) for name in _SAMPLING}
    return {name: value for name, value in given.items() if value is not None}


def edit(arguments: argparse.Namespace) -> int:
    """Edit a picture by one instruction, or by several in a chain, and save every stage."""
    from customize.editing.edited_picture import check_output, keeps_settings
    from customize.editing.options import with_strength
    from customize.files import Used, check_place
    from customize.pairs.decode import load_picture

    _check_guidance(arguments)
    _warn_of_missing_quotes(arguments.instructions)
    outputs = _outputs(arguments)
    adapters = [with_strength(text) for text in arguments.adapters]
    used = [Used("the picture to edit", path) for path in (arguments.image, *arguments.also)]
    used += used_adapters(path for path, _ in adapters)
    for output in outputs:
        check_output(output, overwrite=arguments.overwrite)
        check_place(output, [*used, *used_bases([arguments.base])])
    image, *further = map(load_picture, (arguments.image, *arguments.also))
    editor = opened_editor(arguments, progress=True)
    options = sampling_options(arguments)
    if arguments.guidance == "auto":
        options |= _tuned(arguments, editor, adapters, options)
    start = time.perf_counter()
    stages = editor.chain(image, arguments.instructions, further=further, **options)
    seconds = time.perf_counter() - start
    for stage, output in zip(stages, outputs, strict=True):
        stage.save(output, overwrite=arguments.overwrite)
        if not keeps_settings(output):
            warnings.warn(f"{output}: only PNG keeps the settings of an edit", stacklevel=1)
        print(f"{output}: {stage.settings.instruction}")
    print(f"{seconds:.1f} s; {stages[-1].settings.as_parameters().splitlines()[-1]}")
    return 0


def _warn_of_missing_quotes(instructions: Sequence[str]) -> None:
    if len(instructions) > 1 and not any(" " in text for text in instructions):
        warnings.warn(
            f"each word is an edit of its own; for one edit put it in quotes: "
            f'"{" ".join(instructions)}"',
            stacklevel=1,
        )


def _check_guidance(arguments: argparse.Namespace) -> None:
    """Refuse requests around `--guidance auto` that would have no effect."""
    auto = arguments.guidance == "auto"
    if arguments.clip is not None and not auto:
        raise EditError("--clip judges what --guidance auto tries; add that, or leave it out")
    if not auto:
        return
    if len(arguments.instructions) > 1:
        raise EditError(
            f"--guidance auto with {len(arguments.instructions)} instructions: guidance is chosen "
            "for one edit; expected one instruction; edit step by step, or name both guidances"
        )
    if arguments.text_guidance is not None and arguments.image_guidance is not None:
        raise EditError(
            "--guidance auto has nothing to choose: both guidances are given; expected at most "
            "one; leave one out, or leave out --guidance"
        )


def _tuned(
    arguments: argparse.Namespace,
    editor: Editor,
    adapters: Sequence[tuple[Path, float]],
    options: Any,
) -> dict[str, float]:
    """Choose the guidances that were not given for this one edit, and say why."""
    from customize.scoring import open_models
    from customize.scoring.edits.requests import clip_for_bases, one_task
    from customize.scoring.edits.tasks import in_plain_words
    from customize.scoring.edits.variants import compared
    from customize.scoring.guidance.tune import tune

    (variant,) = compared([editor.base.name], [adapters], alone=False)
    task = one_task(arguments.image, arguments.instructions[0], further=arguments.also)
    text, image = arguments.text_guidance, arguments.image_guidance
    choice = tune(
        editor,
        [in_plain_words(task, variant.plain, variant.taught)],
        open_models(arguments.clip or clip_for_bases([variant.base]), device=arguments.device),
        text_guidances=() if text is None else (text,),
        image_guidances=() if image is None else (image,),
        options=options,
        progress=True,
    )
    print(f"{choice.table()}\n{choice.reason}")
    return {
        "text_guidance": choice.chosen.text_guidance,
        "image_guidance": choice.chosen.image_guidance,
    }


def _outputs(arguments: argparse.Namespace) -> list[Path]:
    """Name a file for every stage: `-o x.png` is the last one's, `x_1.png` and so on come before.

    Without `-o` the name is made from the picture's, and is free, or of an edit to be replaced.
    """
    from customize.editing.edited_picture import carries_settings

    count = len(arguments.instructions)
    if arguments.output is not None:
        return _stages(arguments.output, count)
    number = 1
    while True:
        suffix = "" if number == 1 else f"_{number}"
        outputs = _stages(Path(f"{arguments.image.stem}_edited{suffix}.png"), count)
        there = [output for output in outputs if output.exists()]
        if not there or (arguments.overwrite and all(map(carries_settings, there))):
            return outputs  # nobody named these: a picture that is no edit stays
        number += 1


def _stages(last: Path, count: int) -> list[Path]:
    return [*(last.with_stem(f"{last.stem}_{stage}") for stage in range(1, count)), last]


def _base_of(adapters: list[tuple[Path, float]]) -> str:
    """Name the base that the first adapter was made for, the embedded one where there is none."""
    from customize.adapters.at_base import base_for
    from customize.adapters.file import read_header

    headers = [read_header(path) for path, _ in adapters]  # all faults before a base is opened
    return base_for(headers[0]) if headers else "embedded"
