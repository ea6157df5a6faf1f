"""Settings of every test: offline, a cache of its own, and one thread: fastest on toy tensors."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["CUSTOMIZE_CACHE"] = tempfile.mkdtemp(prefix="customize-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import pytest
import torch
from builders import disks

from customize.families.loading.quiet import hush

hush()
torch.set_num_threads(1)


def pytest_sessionfinish() -> None:
    """Remove the cache."""
    shutil.rmtree(os.environ["CUSTOMIZE_CACHE"], ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of two megabytes; skips where none can be mounted."""
    with disks.small(tmp_path / "disk") as folder:
        yield folder
