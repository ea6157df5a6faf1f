"""Merged files do what their inputs do together: against peft, on real toy bases, atomically."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.bases import shake, toy_header, toy_resolved, toy_xl_base
from safetensors import safe_open
from torch import Tensor

from customize import families
from customize.adapters import CrossAttentionKV, LowRank, attach
from customize.adapters import Method as Adapter
from customize.adapters.deltas import layers, weight_delta, weight_deltas
from customize.adapters.factors import Limits
from customize.adapters.file import read_adapter, save_adapter, stream_adapter
from customize.adapters.header import Taught
from customize.cli.main import main
from customize.errors import MergeError, OutputExistsError
from customize.families.base import Base, resolve_base
from customize.families.loading.layer_weights import BaseWeights
from customize.families.words import Word
from customize.merging import size
from customize.merging.constrained import merge_layers
from customize.merging.constrained.constraints import Rows
from customize.merging.constrained.instruction_rows import InstructionTexts, read_texts
from customize.merging.inputs import open_inputs
from customize.merging.job import open_job
from customize.merging.merge_files import merge
from customize.merging.methods import Concat, Constrained, Dare, Linear, MergeMethod, Svd, Ties

EVERY_GROUP = ("attention", "convolutions", "feed_forward")
LORA = LowRank(rank=2, alpha=3.0, targets=EVERY_GROUP, text_encoder_rank=1)
DORA = LowRank(rank=3, decompose=True, targets=("attention",), text_encoder_rank=2)
PLAIN = LowRank(rank=2, targets=("attention",))
ADAPTERS: dict[str, Adapter] = {"kv": CrossAttentionKV(), "lora": LORA, "dora": DORA}
EXACT: dict[str, MergeMethod] = {
    "linear": Linear(),
    "concat": Concat(),
    "svd": Svd(),
    "ties": Ties(density=1),
    "dare": Dare(density=1),
}
ALONE: dict[str, MergeMethod] = {**EXACT, "constrained": Constrained(), "cut": Constrained()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return toy_resolved(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def files(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one adapter of each kind, with a word of its own, for the toy base."""
    folder = tmp_path_factory.mktemp("adapters")
    made: dict[str, Path] = {}
    for seed, (name, method) in enumerate(ADAPTERS.items()):
        made[name] = _taught(folder / f"{name}.safetensors", base, method, f"<{name}>", seed)
    return made


def _taught(path: Path, base: Base, method: Adapter, word: str, seed: int, **header: Any) -> Path:
    """Attach, pretend to train, and save."""
    family = families.open_family(base, learns_text=True)
    attached = attach(family, method, [Word(word, "dog", 2)], seed=seed)
    shake(attached, seed)
    facts: dict[str, Any] = {
        "base_name": base.name,
        "base_fingerprint": base.fingerprint,
        "concepts": (Taught(word.strip("<>"), word, "dog", 2, (f"add {word}",)),),
    }
    if isinstance(method, LowRank):
        facts |= {"rank": method.rank, "alpha": method.alpha, "decompose": method.decompose}
    return save_adapter(path, toy_header(**(facts | header)), attached.state())


def _changes(path: Path, base: Base) -> dict[str, Tensor]:
    return dict(weight_deltas(read_adapter(path), BaseWeights(base).__getitem__))


def _sum(paths: Sequence[Path], base: Base, weights: Sequence[float]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for path, weight in zip(paths, weights, strict=True):
        for layer, change in _changes(path, base).items():
            total[layer] = total.get(layer, torch.zeros_like(change)) + weight * change
    return total


def _assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], near: float) -> None:
    assert found.keys() == expected.keys()
    for layer, change in expected.items():
        torch.testing.assert_close(found[layer], change, rtol=1e-5, atol=near, msg=layer)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_merge_of_one_is_that_one(
    name: str, kind: str, base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    limits = Limits(error=1e-6) if name == "cut" else None
    merged = merge([files[kind]], tmp_path / "m.safetensors", ALONE[name], limits=limits)
    assert max(merged.missed, default=0.0) == 0
    _assert_equal(_changes(merged.path, base), _changes(files[kind], base), 2e-6)
    words = {n: t for n, t in read_adapter(files[kind]).tensors.items() if n.startswith("words.")}
    assert words
    for word, rows in words.items():
        assert torch.equal(read_adapter(merged.path).tensors[word], rows)


@pytest.mark.parametrize("method", [Linear(), Concat(), Svd()])
def test_mixtures_add_up_exactly(
    method: MergeMethod, base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    paths, weights = list(files.values()), [0.5, 1.0, -2.0]
    merged = merge(paths, tmp_path / "m.safetensors", method, weights=weights)
    assert merged.header.method == "merged"
    _assert_equal(_changes(merged.path, base), _sum(paths, base, weights), 1e-5)


def test_concat_stays_low_rank_where_inputs_are(base: Base, tmp_path: Path) -> None:
    one = _taught(tmp_path / "1.safetensors", base, PLAIN, "<one>", 1)
    two = _taught(tmp_path / "2.safetensors", base, replace(PLAIN, rank=3), "<two>", 2)
    tensors = read_adapter(merge([one, two], tmp_path / "m.safetensors", Concat()).path).tensors
    ranks = {t.shape[0] for name, t in tensors.items() if name.endswith("lora_A")}
    assert ranks == {5}
    assert not any(name.endswith("delta") for name in tensors)


def test_a_sum_stays_low_rank_while_that_is_smaller(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    large = _taught(tmp_path / "1.safetensors", base, replace(PLAIN, rank=4), "<one>", 1)
    small = _taught(tmp_path / "2.safetensors", base, PLAIN, "<two>", 2)
    merged = merge([large, small], tmp_path / "m.safetensors", Linear(), weights=[0.5, -2.0])
    tensors = read_adapter(merged.path).tensors
    layers = {name.rpartition(".")[0] for name in tensors if name.startswith("denoiser")}
    for layer in layers:
        if f"{layer}.delta" in tensors:
            whole = tensors[f"{layer}.delta"].numel()
            side = sum(tensors[f"{layer}.delta"].flatten(1).shape)
            assert 6 * side >= whole, layer
        else:
            assert tensors[f"{layer}.lora_A"].shape[0] == 6
    assert {name.rpartition(".")[2] for name in tensors} >= {"lora_A", "lora_B"}
    _assert_equal(_changes(merged.path, base), _sum([large, small], base, [0.5, -2.0]), 1e-5)
    together = large.stat().st_size + small.stat().st_size
    assert merged.path.stat().st_size < 1.2 * together

    monkeypatch.setattr(size, "FROM", 0)
    monkeypatch.setattr(size, "MUCH", 0)
    merge([large, small], tmp_path / "whole.safetensors", Ties())
    assert "full weights; --rank" in caplog.text
    expected = sum(
        size.elements(layer, Ties(), Limits()) for layer in open_job([large, small]).layers()
    )
    written = read_adapter(tmp_path / "whole.safetensors").tensors
    assert expected == sum(t.numel() for n, t in written.items() if not n.startswith("words."))


@pytest.mark.parametrize("method", [*EXACT.values(), Ties(), Dare(seed=3), Dare(then="ties")])
def test_order_of_files_does_not_matter(
    method: MergeMethod, base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    orders = [list(files.values()), list(reversed(files.values()))]
    outputs = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    there, back = (merge(o, path, method).path for o, path in zip(orders, outputs, strict=True))
    _assert_equal(_changes(there, base), _changes(back, base), 1e-5)


def _peft_file(path: Path, base: Base, seed: int, **options: Any) -> dict[str, Tensor]:
    """Have peft teach the toy UNet, save what it learned as our file, and return its own merge."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    unet = families.open_family(base).denoiser
    before = {n: p.clone() for n, p in unet.state_dict().items()}
    rank, alpha = 4, 6.0
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=["to_q", "to_k", "to_v", "conv1", "proj_in"],
        **options,
    )
    model: Any = LoraModel(unet, config, "default")
    tensors: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    kinds = {"lora_A": "lora_A", "lora_B": "lora_B", "lora_magnitude_vector": "magnitude"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            kind = next((ours for theirs, ours in kinds.items() if f".{theirs}." in name), None)
            if kind:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
                layer = name.removeprefix("model.").split(".lora_")[0]
                tensors[f"denoiser.{layer}.{kind}"] = parameter.clone()
    scale = alpha / (rank**0.5 if options.get("use_rslora") else rank)
    facts = {"rank": rank, "alpha": scale * rank, "base_fingerprint": base.fingerprint}
    save_adapter(path, toy_header(**facts, base_name=base.name), tensors)
    after = model.merge_and_unload().state_dict()
    assert after.keys() == before.keys()
    changed = {n: after[n] - before[n] for n in before if not torch.equal(after[n], before[n])}
    return {f"denoiser.{n.removesuffix('.weight')}": change for n, change in changed.items()}


@pytest.mark.parametrize("method", [Linear(), Concat(), Svd()])
def test_dora_and_rslora_give_what_peft_merges_into_weights(
    method: MergeMethod, base: Base, tmp_path: Path
) -> None:
    kinds = [{"use_dora": True}, {"use_rslora": True}, {}]
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    expected: dict[str, Tensor] = {}
    for seed, (path, options) in enumerate(zip(paths, kinds, strict=True)):
        for layer, change in _peft_file(path, base, seed, **options).items():
            expected[layer] = expected.get(layer, torch.zeros_like(change)) + 0.7 * change
    assert len(expected) > 20
    merged = merge(paths, tmp_path / "m.safetensors", method, weights=[0.7] * 3)
    _assert_equal(_changes(merged.path, base), expected, 1e-5)


@pytest.mark.parametrize("limits", [Limits(rank=1), Limits(energy=0.7), Limits(error=0.2)])
@pytest.mark.parametrize("method", [Linear(), Concat(), Ties(), Constrained()])
def test_limits_cut_every_layer_and_say_the_loss(
    method: MergeMethod, limits: Limits, base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    paths = [files["kv"], files["lora"]]
    whole = _changes(merge(paths, tmp_path / "w.safetensors", method).path, base)
    merged = merge(paths, tmp_path / "m.safetensors", method, limits=limits)
    tensors = read_adapter(merged.path).tensors
    assert not any(name.endswith("delta") for name in tensors)
    if limits.rank:
        assert {t.shape[0] for n, t in tensors.items() if n.endswith("lora_A")} == {limits.rank}
    assert merged.losses.keys() == whole.keys()
    for layer, change in _changes(merged.path, base).items():
        lost = float((change - whole[layer]).norm() / whole[layer].norm())
        assert merged.losses[layer] == pytest.approx(lost, abs=1e-4)
    told, losses = merged.header.training, merged.losses.values()
    assert told["loss_of_truncation"] == pytest.approx(max(losses))
    assert told["mean_loss_of_truncation"] == pytest.approx(sum(losses) / len(losses))


def test_constraints_are_kept_on_text_layers_and_said_elsewhere(
    base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    asked = [torch.randn(3, 16, generator=generator) for _ in range(2)]
    texts = InstructionTexts(
        tuple(Rows(r, r) for r in asked), torch.randn(40, 16, generator=generator)
    )
    paths = [files["kv"], files["lora"]]
    merged = merge(paths, tmp_path / "m.safetensors", Constrained(ridge=1e-6), texts=texts)
    found, ones = _changes(merged.path, base), [_changes(path, base) for path in paths]
    profile = families.profile_of(base.family)
    text_layers = [layer for layer in found if profile.reads_text_alone(layer)]
    assert len(text_layers) == len(ones[0])
    assert max(merged.missed) < 1e-4
    for layer, (own, rows) in itertools.product(text_layers, zip(ones, asked, strict=True)):
        kept, wanted = found[layer] @ rows.T, own[layer] @ rows.T
        assert float((kept - wanted).norm() / wanted.norm()) < 1e-4, layer
    others = {layer for layer in found if layer not in text_layers}
    assert set(merged.otherwise) == {layer for layer in others if layer.startswith("denoiser.")}
    for layer in others:
        torch.testing.assert_close(found[layer], ones[1][layer], rtol=1e-5, atol=1e-6)


def test_constraints_that_agree_are_kept_where_texts_share_rows(
    base: Base, files: dict[str, Path], tmp_path: Path
) -> None:
    """Start token and padding are in all instructions: one change for all is what all ask for."""
    paths = list[Path]()
    for name in ("kv", "lora", "dora"):
        own, kv = read_adapter(files[name]), read_adapter(files["kv"])
        tensors = {k: t for k, t in kv.tensors.items() if k.endswith("delta")}
        tensors |= {k: t for k, t in own.tensors.items() if k.startswith("words.")}
        header = replace(kv.header, concepts=own.header.concepts)
        paths.append(save_adapter(tmp_path / name, header, tensors))
    agreed = merge(paths, tmp_path / "agreed", Constrained())
    assert max(agreed.missed) < 1e-4
    assert max(merge(paths, tmp_path / "by hand", Constrained(ridge=0.1)).missed) > 1e-3
    quarrel = merge(paths, tmp_path / "quarrel", Constrained(), weights=[1, 1, -1])
    assert max(quarrel.missed) > 1e-3
    blind = merge(paths, tmp_path / "blind", Constrained(ridge=1e-8), weights=[1, 1, -1])
    norms = [float(_flat(path, base).norm()) for path in (quarrel.path, blind.path)]
    assert norms[0] < 0.2 * norms[1], "what cannot be kept is averaged, not blown up"


def _flat(path: Path, base: Base) -> Tensor:
    return torch.cat([change.flatten() for change in _changes(path, base).values()])


def test_a_taught_text_encoder_is_read_as_each_input_taught_it(
    base: Base, files: dict[str, Path]
) -> None:
    """Rows `alone` are what the input's own text encoder gives, by diffusers' whole pipeline."""
    from customize.adapters.apply import apply_adapters

    paths = [files["lora"], files["kv"]]
    job = open_job(paths)
    merged = {
        f"{layer}.delta": change
        for layer, change in _changes(paths[0], base).items()
        if layer.startswith("text_encoder.")
    }
    texts = read_texts(job.base, job.inputs, job.vocabulary, merged)
    pipeline = families.open_pipeline(base)
    for path, rows in zip(paths, texts.asked, strict=True):
        adapters = [(read_adapter(path), 1.0)]
        applied = apply_adapters(pipeline, adapters)
        word = path.stem
        prompts = [f"add <{word}> <{word}>_1", f"<{word}> <{word}>_1"]
        ids = pipeline.tokenizer(
            prompts, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            expected = pipeline.text_encoder(ids)[0].flatten(0, 1)
        applied.remove()
        torch.testing.assert_close(rows.alone, expected, rtol=1e-5, atol=1e-5)
    lora, kv = texts.asked
    torch.testing.assert_close(lora.merged, lora.alone, rtol=1e-5, atol=1e-5)
    assert float((kv.merged - kv.alone).abs().max()) > 1e-3


@pytest.mark.parametrize("limits", [Limits(), Limits(rank=1)], ids=["whole", "cut"])
def test_constraints_are_solved_for_the_text_encoder_that_is_stored(
    limits: Limits, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[dict[str, Tensor]]()

    def reading(base: Base, inputs: Any, vocabulary: Any, merged_text: Any) -> InstructionTexts:
        read.append(dict(merged_text))
        return read_texts(base, inputs, vocabulary, merged_text)

    monkeypatch.setattr(merge_layers, "read_texts", reading)
    paths = [files["lora"], files["dora"]]
    stored = read_adapter(
        merge(paths, tmp_path / "m.safetensors", Constrained(), limits=limits).path
    )
    changes = [layer for layer in layers(stored) if layer.startswith("text_encoder.")]
    assert len(changes) > 3
    assert {f"{layer}.delta" for layer in changes} == read[0].keys()
    for layer in changes:
        told = read[0][f"{layer}.delta"]
        found = weight_delta(stored, layer, torch.zeros_like(told))
        torch.testing.assert_close(told, found, rtol=1e-5, atol=1e-6)


def test_constrained_works_from_the_command_line_alone(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "merged.safetensors"
    given = [f"{files['kv']}:0.5", *map(str, (files["lora"], files["dora"]))]
    assert main(["merge", *given, "-o", str(output)]) == 0
    told = capsys.readouterr().out
    for expected in ("missed by", "layers that read more than text", "kv, word <kv>"):
        assert expected in told
    header = read_adapter(output).header
    assert [concept.word for concept in header.concepts] == ["<kv>", "<lora>", "<dora>"]
    training = header.training
    assert training["merged_by"] == "constrained"
    assert [one["weight"] for one in training["inputs"]] == [0.5, 1.0, 1.0]
    assert all(len(one["sha256"]) == 64 for one in training["inputs"])
    assert main(["inspect", str(output)]) == 0
    assert main(["merge", *given, "-o", str(output)]) == 2
    assert "there already" in capsys.readouterr().err


def test_words_that_clash_are_renamed_aloud(base: Base, tmp_path: Path) -> None:
    one = _taught(tmp_path / "1.safetensors", base, PLAIN, "<dog>", 1)
    two = _taught(tmp_path / "2.safetensors", base, PLAIN, "<Dog>", 2)
    with pytest.warns(UserWarning, match="'<Dog-2>': write that in instructions"):
        merged = merge([one, two], tmp_path / "m.safetensors", Concat())
    tensors = read_adapter(merged.path).tensors
    for path, old, new in ((one, "<dog>", "<dog>"), (two, "<Dog>", "<Dog-2>")):
        rows = read_adapter(path).tensors[f"words.text_encoder.{old}"]
        assert torch.equal(tensors[f"words.text_encoder.{new}"], rows)
    assert merged.renamed == ({}, {"<Dog>": "<Dog-2>"})
    told = {(c.word, c.instructions) for c in merged.header.concepts}
    assert told == {("<dog>", ("add <dog>",)), ("<Dog-2>", ("add <Dog-2>",))}


def test_one_word_with_equal_rows_stays_one(files: dict[str, Path], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = merge([files["kv"], files["kv"]], tmp_path / "m.safetensors", Linear())
    assert [concept.word for concept in merged.header.concepts] == ["<kv>"]
    assert sum(name.startswith("words.") for name in read_adapter(merged.path).tensors) == 1


def test_concepts_of_one_name_stay_two(base: Base, tmp_path: Path) -> None:
    taught = [(Taught("style", None, None, 1, (text,)),) for text in ("make it a", "make it b")]
    one = _taught(tmp_path / "1.safetensors", base, PLAIN, "<a>", 1, concepts=taught[0])
    two = _taught(tmp_path / "2.safetensors", base, PLAIN, "<b>", 2, concepts=taught[1])
    with pytest.warns(UserWarning, match="listed as 'style-2'"):
        merged = merge([one, two], tmp_path / "m.safetensors", Concat())
    assert [concept.name for concept in merged.header.concepts] == ["style", "style-2"]


def test_inputs_are_told_by_their_runs_names(base: Base, tmp_path: Path) -> None:
    """Every run's file is called `adapter`: pairs of one must not hide those of another."""
    paths = [tmp_path / name / "adapter.safetensors" for name in ("one/dog", "two/dog", "cat")]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        _taught(path, base, PLAIN, f"<{seed}>", seed, pairs={"dog/1.png": str(seed)})
    header = merge(paths, tmp_path / "m.safetensors", Linear()).header
    names = ["dog", "dog (2)", "cat"]
    assert [one["name"] for one in header.training["inputs"]] == names
    assert header.pairs == {f"{name}/dog/1.png": str(n) for n, name in enumerate(names)}


def test_a_failed_merge_leaves_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    bad = InstructionTexts((Rows(torch.ones(1, 3), torch.ones(1, 3)),) * 2, torch.ones(1, 4))
    with pytest.raises(RuntimeError):
        merge([files["kv"], files["lora"]], output, Constrained(), texts=bad)
    assert list(tmp_path.iterdir()) == []
    output.write_text("mine")
    with pytest.raises(OutputExistsError):
        merge([files["kv"]], output, Linear())
    assert output.read_text() == "mine"
    merge([files["kv"]], output, Linear(), overwrite=True)
    assert read_adapter(output).header.method == "merged"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_streamed_files_are_what_the_library_reads(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "denoiser.a.delta": torch.randn(3, 5),
        "denoiser.b.lora_A": torch.randn(1, 3, 3, 3).transpose(2, 3),
        "denoiser.b.lora_B": torch.randn(2, 1, 1, 1),
        'words.text_encoder.<a"b>': torch.randn(2, 7),
    }
    seen: list[str] = []

    def one_by_one():
        for name, tensor in tensors.items():
            seen.append(name)
            yield name, tensor

    header = toy_header(method="merged")
    path = tmp_path / "a.safetensors"
    stream_adapter(path, lambda: replace(header, rank=len(seen)), one_by_one(), dtype=dtype)
    found = read_adapter(path)
    assert found.header == replace(header, rank=4)
    assert set(found.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor.to(dtype))
    with safe_open(path, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in tensors} == {dtype}
    with pytest.raises(OutputExistsError):
        stream_adapter(path, lambda: header, one_by_one(), dtype=dtype)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_weights_must_be_numbers_one_for_each(files: dict[str, Path]) -> None:
    for weights in ([1.0], [1.0, float("nan")]):
        with pytest.raises(MergeError, match="a finite number for each"):
            open_inputs([files["kv"], files["lora"]], weights)


def test_two_text_encoders_are_read_with_the_words_of_both(tmp_path: Path) -> None:
    """On an SDXL base every input's words and text encoders count; one alone is kept."""
    base = resolve_base(str(toy_xl_base(tmp_path / "base")))
    method = LowRank(rank=2, targets=("cross_attention",), text_encoder_rank=1)
    header = {"family": base.family}
    paths = [
        _taught(tmp_path / f"{n}.safetensors", base, m, f"<{n}>", seed, **header)
        for seed, (n, m) in enumerate({"kv": CrossAttentionKV(), "lora": method}.items())
    ]
    merged = merge(paths, tmp_path / "m.safetensors", Constrained(ridge=1e-9))
    names = set(read_adapter(merged.path).tensors)
    for encoder in ("text_encoder", "text_encoder_2"):
        assert {f"words.{encoder}.<kv>", f"words.{encoder}.<lora>"} <= names
        assert any(name.startswith(f"{encoder}.encoder.layers.0.") for name in names)
    assert all(layer.startswith("denoiser.") for layer in merged.otherwise)
    assert merged.missed[0] < merged.missed[1]  # the greater change wins where texts are alike
