"""Teach groups of layers by low-rank factors: peft's LoRA and DoRA, injected into the base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from customize.adapters.autocast import spare_casts
from customize.errors import BaseModelError
from customize.families.loading.quiet import hush

if TYPE_CHECKING:
    from customize.adapters import LowRank
    from customize.families import Family

_FACTORS = {"lora_A": "lora_A", "lora_B": "lora_B", "lora_magnitude_vector": "magnitude"}


class LowRankFactors:
    """One component's share of a low-rank adapter: the factors of every layer that peft wrapped."""

    def __init__(self, component: str, model: nn.Module) -> None:
        """Collect the layers that peft wrapped in `model`, and make their factors float32."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._component = component
        self._layers = {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
        layers: list[Any] = [*self._layers.values()]
        for layer in layers:
            if not layer.lora_magnitude_vector:  # DoRA computes with its input in float32
                spare_casts(layer)
        for parameter in self.tensors().values():
            parameter.data = parameter.data.float()  # peft took the base's precision
        self._start = {
            n: p.detach().clone() for n, p in self.tensors().items() if n.endswith("magnitude")
        }

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Return the factors A (r, in...), B (out, r...) and, for DoRA, the magnitudes."""
        return {
            f"{self._component}.{canonical(name)}.{ours}": getattr(layer, theirs)["default"].weight
            for name, layer in self._layers.items()
            for theirs, ours in _FACTORS.items()
            if "default" in getattr(layer, theirs)
        }

    def movement(self) -> float:
        """Return the norm of the B factors, which start at zero, and of the magnitudes' change."""
        total = 0.0
        for name, parameter in self.tensors().items():
            if name in self._start:
                total += float((parameter.detach() - self._start[name]).square().sum())
            elif name.endswith("lora_B"):
                total += float(parameter.detach().square().sum())
        return total**0.5

    def take_out(self, model: nn.Module) -> None:
        """Give `model` its own layers back; the factors end."""
        for name, layer in self._layers.items():
            model.set_submodule(name, layer.get_base_layer())
        del self._layers, model.peft_config  # peft's note of what it injected

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Run the wrapped layers alone while inside."""
        for layer in self._layers.values():
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.enable_adapters(True)


def attach(family: Family, method: LowRank, seed: int) -> list[LowRankFactors]:
    """Inject factors into groups of the denoiser and, with a rank for them, the text encoders.

    A starts random by `seed`, B at zero. Raises BaseModelError when the base has no layer of a
    target group.
    """
    denoiser, text_encoders = family.denoiser, family.text_encoders
    names, groups = set[str](), family.profile.layers.groups
    for group in method.targets:
        paths = (name for name, _ in denoiser.named_modules())
        found = [name for name in paths if re.fullmatch(groups.get(group, ""), name)]
        if not found:
            raise BaseModelError(
                f"adapter.targets: this base has no layer of the group {group!r}; expected one",
                "leave the group out",
            )
        names.update(found)
    shared: dict[str, Any] = {"scale": method.scale, "decompose": method.decompose}
    parts = [inject("denoiser", denoiser, names, method.rank, seed, **shared)]
    if method.text_encoder_rank:
        assert text_encoders, "open the family with learns_text=True"
        for further, (component, encoder) in enumerate(text_encoders.items(), start=1):
            paths = [name for name, _ in encoder.named_modules()]
            names = {
                path for path in paths if re.fullmatch(family.text_pattern, f"{component}.{path}")
            }
            rank = method.text_encoder_rank
            parts.append(inject(component, encoder, names, rank, seed + further, **shared))
    return parts


def canonical(name: str) -> str:
    """Drop the level that CLIP text models had before transformers 5 and some still have."""
    return name.removeprefix("text_model.")


def inject(
    component: str,
    model: Any,
    names: set[str],
    rank: int,
    seed: int,
    *,
    scale: float = 1.0,
    decompose: bool = False,
) -> LowRankFactors:
    """Put factors beside the layers `names` of a component's `model`; they change nothing yet."""
    hush()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,  # type: ignore[arg-type]  # any number does
        use_dora=decompose,
        target_modules=sorted(names),
    )
    # manual_seed reaches the model's GPU too; other GPUs are another process's.
    with torch.random.fork_rng({p.device for p in model.parameters() if p.is_cuda}):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    return LowRankFactors(component, model)
