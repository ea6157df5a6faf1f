"""Upload an adapter, its exports, its card and its previews to a model hub.

The token is huggingface_hub's own (`hf auth login` or HF_TOKEN): it is never an argument, never
printed and never part of a message.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from customize.errors import HubError
from customize.files.spelling import resolved

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Pushed:
    """Where the upload lies now, and what it holds."""

    url: str
    files: tuple[str, ...]


def push(
    folder: Path, repository: str, *, private: bool = False, endpoint: str | None = None
) -> Pushed:
    """Upload everything in `folder` to the hub's model `repository`, which is made where needed.

    `endpoint` None is the hub of HF_ENDPOINT, huggingface.co by default. Raises HubError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    api = HfApi(endpoint=endpoint)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files, "nothing to upload"
    disable_progress_bars()
    try:
        url = _told(repository, lambda: _upload(api, folder, repository, private))
    finally:
        enable_progress_bars()
    return Pushed(url, tuple(files))


def copy_for_upload(
    folder: Path, adapter: Path, card: str, exports: Path | None, pictures: dict[str, Path]
) -> None:
    """Copy what is to be uploaded into an empty `folder`.

    `pictures` maps a place in the upload to a file.
    """
    (folder / "README.md").write_text(card, encoding="utf-8")
    shutil.copy(adapter, folder / adapter.name)
    if exports is not None:
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(exports, folder / resolved(exports).name, ignore=hidden)
    for place, path in pictures.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / place)


def _upload(api: HfApi, folder: Path, repository: str, private: bool) -> str:
    made = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=made.repo_id, folder_path=folder, commit_message="Upload an adapter of customize"
    )
    return str(made)


def _told(repository: str, upload: Callable[[], str]) -> str:
    """Run the upload; what the hub's library raises becomes one clear message."""
    from huggingface_hub import errors

    try:
        return upload()
    except errors.LocalTokenNotFoundError:
        status = 401
    except errors.HFValidationError:
        raise HubError(
            f"--repo {repository}: this is no repository's name; expected OWNER/NAME of letters, "
            "digits, '-', '_' and '.'; correct it"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
    except (errors.HTTPError, OSError) as error:  # offline mode among them
        raise HubError(
            f"{repository}: the hub cannot be reached ({type(error).__name__}); expected a network "
            "connection; connect (and unset HF_HUB_OFFLINE) and push again"
        ) from None
    raise HubError(f"{repository}: {_meaning(status)}") from None


def _meaning(status: int) -> str:
    """Say what a refusal means and what to do."""
    match status:
        case 401:
            found = "the hub knows you by no token, or not by this one"
            cure = "run `hf auth login` with a token that may write, or set HF_TOKEN"
        case 403:
            found = "your token may not write there"
            cure = "use a token with write access, or name a repository of your own"
        case 404:
            found = "the hub has no such owner, or you may not see the repository"
            cure = "check the spelling, or name a repository of your own"
        case 413:
            found = "the upload is larger than the hub takes"
            cure = "leave the full model out of the exports"
        case 429:
            found, cure = "the hub takes no more requests for now", "push again later"
        case _:
            found = f"the hub answered with error {status}"
            cure = "push again later: what was uploaded is kept"
    return f"{found}; expected to upload; {cure}"
