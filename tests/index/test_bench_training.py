"""The plain dense step that training is measured against: the same losses, gradients and counters."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import SAEError
from explorer.sae.config import TrainConfig
from explorer.sae.training import Trainer
from index.__main__ import main
from index.bench.training import DenseTrainer, Load, Summary, bound, config_of, run, vectors

SMALL = Load(width=8, neurons=64, k=3, batch=40)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), some_dead=st.booleans())
def test_both_sides_take_the_same_steps(seed: int, some_dead: bool) -> None:
    config = TrainConfig(
        expansion=8, k=3, batch=40, warmup=1, threshold_start=0, norm_batches=0, dead_after=1000,
        steps=100, lr=1e-2, seed=seed, group_weights=(1.0, 0.5, 2.0, 0.1),
    )  # fmt: skip
    ours, dense = (kind(config, 8, 1.0, torch.device("cpu")) for kind in (Trainer, DenseTrainer))
    ours.b_enc.data[0] = -10.0  # it never fires
    source = vectors(SMALL, seed)
    for _ in range(4):
        x = next(source)
        for trainer in (ours, dense) if some_dead else ():
            trainer.unfired[:40] += 1000
        for one, other in zip(ours.parameters, dense.parameters, strict=True):
            other.data.copy_(one.data)
        reports = [trainer.step(x) for trainer in (ours, dense)]
        torch.testing.assert_close(torch.tensor(reports[0]), torch.tensor(reports[1]), atol=1e-5, rtol=1e-4)
        for one, other in zip(ours.parameters, dense.parameters, strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)
        assert torch.equal(ours.unfired, dense.unfired)
        assert (reports[0].dead > 0) == (reports[0].aux > 0) == some_dead


def test_the_bound_counts_products() -> None:
    found = bound(SMALL)
    assert found.encode == 2 * 40 * 8 * 64
    assert found.dense == 6 * found.encode, "encode, decode, and the gradients of z, x and both matrices"
    assert found.ours == found.encode + 5 * 2 * 40 * 3 * 8
    assert found.traffic == 28 * 2 * 8 * 64
    assert 1 < found.ratio <= found.dense / found.ours


def test_the_measured_training_has_no_dead_neurons_and_keeps_k() -> None:
    *turns, summary = run(SMALL, turns=3)
    assert isinstance(summary, Summary) and len(turns) == 3
    assert all(turn.apart < 1e-3 for turn in turns)
    assert summary.ours == sorted(turn.ours for turn in turns)[1]
    assert summary.ratio == sorted(turn.dense / turn.ours for turn in turns)[1]
    assert config_of(SMALL).n_neurons(8) == 64
    with pytest.raises(SAEError, match="65 neurons are no multiple of the width 8"):
        config_of(SMALL._replace(neurons=65))


def test_the_command_prints_ratio_and_bound(capsys: pytest.CaptureFixture[str]) -> None:
    small = "bench train-step --width 8 --neurons 64 --k 3 --batch 40 --turns 2"
    assert main(small.split()) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"ours .* ms, dense .* ms: .* x; working memory", printed)) == 2
    assert re.search(r"40 vectors of width 8, 64 neurons, K = 3.* ratio \d", printed)
    assert re.search(r"no more than \d+\.\d\d x is possible here, and \d+\.\d\d x without Adam", printed)
