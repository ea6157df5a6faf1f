"""LPIPS, torchmetrics' own: pairs of one size go through the network together, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from customize.editing.device import device_for
from customize.scoring.items import Item, Models, Picture
from customize.scoring.metrics.pixels import scaled, unit
from customize.scoring.networks.embed import Contents, opened

LPIPS_SIDE = 31
"""Pixels a side that AlexNet's strides leave something of."""


def keep_lpips(
    items: Sequence[Item], contents: Contents, models: Models, *, at_once: int, progress: bool
) -> None:
    """Put the LPIPS of all outputs and targets that can have one into the models' store.

    What the store holds is not computed again. Raises EditError for a device that is not here.
    """
    network = lpips_network()
    pairs: dict[str, tuple[Picture, Picture]] = {}
    for item in items:
        if item.target is not None:
            pairs[contents.compared("lpips", item.output, item.target)] = item.output, item.target
    held = models.store.get(list(pairs))
    missing = {key: pair for key, pair in pairs.items() if key not in held}
    if isinstance(network, str) or not missing:
        return
    network = network.to(device_for(models.device))
    with tqdm(
        total=len(missing), desc="LPIPS", disable=None if progress else True, leave=False
    ) as bar:
        for keys, outputs, targets in _groups(missing, at_once):
            made = lpips(network, outputs, targets)
            models.store.put({key: np.array([one]) for key, one in zip(keys, made, strict=True)})
            bar.update(len(keys))


@torch.no_grad()
def lpips(
    network: Any, outputs: Sequence[Image.Image], targets: Sequence[Image.Image]
) -> list[float]:
    """Learned perceptual distances (Zhang et al. 2018), AlexNet, version 0.1; outputs of one size.

    Targets of another size are scaled.
    """
    output_BCHW = torch.cat([unit(output) for output in outputs])
    pairs = zip(targets, outputs, strict=True)
    target_BCHW = torch.cat([unit(scaled(target, output)) for target, output in pairs])
    distance_B = network(output_BCHW.to(network.device), target_BCHW.to(network.device))
    network.reset()  # it would keep every distance
    return distance_B.reshape(-1).tolist()


def no_lpips(output: Image.Image, _: Image.Image) -> str:
    """Say why a pair of output and target has no LPIPS, where `keep_lpips` kept none."""
    if min(output.size) < LPIPS_SIDE:
        return f"pictures below {LPIPS_SIDE} pixels a side have none"
    network = lpips_network()
    assert isinstance(network, str), "a pair that was left out"
    return network


@lru_cache(maxsize=1)
def lpips_network() -> Any:
    """Open torchmetrics' LPIPS once, or say why it cannot be had and what would help."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(
            net_type="alex", reduction="none", normalize=True
        ).eval()
    except ModuleNotFoundError:
        found, cure = "is not installed", "install the torchvision that belongs to your torch"
    except (ImportError, RuntimeError) as error:
        found, cure = f"does not work here ({error})", "install the one that belongs to your torch"
    except OSError as error:
        return f"its AlexNet cannot be fetched ({error}); connect once"
    return f"it is computed with torchvision, which {found}; {cure}"


_Group = tuple[list[str], list[Image.Image], list[Image.Image]]


def _groups(missing: dict[str, tuple[Picture, Picture]], at_once: int) -> Iterator[_Group]:
    """Open pairs one by one and yield them when `at_once` of one size are there, rests last."""
    waiting: dict[tuple[int, int], _Group] = {}
    for key, (output, target) in missing.items():
        one = opened(output)
        if min(one.size) < LPIPS_SIDE:
            continue
        group = waiting.setdefault(one.size, ([], [], []))
        for part, new in zip(group, (key, one, opened(target)), strict=True):
            part.append(new)  # type: ignore[arg-type]
        if len(group[0]) == at_once:
            yield waiting.pop(one.size)
    yield from waiting.values()
