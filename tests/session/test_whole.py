"""The seams with nothing faked: index a folder, open the session on it, look, ask, edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explorer import Edit, Session
from explorer.errors import StoreError
from explorer.sae import SAE, ActivationRule
from index.__main__ import main


def save_sae(path: Path, seed: int) -> Path:
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(64, 32, generator=draw), dim=1)
    SAE(directions.T, torch.zeros(64), directions, torch.zeros(32), ActivationRule("topk", k=5)).save(path)
    return path


def test_index_open_look_ask_edit(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    pictures, sae, store = tmp_path / "pictures", save_sae(tmp_path / "a.safetensors", 1), tmp_path / "store"
    pictures.mkdir()
    for seed in range(7):
        pixels = np.random.default_rng(seed).integers(0, 256, (33 + 5 * seed, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
    parts = ["--model", str(tiny_lvlm_folder), "--sae", str(sae), "--device", "cpu", "--quiet"]
    assert main(["build", "--images", str(pictures), "--out", str(store), *parts]) == 0

    session = Session.open(model=tiny_lvlm_folder, sae=sae, store=store)
    view = session.look(pictures / "3.png")
    strongest = view.top(1)[0]
    exemplars = {exemplar.image_id: exemplar for exemplar in session.exemplars(strongest.neuron)}
    mine = exemplars["3.png"]
    assert mine.score == pytest.approx(strongest.value, rel=1e-4)
    assert np.allclose(mine.patch_map, view.map(strongest.neuron), atol=mine.patch_map.max() / 200)
    assert session.summary(strongest.neuron).fires > 0
    assert session.summaries([a.neuron for a in view.top(5)]).keys() == {a.neuron for a in view.top(5)}
    assert session.find("fork") == []
    assert session.similar(strongest.neuron, 2)

    indexed = [session.look(path).fvu for path in sorted(pictures.iterdir())]
    least, most = np.argmin(indexed), max(indexed)
    assert session.familiar(session.look(pictures / f"{least}.png"))
    assert most * (1 - 1e-5) <= session.store.manifest.fvu_quantile(0.995) <= most * 1.006
    session.store.verify()
    found = session.by_picture(view, 64)
    assert {activation.neuron for activation in found} <= set(range(64)) and found[0].value <= 1 + 1e-6
    session.set_note(strongest.neuron, "my own name")
    assert session.search("own na")[0][:3] == (strongest.neuron, "my own name", True)

    plain = session.answer(view, max_new_tokens=8)
    assert plain == session.lvlm.answer_plain(view.image, session.lvlm.default_prompt, 8)
    assert plain != session.answer(view, edits=[Edit(strongest.neuron, -100.0)], max_new_tokens=8)

    with pytest.raises(StoreError, match="SAE"):
        Session.open(model=tiny_lvlm_folder, sae=save_sae(tmp_path / "b.safetensors", 2), store=store)
