"""Where a base is opened: the device asked for, or the best there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from customize.errors import EditError

if TYPE_CHECKING:
    import torch


def device_for(device: torch.device | str | None) -> torch.device:
    """Return the device asked for, for None the best there is; raises EditError if not here."""
    import torch

    if device is None:
        usable = torch.accelerator.is_available()
        found = torch.accelerator.current_accelerator() if usable else None
        return found or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise EditError(
            f"device {device}: it cannot be used here ({first}); expected cuda, mps or cpu; "
            "leave it out for the best there is"
        ) from None
