"""Fit a language model to triplets people wrote: LoRA on {caption, edit, edited caption} rows.

As InstructPix2Pix fitted GPT-3 to 700 rows (Brooks et al. 2023, section 3.1.1); the loss counts the
tokens after `Edit:` alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from customize.adapters.header_facts import shareable
from customize.errors import Fault, PairsError, TrainingError
from customize.families.loading.quiet import quiet_loading
from customize.files import Used, check_place, refuse_existing
from customize.files.disk import naming_disk
from customize.files.lock import in_use
from customize.files.manifest import Manifest
from customize.files.parse import parse_json
from customize.files.text import MOST_TABLE_BYTES, Unreadable, read_text
from customize.files.write import open_to_readers, temporary_folder
from customize.synthesis.writing.captions import LONGEST
from customize.synthesis.writing.few_shot import completed, line_prompt
from customize.synthesis.writing.local_model import load_model
from customize.synthesis.writing.read_answer import one_line
from customize.synthesis.writing.rewrite import Rewrite

KEYS = {
    "caption": ("caption", "input"),
    "instruction": ("edit", "instruction"),
    "edited_caption": ("edited_caption", "edited caption", "output"),
}
"""How rows may call each part; InstructPix2Pix's released files say input, edit, output."""
_RUN = "synthesize fit-writer"
_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")
MOST_ROWS = 1_000_000
IGNORED = -100


@dataclass(frozen=True)
class FitOptions:
    """How a writer is fitted; `epochs` over all rows, `rank` of the LoRA on all linear layers."""

    epochs: int = 3
    batch: int = 8
    learning_rate: float = 2e-4
    rank: int = 16
    longest: int = 256
    seed: int = 0


def read_rows(path: Path) -> list[Rewrite]:
    """Read a JSONL of triplets; raises PairsError with every line that is none."""
    rows, faults = list[Rewrite](), list[Fault]()
    try:
        lines = read_text(path, MOST_TABLE_BYTES).split("\n")
    except Unreadable as error:
        fault = Fault(str(path), error.found, "name a JSONL file of triplets")
        raise PairsError(f"rows {path}", [fault]) from None
    for number, line in enumerate(lines[:MOST_ROWS], 1):
        if line.strip():
            row = _row(line)
            if isinstance(row, str):
                cure = 'write {"caption": ..., "edit": ..., "edited_caption": ...}'
                faults.append(Fault(f"{path}:{number}", row, cure))
            else:
                rows.append(row)
    if faults or not rows:
        none = [Fault(str(path), "no rows", "write one triplet a line")]
        raise PairsError(f"rows {path}", faults[:20] or none)
    return rows


def _row(line: str) -> Rewrite | str:
    try:
        row = parse_json(line) if len(line) <= 8 * LONGEST else None
    except Unreadable as error:
        return error.found
    if not isinstance(row, dict):
        return "no JSON object"
    parts = dict[str, str]()
    for part, names in KEYS.items():
        text = next((row[name] for name in names if isinstance(row.get(name), str)), "")
        if not one_line(text):
            return f"no {part.replace('_', ' ')}"
        parts[part] = one_line(text)
    return Rewrite(**parts)


def fit_writer(
    rows: Sequence[Rewrite],
    model_name: str,
    output: Path,
    options: FitOptions,
    *,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[float]:
    """Fit and write a PEFT folder to `output`; the mean loss of each epoch is returned.

    Raises SynthesisError for a model that cannot be opened, OutputError, TrainingError for a loss
    that is no number.
    """
    check_place(output, [Used("the model", Path(model_name))], folder=True)
    refuse_existing(output, overwrite=overwrite)
    Manifest(output, _RUN).check(_FILES)
    from peft import LoraConfig, get_peft_model

    model, words = load_model(model_name, device)
    # peft writes it into its configuration and README, which are shared
    model.name_or_path = model.config.name_or_path = shareable(model_name)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=options.rank,
            lora_alpha=options.rank,
            target_modules="all-linear",
        )
        learner = get_peft_model(model, config).train()
        losses = _fit(learner, words, rows, options, progress)
    with in_use(output), temporary_folder(output) as made, naming_disk(output), quiet_loading():
        learner.save_pretrained(str(made))
        listed = Manifest(output, _RUN)
        listed.begin_anew(_FILES)
        open_to_readers(made)
        for path in made.iterdir():
            os.replace(path, output / path.name)
        listed.finish()
    return losses


def _fit(
    learner: Any, words: Any, rows: Sequence[Rewrite], options: FitOptions, progress: bool
) -> list[float]:
    learned = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=options.learning_rate, weight_decay=0.0)
    losses = list[float]()
    batches = -(-len(rows) // options.batch) * options.epochs
    with tqdm(total=batches, desc="fit writer", disable=None if progress else True) as bar:
        for epoch in range(options.epochs):
            found = list[float]()
            for ids_BL, labels_BL in _batches(rows, words, options, epoch):
                loss = _loss(learner, ids_BL, labels_BL)
                if not torch.isfinite(loss):
                    raise TrainingError("the loss is no number; lower the learning rate (--rate)")
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learned, 1.0)
                optimizer.step()
                found.append(float(loss.detach()))
                bar.set_postfix_str(f"loss {found[-1]:.3f}", refresh=False)
                bar.update()
            losses.append(float(np.mean(found)))
    return losses


def _loss(learner: Any, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Cross-entropy of the next token, over those whose label is not ignored."""
    place = next(learner.parameters()).device
    logits_BLV = learner(input_ids=ids_BL.to(place)).logits[:, :-1].float()
    return F.cross_entropy(
        logits_BLV.flatten(0, 1), labels_BL[:, 1:].to(place).flatten(), ignore_index=IGNORED
    )


def _batches(
    rows: Sequence[Rewrite], words: Any, options: FitOptions, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    order = np.random.default_rng((options.seed, epoch)).permutation(len(rows))
    for start in range(0, len(rows), options.batch):
        chosen = [rows[index] for index in order[start : start + options.batch]]
        yield padded([tokens_of(row, words, options.longest) for row in chosen])


def tokens_of(row: Rewrite, words: Any, longest: int) -> tuple[list[int], list[int]]:
    """Return a row's token ids and labels: the prompt is given, the rest is learned."""
    prompt = words(line_prompt(row.caption, ()))["input_ids"]
    whole = words(completed(row) + "\n")["input_ids"]
    if whole and whole[-1] != words.eos_token_id:
        whole = [*whole, words.eos_token_id]
    shared = next(
        (n for n, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt)
    )
    labels = [IGNORED] * shared + whole[shared:]
    return whole[:longest], labels[:longest]


def padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """Pad on the right, where causal attention never looks, to (B, L) ids and labels."""
    length = max(len(ids) for ids, _ in rows)
    ids = [ids + [0] * (length - len(ids)) for ids, _ in rows]
    labels = [labels + [IGNORED] * (length - len(labels)) for _, labels in rows]
    return torch.tensor(ids), torch.tensor(labels)
