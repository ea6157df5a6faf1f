"""Settings of every test: offline, and one thread, which is faster than two on toy tensors."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch

from customize.families.loading.quiet import hush

hush()
torch.set_num_threads(1)
