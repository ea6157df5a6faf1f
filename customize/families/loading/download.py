"""Bring a base from the model hub into the hub library's own cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from customize.errors import BaseModelError
from customize.families.loading.weight_files import written

_CONFIGS = ("model_index.json", "*/*.json", "*/*.txt", "*/*.jinja")
_UNUSED = ("safety_checker/*", "image_encoder/*", "*non_ema*")


def download(name: str, revision: str | None, check: Callable[[Path], object]) -> Path:
    """Return the local snapshot of hub repository `name`, fetching what is missing.

    `check` sees the configs alone first: a base of a wrong kind is refused before its gigabytes
    come. Takes full-precision safetensors, or fp16 for components that have nothing else. Raises
    BaseModelError.
    """
    folder = _snapshot(name, revision, _CONFIGS, _UNUSED)
    check(folder)
    # The snapshot's folder is named by its commit: a push meanwhile cannot mix two versions.
    commit = folder.name
    _snapshot(name, commit, (*_CONFIGS, "*/*.safetensors"), (*_UNUSED, "*.fp16*.safetensors"))
    parts = [config.parent for config in folder.glob("*/config.json")]
    bare = [part.name for part in parts if not any(part.glob("*.safetensors"))]
    if halves := [f"{part}/*.fp16*.safetensors" for part in bare]:
        _snapshot(name, commit, halves, _UNUSED)
    return folder


def _snapshot(
    name: str, revision: str | None, wanted: Sequence[str], unused: Sequence[str]
) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    cache, owner = Path(constants.HF_HUB_CACHE), f"base {name!r}"
    try:
        with written(owner, cache):
            return Path(
                snapshot_download(
                    name,
                    revision=revision,
                    cache_dir=cache,
                    allow_patterns=list(wanted),
                    ignore_patterns=list(unused),
                )
            )
    except BaseModelError:
        raise
    except errors.GatedRepoError:
        found = "the hub asks for consent before it gives this model"
        cure = f"accept its terms at {constants.ENDPOINT}/{name} and run `hf auth login`"
    except errors.RevisionNotFoundError:
        found, cure = f"the hub has no revision {revision!r} of it", "correct base.revision"
    except errors.RepositoryNotFoundError:
        found = "the hub has no such public model, nor one your token may read"
        cure = "check the spelling, or run `hf auth login` for a private one"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        found = "it is not, or not wholly, in the local cache and the hub cannot be reached"
        cure = "connect once (and unset HF_HUB_OFFLINE), or name a local folder as the base"
        if isinstance(error.__cause__, errors.HfHubHTTPError):  # it was reached, and refused
            found, cure = _failure(error.__cause__)
    except Exception as error:  # the hub library lets through whatever its transport raises
        found, cure = _failure(error)
    raise BaseModelError(f"{owner}: {found}; expected a hub repository", cure) from None


def _failure(error: Exception) -> tuple[str, str]:
    """Word an answer or a breakdown that has no error class of its own."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the hub refuses your token", "run `hf auth login` again, or unset HF_TOKEN"
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    cure = "try again (the files that came are kept), or name a local folder as the base"
    return f"fetching it failed ({type(error).__name__}: {first})", cure
