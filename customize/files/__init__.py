"""Files and folders: what commands write, whole or not at all and never over what is not theirs,
and text that comes from outside, read within bounds.
"""

from customize.files.disk import check_room
from customize.files.outputs import Used, check_place
from customize.files.write import (
    REPLACE,
    forget_places,
    make_folder,
    refuse_existing,
    replacing,
    replacing_folder,
    write_text,
)

__all__ = [
    "REPLACE",
    "Used",
    "check_place",
    "check_room",
    "forget_places",
    "make_folder",
    "refuse_existing",
    "replacing",
    "replacing_folder",
    "write_text",
]
