"""Keep other libraries' import-time notices from users, who can do nothing about them.

Importing diffusers imports peft, which imports bitsandbytes, which looks for kernels that this
project does not use; transformers says twice that torchvision is missing although its PIL
processors serve as well.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOTICES = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "transformers": "requires torchvision (not installed)",
    "transformers.utils.import_utils": "requires torchvision (not installed)",
}


def hush() -> None:
    """Drop exactly these notices; call it before first importing diffusers, peft, transformers."""
    for name, start in _NOTICES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Drop) for f in logger.filters):
            logger.addFilter(_Drop(start))


class _Drop(logging.Filter):
    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def filter(self, record: logging.LogRecord) -> bool:
        return self._part not in record.msg


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load models without the libraries' progress bars, which end before anyone reads them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = [
        m for m in (diffusers_logging, transformers_logging) if m.is_progress_bar_enabled()
    ]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()


@contextmanager
def errors_only() -> Iterator[None]:
    """Hear only errors of the libraries while inside: for files that are then checked anyway."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        with quiet_loading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
