"""Opening model and SAE together: the block, hints, devices; and full memory while a session works."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
import torch
from PIL import Image

from explorer.errors import ModelError, SAEError, StoreError
from explorer.sae import SAE, ActivationRule
from explorer.session import Session, opening
from explorer.session.opening import open_parts
from explorer.steer import Contrast
from explorer.ui.plain import plainly
from explorer.vlm import open_lvlm
from explorer.vlm.loading import Choice
from index.__main__ import main


def save_sae(path: Path, seed: int = 0, **site: object) -> Path:
    """An SAE for vectors of width 32."""
    rows = torch.nn.functional.normalize(
        torch.randn(12, 32, generator=torch.Generator().manual_seed(seed)), dim=-1
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
    with pytest.raises(SAEError, match="unknown hint 'size'"):
        Session.open(tiny_lvlm_folder, save_sae(tmp_path / "s"), sae_hint="size=3")
    with pytest.raises(SAEError, match="the block must be a whole number, counted from 0, not '1'"):
        Session.open(tiny_lvlm_folder, save_sae(tmp_path / "s"), block="1")
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


def test_a_signed_sae_is_told_of(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    rows = torch.nn.functional.normalize(torch.randn(12, 32), dim=-1)
    weights = rows.T.clone(), torch.zeros(12), rows, torch.zeros(32)
    SAE(*weights, ActivationRule("abstopk", k=4), site_block=1).save(tmp_path / "s")
    said: list[str] = []
    open_parts(Choice(model=tiny_lvlm_folder, sae=tmp_path / "s", device="cpu"), said.append)
    assert [line.partition(":")[0] for line in said] == ["note"] and "may be below 0" in said[0]


def built(model: Path, sae: Path, out: Path) -> Path:
    """A store of two drawn scenes."""
    arguments = ["--scenes", "2", "--out", str(out), "--words", "none", "--workers", "0", "--quiet"]
    assert main(["build", *arguments, "--model", str(model), "--sae", str(sae), "--device", "cpu"]) == 0
    return out


def test_a_store_that_does_not_fit_is_told_before_the_model_is_loaded(
    tiny_lvlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model takes minutes to load."""
    sae, other = save_sae(tmp_path / "a"), save_sae(tmp_path / "b", seed=1)
    store = built(tiny_lvlm_folder, sae, tmp_path / "store")
    assert Session.open(tiny_lvlm_folder, sae, store).store is not None
    with pytest.raises(StoreError, match=r"its block is 2, the session's is 1; build one with: .*--block 1"):
        Session.open(tiny_lvlm_folder, sae, store, block=1)
    monkeypatch.setattr(opening, "open_lvlm", lambda *_, **__: pytest.fail("the model was loaded"))
    own = f"build one with: .*--model {tiny_lvlm_folder} --sae {other} --images FOLDER --out"
    with pytest.raises(StoreError, match=f"its SAE is .*; {own} .*-new"):
        Session.open(tiny_lvlm_folder, other, store)
    with pytest.raises(StoreError, match=f"there is no store at .*; {own} .*/none"):
        Session.open(tiny_lvlm_folder, other, tmp_path / "none")
    with pytest.raises(StoreError, match=f"is a file.*; {own} .*/a-new"):
        Session.open(tiny_lvlm_folder, other, tmp_path / "a")
    with pytest.raises(StoreError, match=f"is not a finished store .*; {own} .*-new"):
        Session.open(tiny_lvlm_folder, other, tiny_lvlm_folder)


def test_a_session_without_a_store_says_how_to_build_its_own(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    sae = save_sae(tmp_path / "a")
    chosen = Session.open(tiny_lvlm_folder, sae)
    with pytest.raises(StoreError, match=f"build one with: .*--sae {sae} --images"):
        chosen.exemplars(0)
    with pytest.raises(StoreError, match=r"suppress_always_on=False, or build one with: .* --images FOLDER"):
        chosen.steered(chosen.look(Image.radial_gradient("L")), contrast=Contrast())
    made = Session(chosen.lvlm, chosen.sae)
    with pytest.raises(StoreError, match=r"build one with: .* --model MODEL --sae SAE"):
        made.exemplars(0)
