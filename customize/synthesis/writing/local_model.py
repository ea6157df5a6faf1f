"""A writer on this machine: any causal language model of transformers, plain or fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from customize.editing.device import device_for
from customize.errors import SynthesisError
from customize.families.loading.quiet import hush, quiet_loading
from customize.synthesis.provenance import licence_of
from customize.synthesis.writing.few_shot import EXAMPLES, line_prompt
from customize.synthesis.writing.read_answer import read_line_answer
from customize.synthesis.writing.rewrite import Answer

UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)


class LocalWriter:
    """Goes on with the few-shot prompt; one that was fitted needs no examples."""

    waits = False

    def __init__(
        self, model: Any, words: Any, *, name: str, licence: str, fitted: bool, longest: int = 128
    ) -> None:
        """Take a model and its tokenizer; `longest` is in tokens."""
        self._model, self._words, self._longest = model.eval(), words, longest
        self._examples = () if fitted else EXAMPLES
        self.name, self.licence = name, licence

    @torch.no_grad()
    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Sample at temperature 0.7, all captions as one batch; the first seed decides."""
        prompts = [line_prompt(caption, self._examples) for caption in captions]
        tokens = self._words(prompts, return_tensors="pt", padding=True).to(self._model.device)
        devices = [] if self._model.device.type == "cpu" else [self._model.device]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seeds[0])
            made_BL = self._model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                do_sample=True,
                temperature=0.7,
                top_p=1.0,
                top_k=0,
                max_new_tokens=self._longest,
                pad_token_id=self._words.pad_token_id,
            )
        new_BL = made_BL[:, tokens["input_ids"].shape[1] :]
        texts = self._words.batch_decode(new_BL, skip_special_tokens=True)
        return [
            read_line_answer(caption, text) for caption, text in zip(captions, texts, strict=True)
        ]


def open_local(name: str, adapter: Path | None = None, device: str | None = None) -> LocalWriter:
    """Open a model by folder or hub id, with what `fit-writer` learned; raises SynthesisError."""
    model, words = load_model(name, device)
    if adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(adapter))
        except UNREADABLE as error:
            raise unusable(str(adapter), error, "a folder that `fit-writer` wrote for it") from None
    licence = licence_of(Path(name)) if Path(name).is_dir() else "unknown"
    shown = f"{Path(name).name} with {adapter.name}" if adapter else Path(name).name
    return LocalWriter(model, words, name=shown, licence=licence, fitted=adapter is not None)


def load_model(name: str, device: str | None) -> tuple[Any, Any]:
    """Load model and tokenizer, padded on the left; raises SynthesisError for what is neither."""
    hush()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = device_for(device)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    try:
        with quiet_loading():
            words: Any = AutoTokenizer.from_pretrained(name, padding_side="left")
            model: Any = AutoModelForCausalLM.from_pretrained(
                name, use_safetensors=True, dtype=dtype
            )
    except UNREADABLE as error:
        raise unusable(name, error, "a folder or hub id of a causal language model") from None
    if words.pad_token_id is None:
        words.pad_token = words.eos_token
    return model.to(place), words


def unusable(name: str, error: Exception, expected: str) -> SynthesisError:
    """Say that a language model cannot be opened."""
    first = (str(error).splitlines() or [""])[0][:160]
    return SynthesisError(
        f"language model {name!r}: it cannot be opened ({type(error).__name__}: {first}); expected "
        f"{expected}, in safetensors; check the name"
    )
