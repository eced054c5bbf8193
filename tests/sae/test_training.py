"""Training against a dense oracle, resuming, refusals, and what comes out on data with known parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule, matryoshka
from explorer.sae.config import TrainConfig
from explorer.sae.quality import evaluate
from explorer.sae.training import StepReport, Trainer, TrainResult, batches_taken, train

TINY = TrainConfig(
    expansion=4, k=2, steps=12, batch=32, warmup=3, decay_start=8, threshold_start=2,
    norm_batches=2, dead_after=100, lr=1e-2,
)  # fmt: skip


def stream(batch: int = 32, width: int = 6, seed: int = 0, start: int = 0) -> Iterator[torch.Tensor]:
    """Batches without end; number n is the same whatever the start."""
    g = torch.Generator().manual_seed(seed)
    parts = normalize(torch.randn(12, width, generator=g), dim=1)
    mean = 2 * torch.randn(width, generator=g)
    for n in range(10**9):
        weights = torch.rand(batch, 12, generator=g) * (torch.rand(batch, 12, generator=g) < 0.15)
        if n >= start:
            yield 5 * weights @ parts + mean + 0.01


def dense_oracle(run: Trainer, x: torch.Tensor, dead: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the whole loss by the dense formulas, in the order of `run.parameters`."""
    params = [p.detach().clone().requires_grad_() for p in run.parameters]
    encoder, b_enc, decoder, b_dec = params
    p = torch.relu((x - b_dec) @ encoder.T + b_enc)
    top = p.flatten().topk(run.config.k * len(x))
    z = torch.zeros(p.numel()).scatter(0, top.indices, top.values).view_as(p)
    recon, start, losses = b_dec, 0, []
    for end, weight in zip(run.boundaries.tolist(), run.config.weights, strict=True):
        recon = recon + z[:, start:end] @ decoder[start:end]
        losses.append(weight * (x - recon).square().sum(1).mean())
        start = end
    loss, residual = torch.stack(losses).mean(), (x - recon).detach()
    if len(dead):
        alive = torch.ones(p.shape[1], dtype=torch.bool)
        alive[dead] = False
        best = p.masked_fill(alive, -torch.inf).topk(min(x.shape[1] // 2, len(dead)))
        explained = torch.zeros_like(p).scatter(1, best.indices, best.values) @ decoder
        aux = (residual - explained).square().sum(1).mean()
        loss = loss + run.config.aux_alpha * aux / (residual - residual.mean(0)).square().sum(1).mean()
    return list(torch.autograd.grad(loss, params))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), n_dead=st.integers(0, 24), bf16=st.booleans(), weighted=st.booleans())
def test_a_step_has_the_gradients_of_the_dense_formulas(
    seed: int, n_dead: int, bf16: bool, weighted: bool
) -> None:
    config = replace(
        TINY, bf16=bf16, seed=seed, clip=1e9, group_weights=(1.0, 0.5, 2.0, 0.1) if weighted else None
    )
    run = Trainer(config, 6, 1.0, torch.device("cpu"))
    batches = stream(seed=seed)
    run.step(next(batches))
    run.unfired += torch.where(torch.arange(24) < n_dead, 1000, 0)
    x, before = next(batches), run.unfired.clone()
    expected = run.decoder.detach().clone()
    kept = matryoshka.select(x - run.b_dec, run.encoder, run.b_enc, 64, 0.0)
    before[kept.neurons] = -32
    dead = (before + 32 >= config.dead_after).nonzero().flatten()
    oracle = dense_oracle(run, x, dead)
    report = run.step(x)
    assert report.dead == len(dead)
    matryoshka.drop_parallel_(oracle[2], expected)
    for parameter, gradient in zip(run.parameters, oracle, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 700),
    floor=st.floats(0, 5),
    shift=st.sampled_from([-3, 0, 1]),
)
def test_selection_is_the_batch_top_k_whatever_the_guess(seed: int, n: int, floor: float, shift: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, encoder = torch.randn(20, 6, generator=g), torch.randn(24, 6, generator=g)
    b_enc = torch.full((24,), float(shift))
    p = torch.relu(torch.addmm(b_enc, x, encoder.T)).flatten()
    expected = [v for v in p.sort(descending=True).values[:n].tolist() if v > 0]
    kept = matryoshka.select(x, encoder, b_enc, n, floor)
    torch.testing.assert_close(kept.values.sort(descending=True).values, torch.tensor(expected))
    assert kept.cut == (min(kept.values.tolist()) if expected else 0.0)
    assert torch.equal(p[kept.rows * 24 + kept.neurons], kept.values) or shift  # rounding of addmm
    assert (kept.rows * 24 + kept.neurons).diff().gt(0).all()


def run_to_the_end(config: TrainConfig, tmp_path: Path) -> tuple[TrainResult, list[StepReport]]:
    reports: list[StepReport] = []
    return train(config, stream(), on_step=reports.append), reports


@pytest.mark.parametrize("stop", [1, 5, 9, 12])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_resumed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, stop: int, bf16: bool) -> None:
    config, path = replace(TINY, bf16=bf16), tmp_path / "run" / "checkpoint.pt"
    whole, reports = run_to_the_end(config, tmp_path)
    cut_short = islice(stream(), config.norm_batches + stop)
    if stop < config.steps:
        with pytest.raises(SAEError, match=f"ended after {2 + stop} batches; 12 steps need more"):
            train(config, cut_short, checkpoint=path, checkpoint_every=1)
    else:
        train(config, cut_short, checkpoint=path, checkpoint_every=5)
    assert batches_taken(path) == 2 + stop
    rest: list[StepReport] = []
    resumed = train(config, stream(start=batches_taken(path)), resume_from=path, on_step=rest.append)
    assert resumed.sae.id == whole.sae.id
    assert rest == reports[stop:]
    assert resumed.metrics.steps == 12 and resumed.metrics.vectors == 12 * 32
    assert resumed.metrics.norm_factor == whole.metrics.norm_factor


def test_another_config_or_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(TINY, stream(), checkpoint=path, checkpoint_every=5)
    with pytest.raises(SAEError, match="was trained with k = 2, not 3"):
        train(replace(TINY, k=3), stream(), resume_from=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SAEError, match="not a whole checkpoint"):
        batches_taken(path)
    with pytest.raises(SAEError, match="no checkpoint at"):
        train(TINY, stream(), resume_from=tmp_path / "none.pt")
    torch.save({"version": 99}, path)
    with pytest.raises(SAEError, match="not a checkpoint of SAE training"):
        batches_taken(path)


def test_streams_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SAEError, match=r"batch 0 has the shape \[31, 6\]; expected \[32, d\]"):
        train(TINY, stream(batch=31))
    with pytest.raises(SAEError, match=r"batch 1 has the shape \[32, 5\]; expected \[32, 6\]"):
        train(TINY, iter([next(stream()), next(stream(width=5))]))
    with pytest.raises(SAEError, match="norm of the vectors is nan"):
        train(TINY, iter([torch.full((32, 6), torch.nan)] * 20))
    with pytest.raises(SAEError, match=r"norm of the vectors is 0\.0"):
        train(TINY, iter([torch.zeros(32, 6)] * 20))
    with pytest.raises(SAEError, match="loss at step 0 is not finite"):
        train(replace(TINY, norm_batches=0), iter([torch.full((32, 6), torch.nan)] * 20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, "k = 0"),
        ({"group_fractions": (0.5, 0.6)}, "add up to 1"),
        ({"group_weights": (1.0,)}, "give 4 numbers"),
        ({"threshold_start": 99_999}, "threshold_start = 99999 leaves none"),
        ({"decay_start": 200_000}, "decay_start = 200000"),
        ({"threshold_decay": 1.0}, "threshold_decay = 1.0"),
        ({"lr": -1.0}, "lr = -1.0"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SAEError, match=words):
        TrainConfig(**changes)


def test_training_finds_the_parts_of_the_data(tmp_path: Path) -> None:
    """Sparse sums of 12 directions around a mean: most of the variance comes out, in raw units."""
    config = TrainConfig(
        expansion=4, k=2, steps=400, batch=256, warmup=20, decay_start=300, threshold_start=100,
        threshold_decay=0.95, norm_batches=5, dead_after=10_000, lr=5e-3,
    )  # fmt: skip
    result = train(config, stream(batch=256))
    quality = evaluate(result.sae, next(stream(batch=4000, start=3)))
    assert quality.explained_variance > 0.9
    assert quality.l0 == pytest.approx(2, abs=0.5)
    assert quality.dead_share < 0.35 and quality.vectors == 4000
    assert len(quality.prefixes) == 4 and quality.prefixes[0] < quality.prefixes[-1]
    assert result.sae.group_sizes == (1, 3, 6, 14)
    assert result.sae.facts["steps"] == 400 and result.sae.rule.k == 2
    torch.testing.assert_close(result.sae.W_dec.norm(dim=1), torch.ones(24))
    result.sae.save(tmp_path / "sae.safetensors")
    assert SAE.load(tmp_path / "sae.safetensors").facts["config"]["k"] == 2


def test_quality_of_a_perfect_and_of_an_empty_sae() -> None:
    eye, zero, x = torch.eye(3), torch.zeros(3), torch.rand(50, 3) + 0.1
    perfect = evaluate(SAE(eye, zero, eye, zero, ActivationRule()), x, chunk=10)
    assert perfect.explained_variance == pytest.approx(1) and perfect.l0 == 3 and perfect.dead_share == 0
    silent = evaluate(SAE(eye, zero, eye, x.mean(0), ActivationRule("jumprelu", 9.0)), x)
    assert silent.explained_variance == pytest.approx(0, abs=1e-5) and silent.dead_share == 1
