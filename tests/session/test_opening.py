"""Opening model and SAE together: the block, hints, devices; and full memory while a session works."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
import torch
from PIL import Image

from explorer.errors import ModelError, SAEError
from explorer.sae import SAE, ActivationRule
from explorer.session import Session
from explorer.session.opening import open_parts
from explorer.ui.plain import plainly
from explorer.vlm import open_lvlm
from explorer.vlm.loading import Choice


def save_sae(path: Path, **site: object) -> Path:
    """An SAE for vectors of width 32."""
    rows = torch.nn.functional.normalize(
        torch.randn(12, 32, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    weights = rows.T.clone(), torch.zeros(12), rows, torch.zeros(32)
    SAE(*weights, ActivationRule("topk", k=4), **site).save(path)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("own", "asked", "block", "words"),
    [
        (1, None, 1, ""),
        (1, 1, 1, ""),
        (1, 0, 0, "warning: the SAE says that it reads block 1; --block 0 overrides it"),
        (None, None, 2, "note: the SAE does not say which block it reads: block 2 is taken"),
        (None, 0, 0, ""),
    ],
)
def test_the_block_is_the_saes_unless_another_is_asked_for(
    own: int | None, asked: int | None, block: int, words: str, tiny_lvlm_folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    sae = save_sae(tmp_path / "s", site_block=own)
    session = Session.chosen(Choice(model=tiny_lvlm_folder, sae=sae, block=asked, device="cpu"), said.append)
    assert session.block == block
    assert (len(said), "".join(said)[: len(words)]) == (bool(words), words)


@pytest.mark.parametrize("block", [3, 9])
def test_a_block_that_cannot_matter_is_refused(block: int, tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"block {block}"):
        open_parts(Choice(model=tiny_lvlm_folder, sae=save_sae(tmp_path / "s"), block=block))


def test_hints_reach_the_loader(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SAEError, match="unknown hint 'colour'"):
        Session.open(tiny_lvlm_folder, save_sae(tmp_path / "s"), sae_hint=("colour=red",))
    with pytest.raises(TypeError):
        Session.open(tiny_lvlm_folder, colour="red")


def test_full_memory_is_told_and_the_session_lives_on(
    tiny_lvlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(open_lvlm(tiny_lvlm_folder), SAE.load(save_sae(tmp_path / "s")))
    image = Image.radial_gradient("L").convert("RGB")
    view = session.look(image)
    before = session.answer(view, "what", max_new_tokens=6)
    assert session._memories.nbytes > 0
    features = session.lvlm.features

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    monkeypatch.setattr(session.lvlm, "features", full)
    with pytest.raises(ModelError, match=r"accelerator is full: 3\.0 GiB more were needed; ask again"):
        session.answer(view, "what", max_new_tokens=6)
    assert session._memories.nbytes == 0 and not session._line.busy
    with pytest.raises(gr.Error, match=r"accelerator is full: 3\.0 GiB more"):
        plainly(session.answer)(view, "what")
    monkeypatch.setattr(session.lvlm, "features", features)
    assert session.answer(view, "what", max_new_tokens=6) == before
