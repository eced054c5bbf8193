"""How a loader is chosen, and what is said of files that none knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from explorer.errors import SAEError
from explorer.sae import load_sae
from explorer.sae.formats import LOADERS, look

GOLDEN = Path(__file__).parents[1] / "golden" / "sae"
EMBEDDED = Path(__file__).parents[2] / "assets" / "sae"
FOLDERS = sorted(folder for folder in GOLDEN.iterdir() if folder.is_dir())


def test_loaders_say_who_they_are() -> None:
    names = [loader.NAME for loader in LOADERS]
    assert len({name.casefold() for name in names}) == len(names) == 9
    for loader in LOADERS:
        assert isinstance(loader.HINTS, tuple) and "format" not in loader.HINTS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_two_formats_claim_one_file(folder: Path) -> None:
    """But sae-for-vlm's, which are dictionary_learning's in a spelling of their own."""
    claimed = [loader.NAME for loader in LOADERS if loader.claims(look(folder))]
    expected = {"saevlm-matroyshka": ["sae-for-vlm", "dictionary_learning"]}
    assert claimed == expected.get(folder.name, claimed[:1]) != []


def test_the_embedded_sae_is_found_by_file_and_folder() -> None:
    sae = load_sae(EMBEDDED)
    assert sae.id == load_sae(EMBEDDED / "sae.safetensors").id and "format" not in sae.facts
    assert sae.tokens is None and not sae.scaling and not any(one.requires_grad for one in sae.parameters())


def test_the_configuration_stands_for_its_folder() -> None:
    folder = GOLDEN / "dictlearn-topk"
    assert load_sae(folder / "config.json").id == load_sae(folder).id == load_sae(f"{folder}/ae.pt").id


def test_the_format_can_be_named(tmp_path: Path) -> None:
    folder = GOLDEN / "saevlm-matroyshka"
    assert load_sae(folder).facts["format"] == "sae-for-vlm"
    other = load_sae(folder, {"format": "Dictionary_Learning"})
    assert other.facts["format"] == "dictionary_learning" and other.id == load_sae(folder).id
    with pytest.raises(SAEError, match=r"unknown format 'mine'; known: .*SAELens, sparsify"):
        load_sae(folder, {"format": "mine"})
    with pytest.raises(SAEError, match=r"\(sparsify\): .*expected"):
        load_sae(folder, {"format": "sparsify"})


def test_unknown_files_are_described(tmp_path: Path) -> None:
    tensors = {f"layer.{place}": torch.zeros(2, place + 1) for place in range(14)}
    save_file(tensors, tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_size": 3, "model_type": "bert"}')
    with pytest.raises(SAEError) as refused:
        load_sae(tmp_path)
    said = str(refused.value)
    assert f"{tmp_path / 'mine.safetensors'} is of no known format: found the tensors layer.0 [2, 1]" in said
    assert "and 2 more; configuration: config.json with hidden_size, model_type; known formats:" in said
    assert all(loader.NAME in said for loader in LOADERS)


def test_facts_of_foreign_files_travel_with_a_saved_copy(tmp_path: Path) -> None:
    """A file that needs hints can be opened once and kept as one of the explorer's own."""
    shutil.copytree(GOLDEN / "overcomplete-topk", tmp_path / "theirs")
    sae = load_sae(tmp_path / "theirs", {"top_k": 3, "normalization": "l2"})
    sae.save(tmp_path / "ours.safetensors")
    again = load_sae(tmp_path / "ours.safetensors")
    assert again.id == sae.id and again.facts == sae.facts and again.facts["format"] == "overcomplete"
