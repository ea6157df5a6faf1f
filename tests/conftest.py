"""Settings of every test: offline, a cache of its own, and one thread: fastest on toy tensors."""

from __future__ import annotations

import os
import shutil
import tempfile

os.environ["CUSTOMIZE_CACHE"] = tempfile.mkdtemp(prefix="customize-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch

from customize.families.loading.quiet import hush

hush()
torch.set_num_threads(1)


def pytest_sessionfinish() -> None:
    """Remove the cache."""
    shutil.rmtree(os.environ["CUSTOMIZE_CACHE"], ignore_errors=True)
