"""Fitting the base: shared weights, resuming, the latents' statistics and the finished folder."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextModel

from customize.embedded.fitting.autoencoder import (
    KnownLatents,
    channels_worth,
    copy_levels,
    fold_statistics,
    pictures,
    to_unit,
)
from customize.embedded.fitting.compiling import fill_cache
from customize.embedded.fitting.drawing_ahead import DrawnAhead, drawers_for
from customize.embedded.fitting.editor import Learners
from customize.embedded.fitting.editor_loss import averaged, editor_loss, same_sources
from customize.embedded.fitting.latent_pool import (
    ChunkDrawer,
    Pool,
    changed_cells,
    draw_chunk,
    encode_pool,
    kept_pool,
    shuffled_rows,
    weights_of,
)
from customize.embedded.fitting.loop import Budget, fit_stage
from customize.embedded.fitting.pool_supply import PoolSupply
from customize.embedded.fitting.run import fit_embedded_base, largest_stage
from customize.embedded.fitting.shared_state import BETAS, WEIGHT_DECAY, FlatState, Worker
from customize.embedded.folder import new_parts
from customize.embedded.models import (
    SCALING_FACTOR,
    decoded,
    new_autoencoder,
    new_scheduler,
    new_unet,
    posterior_of,
    text_config,
)
from customize.embedded.tokenizer import learn_tokenizer
from customize.errors import CustomizeError, OutputExistsError, RecipeError
from customize.families.objective import Objective
from customize.recipe.embedded_base import EditorStage, load_embedded_base

BUDGET = Budget(samples=96, batch=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return learn_tokenizer(tmp_path_factory.mktemp("tokenizer"), 1)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def last_of(net: nn.Sequential) -> nn.Linear:
    layer = net[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def loss_for(net: nn.Module, rank: int = 0, stop_at: int | None = None):
    def loss_of(step: int, count: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(100 * step + rank)
        inputs = torch.randn(count, 3, generator=generator)
        return (net(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss_of


def test_an_interrupted_stage_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setattr("customize.embedded.fitting.loop.SAVE_SECONDS", -1.0)
    whole, broken = small_net(), small_net()
    fit_stage("s", whole, loss_for(whole), BUDGET, tmp_path / "a", made(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        fit_stage("s", broken, loss_for(broken, 0, 7), BUDGET, tmp_path, Worker())
    again = small_net()
    fit_stage("s", again, loss_for(again), BUDGET, tmp_path, Worker())
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(whole.parameters()), next(small_net().parameters()))


def test_a_stage_ends_in_time_and_is_at_its_end_when_it_goes_on(tmp_path):
    budget = Budget(10**6, 8, 0.01, minutes=0.02, snapshot=800)
    net = small_net()
    fit_stage("s", net, loss_for(net), budget, tmp_path, Worker())
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert 1.2 <= float(facts["seconds"]) < 6
    assert 100 < int(facts["step"]) < 10**5
    assert (tmp_path / "s-800.safetensors").exists()
    again = small_net()
    fit_stage("s", again, loss_for(again, 0, int(facts["step"])), budget, tmp_path, Worker())
    for one, other in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rate_falls_with_whichever_ends_first():
    budget = Budget(1000, 1, 1.0, cooldown=0.5, minutes=1.0)
    assert budget.rate_at(400) == 1.0
    assert budget.rate_at(750) == pytest.approx(0.5)
    assert budget.rate_at(400, 45) == pytest.approx(0.5)
    assert budget.rate_at(400, 61) == 0.0
    assert [budget.is_spent(*at) for at in ((999, 59.9), (1000, 1.0), (1, 60.0))] == [
        False,
        True,
        True,
    ]


def test_workers_agree_on_the_time_and_so_on_the_last_step():
    clock, barrier, told = torch.zeros(1, dtype=torch.float64), threading.Barrier(2), []
    workers = [Worker(rank, 2, barrier=barrier, clock=clock) for rank in (0, 1)]
    other = threading.Thread(target=lambda: told.append(workers[1].agreed(99.0)))
    other.start()
    assert workers[0].agreed(5.25) == 5.25
    other.join()
    assert told == [5.25]
    assert Worker().agreed(3.0) == 3.0


def made(folder) -> Worker:
    folder.mkdir()
    return Worker()


def test_a_step_is_adamw_on_the_clipped_gradient():
    net, reference = small_net(), small_net()
    state = FlatState(net, Worker())
    optimizer = torch.optim.AdamW(reference.parameters(), 0.01, (0.9, 0.99), weight_decay=0.01)
    for step in range(3):
        loss_for(net)(step, 8).backward()
        state.update(0.01, clip_norm=0.5, ema=0.9)
        loss_for(reference)(step, 8).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    for one, other in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def taught_by_two_workers(rates: dict[str, float] | None = None) -> list[nn.Sequential]:
    """Take three steps in two workers, each with batches of its own; return both nets."""
    pool, norms, barrier = torch.zeros(6, 26), torch.zeros(2), threading.Barrier(2)
    nets = [small_net(), small_net()]

    def work(rank: int) -> None:
        state = FlatState(nets[rank], Worker(rank, 2, "cpu", pool, norms, barrier), rates)
        for step in range(3):
            loss_for(nets[rank], rank)(step, 8).backward()
            state.update(0.01, clip_norm=1.0, ema=0.9)

    other = threading.Thread(target=work, args=(1,))
    other.start()
    work(0)
    other.join()
    return nets


def test_two_workers_step_as_one_with_both_batches():
    nets = taught_by_two_workers()
    alone = small_net()
    state = FlatState(alone, Worker())
    for step in range(3):
        ((loss_for(alone, 0)(step, 8) + loss_for(alone, 1)(step, 8)) / 2).backward()
        state.update(0.01, clip_norm=1.0, ema=0.9)
    for one, two, single in zip(
        nets[0].parameters(), nets[1].parameters(), alone.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, single)


def test_two_workers_step_as_one_where_rates_differ():
    nets = taught_by_two_workers({"0.": 0.1, "2.bias": 0.0})
    start, alone = small_net(), small_net()
    groups = [
        {"params": alone[0].parameters(), "lr": 0.001},
        {"params": [last_of(alone).weight], "lr": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, weight_decay=WEIGHT_DECAY)
    for step in range(3):
        optimizer.zero_grad()
        last_of(alone).bias.grad = None
        ((loss_for(alone, 0)(step, 8) + loss_for(alone, 1)(step, 8)) / 2).backward()
        nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
        optimizer.step()
    assert torch.equal(last_of(nets[0]).bias, last_of(start).bias)
    for one, single in zip(nets[0].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, single)


def test_the_memory_that_workers_share_holds_the_largest_stage(tokenizer):
    parts = new_parts(tokenizer, 64)
    size = largest_stage(parts, 64)
    fresh = new_parts(parts.tokenizer, 64)
    stages = [*fresh.modules(), Learners(fresh.unet, fresh.text_encoder)]
    for stage in stages:
        FlatState(stage, Worker(pool=torch.zeros(5, size)))
    assert max(FlatState(stage, Worker()).vectors["ema"].numel() for stage in stages) == size


def test_a_finished_stage_keeps_its_weights_when_the_next_takes_the_pool():
    pool, first, second = torch.zeros(5, 26), small_net(), nn.Linear(4, 4)
    worker = Worker(pool=pool)
    state = FlatState(first, worker)
    loss_for(first)(0, 8).backward()
    state.update(0.01, clip_norm=1.0, ema=0.9)
    state.use_ema()
    kept = [parameter.clone() for parameter in first.parameters()]
    FlatState(second, worker)
    for parameter, before in zip(first.parameters(), kept, strict=True):
        assert torch.equal(parameter, before)


def test_the_state_of_another_model_is_refused(tmp_path):
    FlatState(small_net(), Worker()).save(tmp_path / "s.safetensors")
    with pytest.raises(CustomizeError, match="another shape"):
        FlatState(nn.Linear(2, 2), Worker()).load(tmp_path / "s.safetensors")


def test_folding_changes_the_latents_statistics_and_no_picture():
    torch.manual_seed(0)
    vae = new_autoencoder().eval()
    images = to_unit(pictures((5,), 8, 64))
    with torch.no_grad():
        before = decoded(vae, posterior_of(vae, images).mode())
        fold_statistics(vae, images)
        posterior = posterior_of(vae, images)
        after = decoded(vae, posterior.mode())
    scaled = posterior.mode() * SCALING_FACTOR
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(posterior.sample(), posterior.mode(), rtol=0, atol=1e-3)


def test_a_new_autoencoder_starts_as_the_older_one_of_its_size():
    torch.manual_seed(0)
    older, new = new_autoencoder(), new_autoencoder()
    copy_levels(new, older, torch.tensor([True] * 4))
    for name, weight in older.state_dict().items():
        assert torch.equal(new.state_dict()[name], weight), name
    other = new_autoencoder()
    fresh = other.decoder.conv_in.weight.detach().clone()
    copy_levels(other, older, torch.tensor([True, True, True, False]))
    assert torch.equal(other.decoder.conv_in.weight[:, :3], older.decoder.conv_in.weight[:, :3])
    assert torch.equal(other.decoder.conv_in.weight[:, 3], fresh[:, 3])


def test_twice_the_size_starts_as_the_older_picture_enlarged():
    torch.manual_seed(0)
    older, new = new_autoencoder(64).eval(), new_autoencoder(128).eval()
    copy_levels(new, older, torch.tensor([True] * 4))
    latents = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        small, large = decoded(older, latents), decoded(new, latents)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert large.shape == (2, 3, 128, 128)
    assert torch.corrcoef(torch.stack((small.flatten(), halved.flatten())))[0, 1] > 0.8  # of noise


def test_channels_that_carry_nothing_are_told_from_live_ones():
    torch.manual_seed(0)
    vae = new_autoencoder().eval()
    assert vae.post_quant_conv is not None
    with torch.no_grad():
        vae.post_quant_conv.weight[:, 2] = 0
    images = to_unit(pictures((5,), 8, 64))
    worth = channels_worth(vae, images)
    assert worth[2] == 0
    assert all(worth[channel] != 0 for channel in (0, 1, 3))
    assert not KnownLatents.open(vae, images).live_C[2]
    known = KnownLatents(vae, torch.tensor([True, True, False, False]))
    other = known.of(images) + torch.tensor([0, 2.0, 9, 9])[:, None, None]
    assert known.distance(known.of(images), known.of(images)) == 0
    assert known.distance(other, known.of(images)) == pytest.approx((2 * SCALING_FACTOR) ** 2 / 2)


def test_changed_cells_weigh_as_much_as_the_rest():
    source = np.zeros((1, 128, 128, 3), np.uint8)
    target = source.copy()
    target[0, :32, :64] = 200  # 32 of 256 latent cells
    changed = changed_cells(source, target)
    assert changed[0, :4, :8].all()
    assert changed.sum() == 32
    weights = weights_of(torch.from_numpy(changed))[0]
    assert weights.mean() == pytest.approx(1)
    assert weights[:4, :8].sum() == pytest.approx(weights.sum() * 6 * 32 / (6 * 32 + 224))
    assert torch.all(weights_of(torch.zeros(1, 16, 16, dtype=torch.bool)) == 1)


def test_a_pool_is_gone_through_once_and_neighbours_meet():
    batches = shuffled_rows(50, 8, np.random.default_rng(3))
    assert batches.shape == (6, 8)
    assert len(set(batches.flat)) == 48
    assert np.all(np.diff(batches.reshape(-1, 4)) == 1)
    assert not np.array_equal(batches, shuffled_rows(50, 8, np.random.default_rng(4)))


def test_the_extra_output_comes_and_goes_and_leaves_the_prediction_alone():
    torch.manual_seed(0)
    unet, text = new_unet(), CLIPTextModel(text_config(300))
    inputs, levels, ids = torch.randn(1, 8, 16, 16), torch.tensor([7]), torch.zeros(1, 24).long()
    with torch.no_grad():
        before = unet(inputs, levels, text(ids).last_hidden_state).sample
        learners = Learners(unet, text)
        predicted, place = learners(inputs, levels, ids)
        learners.finish()
        after = unet(inputs, levels, text(ids).last_hidden_state).sample
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predicted, before, rtol=0.1, atol=0.05)  # bfloat16 on some CPUs
    assert torch.equal(place, torch.zeros(1, 16, 16))
    assert unet.conv_out.weight.shape[0] == unet.config["out_channels"] == 4


RECIPE = """
workers: 1
output: {output}
pool: 8
autoencoder: {{samples: 4, batch: 4, learning_rate: 1e-3}}
clip: {{samples: 8, batch: 8, learning_rate: 1e-3}}
editor: {{samples: 8, batch: 4, learning_rate: 1e-3, compile: false}}
"""


def test_fit_base_writes_a_folder_that_plain_diffusers_edits_with(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    monkeypatch.setattr("customize.embedded.fitting.autoencoder.FOLDED_OVER", 16)
    path = tmp_path / "fit.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "run"))
    recipe = load_embedded_base(path)
    folder = fit_embedded_base(recipe)
    pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        prompt="make it night",
        image=(to_unit(pictures((1,), 1, 64)) + 1) / 2,
        num_inference_steps=1,
        output_type="np",
    ).images
    assert image.shape == (1, 64, 64, 3)
    assert (folder / "tokenizer" / "vocab.json").exists()
    assert (folder / "tokenizer" / "merges.txt").exists()
    assert sum(f.stat().st_size for f in folder.rglob("*.safetensors")) < 32 * 2**20
    with pytest.raises(OutputExistsError):
        fit_embedded_base(recipe)
    assert not compiled
    path.write_text(RECIPE.format(output=tmp_path / "run2").replace("false", "true"))
    gone_on = fit_embedded_base(load_embedded_base(path), start_from=folder)
    assert [type(module) for module in compiled] == [Learners]
    configs = [path.read_text() for path in gone_on.rglob("*.json")]
    assert len(configs) > 5
    assert not [text for text in configs if str(tmp_path) in text]
    further = StableDiffusionInstructPix2PixPipeline.from_pretrained(gone_on, dtype=torch.float32)
    for name, weight in further.vae.encoder.state_dict().items():
        assert torch.equal(weight, pipeline.vae.encoder.state_dict()[name]), name


def test_a_step_is_compiled_on_a_gpu_alone_unless_the_recipe_says_so():
    stage = EditorStage(samples=1, batch=1, learning_rate=1e-3)
    assert [stage.compiles(device) for device in ("cpu", "cuda")] == [False, True]
    for asked in (False, True):
        said = stage.model_copy(update={"compile": asked})
        assert [said.compiles(device) for device in ("cpu", "cuda")] == [asked] * 2


def test_edits_of_one_source_meet_the_same_noise_and_have_to_differ_as_their_targets_do():
    ids = torch.arange(1, 25).repeat(4, 1)
    sources = torch.randn(3, 4, 16, 16)[[0, 0, 1, 2]]
    changed = torch.zeros(4, 16, 16, dtype=torch.bool)
    changed[0, :8], changed[1, 8:] = True, True
    targets = torch.where(changed[:, None], -sources, sources)
    edits = Pool(sources, targets, changed, ids, ids)
    first_B, source_B = same_sources(sources)
    assert first_B.tolist() == [0, 0, 2, 3]
    assert source_B.tolist() == [0, 0, 1, 2]
    assert averaged(torch.tensor([1.0, 3.0, 5.0, 7.0]), source_B).tolist() == [2, 2, 5, 7]

    objective, empty_1L = Objective.from_config(new_scheduler().config), torch.zeros(1, 24).long()
    met, losses = {}, {}
    for told in ("each its own", "the mean of both"):

        def forward(inputs_BChw, level_B, ids_BL, told=told):
            met["noisy"], met["level"], met["ids"] = inputs_BChw[:, :4], level_B, ids_BL
            torch.manual_seed(0)
            noise = clean_noise(objective, inputs_BChw[:, :4], targets, level_B)
            answer = objective.target(targets, noise, level_B)
            if told == "the mean of both":
                answer = averaged(answer, source_B)
            return answer, torch.zeros(4, 16, 16)

        generator = torch.Generator().manual_seed(4)
        losses[told] = editor_loss(forward, objective, edits, empty_1L, generator).item()
    assert met["level"][0] == met["level"][1]
    assert len(met["level"].unique()) == 3
    noise = clean_noise(objective, met["noisy"], targets, met["level"])
    torch.testing.assert_close(noise[0], noise[1], atol=2e-2, rtol=0)
    place = 0.2 * np.log(2)
    assert losses["each its own"] < place + 0.02
    assert losses["the mean of both"] > place + 0.1


def clean_noise(objective, noisy_BChw, clean_BChw, level_B):
    """Solve for the noise that `corrupt` mixed in."""
    zero = objective.corrupt(clean_BChw, torch.zeros_like(clean_BChw), level_B)
    unit = objective.corrupt(torch.zeros_like(clean_BChw), torch.ones_like(clean_BChw), level_B)
    return (noisy_BChw - zero) / unit


def test_compiling_ahead_takes_the_very_step_that_the_fit_takes(tokenizer, monkeypatch):
    asked = []

    def compiled(learners):
        def forward(*given):
            asked.append([(tuple(g.shape), g.dtype) for g in given])
            return learners(*given)

        return forward

    parts = new_parts(tokenizer, 64)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", compiled)
        fill_cache(lambda: parts, 2, "cpu")
    assert all(p.grad is not None for p in parts.text_encoder.parameters())
    learners = Learners(new_unet(), parts.text_encoder)
    drawn = encode_pool([draw_chunk((1, 2), 2, 64, parts.tokenizer)], parts.vae)
    empty_1L = torch.zeros(1, 24, dtype=torch.long)
    objective = Objective.from_config(new_scheduler().config)
    edits = drawn.rows(torch.tensor([0, 1]), "cpu")
    editor_loss(compiled(learners), objective, edits, empty_1L, torch.Generator())
    assert asked[0] == asked[1]


def test_a_faulty_fit_recipe_lists_every_fault(tmp_path):
    recipe = tmp_path / "fit.yaml"
    recipe.write_text("workers: 0\npol: 3\nclip: {samples: 1, batch: 1, learning_rate: 1}\n")
    with pytest.raises(RecipeError) as caught:
        load_embedded_base(recipe)
    stage = "{samples: 0, batch: 16, learning_rate: 1.0e-3}"
    assert [str(fault) for fault in caught.value.faults] == [
        f"{recipe} autoencoder: missing; add `autoencoder: {stage}`",
        f"{recipe} editor: missing; add `editor: {stage}`",
        f"{recipe}:1 workers: found 0; must be at least 1",
        f"{recipe}:2 pol: unknown key; did you mean 'pool'?",
        f"{recipe}:3 clip.learning_rate: found 1; must be less than 1.0",
    ]


def test_a_kept_pool_is_filled_once(tokenizer, tmp_path):
    torch.manual_seed(0)
    vae = new_autoencoder()
    filled = []

    def fill():
        filled.append(encode_pool([draw_chunk((1, 2), 4, 64, tokenizer)], vae))
        return filled[-1]

    first, again = (kept_pool(tmp_path / "pool.safetensors", fill) for _ in range(2))
    assert len(filled) == 1
    for name in (field.name for field in fields(Pool)):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(filled[0], name))
    path = tmp_path / "pool.safetensors"
    kept_pool(path, fill, key="another")
    assert len(filled) == 2
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    kept_pool(path, fill, key="another")
    assert len(filled) == 3


def test_a_source_that_edits_share_is_drawn_and_encoded_once(tokenizer):
    chunk = draw_chunk((4, 4), 60, 64, tokenizer)
    assert len(chunk.sources_SHWC) < len(chunk.targets_NHWC) == len(chunk.source_of_N) == 60
    alike = [i for i in range(59) if chunk.source_of_N[i] == chunk.source_of_N[i + 1]]
    assert len(alike) >= 10
    told = chunk.instructions_NL
    assert not [i for i in alike if torch.equal(told[i], told[i + 1])]


def test_pools_are_drawn_chunk_by_chunk_each_afresh(tokenizer, monkeypatch):
    monkeypatch.setattr("customize.embedded.fitting.latent_pool.ENCODED_AT_ONCE", 4)
    drawer = ChunkDrawer(6, (1, 4), 0, 64, tokenizer)
    assert drawer.chunks == 2
    assert [len(drawer(number).targets_NHWC) for number in range(4)] == [4, 2, 4, 2]
    expected = draw_chunk((1, 4, 1, 0, 4), 2, 64, drawer.tokenizer)
    assert torch.equal(drawer(3).targets_NHWC, expected.targets_NHWC)


@pytest.mark.parametrize("processes", [0, 2])
def test_drawings_come_in_order_and_from_where_one_begins(processes, monkeypatch):
    # Forked, for the forkserver's own imports take ten seconds; the last test here goes by it.
    forked = "customize.embedded.fitting.drawing_ahead._context"
    monkeypatch.setattr(forked, lambda: get_context("fork"))
    drawn = DrawnAhead(torch.tensor, processes)
    assert [int(drawn(number)) for number in (3, 4, 5, 6, 7, 1, 2)] == [3, 4, 5, 6, 7, 1, 2]
    drawn.close()


def test_all_cores_but_one_draw_for_a_gpu(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert [drawers_for(None, device) for device in ("cuda", "cpu")] == [15, 0]
    assert drawers_for(2, "cpu") == 2


def test_drawing_ahead_in_processes_gives_the_same_pools(tokenizer, tmp_path):
    torch.manual_seed(0)
    parts = new_parts(tokenizer, 64)
    plain = PoolSupply(parts, 6, (1, 4), tmp_path / "a", made(tmp_path / "a"))
    with PoolSupply(parts, 6, (1, 4), tmp_path / "b", made(tmp_path / "b"), drawers=1) as ahead:
        for number in (0, 1, 3):  # the last is not the one that was made ahead
            one, other = plain.pool(number), ahead.pool(number)
            for name in (field.name for field in fields(Pool)):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert ahead.pool(number) is other
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["pool-3-6-0.safetensors"]
    assert not list((tmp_path / "b").iterdir())
    assert ahead.coming is not None
    assert ahead.coming[1].done()
