"""SAEs of other projects beside a model: places that are none of its blocks, warnings of their files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from explorer import Session
from explorer.errors import SAEError
from explorer.sae import SAE, ActivationRule
from explorer.session.opening import EMBEDDED_MODEL, is_embedded, open_parts
from explorer.session.site import site_block
from explorer.vlm import open_lvlm
from explorer.vlm.loading import Choice
from explorer.vlm.loading.identity import weights_digest
from index.__main__ import main

WIDTH, NEURONS = 32, 20


def sae(**facts: object) -> SAE:
    encoder = torch.randn(WIDTH, NEURONS, generator=torch.Generator().manual_seed(0))
    rows, rule = encoder.T.contiguous(), ActivationRule("topk", k=3)
    return SAE(encoder, torch.zeros(NEURONS), rows, torch.zeros(WIDTH), rule, facts=facts)


def saelens(folder: Path, hook: str, **more: object) -> Path:
    """A folder of SAELens with random weights."""
    folder.mkdir()
    weights = {
        "W_enc": torch.randn(WIDTH, NEURONS),
        "b_enc": torch.zeros(NEURONS),
        "W_dec": torch.randn(NEURONS, WIDTH),
        "b_dec": torch.zeros(WIDTH),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    config = {
        "architecture": "standard",
        "d_in": WIDTH,
        "d_sae": NEURONS,
        "apply_b_dec_to_input": True,
        **more,
    }
    config["metadata"] = {"hook_name": hook, "model_name": "gpt2-small", "sae_lens_version": "6.0.0"}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_out", "language_model.layers.1", "layer -2"])
def test_a_place_that_is_no_block_is_refused(tiny_lvlm_folder: Path, hook: str) -> None:
    """Reading the default block there would silently look at other vectors."""
    lvlm, found = open_lvlm(tiny_lvlm_folder), sae(hook=hook)
    for use in (site_block, Session):
        with pytest.raises(SAEError, match=f"reads '{hook}'.*--block N"):
            use(lvlm, found)
    found.site_block = 1
    assert Session(lvlm, found).block == 1
    assert Session(lvlm, sae()).block == lvlm.read_block


def test_a_block_that_is_given_counts(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    folder = saelens(tmp_path / "mlp", "blocks.1.hook_mlp_out")
    with pytest.raises(SAEError, match="hook_mlp_out"):
        Session.open(tiny_lvlm_folder, folder)
    assert Session.open(tiny_lvlm_folder, folder, block=1).block == 1
    assert Session.open(tiny_lvlm_folder, saelens(tmp_path / "r", "blocks.1.hook_resid_post")).block == 1


def test_what_may_not_fit_is_told(tiny_lvlm_folder: Path, tmp_path: Path) -> None:
    folder = saelens(
        tmp_path / "sae", "blocks.1.hook_resid_post", normalize_activations="expected_average_only_in"
    )
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_parts(Choice(model=tiny_lvlm_folder, sae=folder), told.append).sae
    assert told[0] == f"warning: {opened.facts['warning']}"
    assert told[1].startswith("note: the SAE's files name the model gpt2-small") and len(told) == 2
    sae(tokens="cls").save(tmp_path / "cls.safetensors")
    told.clear()
    open_parts(Choice(model=tiny_lvlm_folder, sae=tmp_path / "cls.safetensors"), told.append)
    assert any(line.startswith("warning: the SAE was trained on the class token alone") for line in told)


def test_warnings_are_seen_in_quiet_commands_too(
    tiny_lvlm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saelens(
        tmp_path / "sae", "blocks.1.hook_resid_post", normalize_activations="expected_average_only_in"
    )
    parts = ["--model", str(tiny_lvlm_folder), "--sae", str(folder), "--device", "cpu", "--quiet"]
    built = ["--scenes", "2", "--out", str(tmp_path / "store"), "--words", "none", "--workers", "0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["build", *built, *parts]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: ")


def test_the_embedded_model_is_known_by_its_weights(tiny_lvlm_folder: Path) -> None:
    assert is_embedded(f"elsewhere@{weights_digest(EMBEDDED_MODEL)[:12]}")
    assert not is_embedded(open_lvlm(tiny_lvlm_folder).model_id)
