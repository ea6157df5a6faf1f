"""Files that lie elsewhere, such as s3://bucket/shots/1.jpg: found, read and written by fsspec."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from customize.errors import EditError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://")
_PATTERN = re.compile(r"[*?\[]")
MOST_BYTES = 1 << 30
"""Of one file that is read whole."""
_BLOCK = 1 << 18
"""Bytes that are asked for at once where a file is not read whole: the head of a picture."""
_SAME = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")
"""What storages say of a file that changes with it."""


class Facts(NamedTuple):
    """What a file is known by while it stays as it is; the time is any number that changes."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class Remote:
    """A file or a folder: `address` opens the storage, `path` is the place in it."""

    address: str
    path: str

    def __str__(self) -> str:
        """Return the address in full."""
        scheme = self.address.partition("://")[0]
        return f"{scheme}://{self.path.lstrip('/') if scheme != 'file' else self.path}"

    def __truediv__(self, name: str | PurePosixPath) -> Remote:
        """Return a place inside the folder."""
        return Remote(self.address, f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The ending, with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def storage(self) -> Any:
        """The file system, opened once by fsspec."""
        return _opened(self.address)[0]

    def open(self) -> IO[bytes]:
        """Open the file to read parts of it."""
        return self.storage.open(self.path, "rb", block_size=_BLOCK)

    def read(self) -> bytes:
        """Return what is in the file; raises OSError for more than `MOST_BYTES`."""
        if self.stat().st_size > MOST_BYTES:
            raise OSError(27, f"more than {MOST_BYTES >> 30} GiB")
        return self.storage.cat_file(self.path)

    def write(self, content: bytes) -> None:
        """Put a file there, in the place of another; storages show it whole or not at all."""
        if self.storage.protocol in ("file", ("file", "local")):
            self.storage.makedirs(str(PurePosixPath(self.path).parent), exist_ok=True)
        self.storage.pipe_file(self.path, content)

    def exists(self) -> bool:
        """Tell whether something is there now, whatever was listed before."""
        self.storage.invalidate_cache(self.path)
        return bool(self.storage.exists(self.path))

    def stat(self) -> Facts:
        """Return the file's facts; raises OSError where there is none."""
        known = self.storage.info(self.path)
        changing = repr([known.get(name) for name in _SAME])
        return Facts(int(known["size"] or 0), zlib.crc32(changing.encode()))

    def pictures(self) -> tuple[Remote, list[str]]:
        """Return the folder that names are relative to, and the files this is or has in it.

        A folder's files are those below it as well, a pattern's those that it fits.
        """
        storage, path = self.storage, self.path.rstrip("/")
        storage.invalidate_cache()
        if _PATTERN.search(path):
            entries = storage.glob(path, detail=True)
            fixed = path[: _PATTERN.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
        elif storage.isfile(path):
            entries, fixed = {path: {"type": "file"}}, path.rpartition("/")[0]
        else:
            entries, fixed = storage.find(path, detail=True), path
        files = [name for name, known in entries.items() if known["type"] == "file"]
        start = f"{fixed}/"
        inside = [name.removeprefix(start) for name in files if name.startswith(start)]
        return Remote(self.address, fixed), inside


def is_address(text: object) -> bool:
    """Tell an address from a path.

    >>> is_address("s3://bucket/shots"), is_address("shots/a.png"), is_address("C://x")
    (True, False, False)
    """
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def remote(address: str) -> Remote:
    """Return what lies at an address; nothing is asked of the storage but whether it can be opened.

    Raises EditError where its package is missing, or the address is none.
    """
    if "::" in address:
        raise EditError(
            f"{address}: one address inside another; expected a plain one such as "
            "s3://bucket/shots; unpack archives first"
        )
    try:
        return Remote(address, str(_opened(address)[1]))
    except ImportError as error:
        raise EditError(
            f"{address}: its storage needs a package ({error}); expected it installed; run "
            '`pip install "customize[storage]"` for s3://, or that package for another'
        ) from None
    except Exception as error:  # storages raise whatever their libraries do
        raise EditError(
            f"{address}: it cannot be opened ({error}); expected an address such as "
            "s3://bucket/shots; correct it, or sign in as that storage asks"
        ) from None


def _opened(address: str) -> tuple[Any, Any]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError("fsspec") from None
    return url_to_fs(address)
