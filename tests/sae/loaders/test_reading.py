"""What the reader makes of the settings inside a pickle: JSON values, whatever a file puts there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from explorer.errors import SAEError
from explorer.sae import load_sae
from explorer.sae.formats import look
from explorer.sae.loaders import reading
from explorer.sae.loaders.reading import read_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "sae"
LOOP: list[object] = []
LOOP.append(LOOP)
ODD: dict[str, object] = {
    "tensor": torch.ones(3),
    "no numbers": torch.zeros(0),
    "bytes": b"text",
    "set": {1, 2},
    "a long number": 10**600,
    "holds itself": LOOP,
    "a dict of tensors": {"k": torch.ones(2)},
    "a number as key": {10**600: 1},
    "not a number": torch.tensor(float("nan")),
}


def saved(path: Path, record: dict[str, Any], **others: object) -> Path:
    torch.save({"cfg": record, "state_dict": {"w": torch.ones(2)}, **others}, path)
    return path


def test_settings_are_json_values(tmp_path: Path) -> None:
    record = {
        "k": torch.tensor(3),
        "on": torch.tensor(True),
        "rate": torch.tensor([0.5]),
        "sizes": (1, torch.tensor(2)),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "inner": {"k": 4, 5: None},
        **ODD,
    }
    found = read_weights(saved(tmp_path / "sae.pt", record, step=torch.tensor(7)))
    told = found.record
    assert told is not None and found.extra == {"step": 7}
    assert (told["k"], told["on"], told["rate"], told["sizes"]) == (3, True, 0.5, [1, 2])
    assert (told["dtype"], told["device"], told["inner"]) == ("torch.bfloat16", "cpu", {"k": 4, "5": None})
    assert (told["tensor"], told["bytes"], told["a long number"]) == ("<Tensor>", "<bytes>", 10**600)
    json.dumps(told)


def test_numbers_beside_a_state_dict_are_none_of_its_weights(tmp_path: Path) -> None:
    weights = {"W": torch.ones(2, 3), "k": torch.tensor(2)}
    for name in ("state_dict", "ae", "mine"):
        kept = {
            "cfg": {"k": torch.tensor(2)},
            "step": torch.tensor(7),
            name: weights,
            "counts": torch.ones(4),
        }
        torch.save(kept, tmp_path / "sae.pt")
        found = read_weights(tmp_path / "sae.pt")
        assert found.record == {"k": 2}
        assert set(found.tensors) == {"W", "k"} and found.extra == {"step": 7, "counts": "<Tensor>"}
    torch.save({**weights, "optimizer": {"W": torch.ones(2, 3)}}, tmp_path / "sae.pt")
    assert set(read_weights(tmp_path / "sae.pt").tensors) == {"W", "k"}


def test_too_many_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ENTRIES", 50)
    read_weights(saved(tmp_path / "few.pt", {"layers": [1] * 40}))
    with pytest.raises(SAEError, match="has more than 50 settings"):
        read_weights(saved(tmp_path / "many.pt", {"layers": [1] * 60}))
    wide: list[object] = []
    wide += [wide] * 9  # 9^4 lists, should they be followed
    with pytest.raises(SAEError, match="has more than 50 settings"):
        read_weights(saved(tmp_path / "wide.pt", {"layers": wide}))


def parts(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Where a golden file keeps its settings, those, and the rest of the file."""
    found = look(folder)
    tensors: dict[str, Tensor] = found.tensors
    assert found.record is not None
    if "optimizer" in found.extra:
        return "config", found.record, {"ae": tensors, **found.extra}
    return "cfg", found.record, {"state_dict": tensors}


READ = {
    "prisma-gated": (
        "d_in",
        "expansion_factor",
        "activation_fn_kwargs",
        "normalize_activations",
        "model_name",
    ),
    "patchsae-dictconfig": ("d_in", "d_sae", "gated_sae", "class_token", "block_layer", "model_name"),
    "dictlearn-batchtopk-backup": (
        "dict_class",
        "k",
        "layer",
        "submodule_name",
        "trainer_class",
        "dict_size",
    ),
}
"""Settings that the loaders of golden files read."""


@pytest.mark.parametrize("name", READ)
def test_odd_values_open_or_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    where, record, rest = parts(folder)
    weights, opened, refused = look(folder).weights, 0, 0
    for key in READ[name]:
        for odd in ODD.values():
            torch.save({**rest, where: {**record, key: odd}}, weights)
            try:
                json.dumps(load_sae(folder).facts)
                opened += 1
            except SAEError as error:
                assert "expected" in str(error) or "pass" in str(error)
                refused += 1
    assert opened and refused
