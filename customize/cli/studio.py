"""`customize studio`: the whole road as a page in the browser."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from customize.cli.scoring_arguments import add_judge, check_judge


def add_to(commands: Any) -> None:
    """Describe `studio` to the command line's parser."""
    command = commands.add_parser("studio", help="a page in the browser for all of this")
    add = command.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="the project's, with pairs/, recipes/, runs/ (this one); nothing outside is reached",
    )
    add("--port", type=int, default=7860, help="where the page is served (%(default)s)")
    add("--host", default="127.0.0.1", help="for a network: needs a password (%(default)s)")
    add("--share", action="store_true", help="by gradio's servers: needs a password")
    add("--device", help="cuda, mps or cpu (the best there is)")
    add_judge(command)
    command.epilog = (
        "The password is read from the environment, CUSTOMIZE_PASSWORD; the user is studio."
    )
    command.set_defaults(run=open_studio)


def open_studio(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from customize.studio.serve import PASSWORD_VARIABLE, Door, check_door, serve

    door = Door(
        arguments.host,
        arguments.port,
        arguments.share,
        os.environ.get(PASSWORD_VARIABLE) or None,
    )
    check_door(door)
    check_judge(arguments)
    print(f"customize studio: http://{door.host}:{door.port} (Ctrl-C ends it; training goes on)")
    judge = arguments.judge, arguments.judge_server
    serve(arguments.folder, door, device=arguments.device, judge=judge)
    return 0
