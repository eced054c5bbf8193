"""What an index takes of an SAE whose activations are signed or whose inputs are scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_site import WIDTH, FakeLVLM, ListSource, noise_pictures

from explorer.sae import SAE, ActivationRule, Scaling
from index.activations import Encoder
from index.loading import load_chunks
from index.meaning.routes import at_patch

NEURONS, TOKENS = 24, 16
RULES = (
    ActivationRule("topk", k=16, signed=True),
    ActivationRule("abstopk", k=5),
    ActivationRule("topk", k=3),
)


@pytest.mark.parametrize("include_cls", [False, True])
@pytest.mark.parametrize("scaling", [Scaling(), Scaling("layer_norm", eps=0.1), Scaling("constant_norm")])
@pytest.mark.parametrize("rule", RULES)
def test_it_takes_what_fires_and_judges_the_whole(
    rule: ActivationRule, scaling: Scaling, include_cls: bool
) -> None:
    """Codes hold activations above 0 alone; the unexplained share is that of all activations."""
    draw = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(*shape, generator=draw)
        for shape in ((WIDTH, NEURONS), (NEURONS,), (NEURONS, WIDTH), (WIDTH,))
    ]
    sae, lvlm = SAE(*weights, rule, site_block=1, scaling=scaling).eval().requires_grad_(False), FakeLVLM()
    (chunk,) = load_chunks(ListSource(noise_pictures(3)), lvlm.preprocess, [0], 3)
    found = Encoder(lvlm, sae, 1, include_cls)(chunk)
    hidden = lvlm.tower(chunk.pixels, 1)
    tokens = torch.cat([hidden[:, 1:], hidden[:, :1]], dim=1)[:, : TOKENS + include_cls]
    z = sae.encode(tokens)
    assert (z < 0).any() == rule.negatives
    dense = np.zeros(z.shape, np.float32)
    dense[found.codes.image, found.codes.token, found.codes.neuron] = found.codes.value
    assert np.allclose(dense, z.clamp_min(0), atol=1e-5)
    assert len(found.codes.value) == int((z > 0).sum())
    assert np.allclose(found.sketches, scaling.apply(hidden[:, 1:])[0] - weights[3], atol=1e-5)
    for picture, share in zip(hidden[:, 1:], found.fvu, strict=True):
        error, spread = (picture - sae(picture)).square().sum(), (picture - picture.mean(0)).square().sum()
        assert share == pytest.approx(float(error / spread), rel=1e-3)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling("layer_norm"), Scaling("constant_norm", norm=2.0)])
def test_decoder_rows_are_in_the_units_of_the_mean_patch_where_words_are_looked_for(scaling: Scaling) -> None:
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=draw) for shape in ((WIDTH, 4), (4,), (4, WIDTH), (WIDTH,))]
    sae, patch = SAE(*weights, ActivationRule(), scaling=scaling), np.arange(WIDTH, dtype=np.float32)
    rows = weights[2].numpy()
    factor = {"none": 1.0, "layer_norm": patch.std(ddof=1), "constant_norm": np.linalg.norm(patch) / 2}
    assert np.allclose(at_patch(sae, rows, patch), rows * factor[scaling.kind], atol=1e-5)
    assert at_patch(sae, rows, None) is rows
