"""Settings of every test: offline, a cache of its own, and one thread: fastest on toy tensors."""

from __future__ import annotations

import gc
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
from builders.nursery import Nursery

from customize.families.loading.quiet import hush

hush()
gc.disable()  # until all is imported: what modules hold stays, and looking through it takes long
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leave what imports made out of collections, each of which took a third of a second."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Remove the cache."""
    shutil.rmtree(os.environ["CUSTOMIZE_CACHE"], ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of two megabytes; skips where none can be mounted."""
    with disks.small(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Give a Python that forks processes which need not import the libraries again."""
    with Nursery() as made:
        yield made
