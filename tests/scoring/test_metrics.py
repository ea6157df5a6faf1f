"""Scores are what torchmetrics and transformers give, called directly on the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as tm_image
from builders.scores import CLIP, NEAR, toy_dino
from PIL import Image
from torchmetrics.functional.multimodal import clip_score
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    Dinov2Model,
)

from customize.embedded.world.edits import random_edit
from customize.errors import PairsError, ScoreError
from customize.families.base import EMBEDDED
from customize.scoring import open_models, score_edits
from customize.scoring.items import METRICS, Item, MetricName, Models
from customize.scoring.metrics import pixels

COUNT = 5


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """Edits of the drawn world whose outputs are halfway between source and target."""
    drawn = [random_edit((40, index), test=True, kind="recolor") for index in range(COUNT)]
    return [
        Item(
            source=Image.fromarray(edit.source_HWC),
            instruction=edit.instruction,
            output=Image.fromarray(edit.source_HWC // 4 + edit.target_HWC // 4 * 3),
            target=Image.fromarray(edit.target_HWC),
            source_caption=edit.source_caption,
            target_caption=edit.target_caption,
            mask=Image.fromarray(
                np.where((edit.source_HWC != edit.target_HWC).any(-1), 255, 0).astype(np.uint8)
            ),
            references=tuple(Image.fromarray(other.target_HWC) for other in drawn[:3]),
        )
        for edit in drawn
    ]


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dino(tmp_path_factory.mktemp("dino"), "dinov2")


@pytest.fixture(scope="module")
def models(dino_folder: Path) -> Models:
    return open_models("embedded", str(dino_folder), device="cpu")


@pytest.fixture(scope="module")
def rows(items: list[Item], models: Models) -> Any:
    return score_edits(items, models).rows


class _Embedded:
    """The CLIP as torchmetrics calls it, which expects transformers 4: plain tensors."""

    def __init__(self) -> None:
        self.model: Any = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
        self.config = self.model.config

    def to(self, device: object) -> _Embedded:
        return self

    def get_image_features(self, pixel_values: torch.Tensor) -> Any:
        return self.model.get_image_features(pixel_values=pixel_values).pooler_output

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def _processor(text: Any = None, images: Any = None, **options: Any) -> Any:
    if text is not None:
        return AutoTokenizer.from_pretrained(CLIP)(text, **options)
    options.pop("padding")
    return AutoImageProcessor.from_pretrained(CLIP)(images, **options)


@lru_cache(maxsize=1)
def _embedded() -> _Embedded:
    return _Embedded()


def _torchmetrics(one: Any, other: Any) -> float:
    opened: Any = lambda: (_embedded(), _processor)  # noqa: E731
    with torch.no_grad():
        found: Any = clip_score(one, other, opened)
    return float(found) / 100


def _tensor(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_clip_similarities_are_torchmetrics_clip_score(items: list[Item], rows: Any) -> None:
    assert len(rows) == COUNT
    for item, row in zip(items, rows, strict=True):
        output = _tensor(item.output)
        text = _torchmetrics(output, item.target_caption)
        assert row["clip_text"] == pytest.approx(text, abs=NEAR)
        image = _torchmetrics(_tensor(item.source), output)
        assert row["clip_image"] == pytest.approx(image, abs=NEAR)


def test_clip_concept_is_the_mean_of_torchmetrics_clip_scores(
    items: list[Item], rows: Any, models: Models
) -> None:
    for item, row in zip(items, rows, strict=True):
        alone = [replace(item, references=(picture,)) for picture in item.references]
        cosines = score_edits(alone, models, ["clip_concept"]).values("clip_concept")
        assert row["clip_concept"] == pytest.approx(np.mean(cosines), abs=1e-6)
        for one, cosine in zip(alone, cosines, strict=True):
            expected = _torchmetrics(_tensor(item.output), _tensor(one.references[0]))
            # torchmetrics gives 0 for what is below
            assert max(0, cosine) == pytest.approx(expected, abs=NEAR)


def test_directions_are_those_of_transformers_alone(items: list[Item], rows: Any) -> None:
    model: Any = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
    for item, row in zip(items, rows, strict=True):
        pictures = _processor(images=[item.source, item.output], return_tensors="pt", padding=True)
        texts = _processor(
            [item.source_caption, item.target_caption, item.instruction],
            return_tensors="pt",
            padding=True,
        )
        with torch.no_grad():
            found = model(**pictures, **texts)
        before, after = F.normalize(found.image_embeds, dim=-1)
        was, becomes, told = F.normalize(found.text_embeds, dim=-1)
        direction = torch.cosine_similarity(after - before, becomes - was, dim=0)
        assert row["clip_direction"] == pytest.approx(float(direction), abs=NEAR)
        instruction = torch.cosine_similarity(after - before, told, dim=0)
        assert row["clip_instruction"] == pytest.approx(float(instruction), abs=NEAR)
        assert row["clip_direction"] > 0.2, "the embedded CLIP sees where these edits go"


def test_dino_is_that_of_transformers_alone(
    items: list[Item], rows: Any, dino_folder: Path
) -> None:
    model: Any = Dinov2Model.from_pretrained(dino_folder).eval()
    process = AutoImageProcessor.from_pretrained(dino_folder)
    for item, row in zip(items, rows, strict=True):
        seen = process([item.output, *item.references], return_tensors="pt")
        with torch.no_grad():
            output_D, *known = model(**seen).pooler_output
        cosines = [float(torch.cosine_similarity(output_D, one, dim=0)) for one in known]
        assert row["dino_concept"] == pytest.approx(np.mean(cosines), abs=NEAR)


def test_a_vit_dino_opens_without_its_pooler(
    items: list[Item], tmp_path: Path, recwarn: Any
) -> None:
    folder = toy_dino(tmp_path / "vit", "vit")
    models = open_models(None, str(folder), device="cpu")
    values = score_edits(items, models, ["dino_concept"]).values("dino_concept")
    assert len(values) == COUNT
    assert all(-1 <= value <= 1 for value in values)


def test_pixel_metrics_are_torchmetrics_own(items: list[Item], rows: Any) -> None:
    for item, row in zip(items, rows, strict=True):
        output, target = (_tensor(p)[None] / 255 for p in (item.output, item.target))
        psnr = tm_image.peak_signal_noise_ratio(output, target, data_range=1.0)
        assert row["psnr"] == pytest.approx(float(psnr), abs=NEAR)
        ssim: Any = tm_image.structural_similarity_index_measure(output, target, data_range=1.0)
        assert row["ssim"] == pytest.approx(float(ssim), abs=NEAR)


def test_change_outside_the_mask(items: list[Item], rows: Any) -> None:
    for item, row in zip(items, rows, strict=True):
        change = np.abs(np.asarray(item.output) / 255 - np.asarray(item.source) / 255).mean(-1)
        outside = np.asarray(item.mask) == 0
        assert row["outside_change"] == pytest.approx(change[outside].mean(), abs=1e-6)


def test_known_answers(items: list[Item], models: Models) -> None:
    copies = [Item(i.source, i.instruction, i.source, i.source, "a dog", "a cat") for i in items]
    scores = score_edits(copies, models)
    assert scores.mean("clip_image") == pytest.approx(1)
    assert scores.mean("clip_direction") == 0, "a copy goes nowhere"
    assert scores.mean("psnr") == pixels.BEST_DB
    assert scores.mean("ssim") == pytest.approx(1, abs=1e-3)


def test_what_is_missing_is_said_and_what_was_asked_for_is_refused(
    items: list[Item], models: Models
) -> None:
    bare = [Item(item.source, item.instruction, item.output) for item in items]
    scores = score_edits([*bare, items[0]], models)
    assert "clip_direction" in scores.rows[-1]
    assert all("clip_direction" not in row for row in scores.rows[:-1])
    [note] = [note for note in scores.notes if note.startswith("clip_direction")]
    assert note.startswith("clip_direction is left out for 5 of 6 edits: it needs captions")
    with pytest.raises(ScoreError, match="asked for and no edit has it: it needs captions"):
        score_edits(bare, models, ["clip_direction"])
    with pytest.raises(ScoreError, match="it needs a target"):
        score_edits(bare, models, ["psnr"])
    with pytest.raises(ScoreError, match="no DINO was named"):
        score_edits(items, Models(models.clip, None, models.store), ["dino_concept"])
    with pytest.raises(ScoreError, match="no edits to score; expected at least one"):
        score_edits([], models)
    wrong: Any = ["clip_directon"]
    with pytest.raises(ScoreError, match="did you mean 'clip_direction'"):
        score_edits(items, models, wrong)
    same = [Item(i.source, i.instruction, i.output, None, "a dog", "a dog") for i in items]
    with pytest.raises(ScoreError, match="captions are the same"):
        score_edits(same, models, ["clip_direction"])


def _not_again(*_: object) -> Any:
    raise AssertionError("seen twice")


def test_answers_are_kept_and_pictures_seen_once(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache.sqlite"
    names: list[MetricName] = ["clip_image", "clip_direction", "psnr", "ssim"]
    first = score_edits(items, open_models(cache=cache, device="cpu"), names)
    again = open_models(cache=cache, device="cpu")
    assert again.clip is not None
    blind: Any = SimpleNamespace(
        fingerprint=again.clip.fingerprint, image_BD=_not_again, text_BD=_not_again
    )
    monkeypatch.setattr(pixels, "psnr", _not_again)
    second = score_edits(items, Models(blind, None, again.store), names)
    assert len(first.rows) == COUNT
    for one, other in zip(first.rows, second.rows, strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-5)
    other_model: Any = SimpleNamespace(fingerprint="other", image_BD=_not_again, text_BD=_not_again)
    with pytest.raises(AssertionError, match="seen twice"):
        score_edits(items, Models(other_model, None, again.store), names)


def test_files_and_pictures_in_memory_score_alike(
    items: list[Item], models: Models, tmp_path: Path
) -> None:
    item = items[0]
    assert isinstance(item.source, Image.Image)
    assert isinstance(item.output, Image.Image)
    item.source.save(tmp_path / "a.png")
    item.output.save(tmp_path / "b.png")
    on_disk = Item(tmp_path / "a.png", item.instruction, str(tmp_path / "b.png"))
    names: list[MetricName] = ["clip_image", "clip_instruction"]
    one, other = score_edits([item, on_disk], models, names).rows
    assert dict(one) == pytest.approx(dict(other), abs=1e-6)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(PairsError, match=r"b\.png.*not a picture"):
        score_edits([on_disk], models, names)


def _folders_that_are_no_clip(tmp_path: Path, dino: Path) -> Iterator[tuple[str, str]]:
    yield str(tmp_path / "none"), "no such folder and it is no hub id"
    (tmp_path / "empty").mkdir()
    yield str(tmp_path / "empty"), "config.json is missing"
    yield str(EMBEDDED), "name its clip/ folder"
    yield str(dino), "a model of type 'dinov2'"
    yield "someone/unheard-of-clip", "not in the local cache and the hub cannot be reached"


def test_folders_that_are_no_clip(tmp_path: Path, dino_folder: Path) -> None:
    tried = list(_folders_that_are_no_clip(tmp_path, dino_folder))
    assert len(tried) == 5
    for name, expected in tried:
        with pytest.raises(ScoreError, match="expected 'embedded', a CLIP folder") as caught:
            open_models(name)
        assert expected in str(caught.value)


def test_every_metric_is_told_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text("utf-8")
    assert len(METRICS) == 13
    for metric in METRICS:
        assert f"`{metric.name}`" in text
