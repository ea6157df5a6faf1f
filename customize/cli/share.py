"""`customize card` and `customize push`: describe an adapter for others, and give it to them."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customize.cli.inputs import used_adapters
from customize.errors import ExportError
from customize.files.spelling import resolved
from customize.files.text import found_at

if TYPE_CHECKING:
    from customize.adapters.header import Header
    from customize.exporting.sharing.model_card import CardPicture

_PICTURE = "images/preview.png"


def add_to(commands: Any) -> None:
    """Describe `card` and `push` to the command line's parser."""
    card_command = commands.add_parser("card", help="write a model card for an adapter")
    _add_described(card_command)
    card_command.add_argument(
        *("-o", "--output"), type=Path, metavar="CARD", help="default: README.md beside FILE"
    )
    card_command.add_argument("--overwrite", action="store_true", help="replace an existing card")
    card_command.set_defaults(run=card)

    push_command = commands.add_parser("push", help="upload an adapter with exports and card")
    _add_described(push_command)
    push_command.add_argument(
        "--repo", required=True, metavar="OWNER/NAME", help="the model on the hub"
    )
    push_command.add_argument("--private", action="store_true", help="show it to nobody else yet")
    push_command.set_defaults(run=push)


def card(arguments: argparse.Namespace) -> int:
    """Write the card, and the picture it shows."""
    from customize.files import check_place, refuse_existing, replacing, write_text
    from customize.files.lock import in_use
    from customize.files.manifest import Manifest

    output: Path = arguments.output or arguments.file.parent / "README.md"
    picture = output.parent / _PICTURE
    text, sheet = _card(arguments)
    shown = [picture] if sheet else []
    check_place(output, used_adapters([arguments.file]))
    listed = Manifest(output.parent, "card")
    refuse_existing(output, *shown, overwrite=arguments.overwrite or listed.unfinished)
    names = [output.name, *([_PICTURE] if sheet else [])]
    listed.check(names)
    with in_use(output.parent):
        listed = Manifest(output.parent, "card")
        listed.begin(names)
        if sheet:
            with replacing(picture) as temporary:
                shutil.copyfile(sheet, temporary)
        write_text(output, text)
        listed.finish()
    print(f"card: {output}")
    _advise(arguments)
    return 0


def push(arguments: argparse.Namespace) -> int:
    """Upload adapter, exports, card and preview."""
    from customize.exporting.sharing import upload
    from customize.files.disk import naming_disk

    text, sheet = _card(arguments)
    pictures = {_PICTURE: sheet} if sheet else {}
    with tempfile.TemporaryDirectory(prefix="customize-push-") as temporary:
        folder = Path(temporary)
        with naming_disk(folder):
            upload.copy_for_upload(folder, arguments.file, text, arguments.exports, pictures)
        pushed = upload.push(folder, arguments.repo, private=arguments.private)
    print(f"{len(pushed.files)} files are at {pushed.url}")
    _advise(arguments)
    return 0


def _card(arguments: argparse.Namespace) -> tuple[str, Path | None]:
    """Return the card's text and the contact sheet it shows, if there is one."""
    from customize.adapters.file import read_header
    from customize.exporting.sharing.model_card import card_text, latest_preview, read_scores

    header = read_header(arguments.file)
    sheet = latest_preview(arguments.file)
    text = card_text(
        header,
        arguments.file.name,
        license_id=arguments.license,
        pictures=_shown(header, sheet),
        scores=read_scores(arguments.scores) if arguments.scores else None,
        files=_exported(resolved(arguments.exports)) if arguments.exports else (),
    )
    return text, sheet


def _exported(folder: Path) -> list[str]:
    """List the weights that were exported, a whole model's folder as one."""
    if not folder.is_dir():
        raise ExportError(
            f"--exports {folder}: there is {found_at(folder)}; expected what `customize export` "
            "wrote; check the path"
        )
    whole = [index.parent for index in folder.rglob("model_index.json")]
    weights = (p for p in folder.rglob("*.safetensors") if not set(whole) & set(p.parents))
    listed = [f"{path.relative_to(folder.parent).as_posix()}/" for path in whole]
    return [*listed, *(path.relative_to(folder.parent).as_posix() for path in weights)]


def _shown(header: Header, sheet: Path | None) -> list[CardPicture]:
    from customize.exporting.formats.trigger_words import examples
    from customize.exporting.sharing.model_card import CardPicture

    instruction = next(examples(header), "previews of the run")
    return [CardPicture(_PICTURE, instruction)] if sheet else []


def _advise(arguments: argparse.Namespace) -> None:
    if arguments.license == "unknown":
        print("the card's licence is `unknown`: choose one with --license, such as apache-2.0")


def _add_described(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="adapter.safetensors")
    command.add_argument(
        "--license", default="unknown", metavar="ID", help="a hub's licence name (apache-2.0)"
    )
    command.add_argument("--scores", type=Path, metavar="JSON", help="scores to list on the card")
    command.add_argument(
        "--exports", type=Path, metavar="FOLDER", help="what `customize export` wrote for it"
    )
