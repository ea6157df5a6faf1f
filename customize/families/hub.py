"""Bring a base from the model hub into the hub library's own cache."""

from __future__ import annotations

from pathlib import Path

from customize.errors import BaseModelError

_PLAIN = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
_NEVER = ["*.fp16*.safetensors", "*non_ema*", "safety_checker/*.safetensors"]


def download(name: str, revision: str | None) -> Path:
    """Return the local snapshot of hub repository `name`, fetching what is missing.

    Takes full-precision safetensors, or fp16 where the repository has nothing else. Raises
    BaseModelError.
    """
    folder = _snapshot(name, revision, _NEVER)
    if not any((folder / "unet").glob("*.safetensors")):
        folder = _snapshot(name, revision, _NEVER[1:])
    return folder


def _snapshot(name: str, revision: str | None, ignored: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_PLAIN, ignore_patterns=ignored
            )
        )
    except errors.GatedRepoError:
        found = "the hub asks for consent before it gives this model"
        cure = f"accept its terms at https://huggingface.co/{name} and run `hf auth login`"
    except errors.RevisionNotFoundError:
        found, cure = f"the hub has no revision {revision!r} of it", "correct base.revision"
    except errors.RepositoryNotFoundError:
        found = "the hub has no such public model, nor one your token may read"
        cure = "check the spelling, or run `hf auth login` for a private one"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        found = "it is not in the local cache and the hub cannot be reached"
        cure = "connect once (and unset HF_HUB_OFFLINE), or name a local folder as the base"
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        found = f"fetching it failed ({type(error).__name__}: {error})"
        cure = "try again (what was fetched is kept), or name a local folder as the base"
    raise BaseModelError(f"base {name!r}: {found}; expected a hub repository; {cure}") from None
